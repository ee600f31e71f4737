/** Writes the body of one WebAssembly function: locals by scope, structured control flow, loads and stores. */
import { Bytes, TYPE_CODE, type WasmType } from './encoder.ts';
import { Val, i32, toVal, type Operand } from './value.ts';

export interface Label {
  readonly depth: number;
}

/** A function that can be called: its index is known when it is declared. */
export interface FunctionRef {
  readonly name: string;
  readonly index: number;
  readonly params: readonly WasmType[];
  readonly results: readonly WasmType[];
}

/** Whether the branch at byte `at` of a function is usually taken (WebAssembly branch hinting). */
export interface BranchHint {
  readonly at: number;
  readonly taken: boolean;
}

export interface TagRef {
  readonly index: number;
}

/** A mutable local. */
export class Var {
  readonly t: WasmType;
  readonly index: number;
  readonly #fn: FunctionBuilder;

  constructor(fn: FunctionBuilder, t: WasmType, index: number) {
    this.#fn = fn;
    this.t = t;
    this.index = index;
  }

  /** The value at the moment of use (where the expression is written out, not where `get` is called). */
  get get(): Val {
    return new Val(this.t, (out) => (out.u8(0x20), out.u32(this.index)), true);
  }

  set(value: Operand): void {
    const typed = toVal(value, this.t);
    if (typed.t !== this.t) throw new Error(`local of type ${this.t} set to ${typed.t}`);
    typed.emit(this.#fn.out);
    this.#fn.out.u8(0x21);
    this.#fn.out.u32(this.index);
  }
}

export type LoadWidth = '8u' | '8s' | '16u' | '16s' | '32' | '32u' | '32s' | '64' | 'v128' | 'f32' | 'f64';

const LOADS: Readonly<Record<LoadWidth, { i32?: number; i64?: number; other?: [number, WasmType] }>> = {
  '8s': { i32: 0x2c, i64: 0x30 },
  '8u': { i32: 0x2d, i64: 0x31 },
  '16s': { i32: 0x2e, i64: 0x32 },
  '16u': { i32: 0x2f, i64: 0x33 },
  '32': { i32: 0x28, i64: 0x35 },
  '32u': { i32: 0x28, i64: 0x35 },
  '32s': { i32: 0x28, i64: 0x34 },
  '64': { i64: 0x29 },
  f32: { other: [0x2a, 'f32'] },
  f64: { other: [0x2b, 'f64'] },
  v128: {},
};

export class FunctionBuilder {
  out = new Bytes();
  readonly params: readonly Var[];
  readonly paramTypes: readonly WasmType[];
  readonly results: readonly WasmType[];
  readonly name: string;
  #depth = 0;
  readonly #localTypes: WasmType[] = [];
  readonly #free: Record<WasmType, number[]> = { i32: [], i64: [], f32: [], f64: [], v128: [] };
  #scopes: number[][] = [[]];
  /** Branches whose outcome is known to be usual: position in `out`, and whether they are taken. */
  #hints: { readonly at: number; readonly taken: boolean }[] = [];

  constructor(name: string, params: readonly WasmType[], results: readonly WasmType[]) {
    this.name = name;
    this.paramTypes = params;
    this.results = results;
    this.params = params.map((t, index) => new Var(this, t, index));
  }

  /** The value of parameter `index`. */
  p(index: number): Val {
    const param = this.params[index];
    if (param === undefined) throw new Error(`${this.name} has no parameter ${index}`);
    return param.get;
  }

  /** A mutable local that lives until the end of the enclosing scope. */
  local(type: WasmType, initial?: Operand): Var {
    let index = this.#free[type].pop();
    if (index === undefined) {
      index = this.params.length + this.#localTypes.length;
      this.#localTypes.push(type);
    }
    (this.#scopes[this.#scopes.length - 1] as number[]).push(index);
    const variable = new Var(this, type, index);
    if (initial !== undefined) variable.set(initial);
    return variable;
  }

  /** A mutable local that lives in the whole function, wherever it is made. */
  persistent(type: WasmType): Var {
    const index = this.params.length + this.#localTypes.length;
    this.#localTypes.push(type);
    return new Var(this, type, index);
  }

  /** Writes `body` in front of everything written so far. */
  prefix(body: () => void): void {
    const rest = this.out;
    const hints = this.#hints;
    this.out = new Bytes();
    this.#hints = [];
    body();
    const shift = this.out.length;
    for (const { at, taken } of hints) this.#hints.push({ at: at + shift, taken });
    this.out.bytes(rest.finish());
  }

  /** How many structured instructions are open. */
  get depth(): number {
    return this.#depth;
  }

  /** Evaluates now, once; the result may be used any number of times. Constants stay constants. */
  let(value: Val): Val {
    if (value.c !== undefined) return value;
    return this.local(value.t, value).get;
  }

  /** Locals made inside are free for reuse afterwards. */
  scope(body: () => void): void {
    this.#scopes.push([]);
    body();
    for (const index of this.#scopes.pop() as number[]) {
      this.#free[this.#typeOf(index)].push(index);
    }
  }

  #typeOf(index: number): WasmType {
    return (
      index < this.params.length ? this.paramTypes[index] : this.#localTypes[index - this.params.length]
    ) as WasmType;
  }

  // Control flow.
  #enter(): Label {
    this.#depth++;
    return { depth: this.#depth };
  }
  #leave(): void {
    this.out.u8(0x0b);
    this.#depth--;
  }
  block(body: (end: Label) => void): void {
    this.out.u8(0x02, 0x40);
    const label = this.#enter();
    this.scope(() => body(label));
    this.#leave();
  }
  loop(body: (again: Label) => void): void {
    this.out.u8(0x03, 0x40);
    const label = this.#enter();
    this.scope(() => body(label));
    this.#leave();
  }
  /** `usual`: what the condition nearly always is. */
  if(condition: Val, then: () => void, otherwise?: () => void, usual?: boolean): void {
    if (condition.c !== undefined) {
      if (condition.c !== 0) this.scope(then);
      else if (otherwise) this.scope(otherwise);
      return;
    }
    if (condition.t !== 'i32') throw new Error('condition must be i32');
    condition.emit(this.out);
    if (usual !== undefined) this.#hints.push({ at: this.out.length, taken: usual });
    this.out.u8(0x04, 0x40);
    this.#enter();
    this.scope(then);
    if (otherwise) {
      this.out.u8(0x05);
      this.scope(otherwise);
    }
    this.#leave();
  }
  /** `condition ? then() : otherwise()`, evaluating one side only. */
  ifValue(condition: Val, then: () => Val, otherwise: () => Val): Val {
    if (condition.c !== undefined) return condition.c !== 0 ? then() : otherwise();
    let result: Var | undefined;
    const type: { t?: WasmType } = {};
    const probe = (make: () => Val): (() => void) => {
      return () => {
        const value = make();
        result ??= this.#outer(value.t);
        if (type.t !== undefined && type.t !== value.t) throw new Error('ifValue sides differ in type');
        type.t = value.t;
        result.set(value);
      };
    };
    this.if(condition, probe(then), probe(otherwise));
    return (result as Var).get;
  }
  /** A local of the scope around the one being written. */
  #outer(type: WasmType): Var {
    const inner = this.#scopes.pop() as number[];
    const variable = this.local(type);
    this.#scopes.push(inner);
    return variable;
  }
  /** `while (condition()) body()`. */
  while(condition: () => Val, body: () => void): void {
    this.block((end) => {
      this.loop((again) => {
        this.brIf(end, condition().eqz());
        body();
        this.br(again);
      });
    });
  }
  br(label: Label): void {
    this.out.u8(0x0c);
    this.out.u32(this.#depth - label.depth);
  }
  brIf(label: Label, condition: Val): void {
    if (condition.c !== undefined) {
      if (condition.c !== 0) this.br(label);
      return;
    }
    condition.emit(this.out);
    this.out.u8(0x0d);
    this.out.u32(this.#depth - label.depth);
  }
  /**
   * A br_table over `selector` (0-based): case i runs `cases[i]`, and then leaves the switch; other values run
   * `otherwise`. An undefined case runs `otherwise` as well.
   */
  switch(selector: Val, cases: readonly ((() => void) | undefined)[], otherwise: () => void): void {
    const present = cases.filter((body) => body !== undefined);
    const nest = (level: number): void => {
      if (level === 0) {
        selector.emit(this.out);
        this.out.u8(0x0e);
        this.out.u32(cases.length);
        // Present case k sits k blocks out of the br_table; the default is the outermost.
        let order = 0;
        for (const body of cases) this.out.u32(body === undefined ? present.length : order++);
        this.out.u32(present.length);
        return;
      }
      this.block(() => nest(level - 1));
      this.scope(present[level - 1] as () => void);
      this.br(end as Label);
    };
    let end: Label | undefined;
    this.block((label) => {
      end = label;
      this.block(() => nest(present.length));
      this.scope(otherwise);
    });
  }
  /** A bare br_table over `selector`: the labels by value, and the label for all others. */
  brTable(selector: Val, labels: readonly Label[], otherwise: Label): void {
    selector.emit(this.out);
    this.out.u8(0x0e);
    this.out.u32(labels.length);
    for (const label of [...labels, otherwise]) this.out.u32(this.#depth - label.depth);
  }
  return(...values: readonly Val[]): void {
    for (const value of values) value.emit(this.out);
    this.out.u8(0x0f);
  }
  unreachable(): void {
    this.out.u8(0x00);
  }
  throw(tag: TagRef): void {
    this.out.u8(0x08);
    this.out.u32(tag.index);
  }
  /**
   * Runs `body`; when the (parameterless) tag is thrown inside, or it branches to the label that it is given, goes on
   * after it with `handler`.
   */
  tryCatch(tag: TagRef, body: (caught: Label) => void, handler: () => void): void {
    this.block((done) => {
      this.block((caught) => {
        // try_table, one catch clause: the tag, branching to the block just opened.
        this.out.u8(0x1f, 0x40);
        this.out.u32(1);
        this.out.u8(0x00);
        this.out.u32(tag.index);
        this.out.u32(0);
        this.#depth++;
        this.scope(() => body(caught));
        this.#leave();
        this.br(done);
      });
      this.scope(handler);
    });
  }

  // Calls.
  #emitArgs(fn: { name: string; params: readonly WasmType[] }, args: readonly Operand[]): readonly Val[] {
    if (args.length !== fn.params.length)
      throw new Error(`${fn.name} takes ${fn.params.length} arguments, got ${args.length}`);
    return args.map((arg, index) => {
      const value = toVal(arg, fn.params[index] as WasmType);
      if (value.t !== fn.params[index])
        throw new Error(`${fn.name}: argument ${index} is ${value.t}, not ${String(fn.params[index])}`);
      return value;
    });
  }
  /** A call for its effect; a result is dropped. */
  call(fn: FunctionRef, ...args: readonly Operand[]): void {
    for (const arg of this.#emitArgs(fn, args)) arg.emit(this.out);
    this.out.u8(0x10);
    this.out.u32(fn.index);
    for (const _ of fn.results) this.out.u8(0x1a);
  }
  /** A call for its (single) result, evaluated now. */
  callValue(fn: FunctionRef, ...args: readonly Operand[]): Val {
    const [result] = fn.results;
    if (result === undefined || fn.results.length !== 1) throw new Error(`${fn.name} has no single result`);
    const values = this.#emitArgs(fn, args);
    return this.let(
      new Val(result, (out) => {
        for (const value of values) value.emit(out);
        out.u8(0x10);
        out.u32(fn.index);
      }),
    );
  }
  /** A call for all its results, evaluated now. */
  callValues(fn: FunctionRef, ...args: readonly Operand[]): readonly Val[] {
    for (const arg of this.#emitArgs(fn, args)) arg.emit(this.out);
    this.out.u8(0x10);
    this.out.u32(fn.index);
    const results = fn.results.map((type) => this.local(type));
    // The last result is on top of the stack.
    for (const result of [...results].reverse()) {
      this.out.u8(0x21);
      this.out.u32(result.index);
    }
    return results.map((result) => result.get);
  }
  /** Calls through the function table (index 0) with a type that the module knows. */
  callIndirect(
    typeIndex: number,
    tableIndex: Val,
    results: readonly WasmType[],
    ...args: readonly Val[]
  ): void {
    for (const arg of args) arg.emit(this.out);
    tableIndex.emit(this.out);
    this.out.u8(0x11);
    this.out.u32(typeIndex);
    this.out.u32(0);
    for (const _ of results) this.out.u8(0x1a);
  }
  callIndirectValue(typeIndex: number, tableIndex: Val, result: WasmType, ...args: readonly Val[]): Val {
    return this.let(
      new Val(result, (out) => {
        for (const arg of args) arg.emit(out);
        tableIndex.emit(out);
        out.u8(0x11);
        out.u32(typeIndex);
        out.u32(0);
      }),
    );
  }
  tailCall(fn: FunctionRef, ...args: readonly Operand[]): void {
    for (const arg of this.#emitArgs(fn, args)) arg.emit(this.out);
    this.out.u8(0x12);
    this.out.u32(fn.index);
  }
  returnCallIndirect(typeIndex: number, tableIndex: Val, ...args: readonly Val[]): void {
    for (const arg of args) arg.emit(this.out);
    tableIndex.emit(this.out);
    this.out.u8(0x13);
    this.out.u32(typeIndex);
    this.out.u32(0);
  }

  // Memory 0. Offsets are constants in bytes; every access is marked unaligned.
  /** A load as `type`; lazily written: bind it with `let` unless it is used at once. */
  load(
    width: LoadWidth,
    address: Val,
    offset = 0,
    type: 'i32' | 'i64' = width === '64' ? 'i64' : 'i32',
  ): Val {
    if (width === 'v128') {
      return new Val('v128', (out) => {
        address.emit(out);
        out.u8(0xfd, 0x00, 0);
        out.u32(offset);
      });
    }
    const entry = LOADS[width];
    const [code, result] = entry.other ?? [entry[type], type];
    if (code === undefined) throw new Error(`no load of width ${width} as ${type}`);
    return new Val(result, (out) => {
      address.emit(out);
      out.u8(code, 0);
      out.u32(offset);
    });
  }
  store(
    width: '8' | '16' | '32' | '64' | 'v128' | 'f64' | 'f32',
    address: Val,
    value: Operand,
    offset = 0,
  ): void {
    const natural: WasmType =
      width === '64' ? 'i64' : width === 'v128' || width === 'f64' || width === 'f32' ? width : 'i32';
    const typed = toVal(value, natural);
    address.emit(this.out);
    typed.emit(this.out);
    const code = {
      '8': [0x3a, 0x3c],
      '16': [0x3b, 0x3d],
      '32': [0x36, 0x3e],
      '64': [-1, 0x37],
      f32: [-1, -1],
      f64: [-1, -1],
      v128: [-1, -1],
    }[width];
    if (width === 'v128') this.out.u8(0xfd, 0x0b, 0);
    else if (width === 'f64') this.out.u8(0x39, 0);
    else if (width === 'f32') this.out.u8(0x38, 0);
    else {
      const opcode = typed.t === 'i32' ? code[0] : typed.t === 'i64' ? code[1] : -1;
      if (opcode === undefined || opcode < 0) throw new Error(`no store of width ${width} from ${typed.t}`);
      this.out.u8(opcode, 0);
    }
    this.out.u32(offset);
  }
  memoryCopy(destination: Val, source: Val, length: Val): void {
    destination.emit(this.out);
    source.emit(this.out);
    length.emit(this.out);
    this.out.u8(0xfc, 10, 0, 0);
  }
  memoryFill(destination: Val, value: Val, length: Val): void {
    destination.emit(this.out);
    value.emit(this.out);
    length.emit(this.out);
    this.out.u8(0xfc, 11, 0);
  }

  /** The function body with its local declarations, for the code section; its hints for `metadata.code.branch_hint`. */
  finish(): { readonly body: Uint8Array; readonly hints: readonly BranchHint[] } {
    const body = new Bytes();
    const groups: { type: WasmType; count: number }[] = [];
    for (const type of this.#localTypes) {
      const last = groups[groups.length - 1];
      if (last?.type === type) last.count++;
      else groups.push({ type, count: 1 });
    }
    body.u32(groups.length);
    for (const { type, count } of groups) {
      body.u32(count);
      body.u8(TYPE_CODE[type]);
    }
    const start = body.length;
    body.bytes(this.out.finish());
    body.u8(0x0b);
    return {
      body: body.finish(),
      hints: this.#hints.map(({ at, taken }) => ({ at: at + start, taken })),
    };
  }
}

/** Shorthand for an i32 constant 1/0 condition. */
export const TRUE = i32(1);
