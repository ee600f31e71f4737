/** The interpreter's side of Sem: operands come from a pre-decoded record. */
import { operandBytes, type Entry, type OperandSpec } from './encoding.ts';
import { CPU, REC, RECFLAG, TLB, VEC } from './layout.ts';
import { FLAGS, Sem, truncate, type Library, type Size } from './sem.ts';
import { conditionOf } from './runtime/flags.ts';
import { tlbEntry, tlbHit } from './runtime/memory.ts';
import type { FunctionBuilder } from './wasm/function.ts';
import { i32, type Val } from './wasm/value.ts';

const WIDTH = { 1: '8u', 2: '16u', 4: '32', 8: '64' } as const;
const STORE = { 1: '8', 2: '16', 4: '32', 8: '64' } as const;

/** How a handler that is in line in the switch leaves for a jump target. */
export interface HotFlow {
  /** Goes to `target`; `link`: offset in the record of the successor to follow. */
  jump(target: Val, link: number | null): void;
}

export class InterpSem extends Sem {
  readonly #entry: Entry;
  readonly #record: Val;
  /** In line in the switch: 64-bit mode, 64-bit addresses, memory fast path in line. */
  readonly #hot: HotFlow | undefined;
  #address: Val | undefined;
  /** The status flags that it would set are overwritten before anybody can see them. */
  readonly #deadFlags: boolean;
  /** Host address of a read-modify-write operand, 0 when it takes the slow path. */
  #rmwHost: Val | undefined;

  constructor(
    f: FunctionBuilder,
    cpu: Val,
    record: Val,
    lib: Library,
    entry: Entry,
    size: Size,
    mem: boolean,
    rep: 'none' | 'repe' | 'repne',
    hot?: HotFlow,
    deadFlags = false,
  ) {
    super(f, cpu, lib, size, mem, rep);
    this.#entry = entry;
    this.#record = record;
    this.#hot = hot;
    this.#deadFlags = deadFlags;
  }

  #spec(i: number): OperandSpec {
    const spec = this.#entry.operands[i];
    if (spec === undefined) throw new Error(`${this.#entry.def.name} has no operand ${i}`);
    return spec;
  }

  override setFlags(kind: number, values: { a?: Val; b?: Val; r: Val }): void {
    if (!this.#deadFlags) super.setFlags(kind, values);
  }
  override get flagsDead(): boolean {
    return this.#deadFlags;
  }
  /** In the hot switch the kinds that additions, comparisons and steps leave are looked at in line. */
  override carry(): Val {
    const { f, cpu } = this;
    if (!this.#hot) return super.carry();
    const kind = f.let(f.load('32', cpu, CPU.flagKind));
    const a = f.let(f.load('64', cpu, CPU.flagA));
    const b = f.let(f.load('64', cpu, CPU.flagB));
    const r = f.let(f.load('64', cpu, CPU.flagR));
    const sign = (value: Val): Val => value.shrU(63).wrap();
    const other = (): Val =>
      f.ifValue(
        kind.eq(FLAGS.inc).or(kind.eq(FLAGS.dec)),
        () => b.wrap(),
        () => f.callValue(this.lib('carry_flag'), cpu),
      );
    return f.ifValue(
      kind.eq(FLAGS.sub),
      () => sign(a.not().and(b).or(a.not().or(b).and(r))),
      () => f.ifValue(kind.eq(FLAGS.add), () => sign(a.and(b).or(a.or(b).and(r.not()))), other),
    );
  }
  /** In the hot switch the kinds that comparisons leave are looked at in line. */
  override condition(cc: number): Val {
    const { f, cpu } = this;
    const group = cc >> 1;
    if (!this.#hot || group === 0 || group === 5) return super.condition(cc);
    const kind = f.let(f.load('32', cpu, CPU.flagKind));
    const r = f.let(f.load('64', cpu, CPU.flagR));
    // Zero and sign are those of r in every kind but the explicit one; the others in line after a subtraction only.
    const easy = group === 2 || group === 4;
    const value = f.ifValue(
      easy ? kind.ne(FLAGS.explicit) : kind.eq(FLAGS.sub),
      () => {
        if (easy) return group === 2 ? r.eqz() : r.shrU(63).wrap();
        const a = f.let(f.load('64', cpu, CPU.flagA));
        const b = f.let(f.load('64', cpu, CPU.flagB));
        return conditionOf(FLAGS.sub, group, { a, b, r });
      },
      () => f.callValue(this.lib(`cond_${group}`), cpu),
    );
    return value.xor(cc & 1);
  }
  override mergeStatus(mask: number, flags: Val): void {
    if (!this.#deadFlags) super.mergeStatus(mask, flags);
  }
  override setFlagsKeepingCarry(kind: number, a: Val, r: Val): void {
    if (!this.#deadFlags) super.setFlagsKeepingCarry(kind, a, r);
  }

  record(): Val {
    return this.#record;
  }

  sizeOf(i: number): number {
    const spec = this.#spec(i);
    if (spec.kind === 'I' && spec.signed) return this.size;
    return operandBytes(spec, this.size, this.isMem(i));
  }

  isMem(i: number): boolean {
    const { kind } = this.#spec(i);
    return kind === 'M' || kind === 'O' || (this.mem && (kind === 'E' || kind === 'W' || kind === 'Q'));
  }

  /** Address in linear memory of the register that the record's field names. */
  #register(field: number): Val {
    return this.cpu.add(this.f.load('16u', this.#record, field));
  }

  #registerField(spec: OperandSpec): number {
    switch (spec.kind) {
      case 'G':
      case 'V':
      case 'P':
        return REC.reg;
      case 'B':
        return REC.vvvv;
      default:
        return REC.rm;
    }
  }

  get(i: number): Val {
    const spec = this.#spec(i);
    const { f } = this;
    switch (spec.kind) {
      case 'fixed':
        return this.gpr(spec.register, operandBytes(spec, this.size, false) as Size);
      case 'one':
        return i32(1);
      case 'I': {
        const bytes = this.sizeOf(i) as Size;
        return f.let(f.load(WIDTH[bytes], this.#record, REC.imm));
      }
      case 'J':
        return f.let(f.load('64', this.#record, REC.imm));
      case 'A':
        return f.let(f.load('32', this.#record, REC.imm));
      case 'S':
      case 'C':
      case 'D':
      case 'STi':
        throw new Error(`${this.#entry.def.name}: operand ${i} is read by registerNumber()`);
      default:
        break;
    }
    const bytes = this.sizeOf(i);
    if (this.isMem(i)) {
      if (bytes === 16) {
        const address = this.address(i, 16, spec.access !== 'r', spec.aligned);
        if (spec.aligned && this.#hot) this.raiseIf(address.wrap().and(15), VEC.GP, 0);
        return this.load128(address);
      }
      const size = bytes as Size;
      if (spec.access === 'rw') return this.#loadForWrite(i, size);
      return this.load(this.address(i, size, false), size);
    }
    const at = this.#register(this.#registerField(spec));
    if (bytes === 16) return f.let(f.load('v128', at));
    return f.let(f.load(WIDTH[bytes as Size], at));
  }

  #loadForWrite(i: number, size: Size): Val {
    const { f, cpu } = this;
    const address = this.address(i, size, true);
    if (!this.#hot) {
      f.call(this.lib('probe_write'), cpu, address, i32(size));
      return this.load(address, size);
    }
    const entry = tlbEntry(f, f.let(f.load('32', cpu, CPU.tlbFast)), address);
    const host = f.local('i32', 0);
    const value = f.local(size === 8 ? 'i64' : 'i32');
    f.if(
      tlbHit(f, entry, address, size, true),
      () => {
        host.set(f.load('32', entry, TLB.addend).add(address.wrap()));
        value.set(f.load(WIDTH[size], host.get));
      },
      () => {
        f.store('32', cpu, this.#record, CPU.record);
        f.call(this.lib('probe_write'), cpu, address, i32(size));
        const slow = f.callValue(this.lib('load_slow'), cpu, address, i32(size));
        value.set(size === 8 ? slow : slow.wrap());
      },
      true,
    );
    this.#rmwHost = host.get;
    return value.get;
  }

  set(i: number, value: Val): void {
    const spec = this.#spec(i);
    const { f } = this;
    const bytes = this.sizeOf(i);
    if (spec.kind === 'fixed') {
      this.setGpr(spec.register, value, bytes as Size);
      return;
    }
    if (this.isMem(i)) {
      if (bytes === 16) {
        const address = this.address(i, 16, true, spec.aligned);
        if (spec.aligned && this.#hot) this.raiseIf(address.wrap().and(15), VEC.GP, 0);
        this.store128(address, value);
        return;
      }
      const size = bytes as Size;
      if (this.#rmwHost) {
        const host = this.#rmwHost;
        const bound = f.let(truncateForStore(value, size));
        f.if(
          host,
          () => f.store(STORE[size], host, bound),
          () =>
            f.call(this.lib('store_slow'), this.cpu, this.address(i, size, true), i32(size), bound.zext()),
        );
        return;
      }
      this.store(this.address(i, size, true), size, value);
      return;
    }
    const at = this.#register(this.#registerField(spec));
    if (spec.kind === 'V' || spec.kind === 'W' || spec.kind === 'U') {
      if (bytes === 16) f.store('v128', at, value);
      else f.store(STORE[bytes as Size], at, bytes === 8 ? value : value.wrap());
      return;
    }
    if (spec.kind === 'P' || spec.kind === 'Q' || spec.kind === 'N') {
      const address = f.let(at);
      f.store('64', address, value.zext());
      f.store('16', address, i32(0xffff), 8);
      return;
    }
    switch (bytes) {
      case 1:
        f.store('8', at, value.wrap());
        return;
      case 2:
        f.store('16', at, value.wrap());
        return;
      case 4:
        f.store('64', at, value.wrap().zext());
        return;
      case 8:
        f.store('64', at, value);
        return;
      default:
        throw new Error(`${this.#entry.def.name}: cannot write operand ${i}`);
    }
  }

  address(i: number, bytes: number, write: boolean, aligned = false): Val {
    this.#spec(i);
    if (this.#address) return this.#address;
    const { f } = this;
    if (this.#hot) {
      this.#address = f.let(this.effective().add(f.load('64', this.#register(REC.segBase))));
    } else {
      this.#address = f.callValue(
        this.lib(aligned ? 'operand_address_aligned' : 'operand_address'),
        this.cpu,
        this.#record,
        i32(bytes),
        i32(write ? 1 : 0),
      );
    }
    return this.#address;
  }

  linear(offset: Val, bytes: number, write: boolean): Val {
    if (this.#hot) return this.f.let(offset.add(this.f.load('64', this.#register(REC.segBase))));
    return this.callValue('string_linear', this.cpu, this.#record, offset, i32(bytes), i32(write ? 1 : 0));
  }

  effective(): Val {
    const { f } = this;
    if (!this.#hot) return f.callValue(this.lib('effective'), this.cpu, this.#record);
    return f.let(
      f
        .load('64', this.#register(REC.base))
        .add(f.load('64', this.#register(REC.index)).shl(f.load('8u', this.#record, REC.scale, 'i64')))
        .add(f.load('64', this.#record, REC.disp)),
    );
  }

  registerNumber(i: number): Val {
    const field = this.#spec(i).kind === 'STi' ? REC.rm : REC.reg;
    return this.f.let(this.f.load('16u', this.#record, field));
  }
  imm2(): Val {
    return this.f.let(this.f.load('32', this.#record, REC.imm2));
  }
  nextRip(): Val {
    return this.f.let(this.f.load('64', this.#record, REC.next));
  }
  recordFlags(): Val {
    return this.f.let(this.f.load('32', this.#record, REC.flags));
  }
  addressSize(): Val {
    return this.f.let(this.f.load('8u', this.#record, REC.addressSize));
  }
  segment(): Val {
    return this.f.let(this.f.load('8u', this.#record, REC.segment));
  }

  load(address: Val, bytes: Size): Val {
    const { f, cpu } = this;
    if (!this.#hot) return f.callValue(this.lib(`ld${bytes * 8}`), cpu, address);
    const entry = tlbEntry(f, f.let(f.load('32', cpu, CPU.tlbFast)), address);
    const value = f.local(bytes === 8 ? 'i64' : 'i32');
    f.if(
      tlbHit(f, entry, address, bytes, false),
      () => value.set(f.load(WIDTH[bytes], f.load('32', entry, TLB.addend).add(address.wrap()))),
      () => {
        f.store('32', cpu, this.#record, CPU.record);
        const slow = f.callValue(this.lib('load_slow'), cpu, address, i32(bytes));
        value.set(bytes === 8 ? slow : slow.wrap());
      },
      true,
    );
    return value.get;
  }

  store(address: Val, bytes: Size, value: Val): void {
    const { f, cpu } = this;
    const typed = bytes === 8 ? value : value.wrap();
    if (!this.#hot) {
      f.call(this.lib(`st${bytes * 8}`), cpu, address, typed);
      return;
    }
    const bound = f.let(typed);
    const entry = tlbEntry(f, f.let(f.load('32', cpu, CPU.tlbFast)), address);
    f.if(
      tlbHit(f, entry, address, bytes, true),
      () => f.store(STORE[bytes], f.load('32', entry, TLB.addend).add(address.wrap()), bound),
      () => {
        f.store('32', cpu, this.#record, CPU.record);
        f.call(this.lib('store_slow'), cpu, address, i32(bytes), bound.zext());
      },
      true,
    );
  }

  load128(address: Val): Val {
    if (this.#hot) this.f.store('32', this.cpu, this.#record, CPU.record);
    return this.f.callValue(this.lib('ld128'), this.cpu, address);
  }
  store128(address: Val, value: Val): void {
    if (this.#hot) this.f.store('32', this.cpu, this.#record, CPU.record);
    this.f.call(this.lib('st128'), this.cpu, address, value);
  }

  push(bytes: Size, value: Val): void {
    if (this.#hot && bytes === 8) {
      const top = this.f.let(this.gpr(4).sub(8));
      this.store(top, 8, value);
      this.setGpr(4, top);
      return;
    }
    if (this.#hot) this.f.store('32', this.cpu, this.#record, CPU.record);
    this.f.call(this.lib(`push${bytes * 8}`), this.cpu, bytes === 8 ? value : value.wrap());
  }
  pop(bytes: Size): Val {
    if (this.#hot && bytes === 8) {
      const top = this.gpr(4);
      const value = this.load(top, 8);
      this.setGpr(4, top.add(8));
      return value;
    }
    if (this.#hot) this.f.store('32', this.cpu, this.#record, CPU.record);
    return this.f.callValue(this.lib(`pop${bytes * 8}`), this.cpu);
  }

  jump(target: Val): void {
    if (this.#hot) {
      const direct = this.#entry.operands[0]?.kind === 'J';
      const to = this.f.let(target);
      if (!direct) this.checkTarget(to);
      this.#hot.jump(to, direct ? REC.taken : null);
      return;
    }
    this.f.call(this.lib('near_jump'), this.cpu, target, i32(this.size));
  }
  checkTarget(target: Val): void {
    const { f, cpu } = this;
    const check = (): void => f.call(this.lib('check_target'), cpu, target, i32(this.size));
    // 48-bit canonical addresses need no look at the paging mode.
    if (this.#hot) f.if(target.shl(16).shrS(16).ne(target), check);
    else check();
  }
  jumpIf(condition: Val, target: Val): void {
    if (this.#hot) {
      this.f.if(condition, () => (this.#hot as HotFlow).jump(target, REC.taken));
      (this.#hot as HotFlow).jump(this.nextRip(), REC.fallthrough);
      return;
    }
    this.f.if(condition, () => this.f.call(this.lib('near_jump'), this.cpu, target, i32(this.size)));
  }
  now(): Val {
    const { f, cpu } = this;
    const ran = f
      .load('32', cpu, CPU.budgetStart)
      .sub(f.load('32', cpu, CPU.budget))
      .sub(f.load('32', this.#record, REC.after))
      .sub(1);
    return f.let(f.load('64', cpu, CPU.clock).add(ran.zext()));
  }
}

function truncateForStore(value: Val, size: Size): Val {
  return size === 8 ? value : truncate(value, 4);
}
void RECFLAG;
