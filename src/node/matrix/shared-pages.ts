/** Why each shared page is shared: what the host was seen to use it for, and ranges that the kernel itself names. */
import { PAGE_USE } from '../../abi/events.ts';
import { CALL } from '../../abi/hyperv/hypercall.ts';
import { FACTS } from '../../machine/facts.ts';
import { rows, type Observation, type PageRun } from './observation.ts';

const PAGE_BYTES = 4096;
const POST_MESSAGE = 'page of messages for the host';

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

/** Sites in the kernel that share memory, and what for. A site that is not here is a page without a reason. */
const SITES: Readonly<Record<string, string>> = {
  swiotlb_update_mem_attributes: 'swiotlb bounce buffers',
  atomic_pool_expand: 'pool of the DMA API for atomic allocations',
  dma_direct_alloc: 'coherent DMA buffer',
  hv_common_cpu_init: 'hypercall input page',
  hv_synic_alloc: 'SynIC message page',
  vmbus_connect: 'VMBus monitor page',
  setup_ghcb: 'GHCB',
  init_ghcb: 'GHCB',
  __register_ghcb: 'GHCB',
  alloc_shared_pages: 'guest message to the AMD-SP',
  sme_early_init: 'kernel data marked __bss_decrypted',
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

/** The part of the kernel's own data that is marked __bss_decrypted. */
function decryptedBss({ bssDecrypted }: Observation): Range[] {
  return bssDecrypted === undefined
    ? []
    : [{ reason: 'kernel data marked __bss_decrypted', ...bssDecrypted }];
}

/** Ranges that a known site of the kernel shared; the last one to do so is the reason. */
function sites(o: Observation): Range[] {
  return o.shareSites.toReversed().flatMap(({ gpa, pages, site }) => {
    const reason = SITES[site];
    return reason === undefined ? [] : [{ reason, from: gpa, to: gpa + pages * PAGE_BYTES }];
  });
}

function siteOf(o: Observation, gpa: number): string {
  const found = o.shareSites.findLast(
    (entry) => gpa >= entry.gpa && gpa < entry.gpa + entry.pages * PAGE_BYTES,
  );
  return found?.site ?? 'nobody seen';
}

/**
 * What each page was last used for. Where hypercalls go to a paravisor, a page that holds nothing but messages for the host is
 * one of its own (Linux 6.12 hv.c, post_msg_page).
 */
function usesOf(o: Observation): ReadonlyMap<number, string> {
  const used = new Map<number, string>();
  for (const { key } of rows(o.counts.pageUse, () => true)) {
    const [gpa = 0, use = 0, code = 0] = key;
    const messages =
      FACTS[o.configuration].paravisor && use === PAGE_USE.hypercallInput && code === CALL.postMessage;
    if (messages && used.has(gpa)) continue;
    used.set(gpa, messages ? POST_MESSAGE : (USES[use] ?? `use ${use}`));
  }
  return used;
}

/** Shared pages by reason, and the runs for which there is none. */
export function accountFor(o: Observation): {
  readonly reasons: readonly { readonly reason: string; readonly pages: number }[];
  /** `site`: who shared the first page, as far as it could be seen. */
  readonly unknown: readonly (PageRun & { readonly site: string })[];
} {
  const used = usesOf(o);
  const ranges = [...swiotlb(o), ...decryptedBss(o), ...sites(o)];
  const pages = new Map<string, number>();
  const unknown: { gpa: number; pages: number; site: string }[] = [];
  for (const run of o.sharedRuns)
    for (let page = 0; page < run.pages; page++) {
      const gpa = run.gpa + page * PAGE_BYTES;
      const use = used.get(gpa);
      const reason = use !== undefined ? use : ranges.find(({ from, to }) => gpa >= from && gpa < to)?.reason;
      if (reason !== undefined) pages.set(reason, (pages.get(reason) ?? 0) + 1);
      else {
        const last = unknown.at(-1);
        if (last !== undefined && last.gpa + last.pages * PAGE_BYTES === gpa) last.pages++;
        else unknown.push({ gpa, pages: 1, site: siteOf(o, gpa) });
      }
    }
  return { reasons: [...pages].map(([reason, count]) => ({ reason, pages: count })), unknown };
}
