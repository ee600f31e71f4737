/**
 * MSRs inside a TD (TDX Module 1.5 ABI, "MSR Virtualization"): one table. `native`: the processor's own; `module`: the module
 * answers or checks; `ve`: #VE; `gp`: #GP(0). What is in no row is #VE in the architectural ranges and outside of them.
 */

export type MsrRule = 'native' | 'module' | 've' | 'gp';

export interface MsrRow {
  readonly first: number;
  readonly last: number;
  readonly read: MsrRule;
  readonly write: MsrRule;
}

const row = (first: number, last: number, read: MsrRule, write: MsrRule): MsrRow => ({
  first,
  last,
  read,
  write,
});
const one = (index: number, read: MsrRule, write: MsrRule): MsrRow => row(index, index, read, write);

export const MSR = {
  tsc: 0x10,
  specCtrl: 0x48,
  predCmd: 0x49,
  xapicDisableStatus: 0xbd,
  archCapabilities: 0x10a,
  flushCmd: 0x10b,
  miscEnable: 0x1a0,
  debugCtl: 0x1d9,
  dsArea: 0x600,
  tscDeadline: 0x6e0,
  tpr: 0x808,
  ppr: 0x80a,
  eoi: 0x80b,
  isr: 0x810,
  tmr: 0x818,
  irr: 0x820,
  selfIpi: 0x83f,
  xss: 0xda0,
  uarchMiscCtl: 0x1b01,
  efer: 0xc000_0080,
} as const;

/** Without PERFMON, PKS, CET, PT, LBR, UINTR, XFD: their registers do not exist. */
export const MSR_ROWS: readonly MsrRow[] = [
  one(MSR.tsc, 'native', 've'),
  row(MSR.specCtrl, MSR.predCmd, 'module', 'module'),
  row(0x8c, 0x8f, 'gp', 'gp'),
  one(0x9b, 'gp', 'gp'),
  one(0x9e, 'gp', 'gp'),
  one(0xbc, 'module', 've'),
  one(MSR.xapicDisableStatus, 'module', 'gp'),
  row(0xc1, 0xc8, 'gp', 'gp'),
  one(0xe1, 'gp', 'gp'),
  one(MSR.archCapabilities, 'module', 'gp'),
  one(MSR.flushCmd, 'module', 'module'),
  one(0x122, 'gp', 'gp'),
  row(0x174, 0x176, 'native', 'native'),
  row(0x186, 0x18d, 'gp', 'gp'),
  one(0x195, 'gp', 'gp'),
  one(MSR.miscEnable, 'native', 've'),
  row(0x1a6, 0x1a7, 'gp', 'gp'),
  row(0x1c4, 0x1c5, 'gp', 'gp'),
  one(MSR.debugCtl, 'module', 'module'),
  one(0x276, 'gp', 'gp'),
  one(0x277, 'native', 'native'),
  row(0x309, 0x30c, 'gp', 'gp'),
  one(0x329, 'gp', 'gp'),
  one(0x345, 'module', 'gp'),
  row(0x38d, 0x392, 'gp', 'gp'),
  row(0x3f1, 0x3f2, 'gp', 'gp'),
  one(0x480, 'module', 'gp'),
  row(0x485, 0x489, 'module', 'gp'),
  row(0x48b, 0x492, 'module', 'gp'),
  row(0x4c1, 0x4c8, 'gp', 'gp'),
  one(0x500, 'gp', 'gp'),
  row(0x560, 0x561, 'gp', 'gp'),
  row(0x570, 0x572, 'gp', 'gp'),
  row(0x580, 0x587, 'gp', 'gp'),
  one(MSR.dsArea, 'module', 'module'),
  row(0x6a0, 0x6a8, 'gp', 'gp'),
  one(MSR.tscDeadline, 've', 've'),
  one(0x6e1, 'gp', 'gp'),
  row(0x800, 0x801, 'gp', 'gp'),
  row(0x804, 0x807, 'gp', 'gp'),
  one(MSR.tpr, 'module', 'module'),
  one(0x809, 'module', 'gp'),
  one(MSR.ppr, 'module', 'gp'),
  one(MSR.eoi, 'gp', 'module'),
  one(0x80c, 'module', 'gp'),
  one(0x80e, 'module', 'gp'),
  row(MSR.isr, 0x827, 'module', 'gp'),
  row(0x829, 0x82e, 'gp', 'gp'),
  one(0x831, 'gp', 'gp'),
  one(MSR.selfIpi, 'gp', 'module'),
  row(0x840, 0x8ff, 'gp', 'gp'),
  one(0x981, 'gp', 'gp'),
  row(0x985, 0x98a, 'gp', 'gp'),
  one(0xc80, 'module', 've'),
  one(0xd90, 'gp', 'gp'),
  one(0xd93, 'gp', 'gp'),
  one(MSR.xss, 'native', 'module'),
  row(0x1200, 0x12ff, 'gp', 'gp'),
  one(0x14ce, 'gp', 'gp'),
  one(MSR.uarchMiscCtl, 'module', 'module'),
  one(MSR.efer, 'native', 'module'),
  row(0xc000_0081, 0xc000_0082, 'native', 'native'),
  one(0xc000_0084, 'native', 'native'),
  row(0xc000_0100, 0xc000_0103, 'native', 'native'),
];

const VE: MsrRow = row(0, 0xffff_ffff, 've', 've');

export function msrRow(index: number): MsrRow {
  return MSR_ROWS.find(({ first, last }) => index >= first && index <= last) ?? VE;
}

/** The permission map that keeps native registers inside the processor (layout of CPU.msrMap). */
export function nativeMsrMap(): Uint8Array {
  const map = new Uint8Array(0x2000).fill(0xff);
  const clear = (index: number, write: number): void => {
    const base = index < 0x2000 ? 0 : index >>> 13 === 0xc000_0000 >>> 13 ? 0x800 : -1;
    if (base < 0) return;
    const bit = (index & 0x1fff) * 2 + write;
    map[base + (bit >>> 3)] = (map[base + (bit >>> 3)] as number) & ~(1 << (bit & 7));
  };
  for (const { first, last, read, write } of MSR_ROWS) {
    for (let index = first; index <= last; index++) {
      if (read === 'native') clear(index, 0);
      if (write === 'native') clear(index, 1);
    }
  }
  return map;
}

/** Whether the processor itself keeps a register, so that a context may have it without leaving. */
export function nativeInProcessor(index: number, write: boolean): boolean {
  const row = msrRow(index);
  return (write ? row.write : row.read) === 'native';
}

/**
 * IA32_ARCH_CAPABILITIES of the part: RDCL_NO, IBRS_ALL, SKIP_L1DFL_VMENTRY, MDS_NO, IF_PSCHANGE_MC_NO, TAA_NO,
 * MISC_PACKAGE_CTLS clear, XAPIC_DISABLE (21: xAPIC cannot come back), SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, PBRSB_NO.
 */
export const ARCH_CAPABILITIES =
  (1n << 0n) |
  (1n << 1n) |
  (1n << 3n) |
  (1n << 5n) |
  (1n << 6n) |
  (1n << 8n) |
  (1n << 13n) |
  (1n << 14n) |
  (1n << 15n) |
  (1n << 21n) |
  (1n << 24n);

/** IBRS, STIBP, SSBD, IPRED_DIS_U/S, RRSBA_DIS_U/S, PSFD, BHI_DIS_S. */
export const SPEC_CTRL_WRITABLE = 0x7n | (0x1fn << 3n) | (1n << 10n);
