/** The module's state in a snapshot: plain data, with system-physical addresses. */
import type { TdState, VcpuState } from './state.ts';
import type { TdxModule } from './module.ts';
import { PAGE, SEPT } from './tables.ts';

interface SavedModule {
  readonly td: TdState;
  readonly vcpus: readonly VcpuState[];
  /** Address, level, state, system page, aliases of each entry. */
  readonly sept: Float64Array;
  /** Address, flags, system page. */
  readonly shared: Float64Array;
  readonly pamt: Uint8Array;
  readonly splitBlocks: Float64Array;
}

export function saveModule(module: TdxModule): unknown {
  const { tables } = module;
  const sept: number[] = [];
  const split: number[] = [];
  tables.eachEntry((gpa, level, entry, aliases) => sept.push(gpa, level, entry.state, entry.spa, aliases));
  tables.eachSplit((gpa) => split.push(gpa));
  const shared: number[] = [];
  for (let page = 0; page < tables.plan.gpaPages; page++) {
    const { flags, spa } = tables.sharedEntry(page * PAGE);
    if (flags !== 0) shared.push(page * PAGE, flags, spa);
  }
  const pamt = new Uint8Array(tables.plan.frameBytes / PAGE);
  for (let page = 0; page < pamt.length; page++) pamt[page] = tables.pamt(page * PAGE);
  const saved: SavedModule = {
    td: module.td,
    vcpus: module.vcpus,
    sept: Float64Array.from(sept),
    shared: Float64Array.from(shared),
    pamt,
    splitBlocks: Float64Array.from(split),
  };
  return saved;
}

export function loadModule(module: TdxModule, state: unknown): void {
  const { tables } = module;
  const saved = state as SavedModule;
  module.td = saved.td;
  module.vcpus = [...saved.vcpus];
  tables.setSharedBit(module.sharedBit);
  tables.reset();
  for (const gpa of saved.splitBlocks) tables.setEntry(gpa, 1, SEPT.split);
  for (let k = 0; k < saved.sept.length; k += 5) {
    const [gpa, level, entry, spa, aliases] = saved.sept.subarray(k, k + 5) as unknown as [
      number,
      0 | 1,
      number,
      number,
      number,
    ];
    tables.setEntry(gpa, level, entry, spa);
    tables.setAliases(gpa, level, aliases);
  }
  for (let k = 0; k < saved.shared.length; k += 3)
    tables.setShared(saved.shared[k] as number, saved.shared[k + 1] as number, saved.shared[k + 2] as number);
  for (const [page, flags] of saved.pamt.entries()) tables.setPamt(page * PAGE, flags);
}
