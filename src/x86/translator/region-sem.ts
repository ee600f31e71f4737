/**
 * The translator's side of Sem: operands are constants of a decoded record, general registers, XMM registers and the lazy
 * status flags are WebAssembly locals of the region.
 */
import { operandBytes, type Entry, type OperandSpec } from '../encoding.ts';
import { CPU, REC, STATUS_FLAGS, TLB, VEC } from '../layout.ts';
import { conditionOf, DERIVED, plainFlags, rawKind, statusOf, type LazyValues } from '../runtime/flags.ts';
import { FLAGS, Sem, signExtend64, type Library, type Size } from '../sem.ts';
import type { FunctionBuilder, Var } from '../wasm/function.ts';
import { i32, i64, select, type Operand, type Val } from '../wasm/value.ts';
import { INLINE } from './inline.ts';
import type { Place, Record } from './record.ts';

const WIDTH = { 1: '8u', 2: '16u', 4: '32', 8: '64' } as const;
const STORE = { 1: '8', 2: '16', 4: '32', 8: '64' } as const;

/** The values of the lazy flags as they are now. */
export const current = ({ kind, a, b, r }: RegionState['flags']): { kind: Val } & LazyValues => ({
  kind: kind.get,
  a: a.get,
  b: b.get,
  r: r.get,
});

/** Conditions behind comparisons and tests, which most are, of values of 32 bits or less: without widening them. */
function shortCondition(
  kind: number,
  group: number,
  shift: number,
  { a, b, r }: RegionState['flags'],
): Val | undefined {
  if (shift === 0) return undefined;
  const short = (value: Val): Val =>
    shift === 56 ? value.wrap().sext8() : shift === 48 ? value.wrap().sext16() : value.wrap();
  if (kind === FLAGS.sub && group !== 0 && group !== 4 && group !== 5)
    return conditionOf(kind, group, { a: short(a.get), b: short(b.get), r: i32(0) });
  if (kind !== FLAGS.logic) return undefined;
  if (group === 2 || group === 3) return short(r.get).eqz();
  if (group === 4 || group === 6) return short(r.get).ltS(0);
  return group === 7 ? short(r.get).leS(0) : undefined;
}

/** This variant cannot be in line in a region: its out-of-line handler is called, or the region ends in front of it. */
export class NotInline extends Error {}

/** What the instructions of a region share while it is written. */
export interface RegionState {
  readonly tlb: Var;
  readonly budget: Var;
  readonly flags: { readonly kind: Var; readonly a: Var; readonly b: Var; readonly r: Var };
  gpr(index: number, write: boolean): Var;
  xmm(index: number, write: boolean): Var;
  /** Kind of the flags, as `flags.kind` has it, when it is the same on every way here. */
  flagKind: number | undefined;
  /** Depth of structured instructions at which an instruction's own code is unconditional. */
  depth: number;
  /** Leaves for the rip `target`. */
  jump(target: Val): void;
  jumpIf(condition: Val, target: Val, next: bigint): void;
}

/** What an instruction does, as far as the decision which flags are dead needs it. */
export interface Facts {
  /** All status flags, whatever happens. */
  writesFlags: boolean;
  readsFlags: boolean;
  /** The same where its own flags are dead: a rotate keeps most flags, INC keeps CF. */
  readsDeadFlags: boolean;
  /** May raise a fault or leave: every register and flag must be in place. */
  faults: boolean;
  stores: number;
}

export class RegionSem extends Sem {
  readonly #entry: Entry;
  readonly #record: Record;
  readonly #state: RegionState;
  readonly #deadFlags: boolean;
  readonly facts: Facts = {
    writesFlags: false,
    readsFlags: false,
    readsDeadFlags: false,
    faults: false,
    stores: 0,
  };
  #address: Val | undefined;
  #rmwHost: Val | undefined;
  /** A jump target that checkTarget has seen. */
  #checked: Val | undefined;

  constructor(
    f: FunctionBuilder,
    cpu: Val,
    lib: Library,
    entry: Entry,
    form: { readonly size: Size; readonly mem: boolean; readonly rep: 'none' | 'repe' | 'repne' },
    record: Record,
    state: RegionState,
    deadFlags = false,
  ) {
    super(f, cpu, lib, form.size, form.mem, form.rep);
    this.#entry = entry;
    this.#record = record;
    this.#state = state;
    this.#deadFlags = deadFlags;
  }

  #spec(i: number): OperandSpec {
    const spec = this.#entry.operands[i];
    if (spec === undefined) throw new Error(`${this.#entry.def.name} has no operand ${i}`);
    return spec;
  }

  /** In front of what may raise a fault: says where. */
  #mayFault(): void {
    this.facts.faults = true;
    this.f.store('32', this.cpu, i32(this.#record.address), CPU.record);
  }

  // Registers.
  override gpr(index: number, size: Size = 8): Val {
    const value = this.#state.gpr(index, false).get;
    switch (size) {
      case 1:
        return this.f.let(value.wrap().and(0xff));
      case 2:
        return this.f.let(value.wrap().and(0xffff));
      case 4:
        return this.f.let(value.wrap());
      case 8:
        return this.f.let(value);
    }
  }
  override setGpr(index: number, value: Val, size: Size = 8): void {
    const register = this.#state.gpr(index, true);
    switch (size) {
      case 1:
        register.set(register.get.and(~0xffn).or(value.wrap().and(0xff).zext()));
        return;
      case 2:
        register.set(register.get.and(~0xffffn).or(value.wrap().and(0xffff).zext()));
        return;
      case 4:
        register.set(value.wrap().zext());
        return;
      case 8:
        register.set(value);
        return;
    }
  }
  override ah(): Val {
    return this.#high(0);
  }
  override setAh(value: Val): void {
    this.#setHigh(0, value);
  }
  #high(index: number): Val {
    return this.f.let(this.#state.gpr(index, false).get.wrap().shrU(8).and(0xff));
  }
  #setHigh(index: number, value: Val): void {
    const register = this.#state.gpr(index, true);
    register.set(register.get.and(~0xff00n).or(value.wrap().and(0xff).shl(8).zext()));
  }
  override xmm(index: number): Val {
    return this.f.let(this.#state.xmm(index, false).get);
  }
  override setXmm(index: number, value: Val): void {
    this.#state.xmm(index, true).set(value);
  }

  #place(spec: OperandSpec): Place {
    switch (spec.kind) {
      case 'G':
      case 'V':
      case 'P':
        return this.#record.place(REC.reg);
      case 'B':
        return this.#record.place(REC.vvvv);
      default:
        return this.#record.place(REC.rm);
    }
  }

  #getPlace({ file, index, high }: Place, bytes: number): Val {
    if (file === 'gpr') return high ? this.#high(index) : this.gpr(index, bytes as Size);
    if (file === 'mmx') return this.f.let(this.f.load(WIDTH[bytes as Size], this.cpu, CPU.st + index * 16));
    const value = this.#state.xmm(index, false).get;
    switch (bytes) {
      case 16:
        return this.f.let(value);
      case 8:
        return this.f.let(value.lane(0x1d, 0, 'i64'));
      case 4:
        return this.f.let(value.lane(0x1b, 0, 'i32'));
      case 2:
        return this.f.let(value.lane(0x19, 0, 'i32'));
      default:
        return this.f.let(value.lane(0x16, 0, 'i32'));
    }
  }

  #setPlace({ file, index, high }: Place, bytes: number, value: Val): void {
    if (file === 'gpr') {
      if (high) this.#setHigh(index, value);
      else this.setGpr(index, value, bytes as Size);
      return;
    }
    if (file === 'mmx') {
      this.f.store('64', this.cpu, value.zext(), CPU.st + index * 16);
      this.f.store('16', this.cpu, i32(0xffff), CPU.st + index * 16 + 8);
      return;
    }
    const register = this.#state.xmm(index, true);
    if (bytes === 16) register.set(value);
    else if (bytes === 8) register.set(register.get.withLane(0x1e, 0, value));
    else if (bytes === 4) register.set(register.get.withLane(0x1c, 0, value.wrap()));
    else throw new NotInline(`XMM operand of ${bytes} bytes`);
  }

  // Operands.
  sizeOf(i: number): number {
    const spec = this.#spec(i);
    if (spec.kind === 'I' && spec.signed) return this.size;
    return operandBytes(spec, this.size, this.isMem(i));
  }
  isMem(i: number): boolean {
    const { kind } = this.#spec(i);
    return kind === 'M' || kind === 'O' || (this.mem && (kind === 'E' || kind === 'W' || kind === 'Q'));
  }

  get(i: number): Val {
    const spec = this.#spec(i);
    switch (spec.kind) {
      case 'fixed':
        return this.gpr(spec.register, operandBytes(spec, this.size, false) as Size);
      case 'one':
        return i32(1);
      case 'I':
        switch (this.sizeOf(i)) {
          case 1:
            return i32(this.#record.word(REC.imm) & 0xff);
          case 2:
            return i32(this.#record.word(REC.imm) & 0xffff);
          case 4:
            return i32(this.#record.word(REC.imm));
          default:
            return i64(this.#record.long(REC.imm));
        }
      case 'J':
        return i64(this.#record.long(REC.imm));
      case 'A':
        return i32(this.#record.word(REC.imm));
      case 'S':
      case 'C':
      case 'D':
      case 'STi':
        throw new Error(`${this.#entry.def.name}: operand ${i} is read by registerNumber()`);
      default:
        break;
    }
    const bytes = this.sizeOf(i);
    if (!this.isMem(i)) return this.#getPlace(this.#place(spec), bytes);
    if (bytes === 16) {
      const address = this.address(i, 16, spec.access !== 'r');
      if (spec.aligned) this.raiseIf(address.wrap().and(15), VEC.GP, 0);
      return this.load128(address);
    }
    const size = bytes as Size;
    const address = this.address(i, size, spec.access === 'rw');
    return spec.access === 'rw' ? this.#loadForWrite(address, size) : this.load(address, size);
  }

  set(i: number, value: Val): void {
    const spec = this.#spec(i);
    const bytes = this.sizeOf(i);
    if (spec.kind === 'fixed') {
      this.setGpr(spec.register, value, bytes as Size);
      return;
    }
    if (!this.isMem(i)) {
      this.#setPlace(this.#place(spec), bytes, value);
      return;
    }
    const address = this.address(i, bytes, true);
    if (bytes === 16) {
      if (spec.aligned) this.raiseIf(address.wrap().and(15), VEC.GP, 0);
      this.store128(address, value);
      return;
    }
    const size = bytes as Size;
    if (this.#rmwHost === undefined) {
      this.store(address, size, value);
      return;
    }
    const { f } = this;
    const host = this.#rmwHost;
    const bound = f.let(size === 8 ? value : value.wrap());
    this.facts.stores++;
    f.if(
      host,
      () => f.store(STORE[size], host, bound),
      () => this.#storeSlow(address, size, bound),
    );
  }

  address(i: number, _bytes: number, _write: boolean): Val {
    this.#spec(i);
    if (this.#address) return this.#address;
    this.#address = this.linear(this.effective());
    return this.#address;
  }
  linear(offset: Val): Val {
    const segment = this.#record.half(REC.segBase);
    return segment === CPU.zero ? offset : this.f.let(offset.add(this.f.load('64', this.cpu, segment)));
  }
  effective(): Val {
    const base = this.#record.addressRegister(REC.base);
    const index = this.#record.addressRegister(REC.index);
    let sum: Val = i64(this.#record.long(REC.disp));
    if (index >= 0) {
      const scale = this.#record.byte(REC.scale);
      sum = this.#state.gpr(index, false).get.shl(scale).add(sum);
    }
    if (base >= 0) sum = this.#state.gpr(base, false).get.add(sum);
    return this.f.let(sum);
  }
  registerNumber(i: number): Val {
    return i32(this.#record.half(this.#spec(i).kind === 'STi' ? REC.rm : REC.reg));
  }
  imm2(): Val {
    return i32(this.#record.word(REC.imm2));
  }
  nextRip(): Val {
    return i64(this.#record.long(REC.next));
  }
  recordFlags(): Val {
    return i32(this.#record.word(REC.flags));
  }
  addressSize(): Val {
    return i32(this.#record.byte(REC.addressSize));
  }
  segment(): Val {
    return i32(this.#record.byte(REC.segment));
  }
  record(): Val {
    // Others look up registers by the record's fields.
    if (this.#entry.def.unit !== 'x87') throw new NotInline('uses its record');
    return i32(this.#record.address);
  }

  // Memory.
  /**
   * Compares the TLB's tag: `hit` gets the host address. The tag is used twice, or V8 folds its load into the comparison and,
   * because a load could trap, keeps the load itself as well.
   */
  #access(address: Val, bytes: number, write: boolean, hit: (host: Val) => void, miss: () => void): void {
    const { f, cpu } = this;
    const entry = f.let(
      this.#state.tlb.get.add(
        address
          .wrap()
          .shrU(12 - TLB.entryShift)
          .and((TLB.entries - 1) << TLB.entryShift),
      ),
    );
    const tag = f.let(f.load('64', entry, write ? TLB.write : TLB.read));
    // An access across pages has the next page's number in its last byte and misses.
    const last = bytes === 1 ? address : address.add(bytes - 1);
    f.if(
      tag.eq(last.and(-4096n)),
      () => hit(f.load('32', entry, TLB.addend).add(address.wrap())),
      () => {
        f.store('64', cpu, tag, CPU.missed);
        this.#mayFault();
        miss();
      },
      true,
    );
  }
  load(address: Val, bytes: Size): Val {
    const { f, cpu } = this;
    const value = f.local(bytes === 8 ? 'i64' : 'i32');
    this.#access(
      address,
      bytes,
      false,
      (host) => value.set(f.load(WIDTH[bytes], host)),
      () => {
        const slow = f.callValue(this.lib('load_region'), cpu, address, i32(bytes));
        value.set(bytes === 8 ? slow : slow.wrap());
      },
    );
    return value.get;
  }
  store(address: Val, bytes: Size, value: Val): void {
    const { f } = this;
    const bound = f.let(bytes === 8 ? value : value.wrap());
    this.facts.stores++;
    this.#access(
      address,
      bytes,
      true,
      (host) => f.store(STORE[bytes], host, bound),
      () => this.#storeSlow(address, bytes, bound),
    );
  }
  #storeSlow(address: Val, bytes: Size, value: Val): void {
    this.#mayFault();
    this.f.call(this.lib('store_region'), this.cpu, address, i32(bytes), value.zext());
  }
  #loadForWrite(address: Val, size: Size): Val {
    const { f, cpu } = this;
    const host = f.local('i32', 0);
    const value = f.local(size === 8 ? 'i64' : 'i32');
    this.#access(
      address,
      size,
      true,
      (at) => {
        host.set(at);
        value.set(f.load(WIDTH[size], host.get));
      },
      () => {
        host.set(0);
        f.call(this.lib('probe_write'), cpu, address, i32(size));
        const slow = f.callValue(this.lib('load_region'), cpu, address, i32(size));
        value.set(size === 8 ? slow : slow.wrap());
      },
    );
    this.#rmwHost = host.get;
    return value.get;
  }
  load128(address: Val): Val {
    const { f, cpu } = this;
    const value = f.local('v128');
    this.#access(
      address,
      16,
      false,
      (host) => value.set(f.load('v128', host)),
      () => value.set(f.callValue(this.lib('load_region128'), cpu, address)),
    );
    return value.get;
  }
  store128(address: Val, value: Val): void {
    const { f, cpu } = this;
    const bound = f.let(value);
    this.facts.stores++;
    this.#access(
      address,
      16,
      true,
      (host) => f.store('v128', host, bound),
      () => f.call(this.lib('store_region128'), cpu, address, bound),
    );
  }
  // Regions are 64-bit code: the stack has no segment and no size.
  push(bytes: Size, value: Val): void {
    const bound = this.f.let(value);
    const top = this.f.let(this.gpr(4).sub(bytes));
    this.#checkStack(top, bytes);
    this.store(top, bytes, bound);
    this.setGpr(4, top);
  }
  pop(bytes: Size): Val {
    const top = this.gpr(4);
    this.#checkStack(top, bytes);
    const value = this.load(top, bytes);
    this.setGpr(4, top.add(bytes));
    return value;
  }

  /** The segment of a record with a memory operand is that operand's: what says #SS comes from here. */
  #checkStack(top: Val, bytes: Size): void {
    if (!this.mem) return;
    const { f } = this;
    const crosses = top
      .add(bytes - 1)
      .xor(top)
      .shrS(47)
      .ne(0);
    f.if(
      top.shl(16).shrS(16).ne(top).or(crosses),
      () => {
        this.#mayFault();
        f.call(this.lib('stack_linear'), this.cpu, top, i32(bytes), i32(1));
      },
      undefined,
      false,
    );
  }

  // Control flow.
  jump(target: Val): void {
    const bound = target === this.#checked ? target : this.f.let(target);
    if (this.#entry.operands[0]?.kind !== 'J') this.checkTarget(bound);
    this.#state.jump(bound);
  }
  checkTarget(target: Val): void {
    if (target.c !== undefined || target === this.#checked) return;
    this.#checked = target;
    // 48-bit canonical addresses need no look at the paging mode.
    this.f.if(
      target.shl(16).shrS(16).ne(target),
      () => {
        this.#mayFault();
        this.f.call(this.lib('check_target'), this.cpu, target, i32(this.size));
      },
      undefined,
      false,
    );
  }
  jumpIf(condition: Val, target: Val): void {
    this.#state.jumpIf(condition, target, this.#record.long(REC.next));
  }
  now(): Val {
    const { f, cpu } = this;
    const ran = f
      .load('32', cpu, CPU.budgetStart)
      .sub(this.#state.budget.get)
      .sub(this.#record.word(REC.after) + 1);
    return f.let(f.load('64', cpu, CPU.clock).add(ran.zext()));
  }

  // The CPU structure: not what lies in locals.
  #field(offset: number): number {
    const cached =
      offset < CPU.eflags ||
      (offset >= CPU.xmm && offset < CPU.xmm + 512) ||
      offset === CPU.budget ||
      offset === CPU.tlbFast;
    if (cached) throw new NotInline(`field ${offset} lies in a local`);
    return offset;
  }
  override field32(offset: number): Val {
    return super.field32(this.#field(offset));
  }
  override field64(offset: number): Val {
    return super.field64(this.#field(offset));
  }
  override setField32(offset: number, value: Operand): void {
    super.setField32(this.#field(offset), value);
  }
  override setField64(offset: number, value: Operand): void {
    super.setField64(this.#field(offset), value);
  }

  // Status flags.
  override get flagsDead(): boolean {
    return this.#deadFlags;
  }
  #setKind(code: number, { a, b, r }: { a?: Val; b?: Val; r?: Val }): void {
    if (this.#deadFlags) return;
    const { flags, depth } = this.#state;
    flags.kind.set(code);
    if (a) flags.a.set(a.zext());
    if (b) flags.b.set(b.zext());
    if (r) flags.r.set(r.zext());
    if (this.f.depth === depth) {
      this.#state.flagKind = code;
      this.facts.writesFlags = true;
    } else if (this.#state.flagKind !== code) this.#state.flagKind = undefined;
  }
  override setFlags(kind: number, values: { a?: Val; b?: Val; r: Val }): void {
    this.#setKind(kind, values);
  }
  override flagsAdd(a: Val, b: Val, r: Val, size: Size = this.size): void {
    this.#setKind(rawKind(FLAGS.add, size), { a, b, r });
  }
  override flagsSub(a: Val, b: Val, _r: Val, size: Size = this.size): void {
    this.#setKind(rawKind(FLAGS.sub, size) | DERIVED, { a, b });
  }
  override flagsLogic(r: Val, size: Size = this.size): void {
    this.#setKind(rawKind(FLAGS.logic, size), { r });
  }
  override flagsShift(kind: number, values: { a: Val; b?: Val; r: Val }): void {
    this.#setKind(rawKind(kind, this.size), values);
  }
  override setFlagsKeepingCarry(kind: number, a: Val, r: Val): void {
    if (!this.#deadFlags) this.#setKind(rawKind(kind, this.size), { a, b: this.carry(), r });
  }
  override mergeStatus(mask: number, flags: Val): void {
    if (this.#deadFlags) return;
    if ((mask & STATUS_FLAGS) === STATUS_FLAGS) this.setStatus(flags);
    else super.mergeStatus(mask, flags);
  }
  override status(): Val {
    return this.#flag((kind, values) => statusOf(kind, values), 'status_of');
  }
  override carry(): Val {
    return this.condition(2);
  }
  override condition(cc: number): Val {
    const group = cc >> 1;
    const of = (kind: number, values: LazyValues): Val => conditionOf(kind, group, values);
    const value = this.#flag(of, `cond_of_${group}`, group);
    // Not by XOR: V8 joins a comparison with zero, but not that, with the branch behind it.
    return (cc & 1) === 0 ? value : value.eqz();
  }
  #flag(of: (kind: number, values: LazyValues) => Val, pure: string, group?: number): Val {
    const { flags, flagKind } = this.#state;
    const { f } = this;
    if (!this.facts.writesFlags) this.facts.readsFlags = true;
    if (flagKind === undefined) {
      const { kind, a, b, r } = plainFlags(f, current(flags));
      return f.callValue(this.lib(pure), kind, a, b, r);
    }
    const kind = flagKind & 0xff;
    const shift = (flagKind >> 8) & 0xff;
    const short = group === undefined ? undefined : shortCondition(kind, group, shift, flags);
    if (short !== undefined) return f.let(short);
    const extend = (value: Val): Val => f.let(signExtend64(value, (8 - shift / 8) as Size));
    const [a, b] = [extend(flags.a.get), extend(flags.b.get)];
    const r = extend((flagKind & DERIVED) !== 0 ? a.sub(b) : flags.r.get);
    return f.let(of(kind, { a, b, r }));
  }

  // Faults, exits and the library.
  override raise(vector: number, error?: Operand): void {
    this.#mayFault();
    super.raise(vector, error);
  }
  override ask(): Val {
    throw new NotInline('asks the outside');
  }
  /** Address and stack sizes are those of 64-bit mode; other routines must leave the region's locals alone. */
  #routine(name: string, args: readonly Operand[]): Operand | undefined {
    if (name === 'cut_address' && this.#record.byte(REC.addressSize) === 8) return args[0];
    if (name === 'merge_address' && this.#record.byte(REC.addressSize) === 8) return args[1];
    if (name === 'stack_pointer' || name === 'stack_linear') return args[1];
    const known = INLINE.get(name);
    if (known === undefined) throw new NotInline(`calls ${name}`);
    if (known === 'faults') this.#mayFault();
    return undefined;
  }
  override call(name: string, ...args: Operand[]): void {
    if (this.#routine(name, args) === undefined) super.call(name, ...args);
  }
  override callValue(name: string, ...args: Operand[]): Val {
    const same = this.#routine(name, args);
    return same === undefined ? super.callValue(name, ...args) : this.f.let(same as Val);
  }
}
void select;
