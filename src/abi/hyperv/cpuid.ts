/** Hypervisor CPUID leaves 0x40000000.. (Hyper-V TLFS chapter 2; bits that Linux 6.12 names are spelled as there). */

export const LEAF = {
  vendor: 0x4000_0000,
  interface: 0x4000_0001,
  version: 0x4000_0002,
  features: 0x4000_0003,
  recommendations: 0x4000_0004,
  limits: 0x4000_0005,
  hardwareFeatures: 0x4000_0006,
  cpuManagement: 0x4000_0007,
  sharedVirtualMemory: 0x4000_0008,
  nestedHypervisor: 0x4000_0009,
  nestedFeatures: 0x4000_000a,
  isolation: 0x4000_000c,
  stackVendor: 0x4000_0080,
  stackInterface: 0x4000_0081,
  stackProperties: 0x4000_0082,
} as const;

/** "Micr" "osof" "t Hv". */
export const VENDOR_EBX = 0x7263_694d;
export const VENDOR_ECX = 0x666f_736f;
export const VENDOR_EDX = 0x7648_2074;
/** "Hv#1". */
export const INTERFACE_SIGNATURE = 0x3123_7648;
/** "VS#1". */
export const STACK_INTERFACE_SIGNATURE = 0x3123_5356;

/** Leaf 3 EAX: privileges of the partition, low half. */
export const PRIVILEGE = {
  vpRuntime: 1 << 0,
  timeRefCount: 1 << 1,
  synic: 1 << 2,
  syntheticTimers: 1 << 3,
  apicMsrs: 1 << 4,
  hypercallMsrs: 1 << 5,
  vpIndex: 1 << 6,
  reset: 1 << 7,
  statsPages: 1 << 8,
  referenceTsc: 1 << 9,
  guestIdle: 1 << 10,
  frequencyMsrs: 1 << 11,
  debugMsrs: 1 << 12,
  reenlightenment: 1 << 13,
  rootScheduler: 1 << 14,
  tscInvariant: 1 << 15,
} as const;

/** Leaf 3 EBX: privileges of the partition, high half. */
export const PRIVILEGE_HIGH = {
  createPartitions: 1 << 0,
  accessPartitionId: 1 << 1,
  postMessages: 1 << 4,
  signalEvents: 1 << 5,
  debugging: 1 << 11,
  cpuManagement: 1 << 12,
  extendedGvaRanges: 1 << 15,
  accessVsm: 1 << 16,
  accessVpRegisters: 1 << 17,
  fastHypercallOutput: 1 << 19,
  extendedHypercalls: 1 << 20,
  startVirtualProcessor: 1 << 21,
  isolation: 1 << 22,
} as const;

/** Leaf 3 EDX: what is there beside the privileges. */
export const FEATURE = {
  mwait: 1 << 0,
  guestDebugging: 1 << 1,
  performanceMonitor: 1 << 2,
  dynamicPartitioning: 1 << 3,
  xmmFastInput: 1 << 4,
  guestIdle: 1 << 5,
  frequencyMsrs: 1 << 8,
  guestCrashMsrs: 1 << 10,
  debugMsrs: 1 << 11,
  extendedGvaRangesFlush: 1 << 14,
  xmmFastOutput: 1 << 15,
  sintPolling: 1 << 17,
  hypercallMsrLock: 1 << 18,
  directSyntheticTimers: 1 << 19,
} as const;

/** Leaf 4 EAX: what a guest should do. */
export const HINT = {
  addressSpaceSwitch: 1 << 0,
  localFlush: 1 << 1,
  remoteFlush: 1 << 2,
  apicMsrs: 1 << 3,
  resetMsr: 1 << 4,
  relaxedTiming: 1 << 5,
  x2apicMsrs: 1 << 8,
  autoEoiDeprecated: 1 << 9,
  clusterIpi: 1 << 10,
  exProcessorMasks: 1 << 11,
  nested: 1 << 12,
  enlightenedVmcs: 1 << 14,
  noNonarchCoreSharing: 1 << 18,
  useX2apic: 1 << 19,
  mmioHypercalls: 1 << 21,
} as const;

/** Leaf 6 EAX: hardware that the hypervisor itself uses. */
export const HARDWARE = {
  apicOverlayAssist: 1 << 0,
  msrBitmaps: 1 << 1,
  performanceCounters: 1 << 2,
  secondLevelTranslation: 1 << 3,
} as const;
