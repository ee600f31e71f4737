/** Assembles functions into one WebAssembly module (WebAssembly Core Specification, 5.5). */
import { Bytes, TYPE_CODE, type WasmType } from './encoder.ts';
import { FunctionBuilder, type BranchHint, type FunctionRef, type TagRef } from './function.ts';

interface Signature {
  readonly params: readonly WasmType[];
  readonly results: readonly WasmType[];
}

export interface TableUse {
  readonly module: string;
  readonly name: string;
  readonly minimum: number;
}

/** Writes a module that imports memory 0 (and, when asked, table 0 and the fault tag). */
export class ModuleBuilder {
  readonly #types: Signature[] = [];
  readonly #typeKeys = new Map<string, number>();
  readonly #imports: { module: string; name: string; type: number }[] = [];
  readonly #functions: {
    ref: FunctionRef;
    type: number;
    body?: Uint8Array;
    hints?: readonly BranchHint[];
  }[] = [];
  readonly #exports: { name: string; kind: number; index: number }[] = [];
  readonly #elements: FunctionRef[] = [];
  readonly #tags: { module: string; name: string; type: number }[] = [];
  readonly #memoryPages: { minimum: number; maximum: number };
  #table: TableUse | undefined;
  #sealed = false;
  #elementsAt = 0;

  /** `pages`: the fixed size of the imported memory in 64 KiB pages. */
  constructor(pages: number) {
    this.#memoryPages = { minimum: pages, maximum: pages };
  }

  type(params: readonly WasmType[], results: readonly WasmType[]): number {
    const key = `${params.join(',')}>${results.join(',')}`;
    let index = this.#typeKeys.get(key);
    if (index === undefined) {
      index = this.#types.length;
      this.#types.push({ params, results });
      this.#typeKeys.set(key, index);
    }
    return index;
  }

  /** Imports come before the first declared function, since they number first. */
  importFunction(
    module: string,
    name: string,
    params: readonly WasmType[],
    results: readonly WasmType[],
  ): FunctionRef {
    if (this.#sealed) throw new Error(`import ${name} after the first function`);
    this.#imports.push({ module, name, type: this.type(params, results) });
    return { name, index: this.#imports.length - 1, params, results };
  }

  importTag(module: string, name: string): TagRef {
    this.#tags.push({ module, name, type: this.type([], []) });
    return { index: this.#tags.length - 1 };
  }

  /** `from`: the slot that tableSlot() fills first. */
  importTable(use: TableUse, from = 0): void {
    this.#table = use;
    this.#elementsAt = from;
  }

  /** A function whose body was written elsewhere, with the type and import numbers of this module. */
  add(f: FunctionBuilder): FunctionRef {
    const ref = this.declare(f.name, f.paramTypes, f.results);
    const entry = this.#functions[ref.index - this.#imports.length];
    if (entry === undefined) throw new Error(`${f.name} was not declared`);
    Object.assign(entry, f.finish());
    return ref;
  }

  /** Declares a function whose body is written later, so that functions may call each other. */
  declare(name: string, params: readonly WasmType[], results: readonly WasmType[]): FunctionRef {
    this.#sealed = true;
    const ref = { name, index: this.#imports.length + this.#functions.length, params, results };
    this.#functions.push({ ref, type: this.type(params, results) });
    return ref;
  }

  define(ref: FunctionRef, body: (f: FunctionBuilder) => void): void {
    const entry = this.#functions[ref.index - this.#imports.length];
    if (entry === undefined || entry.ref !== ref) throw new Error(`${ref.name} was not declared here`);
    if (entry.body !== undefined) throw new Error(`${ref.name} is defined twice`);
    const f = new FunctionBuilder(ref.name, ref.params, ref.results);
    body(f);
    Object.assign(entry, f.finish());
  }

  func(
    name: string,
    params: readonly WasmType[],
    results: readonly WasmType[],
    body: (f: FunctionBuilder) => void,
  ): FunctionRef {
    const ref = this.declare(name, params, results);
    this.define(ref, body);
    return ref;
  }

  export(ref: FunctionRef, name: string = ref.name): void {
    this.#exports.push({ name, kind: 0, index: ref.index });
  }

  /** Puts a function into the next slot of the table; returns the number of the slot among those of this module. */
  tableSlot(ref: FunctionRef): number {
    this.#elements.push(ref);
    return this.#elements.length - 1;
  }

  get tableSlots(): number {
    return this.#elements.length;
  }

  /** Bytes of each function's body, for the size limits of V8's optimizing tier. */
  sizes(): { name: string; size: number }[] {
    return this.#functions.map(({ ref, body }) => ({ name: ref.name, size: body?.length ?? 0 }));
  }

  finish(): Uint8Array {
    const out = new Bytes();
    out.u8(0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0);
    const section = (id: number, write: (body: Bytes) => void): void => {
      const body = new Bytes();
      write(body);
      out.u8(id);
      out.u32(body.length);
      out.bytes(body.finish());
    };
    section(1, (body) => {
      body.u32(this.#types.length);
      for (const { params, results } of this.#types) {
        body.u8(0x60);
        for (const list of [params, results]) {
          body.u32(list.length);
          for (const type of list) body.u8(TYPE_CODE[type]);
        }
      }
    });
    section(2, (body) => {
      body.u32(this.#imports.length + 1 + this.#tags.length + (this.#table ? 1 : 0));
      for (const { module, name, type } of this.#imports) {
        body.name(module);
        body.name(name);
        body.u8(0x00);
        body.u32(type);
      }
      body.name('env');
      body.name('memory');
      body.u8(0x02, 0x01);
      body.u32(this.#memoryPages.minimum);
      body.u32(this.#memoryPages.maximum);
      if (this.#table) {
        body.name(this.#table.module);
        body.name(this.#table.name);
        body.u8(0x01, 0x70, 0x00);
        body.u32(this.#table.minimum);
      }
      for (const { module, name, type } of this.#tags) {
        body.name(module);
        body.name(name);
        body.u8(0x04, 0x00);
        body.u32(type);
      }
    });
    section(3, (body) => {
      body.u32(this.#functions.length);
      for (const { type } of this.#functions) body.u32(type);
    });
    section(7, (body) => {
      body.u32(this.#exports.length);
      for (const { name, kind, index } of this.#exports) {
        body.name(name);
        body.u8(kind);
        body.u32(index);
      }
    });
    if (this.#elements.length > 0) {
      section(9, (body) => {
        body.u32(1);
        body.u8(0x00, 0x41);
        body.s32(this.#elementsAt);
        body.u8(0x0b);
        body.u32(this.#elements.length);
        for (const { index } of this.#elements) body.u32(index);
      });
    }
    const hinted = this.#functions.filter(({ hints }) => hints !== undefined && hints.length > 0);
    if (hinted.length > 0) {
      section(0, (body) => {
        body.name('metadata.code.branch_hint');
        body.u32(hinted.length);
        for (const { ref, hints } of hinted) {
          body.u32(ref.index);
          body.u32(hints?.length ?? 0);
          for (const { at, taken } of hints ?? []) {
            body.u32(at);
            body.u8(1, taken ? 1 : 0);
          }
        }
      });
    }
    section(10, (body) => {
      body.u32(this.#functions.length);
      for (const { ref, body: code } of this.#functions) {
        if (code === undefined) throw new Error(`${ref.name} is declared but not defined`);
        body.u32(code.length);
        body.bytes(code);
      }
    });
    return out.finish();
  }
}
