/** The names that a guest's kernel has for its own addresses, read from its memory when it has ended. */
import type { Machine } from '../../machine/machine.ts';
import { CPU } from '../../x86/layout.ts';
import { readKallsyms } from '../kallsyms.ts';
import { Symbols } from '../symbols.ts';

export interface GuestSymbols {
  readonly symbols: Symbols;
  /** Guest-physical range of what is marked __bss_decrypted. */
  readonly bssDecrypted?: { readonly from: number; readonly to: number };
}

/** `iomem`: the guest's /proc/iomem, which says where the kernel lies. `systemMap`: of the package, for a kernel without a table. */
export function guestSymbols(
  machine: Machine,
  systemMap: string | undefined,
  iomem: readonly string[],
): GuestSymbols | undefined {
  const code = rangeOf(iomem, 'Kernel code');
  const rodata = rangeOf(iomem, 'Kernel rodata');
  const table = rodata === undefined ? undefined : machine.truth.read(rodata.from, rodata.to - rodata.from);
  const list = table === undefined ? undefined : readKallsyms(table);
  if (list === undefined) {
    if (systemMap === undefined) return undefined;
    const symbols = Symbols.fromSystemMap(systemMap, 'System.map');
    const cpu = machine.silicon.cpu(machine.current);
    symbols.place('entry_SYSCALL_64', machine.engine.view.getBigUint64(cpu + CPU.lstar, true));
    return { symbols };
  }
  const symbols = new Symbols(list);
  const at = (wanted: string): bigint | undefined => list.find(({ name }) => name === wanted)?.address;
  const [text, start, end] = [at('_text'), at('__start_bss_decrypted'), at('__end_bss_decrypted')];
  if (text === undefined || start === undefined || end === undefined || code === undefined)
    return { symbols };
  // The image is one piece, in memory as in addresses.
  const [from, to] = [start, end].map((address) => code.from + Number(address - text)) as [number, number];
  return { symbols, bssDecrypted: { from, to } };
}

function rangeOf(iomem: readonly string[], name: string): { from: number; to: number } | undefined {
  for (const line of iomem) {
    const [, from, to, what] = /^\s*([0-9a-f]+)-([0-9a-f]+) : (.*)$/.exec(line) ?? [];
    if (what === name && from !== undefined && to !== undefined)
      return { from: parseInt(from, 16), to: parseInt(to, 16) + 1 };
  }
  return undefined;
}
