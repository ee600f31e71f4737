/**
 * The host against a guest and a paravisor that mean it harm: whatever lies in GHCB pages and GHCB MSRs, whichever VMSA and VMPL is
 * named, the host gives a defined answer, stays in a sane state, and never throws.
 */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { GHCB_EXIT, SVM_EXIT } from '../../abi/snp/exit-codes.ts';
import { ghcb, GHCB_USAGE, setValid, type GhcbField } from '../../abi/snp/ghcb.ts';
import type { Exit } from '../../seats/exits.ts';
import type { NestedMapping, SnpHostView } from '../../seats/snp.ts';
import { DEFAULT_CONFIG } from '../config.ts';
import { createHost, hostAdvance, hostExit, hostTurn, type HostState } from '../host.ts';
import { PAGE_KIND, VMPLS } from './state.ts';

const PAGE = 4096;
const TOP = 0x40_0000;
const ALIAS_BIT = 46;
const ALIAS = 2 ** ALIAS_BIT;
const GHCB_AT = [0x1000, 0x2000, 0x3000] as const;

/** System memory without hardware behind it; RMPUPDATE refuses one page in eight. */
class Memory {
  readonly bytes = new Uint8Array(TOP);
  readonly mappings = new Map<number, NestedMapping>();
  readonly view: SnpHostView;

  constructor() {
    const inside = (gpa: number, length: number): boolean => {
      const plain = gpa >= ALIAS ? gpa - ALIAS : gpa;
      return plain >= 0 && length >= 0 && plain + length <= TOP;
    };
    const at = (gpa: number): number => (gpa >= ALIAS ? gpa - ALIAS : gpa);
    this.view = {
      systemBytes: TOP,
      read: (gpa, length) =>
        inside(gpa, length)
          ? { ok: true, bytes: this.bytes.slice(at(gpa), at(gpa) + length) }
          : { ok: false, reason: 'unmapped' },
      write: (gpa, bytes) => {
        if (!inside(gpa, bytes.length)) return { ok: false, reason: 'unmapped' };
        this.bytes.set(bytes, at(gpa));
        return { ok: true };
      },
      overlay: () => ({ ok: false, reason: 'unsupported' }),
      getRegister: () => undefined,
      setRegister: () => false,
      cpuid: (leaf, subleaf) => ({ eax: leaf, ebx: subleaf, ecx: 0, edx: 0 }),
      map: (gpa, mapping) => void this.mappings.set(gpa, mapping),
      mapping: (gpa) => {
        const plain = gpa >= ALIAS ? gpa - ALIAS : gpa;
        const page = plain - (plain % PAGE);
        if (page < 0 || page >= TOP) return { kind: 'mmio' };
        return this.mappings.get(page) ?? { kind: 'page', spa: page, large: false, writable: true };
      },
      rmpupdate: (spa) => ((spa / PAGE) % 8 === 7 ? 2 : 0),
      psmash: () => 0,
      launchStart: () => 0,
      launchUpdate: () => ({ status: 0 }),
      launchFinish: () => 0,
      unsmash: () => 1,
      guestRequest: () => 0,
      certificates: () => new Uint8Array(100),
      readSystem: (spa, length) =>
        inside(spa, length)
          ? { ok: true, bytes: this.bytes.slice(spa, spa + length) }
          : { ok: false, reason: 'unmapped' },
      writeSystem: () => ({ ok: true }),
    } as SnpHostView;
  }
}

function makeHost(): HostState {
  const state = createHost({
    ...DEFAULT_CONFIG,
    vpCount: 2,
    isolation: { kind: 'snp', aliasBit: ALIAS_BIT },
  });
  const { snp } = state;
  if (snp === undefined) throw new Error('no SNP host');
  snp.pages = new Uint8Array(TOP / PAGE).fill(PAGE_KIND.private);
  snp.pages.fill(PAGE_KIND.shared, 0, 16);
  for (const [i, target] of snp.vps.entries()) {
    target.vmsas[0] = 0x10_0000 + i * PAGE;
    target.vmsas[2] = 0x11_0000 + i * PAGE;
    target.vmcb.vmsa = target.vmsas[0];
  }
  return state;
}

const word = fc.oneof(
  fc.constantFrom(
    0,
    1,
    2,
    3,
    4,
    8,
    0x10,
    0x1000,
    0x1008,
    0x1800,
    0x2800,
    0xffff_ffff,
    0x8000_0000,
    0x10_0000,
  ),
  fc.nat(0xffff_ffff),
);
const high = fc.oneof(
  { weight: 5, arbitrary: fc.constant(0) },
  { weight: 2, arbitrary: fc.constant(0x4000) },
  word,
);
const code = fc.oneof(
  fc.constantFrom(...Object.values(SVM_EXIT).map((value) => value >>> 0), ...Object.values(GHCB_EXIT)),
  word,
);
const FIELDS = [
  'rax',
  'rcx',
  'rdx',
  'rbx',
  'r8',
  'exitInfo1',
  'exitInfo2',
  'scratch',
  'xcr0',
  'cpl',
] as const;

const page = fc.record({
  usage: fc.oneof(
    { weight: 6, arbitrary: fc.constant(GHCB_USAGE.standard) },
    fc.constantFrom(GHCB_USAGE.hypercall, GHCB_USAGE.vtlReturn, 0xffff_ffff, 7),
  ),
  version: fc.constantFrom(0, 1, 2, 3, 0xffff),
  code,
  codeHigh: high,
  fields: fc.array(fc.tuple(fc.constantFrom(...FIELDS), word, high, fc.boolean()), { maxLength: 10 }),
  junk: fc.array(fc.tuple(fc.nat(PAGE - 1), fc.nat(255)), { maxLength: 24 }),
  /** The last 24 bytes, where a hypercall has its control word. */
  control: fc.tuple(fc.constantFrom(0x51, 0x5c, 0x5d, 0xdb, 0x99, 0x1_005d, 0x50, 0xffff), word),
});

const exit = fc.oneof(
  { weight: 8, arbitrary: fc.constant<Exit>({ kind: 'vmgexit' }) },
  fc.record({ kind: fc.constant('nested-fault' as const), gpa: word, lo: word, hi: word }),
  fc.constantFrom<Exit>(
    { kind: 'reflected' },
    { kind: 'hlt' },
    { kind: 'entry-failed', code: -2 },
    { kind: 'entry-failed', code: -1 },
  ),
);

const step = fc.record({
  vp: fc.nat(1),
  exit,
  msr: fc.oneof(
    { weight: 6, arbitrary: fc.constantFrom(...GHCB_AT).map((lo) => [lo, 0] as [number, number]) },
    { weight: 2, arbitrary: fc.constantFrom(...GHCB_AT).map((lo) => [lo, 0x4000] as [number, number]) },
    fc.tuple(
      fc
        .tuple(fc.constantFrom(0x002, 0x004, 0x006, 0x010, 0x012, 0x014, 0x016, 0x080, 0x0ff, 0x100), word)
        .map(([request, rest]) => ((rest & ~0xfff) | request) >>> 0),
      word,
    ),
  ),
  page,
  advance: fc.nat(10_000),
});

function fill(bytes: Uint8Array, contents: typeof page extends fc.Arbitrary<infer T> ? T : never): void {
  bytes.fill(0);
  for (const [at, value] of contents.junk) bytes[at] = value;
  ghcb.setHalves(bytes, 'exitCode', contents.code, contents.codeHigh);
  for (const name of ['exitCode', 'exitInfo1', 'exitInfo2'] as const) setValid(bytes, name);
  for (const [name, lo, hi, valid] of contents.fields) {
    if (name === 'cpl') ghcb.set(bytes, 'cpl', lo & 0xff);
    else ghcb.setHalves(bytes, name, lo, hi);
    if (valid) setValid(bytes, name as GhcbField);
  }
  ghcb.set(bytes, 'protocolVersion', contents.version);
  ghcb.set(bytes, 'usage', contents.usage);
  if (contents.usage === GHCB_USAGE.hypercall) {
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    view.setUint32(0xff0, contents.control[0], true);
    view.setUint32(0xff4, contents.control[1], true);
  }
}

/** 100,000 cases: this many sequences of so many steps. */
const RUNS = Number(process.env['VITRINE_HOSTILE_RUNS'] ?? 100);
const STEPS = 100;

test('whatever a guest or a paravisor asks has a defined answer', { timeout: 600_000 }, () => {
  fc.assert(
    fc.property(fc.array(step, { minLength: STEPS, maxLength: STEPS }), (steps) => {
      const memory = new Memory();
      const state = makeHost();
      const { snp } = state;
      if (snp === undefined) return false;
      let now = 0;
      for (const { vp, exit: next, msr, page: contents, advance } of steps) {
        const target = snp.vps[vp];
        const local = state.vps[vp];
        if (target === undefined || local === undefined) return false;
        local.activity = 'running';
        target.vmcb.ghcb = { lo: msr[0], hi: msr[1] };
        if ((msr[0] & 0xfff) === 0) {
          // A page is used mostly after it was registered.
          target.ghcbs[target.vmpl] = msr[0];
          fill(memory.bytes.subarray(msr[0], msr[0] + PAGE), contents);
        }
        const world = { view: memory.view, sink: { mask: 0xffff_ffff, emit: () => undefined }, now };
        const { completion, actions } = hostExit(state, vp, next, world);
        expect(completion.kind).toBe('done');
        for (const { kind } of actions)
          expect([
            'terminate',
            'end',
            'crash',
            'serial',
            'init',
            'startup',
            'start-context',
            'flush-tlb',
          ]).toContain(kind);
        // What runs next is at a level that there is, and its VMSA is inside of memory.
        expect(target.vmpl).toBeGreaterThanOrEqual(0);
        expect(target.vmpl).toBeLessThan(VMPLS);
        expect(target.vmcb.vmsa).toBeGreaterThanOrEqual(0);
        expect(target.vmcb.vmsa).toBeLessThan(TOP);
        // Memory that is the guest's is never what the host reads and writes for it.
        for (const address of target.ghcbs) if (address >= 0) expect(address).toBeLessThan(TOP);
        now += advance;
        hostAdvance(state, { ...world, now });
        hostTurn(state, now);
      }
      return true;
    }),
    { numRuns: RUNS, seed: 1 },
  );
});
