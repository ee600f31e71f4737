/** Kernel modules: what they say of themselves, and the order in which to load them. */
import { decompress } from './deb.ts';
import { UserError } from './errors.ts';

export interface KernelModule {
  readonly name: string;
  readonly depends: readonly string[];
  /** Patterns of the devices that it is for, against `modalias` files in /sys. */
  readonly aliases: readonly string[];
  /** Uncompressed ELF. */
  readonly data: Uint8Array;
}

/** Module names use underscores; file names may use dashes. */
export function moduleName(path: string): string {
  const file = path.slice(path.lastIndexOf('/') + 1);
  return file.replace(/\.ko(\.(xz|zst|gz))?$/, '').replace(/-/g, '_');
}

export function isModulePath(path: string): boolean {
  return /\.ko(\.(xz|zst|gz))?$/.test(path);
}

/** Reads `depends` and `alias` from the .modinfo section of an ELF64 relocatable. */
export async function readModule(path: string, bytes: Uint8Array): Promise<KernelModule> {
  const data = await decompress(bytes, path, path);
  const info = section(data, '.modinfo', path);
  const fields = new TextDecoder('latin1').decode(info).split('\0');
  const valuesOf = (key: string): string[] =>
    fields.filter((field) => field.startsWith(`${key}=`)).map((field) => field.slice(key.length + 1));
  return {
    name: moduleName(path),
    depends: (valuesOf('depends')[0] ?? '')
      .split(',')
      .filter((name) => name !== '')
      .map((name) => name.replace(/-/g, '_')),
    aliases: valuesOf('alias'),
    data,
  };
}

function section(elf: Uint8Array, wanted: string, where: string): Uint8Array {
  const damaged = (): never => {
    throw new UserError(`${where} is not a kernel module: give an ELF file for x86-64`);
  };
  if (elf.length < 64 || elf[0] !== 0x7f || elf[1] !== 0x45 || elf[4] !== 2) return damaged();
  const view = new DataView(elf.buffer, elf.byteOffset, elf.byteLength);
  const table = Number(view.getBigUint64(40, true));
  const entrySize = view.getUint16(58, true);
  const count = view.getUint16(60, true);
  const names = view.getUint16(62, true);
  if (entrySize < 64 || table + entrySize * count > elf.length || names >= count) return damaged();
  const range = (index: number): [number, number] => {
    const at = table + index * entrySize;
    return [Number(view.getBigUint64(at + 24, true)), Number(view.getBigUint64(at + 32, true))];
  };
  const [namesAt, namesLength] = range(names);
  const strings = new TextDecoder('latin1').decode(elf.subarray(namesAt, namesAt + namesLength));
  for (let index = 0; index < count; index++) {
    const nameAt = view.getUint32(table + index * entrySize, true);
    if (strings.slice(nameAt, strings.indexOf('\0', nameAt)) !== wanted) continue;
    const [at, length] = range(index);
    if (at + length > elf.length) return damaged();
    return elf.subarray(at, at + length);
  }
  return damaged();
}

/** The wanted modules after everything that they depend on, each once. Names that are not there are left out. */
export function loadOrder(
  modules: ReadonlyMap<string, KernelModule>,
  wanted: readonly string[],
): KernelModule[] {
  const order: KernelModule[] = [];
  const visited = new Set<string>();
  const visit = (name: string): void => {
    if (visited.has(name)) return;
    visited.add(name);
    const module = modules.get(name);
    if (module === undefined) return;
    module.depends.forEach(visit);
    order.push(module);
  };
  wanted.forEach(visit);
  return order;
}
