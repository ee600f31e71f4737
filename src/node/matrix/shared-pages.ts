/** Why each shared page is shared: what the host was seen to use it for, and ranges that the kernel itself names. */
import { PAGE_USE } from '../../abi/events.ts';
import { rows, type Observation, type PageRun } from './observation.ts';

const PAGE_BYTES = 4096;

const USES: Readonly<Record<number, string>> = {
  [PAGE_USE.hypercallInput]: 'hypercall input page',
  [PAGE_USE.hypercallOutput]: 'hypercall output page',
  [PAGE_USE.synicMessages]: 'SynIC message page',
  [PAGE_USE.synicEventFlags]: 'SynIC event flags page',
  [PAGE_USE.monitor]: 'VMBus monitor page',
  [PAGE_USE.ghcb]: 'GHCB',
  [PAGE_USE.referenceTsc]: 'reference TSC page',
  [PAGE_USE.vpAssist]: 'VP assist page',
  [PAGE_USE.quote]: 'buffer of a quote request',
  [PAGE_USE.guestMessage]: 'guest message to the AMD-SP',
  [PAGE_USE.doorbell]: '#HV doorbell page',
};

interface Range {
  readonly reason: string;
  readonly from: number;
  readonly to: number;
}

/** Ranges that the kernel's log names: the bounce buffers of the DMA API. */
function swiotlb(o: Observation): Range[] {
  return (o.said['dmesg'] ?? []).flatMap((line) => {
    const [, from, to] = /software IO TLB: mapped \[mem 0x([0-9a-f]+)-0x([0-9a-f]+)\]/.exec(line) ?? [];
    return from === undefined || to === undefined
      ? []
      : [{ reason: 'swiotlb bounce buffers', from: parseInt(from, 16), to: parseInt(to, 16) + 1 }];
  });
}

/** Section `.bss..decrypted` of the running kernel: symbols by its System.map, where the kernel lies by /proc/iomem. */
function decryptedBss(o: Observation): Range[] {
  const symbols = new Map(
    (o.said['symbols'] ?? []).flatMap((line) => {
      const [address, , name] = line.trim().split(/\s+/);
      return address === undefined || name === undefined ? [] : [[name, BigInt(`0x${address}`)] as const];
    }),
  );
  const code = (o.said['iomem'] ?? [])
    .map((line) => /([0-9a-f]+)-[0-9a-f]+ : Kernel code/.exec(line)?.[1])
    .find((at) => at !== undefined);
  const [text, start, end] = ['_text', '__start_bss_decrypted', '__end_bss_decrypted'].map((name) =>
    symbols.get(name),
  );
  if (code === undefined || text === undefined || start === undefined || end === undefined || end <= start)
    return [];
  const physical = (address: bigint): number => parseInt(code, 16) + Number(address - text);
  return [{ reason: 'kernel data marked __bss_decrypted', from: physical(start), to: physical(end) }];
}

/** Shared pages by reason, and the runs for which there is none. */
export function accountFor(o: Observation): {
  readonly reasons: readonly { readonly reason: string; readonly pages: number }[];
  readonly unknown: readonly PageRun[];
} {
  const used = new Map(
    rows(o.counts.pageUse, () => true).map(({ key }) => [key[0] as number, key[1] as number]),
  );
  const ranges = [...swiotlb(o), ...decryptedBss(o)];
  const pages = new Map<string, number>();
  const unknown: { gpa: number; pages: number }[] = [];
  for (const run of o.sharedRuns)
    for (let page = 0; page < run.pages; page++) {
      const gpa = run.gpa + page * PAGE_BYTES;
      const use = used.get(gpa);
      const reason =
        use !== undefined
          ? (USES[use] ?? `use ${use}`)
          : ranges.find(({ from, to }) => gpa >= from && gpa < to)?.reason;
      if (reason !== undefined) pages.set(reason, (pages.get(reason) ?? 0) + 1);
      else {
        const last = unknown.at(-1);
        if (last !== undefined && last.gpa + last.pages * PAGE_BYTES === gpa) last.pages++;
        else unknown.push({ gpa, pages: 1 });
      }
    }
  return { reasons: [...pages].map(([reason, count]) => ({ reason, pages: count })), unknown };
}
