/** Hypercall inputs and outputs, fixed parts; what follows (banks, rep elements) is named in the comment. */

import { record } from '../record.ts';

/** All ones: the calling partition. */
export const PARTITION_SELF = 0xffff_ffff_ffff_ffffn;
export const VP_SELF = 0xffff_fffe;

/** HvCallFlushVirtualAddressSpace; HvCallFlushVirtualAddressList adds rep elements u64 gva[]. */
export const flushInput = record('HvFlushVirtualAddressInput', 'TLFS, HvCallFlushVirtualAddressSpace', 24, [
  { name: 'addressSpace', offset: 0, width: 8 },
  { name: 'flags', offset: 8, width: 8 },
  { name: 'processorMask', offset: 16, width: 8 },
]);

export const FLUSH = {
  allProcessors: 1 << 0,
  allVirtualAddressSpaces: 1 << 1,
  nonGlobalMappingsOnly: 1 << 2,
  useExtendedRangeFormat: 1 << 3,
} as const;

/** The Ex forms: banks u64[] follow as variable header, then (list) u64 gva[]. */
export const flushExInput = record(
  'HvFlushVirtualAddressExInput',
  'TLFS, HvCallFlushVirtualAddressSpaceEx',
  32,
  [
    { name: 'addressSpace', offset: 0, width: 8 },
    { name: 'flags', offset: 8, width: 8 },
    { name: 'setFormat', offset: 16, width: 8 },
    { name: 'validBankMask', offset: 24, width: 8 },
  ],
);

export const VP_SET_SPARSE = 0;
export const VP_SET_ALL = 1;

export const sendIpiInput = record('HvSendSyntheticClusterIpi', 'TLFS, HvCallSendSyntheticClusterIpi', 16, [
  { name: 'vector', offset: 0, width: 4 },
  { name: 'targetVtl', offset: 4, width: 4 },
  { name: 'processorMask', offset: 8, width: 8 },
]);

/** Banks u64[] follow as variable header. */
export const sendIpiExInput = record(
  'HvSendSyntheticClusterIpiEx',
  'TLFS, HvCallSendSyntheticClusterIpiEx',
  24,
  [
    { name: 'vector', offset: 0, width: 4 },
    { name: 'targetVtl', offset: 4, width: 4 },
    { name: 'setFormat', offset: 8, width: 8 },
    { name: 'validBankMask', offset: 16, width: 8 },
  ],
);

export const postMessageInput = record('HvPostMessage', 'TLFS, HvCallPostMessage', 256, [
  { name: 'connectionId', offset: 0, width: 4 },
  { name: 'reserved', offset: 4, width: 4 },
  { name: 'messageType', offset: 8, width: 4 },
  { name: 'payloadSize', offset: 12, width: 4 },
  { name: 'payload', offset: 16, width: 240, bytes: true },
]);

export const signalEventInput = record('HvSignalEvent', 'TLFS, HvCallSignalEvent', 8, [
  { name: 'connectionId', offset: 0, width: 4 },
  { name: 'flagNumber', offset: 4, width: 2 },
  { name: 'reserved', offset: 6, width: 2 },
]);

/** Rep elements: u32 name; output elements: 16 byte values. */
export const getVpRegistersInput = record('HvGetVpRegisters', 'TLFS, HvCallGetVpRegisters', 16, [
  { name: 'partitionId', offset: 0, width: 8 },
  { name: 'vpIndex', offset: 8, width: 4 },
  { name: 'vtl', offset: 12, width: 1 },
]);

export const setVpRegistersElement = record('HvRegisterAssociation', 'TLFS, HvCallSetVpRegisters', 32, [
  { name: 'name', offset: 0, width: 4 },
  { name: 'value', offset: 16, width: 16, bytes: true },
]);

export const startVpInput = record('HvStartVirtualProcessor', 'TLFS, HvCallStartVirtualProcessor', 240, [
  { name: 'partitionId', offset: 0, width: 8 },
  { name: 'vpIndex', offset: 8, width: 4 },
  { name: 'targetVtl', offset: 12, width: 1 },
  { name: 'context', offset: 16, width: 224, bytes: true },
]);

/** HV_INITIAL_VP_CONTEXT: the state that a started VP begins with. */
export const initialContext = record('HvInitialVpContext', 'TLFS, HV_INITIAL_VP_CONTEXT', 224, [
  { name: 'rip', offset: 0, width: 8 },
  { name: 'rsp', offset: 8, width: 8 },
  { name: 'rflags', offset: 16, width: 8 },
  { name: 'cs', offset: 24, width: 16, bytes: true },
  { name: 'ds', offset: 40, width: 16, bytes: true },
  { name: 'es', offset: 56, width: 16, bytes: true },
  { name: 'fs', offset: 72, width: 16, bytes: true },
  { name: 'gs', offset: 88, width: 16, bytes: true },
  { name: 'ss', offset: 104, width: 16, bytes: true },
  { name: 'tr', offset: 120, width: 16, bytes: true },
  { name: 'ldtr', offset: 136, width: 16, bytes: true },
  { name: 'idtr', offset: 152, width: 16, bytes: true },
  { name: 'gdtr', offset: 168, width: 16, bytes: true },
  { name: 'efer', offset: 184, width: 8 },
  { name: 'cr0', offset: 192, width: 8 },
  { name: 'cr3', offset: 200, width: 8 },
  { name: 'cr4', offset: 208, width: 8 },
  { name: 'pat', offset: 216, width: 8 },
]);

/** Rep elements: u32 APIC id; output elements: u32 VP index. */
export const vpIndexFromApicIdInput = record(
  'HvGetVpIndexFromApicId',
  'TLFS, HvCallGetVpIndexFromApicId',
  16,
  [
    { name: 'partitionId', offset: 0, width: 8 },
    { name: 'targetVtl', offset: 8, width: 1 },
  ],
);

/** Rep elements: u64 guest page number, at most 510. */
export const hostVisibilityInput = record(
  'HvModifySparseGpaPageHostVisibility',
  'TLFS, HvCallModifySparseGpaPageHostVisibility',
  16,
  [
    { name: 'partitionId', offset: 0, width: 8 },
    { name: 'visibility', offset: 8, width: 4 },
    { name: 'reserved', offset: 12, width: 4 },
  ],
);

/** Shared prefix of HvCallMmioRead and HvCallMmioWrite; a write has its data at +16. */
export const mmioInput = record('HvMmio', 'Linux 6.12 pci-hyperv.c, hv_mmio_read_input', 16, [
  { name: 'gpa', offset: 0, width: 8 },
  { name: 'size', offset: 8, width: 4 },
  { name: 'reserved', offset: 12, width: 4 },
]);
