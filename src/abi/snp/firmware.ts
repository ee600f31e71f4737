/** Numbers of the SEV-SNP firmware ABI (AMD document 56860, revision 1.55). */

/** Status codes: those that the commands of a launch and a guest request can end with. */
export const STATUS = {
  success: 0,
  invalidPlatformState: 0x01,
  invalidGuestState: 0x02,
  invalidConfig: 0x03,
  invalidLength: 0x04,
  policyFailure: 0x07,
  inactive: 0x08,
  invalidAddress: 0x09,
  badSignature: 0x0a,
  badMeasurement: 0x0b,
  invalidAsid: 0x0d,
  invalidGuest: 0x10,
  invalidParam: 0x16,
  invalidPageSize: 0x19,
  invalidPageState: 0x1a,
  invalidPageOwner: 0x1c,
  aeadOverflow: 0x1d,
  invalidKey: 0x27,
} as const;

/** PAGE_TYPE of SNP_LAUNCH_UPDATE. */
export const PAGE_TYPE = {
  normal: 1,
  vmsa: 2,
  zero: 3,
  unmeasured: 4,
  secrets: 5,
  cpuid: 6,
} as const;

/** Guest policy (4.3): bit numbers of flags. Bits 0-7 are the least ABI minor version, 8-15 the major one. */
export const POLICY = {
  smt: 1n << 16n,
  /** Must be one. */
  reserved: 1n << 17n,
  migrationAgent: 1n << 18n,
  debug: 1n << 19n,
  singleSocket: 1n << 20n,
  /** Must be zero. */
  mustBeZero: ~0n << 21n,
} as const;

/** TCB_VERSION (2.2): security versions of the parts, each a byte. */
export interface TcbVersion {
  readonly bootLoader: number;
  readonly tee: number;
  readonly snp: number;
  readonly microcode: number;
}

export function tcbVersion(value: bigint): TcbVersion {
  const byte = (at: bigint): number => Number((value >> (8n * at)) & 0xffn);
  return { bootLoader: byte(0n), tee: byte(1n), snp: byte(6n), microcode: byte(7n) };
}

export function tcbValue({ bootLoader, tee, snp, microcode }: TcbVersion): bigint {
  return BigInt(bootLoader) | (BigInt(tee) << 8n) | (BigInt(snp) << 48n) | (BigInt(microcode) << 56n);
}

/** The bits that TCB_VERSION does not use. */
export const TCB_RESERVED = 0x0000_ffff_ffff_0000n;
