/** Library routines: generated functions that instruction definitions and other routines call by name. */
import type { FunctionBuilder, FunctionRef } from '../wasm/function.ts';
import type { ModuleBuilder } from '../wasm/module.ts';
import type { WasmType } from '../wasm/encoder.ts';
import type { Library } from '../sem.ts';

export interface Routine {
  readonly name: string;
  readonly params: readonly WasmType[];
  readonly results: readonly WasmType[];
  readonly body: (f: FunctionBuilder, lib: Library) => void;
}

export function routine(
  name: string,
  params: readonly WasmType[],
  results: readonly WasmType[],
  body: (f: FunctionBuilder, lib: Library) => void,
): Routine {
  return { name, params, results, body };
}

/** Declares all routines in the module; `define` then writes their bodies, so that they may call each other. */
export function declareRoutines(
  module: ModuleBuilder,
  routines: readonly Routine[],
  imports: ReadonlyMap<string, FunctionRef>,
): { lib: Library; define: () => void } {
  const refs = new Map<string, FunctionRef>(imports);
  const declared = routines.map((entry) => {
    if (refs.has(entry.name)) throw new Error(`library routine ${entry.name} exists twice`);
    const ref = module.declare(entry.name, entry.params, entry.results);
    refs.set(entry.name, ref);
    return { entry, ref };
  });
  const lib: Library = (name) => {
    const ref = refs.get(name);
    if (ref === undefined) throw new Error(`no library routine ${name}`);
    return ref;
  };
  return {
    lib,
    define: () => {
      for (const { entry, ref } of declared) module.define(ref, (f) => entry.body(f, lib));
    },
  };
}
