/** TDH.MNG.RD/WR and TDH.VP.RD/WR: what the host may know of a TD and of its virtual processors. */
import { parseFieldId } from '../../abi/tdx/metadata.ts';
import { TD_ATTRIBUTE } from '../../abi/tdx/td-params.ts';
import { OPERAND, status, STATUS } from '../../abi/tdx/status.ts';
import { TD_FIELDS } from './fields.ts';
import { checkTd, type HostLeaf } from './seamcall.ts';
import { deliverable } from './vapic.ts';

const OK = status(STATUS.success);

/** Fields of TDVPS that the host has, beside those of a debuggable TD (ABI, TDVPS tables): class 32. */
export const HOST_VCPU_FIELD = {
  /** PEND_NMI: class 32, code 11. */
  pendNmi: 0x2020_0000_0000_000bn,
  /** VCPU_STATE_DETAILS: class 32, code 0x100; bit 0: an interrupt can be delivered. */
  stateDetails: 0xa020_0003_0000_0100n,
} as const;

export function mngRd(leaf: HostLeaf): bigint {
  const error = checkTd(leaf.module, leaf.rcx, OPERAND.rcx, 'any');
  if (error !== undefined) return error;
  const id = parseFieldId(leaf.rdx);
  leaf.r8 = 0n;
  const row = TD_FIELDS.find(
    (field) =>
      id !== undefined &&
      field.class === id.class &&
      id.code >= field.code &&
      id.code < field.code + field.count,
  );
  if (id === undefined || row === undefined) return status(STATUS.metadataFieldIdIncorrect, OPERAND.rdx);
  leaf.r8 = row.read({ module: leaf.module, vcpu: leaf.module.vcpus[0] as never }, id.code - row.code);
  return OK;
}

/** Nothing of a TD that runs is the host's to change. */
export function mngWr(leaf: HostLeaf): bigint {
  const error = checkTd(leaf.module, leaf.rcx, OPERAND.rcx, 'any');
  if (error !== undefined) return error;
  leaf.r8 = 0n;
  return parseFieldId(leaf.rdx) === undefined
    ? status(STATUS.metadataFieldIdIncorrect, OPERAND.rdx)
    : status(STATUS.metadataFieldNotWritable, OPERAND.rdx);
}

const sameField = (id: bigint, other: bigint): boolean => {
  const a = parseFieldId(id);
  const b = parseFieldId(other);
  return a !== undefined && b !== undefined && a.class === b.class && a.code === b.code;
};

function vcpuOf({ module, rcx }: HostLeaf): HostLeaf['module']['vcpus'][number] | undefined {
  return module.vcpus.find(({ state, tdvpr }) => state !== 'absent' && BigInt(tdvpr) === rcx);
}

export function vpRd(leaf: HostLeaf): bigint {
  const vcpu = vcpuOf(leaf);
  leaf.r8 = 0n;
  if (vcpu === undefined) return status(STATUS.pageMetadataIncorrect, OPERAND.rcx);
  if (vcpu.state === 'created') return status(STATUS.vcpuStateIncorrect, OPERAND.rcx);
  if (sameField(leaf.rdx, HOST_VCPU_FIELD.pendNmi)) leaf.r8 = vcpu.pendingNmi ? 1n : 0n;
  else if (sameField(leaf.rdx, HOST_VCPU_FIELD.stateDetails)) leaf.r8 = deliverable(vcpu) >= 0 ? 1n : 0n;
  else
    return (leaf.module.td.attributes & TD_ATTRIBUTE.debug) === 0n && parseFieldId(leaf.rdx) !== undefined
      ? status(STATUS.metadataFieldNotReadable, OPERAND.rdx)
      : status(STATUS.metadataFieldIdIncorrect, OPERAND.rdx);
  return OK;
}

export function vpWr(leaf: HostLeaf): bigint {
  const vcpu = vcpuOf(leaf);
  const value = leaf.r8;
  leaf.r8 = 0n;
  if (vcpu === undefined) return status(STATUS.pageMetadataIncorrect, OPERAND.rcx);
  if (vcpu.state === 'created') return status(STATUS.vcpuStateIncorrect, OPERAND.rcx);
  if (!sameField(leaf.rdx, HOST_VCPU_FIELD.pendNmi)) {
    return parseFieldId(leaf.rdx) === undefined
      ? status(STATUS.metadataFieldIdIncorrect, OPERAND.rdx)
      : status(STATUS.metadataFieldNotWritable, OPERAND.rdx);
  }
  if ((leaf.r9 & 1n) === 0n) return status(STATUS.metadataWriteMaskNotValid, OPERAND.r9);
  leaf.r8 = vcpu.pendingNmi ? 1n : 0n;
  vcpu.pendingNmi = (value & 1n) !== 0n;
  return OK;
}
