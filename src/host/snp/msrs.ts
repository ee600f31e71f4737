/**
 * MSRs that a processor keeps by itself and an SNP guest asks its host for: an intercepted MSR has no other home. One table;
 * what is not in it, and not Hyper-V's or the APIC's, is #GP.
 */
import type { Halves } from '../../seats/snp.ts';
import type { SnpVp } from './state.ts';

type Rule =
  /** Writes are ignored. */
  | 'ignored'
  /** Writes fault. */
  | 'fixed'
  /** Holds what was written. */
  | 'kept';
interface Row {
  readonly first: number;
  readonly last?: number;
  readonly rule: Rule;
  readonly lo: number;
  readonly hi?: number;
}

const WRITE_BACK = 0x0606_0606;
const ROWS: readonly Row[] = [
  // Platform id; microcode revision (written to load an update).
  { first: 0x17, rule: 'fixed', lo: 0 },
  { first: 0x8b, rule: 'ignored', lo: 0 },
  // MTRRs: 8 variable ones, fixed ones, write-combining; all memory write-back but the VGA window.
  { first: 0xfe, rule: 'fixed', lo: 0x508 },
  { first: 0x200, last: 0x20f, rule: 'kept', lo: 0 },
  { first: 0x250, rule: 'kept', lo: WRITE_BACK, hi: WRITE_BACK },
  { first: 0x258, rule: 'kept', lo: WRITE_BACK, hi: WRITE_BACK },
  { first: 0x259, rule: 'kept', lo: 0, hi: 0 },
  { first: 0x268, last: 0x26f, rule: 'kept', lo: WRITE_BACK, hi: WRITE_BACK },
  { first: 0x2ff, rule: 'kept', lo: 0xc06 },
  // Machine check: two banks.
  { first: 0x179, rule: 'fixed', lo: 0x102 },
  { first: 0x17a, last: 0x17b, rule: 'kept', lo: 0 },
  { first: 0x400, last: 0x407, rule: 'kept', lo: 0 },
  // SYSCFG: memory encryption and SNP are on. HWCR: SMM is locked, the TSC counts at P0.
  { first: 0xc001_0010, rule: 'ignored', lo: 0x0380_0000 },
  { first: 0xc001_0015, rule: 'kept', lo: 0x0100_0001 },
  // Performance events that count nothing, northbridge and load-store configuration.
  { first: 0xc001_0000, last: 0xc001_0007, rule: 'kept', lo: 0 },
  { first: 0xc001_001f, rule: 'kept', lo: 0 },
  { first: 0xc001_1020, rule: 'kept', lo: 0 },
  { first: 0xc001_1022, last: 0xc001_1023, rule: 'kept', lo: 0 },
  { first: 0xc001_1029, last: 0xc001_102a, rule: 'kept', lo: 0 },
];

const rowOf = (index: number): Row | undefined =>
  ROWS.find(({ first, last }) => index >= first && index <= (last ?? first));

/** `undefined`: it is no such MSR. */
export function readProcessorMsr(vp: SnpVp, index: number): Halves | undefined {
  const row = rowOf(index);
  if (row === undefined) return undefined;
  return vp.msrs[index] ?? { lo: row.lo >>> 0, hi: (row.hi ?? 0) >>> 0 };
}

/** `undefined`: it is no such MSR; false: the write faults. */
export function writeProcessorMsr(vp: SnpVp, index: number, value: Halves): boolean | undefined {
  const row = rowOf(index);
  if (row === undefined) return undefined;
  if (row.rule === 'kept') vp.msrs[index] = { ...value };
  return row.rule !== 'fixed';
}
