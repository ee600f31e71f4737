/**
 * A machine as bytes, at any instruction, and back. TLB entries are part of it, because they are architectural; what was
 * decoded, and where frames lie, is not.
 */
import { initEntry } from '../launch/entry-state.ts';
import type { Directive, RegionDirective } from '../launch/directives.ts';
import type { HostConfig } from '../host/config.ts';
import type { TdxHostConfig } from '../host/tdx/host.ts';
import { tdxKind, tdxSilicon } from '../silicon/tdx/silicon.ts';
import { tdxPlatform } from './tdx-platform.ts';
import type { EventSink } from '../seats/events.ts';
import { findCpuModel } from '../x86/cpuid.ts';
import { CPU, TLB, TLBFLAG } from '../x86/layout.ts';
import { validEntries } from '../x86/tlb.ts';
import { decodeValue, encodeValue } from './codec.ts';
import { plainSilicon } from '../silicon/plain/silicon.ts';
import { snpSilicon } from '../silicon/snp/silicon.ts';
import type { SiliconKind } from '../silicon/silicon.ts';
import { hypervPlatform } from './hyperv-platform.ts';
import { programSilicon, type ProgramAt } from './program.ts';
import { Machine, type Counters, type EngineKind, type Platform } from './machine.ts';

const MAGIC = 'vitrine snapshot 4';

interface Snapshot {
  readonly magic: string;
  readonly model: string;
  readonly vcpus: number;
  readonly seed: bigint;
  readonly tscHz: number;
  readonly tscAtZero: bigint;
  readonly silicon: { readonly kind: string; readonly state: unknown };
  readonly program: ProgramAt | undefined;
  readonly regions: readonly RegionDirective[];
  readonly platform: { readonly kind: string; readonly config: unknown; readonly state: unknown };
  readonly counters: Counters;
  /** CPU structures and TLB areas without the data entries, host addresses replaced by guest-physical ones. */
  readonly cpus: readonly Uint8Array[];
  readonly tlbs: readonly Uint8Array[];
  /** Data entries that hold something: where in the area, 32 bytes of each. */
  readonly places: readonly Uint32Array[];
  readonly entries: readonly Uint8Array[];
  /** Guest-physical addresses of fetch windows and fetch entries, in order: f64, -1 for none. */
  readonly windows: Float64Array;
  readonly fetches: readonly Float64Array[];
  /** The same of data entries: the pages that they lead to. */
  readonly translations: readonly Float64Array[];
  readonly pageNumbers: Float64Array;
  readonly pages: Uint8Array;
}

/** Fields of a CPU structure that are addresses of this machine's memory. */
const POINTERS = [
  CPU.tlbFast,
  CPU.tlbReal,
  CPU.tlbFetch,
  CPU.tlbArea,
  CPU.tlbEmpty,
  CPU.engine,
  CPU.windowHost,
  CPU.stageHost,
  CPU.record,
  CPU.msrMap,
];
/** Silicon that a snapshot may name. */
const SILICON: Readonly<Record<string, SiliconKind>> = {
  plain: plainSilicon,
  snp: snpSilicon(),
  ...Object.fromEntries([0, 1, 2, 3].map((l2Vms) => [tdxKind(l2Vms), tdxSilicon({ l2Vms })])),
};
const PLATFORMS: Readonly<Record<string, (config: unknown) => Platform>> = {
  hyperv: (config) => hypervPlatform(config as HostConfig),
  'hyperv-tdx': (config) => tdxPlatform(config as TdxHostConfig),
};
const FETCH_ENTRIES = 2 * (TLB.fetchSmall + TLB.fetchLarge);

export function takeSnapshot(machine: Machine): Uint8Array {
  const { engine, truth, config, silicon } = machine;
  const cpus: Uint8Array[] = [];
  const tlbs: Uint8Array[] = [];
  const places: Uint32Array[] = [];
  const tlbEntries: Uint8Array[] = [];
  const fetches: Float64Array[] = [];
  const translations: Float64Array[] = [];
  const windows = new Float64Array(config.vcpus * machine.silicon.contexts);
  const gpaOf = truth.reverse();
  const slots = config.vcpus * silicon.contexts;
  for (let slot = 0; slot < slots; slot++) {
    const cpu = engine.cpu(0, slot);
    const copy = engine.u8.slice(cpu, cpu + CPU.size);
    const view = new DataView(copy.buffer);
    windows[slot] =
      view.getBigInt64(CPU.windowMask, true) === -1n ? -1 : gpaOf(view.getUint32(CPU.windowHost, true));
    for (const field of POINTERS) view.setUint32(field, 0, true);
    cpus.push(copy);
    const area = engine.view.getUint32(cpu + CPU.tlbArea, true);
    const valid = validEntries(engine.u32, area);
    const entries = new Uint8Array(valid.length * 32);
    const data = new DataView(entries.buffer);
    const targets = new Float64Array(valid.length).fill(-1);
    for (const [k, place] of valid.entries()) {
      const at = k * 32;
      entries.set(engine.u8.subarray(area + place, area + place + 32), at);
      const page = data.getInt32(at + TLB.read, true) & ~0xfff;
      const host = (data.getInt32(at + TLB.addend, true) + page) >>> 0;
      if (data.getBigInt64(at + TLB.read, true) !== -1n) targets[k] = gpaOf(host);
      data.setUint32(at + TLB.addend, 0, true);
      if (data.getUint32(at + TLB.flags, true) & TLBFLAG.mmio) continue;
      // Bit 0 only says that somebody watches the page.
      for (const tag of [TLB.read, TLB.write]) {
        const low = data.getUint32(at + tag, true);
        if ((low & 0xffe) === 0) data.setUint32(at + tag, low & ~1, true);
      }
    }
    places.push(Uint32Array.from(valid));
    tlbEntries.push(entries);
    translations.push(targets);
    const tlb = engine.u8.slice(area + TLB.fetch, area + TLB.areaBytes);
    const fetch = new DataView(tlb.buffer);
    const gpas = new Float64Array(FETCH_ENTRIES);
    for (let k = 0; k < FETCH_ENTRIES; k++) {
      gpas[k] = fetch.getBigInt64(k * 16, true) === -1n ? -1 : gpaOf(fetch.getUint32(k * 16 + 8, true));
      fetch.setUint32(k * 16 + 8, 0, true);
    }
    tlbs.push(tlb);
    fetches.push(gpas);
  }
  const numbers: number[] = [];
  const chunks: Uint8Array[] = [];
  truth.eachPage((page, host) => {
    const start = host >>> 2;
    let any = 0;
    for (let k = 0; k < 1024; k++) any |= engine.u32[start + k] as number;
    if (any === 0) return;
    numbers.push(page);
    chunks.push(engine.u8.subarray(host, host + 4096));
  });
  const pages = new Uint8Array(chunks.length * 4096);
  for (const [k, chunk] of chunks.entries()) pages.set(chunk, k * 4096);
  const snapshot: Snapshot = {
    magic: MAGIC,
    model: config.model.name,
    vcpus: config.vcpus,
    seed: config.seed,
    tscHz: config.tscHz,
    tscAtZero: config.tscAtZero,
    regions: config.directives.filter((directive) => directive.kind === 'region'),
    silicon: { kind: silicon.kind, state: silicon.save() },
    program: config.program,
    platform: { kind: machine.platform.kind, config: machine.platform.config, state: machine.platform.state },
    counters: machine.counters(),
    cpus,
    tlbs,
    places,
    entries: tlbEntries,
    windows,
    fetches,
    translations,
    pageNumbers: Float64Array.from(numbers),
    pages,
  };
  return encodeValue(snapshot);
}

export type RestoreOutcome =
  { readonly ok: true; readonly machine: Machine } | { readonly ok: false; readonly reason: string };

export interface RestoreOptions {
  readonly sink: EventSink;
  readonly frameOrder?: (count: number) => Uint32Array;
  readonly engine?: EngineKind;
  /** SHA-384 of the paravisor's code here: one of other code is refused. Absent: not looked at. */
  readonly paravisorBuild?: Uint8Array;
  /** Makes the platform of a kind that this module does not know (test boards). */
  readonly platform?: (kind: string, config: unknown) => Platform | undefined;
}

export function restoreSnapshot(bytes: Uint8Array, options: RestoreOptions): RestoreOutcome {
  let snapshot: Snapshot;
  try {
    snapshot = decodeValue(bytes) as Snapshot;
  } catch {
    return { ok: false, reason: 'it is damaged' };
  }
  if (typeof snapshot !== 'object' || snapshot === null || snapshot.magic !== MAGIC)
    return { ok: false, reason: 'it is not a snapshot of this version' };
  const model = findCpuModel(snapshot.model);
  if (model === undefined) return { ok: false, reason: `there is no processor model '${snapshot.model}'` };
  const platform =
    PLATFORMS[snapshot.platform.kind]?.(snapshot.platform.config) ??
    options.platform?.(snapshot.platform.kind, snapshot.platform.config);
  if (platform === undefined)
    return { ok: false, reason: `there is no platform '${snapshot.platform.kind}'` };
  const { program } = snapshot;
  const wanted = options.paravisorBuild;
  if (program !== undefined && wanted?.some((byte, k) => byte !== program.build[k]) === true)
    return { ok: false, reason: 'its paravisor has other code' };
  const silicon = program === undefined ? SILICON[snapshot.silicon.kind] : programSilicon(program);
  if (silicon === undefined) return { ok: false, reason: `there is no silicon '${snapshot.silicon.kind}'` };
  const machine = new Machine({
    model,
    vcpus: snapshot.vcpus,
    seed: snapshot.seed,
    tscHz: snapshot.tscHz,
    tscAtZero: snapshot.tscAtZero,
    directives: snapshot.regions as readonly Directive[],
    sink: options.sink,
    initRegisters: initEntry(model.signature),
    silicon,
    ...(program === undefined ? {} : { program }),
    ...(options.frameOrder === undefined ? {} : { frameOrder: options.frameOrder }),
    ...(options.engine === undefined ? {} : { engine: options.engine }),
  });
  machine.attach(platform);
  const { engine, truth } = machine;
  for (const [k, page] of snapshot.pageNumbers.entries()) {
    const host = truth.page(page);
    if (host === undefined)
      return {
        ok: false,
        reason: `it has a page at 0x${(page * 4096).toString(16)}, where there is no memory`,
      };
    engine.u8.set(snapshot.pages.subarray(k * 4096, k * 4096 + 4096), host);
  }
  loadProcessors(machine, snapshot);
  return { ok: true, machine };
}

/** Takes a machine back to a snapshot of its own: code that stays the same stays translated. */
export function rewind(machine: Machine, bytes: Uint8Array): void {
  const snapshot = decodeValue(bytes) as Snapshot;
  const { engine, truth } = machine;
  const pages = new Map<number, Uint8Array>();
  for (const [k, page] of snapshot.pageNumbers.entries())
    pages.set(page, snapshot.pages.subarray(k * 4096, k * 4096 + 4096));
  truth.eachPage((number, host) => {
    const page = pages.get(number);
    for (let at = 0; at < 4096; at += 8) {
      let same = true;
      for (let k = at; k < at + 8; k++) same &&= engine.u8[host + k] === (page?.[k] ?? 0);
      if (same) continue;
      engine.blocks.codeChanged(host + at, 8);
      for (let k = at; k < at + 8; k++) engine.u8[host + k] = page?.[k] ?? 0;
    }
  });
  loadProcessors(machine, snapshot);
}

function loadProcessors(machine: Machine, snapshot: Snapshot): void {
  const { engine, truth } = machine;
  machine.platform.load(snapshot.platform.state);
  machine.setCounters(snapshot.counters);
  machine.silicon.load(snapshot.silicon.state);
  const at4k = (address: number): number => (truth.page(Math.floor(address / 4096)) ?? 0) + (address % 4096);
  for (let slot = 0; slot < snapshot.cpus.length; slot++) {
    const cpu = engine.cpu(0, slot);
    const own = POINTERS.map((field) => engine.view.getUint32(cpu + field, true));
    engine.u8.set(snapshot.cpus[slot] as Uint8Array, cpu);
    for (const [k, field] of POINTERS.entries()) engine.view.setUint32(cpu + field, own[k] as number, true);
    const area = engine.view.getUint32(cpu + CPU.tlbArea, true);
    engine.u8.fill(0xff, area, area + TLB.fetch);
    engine.u8.set(snapshot.tlbs[slot] as Uint8Array, area + TLB.fetch);
    const entries = snapshot.entries[slot] as Uint8Array;
    const pages = snapshot.translations[slot] as Float64Array;
    for (const [k, place] of (snapshot.places[slot] as Uint32Array).entries()) {
      const at = area + place;
      engine.u8.set(entries.subarray(k * 32, k * 32 + 32), at);
      const page = (engine.view.getInt32(at + TLB.read, true) & ~0xfff) | 0;
      const mmio = (engine.view.getUint32(at + TLB.flags, true) & TLBFLAG.mmio) !== 0;
      const host = mmio ? 0 : at4k(pages[k] as number);
      engine.view.setInt32(at + TLB.addend, (host - page) | 0, true);
    }
    const gpas = snapshot.fetches[slot] as Float64Array;
    for (let k = 0; k < FETCH_ENTRIES; k++) {
      const gpa = gpas[k] as number;
      if (gpa >= 0) engine.view.setUint32(area + TLB.fetch + k * 16 + 8, at4k(gpa), true);
    }
    const window = snapshot.windows[slot] as number;
    if (window >= 0) engine.view.setUint32(cpu + CPU.windowHost, at4k(window), true);
    engine.updateMode(cpu);
  }
  engine.blocks.observeCode();
}
