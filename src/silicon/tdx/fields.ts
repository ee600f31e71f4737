/** Metadata fields as TDG.VM/VP/SYS.RD and WR reach them: one table (TDX Module 1.5 ABI, "TD and VCPU metadata"). */
import { FIELD_CLASS, fieldId } from '../../abi/tdx/metadata.ts';
import { CONFIG_FLAG, TD_CTL } from '../../abi/tdx/td-params.ts';
import type { TdxModule } from './module.ts';
import type { VcpuState } from './state.ts';

export interface FieldSubject {
  readonly module: TdxModule;
  readonly vcpu: VcpuState;
}

export interface FieldRow {
  readonly name: string;
  readonly class: number;
  readonly code: number;
  /** Field codes from `code` on, for arrays of 64-bit elements. */
  readonly count: number;
  readonly id: bigint;
  readonly read: (subject: FieldSubject, index: number) => bigint;
  /** Bits that may be written now; absent: none ever. */
  readonly writable?: (subject: FieldSubject, index: number) => bigint;
  readonly write?: (subject: FieldSubject, value: bigint, index: number) => void;
}

type Extra = Pick<FieldRow, 'writable' | 'write'>;

function field(name: string, id: bigint, count: number, read: FieldRow['read'], extra: Extra = {}): FieldRow {
  return {
    name,
    class: Number((id >> 56n) & 0x3fn),
    code: Number(id & 0xff_ffffn),
    count,
    id,
    read,
    ...extra,
  };
}

const quad = (bytes: Uint8Array, index: number): bigint =>
  new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(index * 8, true);

/** Fields of the TD, as TDG.VM.RD shows them. */
export const TD_FIELDS: readonly FieldRow[] = [
  field('NUM_VCPUS', 0x9010_0002_0000_0001n, 1, ({ module }) => BigInt(module.td.numVcpus)),
  field('NUM_L2_VMS', 0x9010_0001_0000_0005n, 1, ({ module }) => BigInt(module.td.numL2Vms)),
  field('ATTRIBUTES', 0x1110_0003_0000_0000n, 1, ({ module }) => module.td.attributes),
  field('XFAM', 0x1110_0003_0000_0001n, 1, ({ module }) => module.td.xfam),
  field('MAX_VCPUS', 0x1110_0002_0000_0002n, 1, ({ module }) => BigInt(module.td.maxVcpus)),
  field('GPAW', 0x1110_0000_0000_0003n, 1, ({ module }) => (module.td.gpaw === 52 ? 1n : 0n)),
  field('TSC_FREQUENCY', 0x1110_0001_0000_000cn, 1, ({ module }) => BigInt(module.td.tscFrequency)),
  field('NOTIFY_ENABLES', 0x9110_0003_0000_0010n, 1, ({ module }) => module.td.notifyEnables, {
    writable: () => 1n,
    write: ({ module }, value) => void (module.td.notifyEnables = value),
  }),
  field('CONFIG_FLAGS', 0x1110_0003_0000_0016n, 1, ({ module }) => module.td.configFlags),
  field('TD_CTLS', 0x1110_0003_0000_0017n, 1, ({ module }) => module.td.tdCtls, {
    // Only where the host has left it to the guest.
    writable: ({ module }) =>
      (module.td.configFlags & CONFIG_FLAG.flexiblePendingVe) !== 0n ? TD_CTL.pendingVeDisable : 0n,
    write: ({ module }, value) => void (module.td.tdCtls = value),
  }),
  field('MRTD', 0x1310_0003_0000_0000n, 6, ({ module }, index) => quad(module.td.mrtd, index)),
  field('MRCONFIGID', 0x1310_0003_0000_0010n, 6, ({ module }, index) => quad(module.td.mrConfigId, index)),
  field('MROWNER', 0x1310_0003_0000_0018n, 6, ({ module }, index) => quad(module.td.mrOwner, index)),
  field('MROWNERCONFIG', 0x1310_0003_0000_0020n, 6, ({ module }, index) =>
    quad(module.td.mrOwnerConfig, index),
  ),
  field('RTMR', 0x1310_0003_0000_0040n, 24, ({ module }, index) =>
    quad(module.td.rtmr[Math.floor(index / 6)] as Uint8Array, index % 6),
  ),
  field('SERVTD_HASH', 0x9910_0003_0000_0000n, 6, () => 0n),
];

/** Fields of a virtual processor, as TDG.VP.RD shows them; those of L2 VMs are in l2-fields.ts. */
export const VCPU_FIELDS: readonly FieldRow[] = [
  field('VCPU_INDEX', 0xa020_0002_0000_0002n, 1, ({ vcpu }) => BigInt(vcpu.index)),
  field('CPUID_SUPERVISOR_VE', 0xa020_0000_0000_0007n, 1, ({ vcpu }) => (vcpu.cpuidSupervisorVe ? 1n : 0n), {
    writable: () => 1n,
    write: ({ vcpu }, value) => void (vcpu.cpuidSupervisorVe = value !== 0n),
  }),
  field('CPUID_USER_VE', 0xa020_0000_0000_0008n, 1, ({ vcpu }) => (vcpu.cpuidUserVe ? 1n : 0n), {
    writable: () => 1n,
    write: ({ vcpu }, value) => void (vcpu.cpuidUserVe = value !== 0n),
  }),
];

const FEATURES = {
  vpRdWr: 3n,
  tdPartitioning: 7n,
  localAttestation: 8n,
  entryEnhancements: 9n,
  noRbpMod: 18n,
} as const;

/** Fields of the platform, as TDG.SYS.RD shows them. */
export const SYS_FIELDS: readonly FieldRow[] = [
  field('TDX_FEATURES0', fieldId(FIELD_CLASS.tdxFeatures, 8, 3, 0), 1, () =>
    Object.values(FEATURES).reduce((bits, bit) => bits | (1n << bit), 0n),
  ),
];

/** Name of the module that these tables are of, and its version (SYS_INFO). */
export const MODULE_VERSION = '1.5.01';
