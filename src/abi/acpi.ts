/** Fixed ACPI tables. ACPI Specification 6.5; the Microsoft tables SPCR and WAET by their own specifications. */
import { record } from './record.ts';

const SPEC = 'ACPI Specification 6.5';

export const RSDP = record('RSDP', `${SPEC}, 5.2.5.3`, 36, [
  { name: 'signature', offset: 0, width: 8, bytes: true },
  { name: 'checksum', offset: 8, width: 1 },
  { name: 'oemId', offset: 9, width: 6, bytes: true },
  { name: 'revision', offset: 15, width: 1 },
  { name: 'rsdtAddress', offset: 16, width: 4 },
  { name: 'length', offset: 20, width: 4 },
  { name: 'xsdtAddress', offset: 24, width: 8 },
  { name: 'extendedChecksum', offset: 32, width: 1 },
]);
/** The part that `checksum` covers. */
export const RSDP_FIRST_LENGTH = 20;

export const TABLE_HEADER = record('System Description Table Header', `${SPEC}, 5.2.6`, 36, [
  { name: 'signature', offset: 0, width: 4, bytes: true },
  { name: 'length', offset: 4, width: 4 },
  { name: 'revision', offset: 8, width: 1 },
  { name: 'checksum', offset: 9, width: 1 },
  { name: 'oemId', offset: 10, width: 6, bytes: true },
  { name: 'oemTableId', offset: 16, width: 8, bytes: true },
  { name: 'oemRevision', offset: 24, width: 4 },
  { name: 'creatorId', offset: 28, width: 4, bytes: true },
  { name: 'creatorRevision', offset: 32, width: 4 },
]);

export const GENERIC_ADDRESS = record('Generic Address Structure', `${SPEC}, 5.2.3.2`, 12, [
  { name: 'space', offset: 0, width: 1 },
  { name: 'bitWidth', offset: 1, width: 1 },
  { name: 'bitOffset', offset: 2, width: 1 },
  { name: 'accessSize', offset: 3, width: 1 },
  { name: 'address', offset: 4, width: 8 },
]);
export const ADDRESS_SPACE_IO = 1;

export const FADT = record('FADT', `${SPEC}, 5.2.9`, 276, [
  { name: 'firmwareCtrl', offset: 36, width: 4 },
  { name: 'dsdt', offset: 40, width: 4 },
  { name: 'preferredPmProfile', offset: 45, width: 1 },
  { name: 'sciInt', offset: 46, width: 2 },
  { name: 'smiCmd', offset: 48, width: 4 },
  { name: 'acpiEnable', offset: 52, width: 1 },
  { name: 'acpiDisable', offset: 53, width: 1 },
  { name: 'pm1aEvtBlk', offset: 56, width: 4 },
  { name: 'pm1bEvtBlk', offset: 60, width: 4 },
  { name: 'pm1aCntBlk', offset: 64, width: 4 },
  { name: 'pm1bCntBlk', offset: 68, width: 4 },
  { name: 'pm2CntBlk', offset: 72, width: 4 },
  { name: 'pmTmrBlk', offset: 76, width: 4 },
  { name: 'gpe0Blk', offset: 80, width: 4 },
  { name: 'gpe1Blk', offset: 84, width: 4 },
  { name: 'pm1EvtLen', offset: 88, width: 1 },
  { name: 'pm1CntLen', offset: 89, width: 1 },
  { name: 'pm2CntLen', offset: 90, width: 1 },
  { name: 'pmTmrLen', offset: 91, width: 1 },
  { name: 'gpe0BlkLen', offset: 92, width: 1 },
  { name: 'gpe1BlkLen', offset: 93, width: 1 },
  { name: 'gpe1Base', offset: 94, width: 1 },
  { name: 'pLvl2Lat', offset: 96, width: 2 },
  { name: 'pLvl3Lat', offset: 98, width: 2 },
  { name: 'dayAlarm', offset: 106, width: 1 },
  { name: 'monAlarm', offset: 107, width: 1 },
  { name: 'century', offset: 108, width: 1 },
  { name: 'iapcBootArch', offset: 109, width: 2 },
  { name: 'flags', offset: 112, width: 4 },
  { name: 'resetReg', offset: 116, width: 12, bytes: true },
  { name: 'resetValue', offset: 128, width: 1 },
  { name: 'armBootArch', offset: 129, width: 2 },
  { name: 'minorVersion', offset: 131, width: 1 },
  { name: 'xFirmwareCtrl', offset: 132, width: 8 },
  { name: 'xDsdt', offset: 140, width: 8 },
  { name: 'xPm1aEvtBlk', offset: 148, width: 12, bytes: true },
  { name: 'xPm1bEvtBlk', offset: 160, width: 12, bytes: true },
  { name: 'xPm1aCntBlk', offset: 172, width: 12, bytes: true },
  { name: 'xPm1bCntBlk', offset: 184, width: 12, bytes: true },
  { name: 'xPm2CntBlk', offset: 196, width: 12, bytes: true },
  { name: 'xPmTmrBlk', offset: 208, width: 12, bytes: true },
  { name: 'xGpe0Blk', offset: 220, width: 12, bytes: true },
  { name: 'xGpe1Blk', offset: 232, width: 12, bytes: true },
  { name: 'sleepControlReg', offset: 244, width: 12, bytes: true },
  { name: 'sleepStatusReg', offset: 256, width: 12, bytes: true },
  { name: 'hypervisorVendorId', offset: 268, width: 8, bytes: true },
]);

/** ACPI 6.5 table 5.10. */
export const FADT_FLAG = {
  wbinvd: 1 << 0,
  procC1: 1 << 2,
  powerButton: 1 << 4,
  sleepButton: 1 << 5,
  rtcS4: 1 << 7,
  tmrValExt: 1 << 8,
  resetRegSup: 1 << 10,
  usePlatformClock: 1 << 15,
  hwReduced: 1 << 20,
} as const;

/** ACPI 6.5 table 5.11. */
export const BOOT_ARCH_FLAG = { legacyDevices: 1, i8042: 2, noVga: 4, noMsi: 8, noCmosRtc: 32 } as const;

export const FACS = record('FACS', `${SPEC}, 5.2.10`, 64, [
  { name: 'signature', offset: 0, width: 4, bytes: true },
  { name: 'length', offset: 4, width: 4 },
  { name: 'hardwareSignature', offset: 8, width: 4 },
  { name: 'wakingVector', offset: 12, width: 4 },
  { name: 'globalLock', offset: 16, width: 4 },
  { name: 'flags', offset: 20, width: 4 },
  { name: 'xWakingVector', offset: 24, width: 8 },
  { name: 'version', offset: 32, width: 1 },
  { name: 'ospmFlags', offset: 36, width: 4 },
]);

export const MADT = record('MADT', `${SPEC}, 5.2.12`, 44, [
  { name: 'localApicAddress', offset: 36, width: 4 },
  { name: 'flags', offset: 40, width: 4 },
]);
export const MADT_PCAT_COMPAT = 1;

export const MADT_LOCAL_APIC = record('Processor Local APIC', `${SPEC}, 5.2.12.2`, 8, [
  { name: 'type', offset: 0, width: 1 },
  { name: 'length', offset: 1, width: 1 },
  { name: 'processorUid', offset: 2, width: 1 },
  { name: 'apicId', offset: 3, width: 1 },
  { name: 'flags', offset: 4, width: 4 },
]);

export const MADT_IO_APIC = record('I/O APIC', `${SPEC}, 5.2.12.3`, 12, [
  { name: 'type', offset: 0, width: 1 },
  { name: 'length', offset: 1, width: 1 },
  { name: 'ioApicId', offset: 2, width: 1 },
  { name: 'address', offset: 4, width: 4 },
  { name: 'gsiBase', offset: 8, width: 4 },
]);

export const MADT_SOURCE_OVERRIDE = record('Interrupt Source Override', `${SPEC}, 5.2.12.5`, 10, [
  { name: 'type', offset: 0, width: 1 },
  { name: 'length', offset: 1, width: 1 },
  { name: 'bus', offset: 2, width: 1 },
  { name: 'source', offset: 3, width: 1 },
  { name: 'gsi', offset: 4, width: 4 },
  { name: 'flags', offset: 8, width: 2 },
]);
/** Active high (bits 1:0 = 01) and level-triggered (bits 3:2 = 11). */
export const OVERRIDE_ACTIVE_HIGH_LEVEL = 0xd;

export const MADT_LOCAL_APIC_NMI = record('Local APIC NMI', `${SPEC}, 5.2.12.7`, 6, [
  { name: 'type', offset: 0, width: 1 },
  { name: 'length', offset: 1, width: 1 },
  { name: 'processorUid', offset: 2, width: 1 },
  { name: 'flags', offset: 3, width: 2 },
  { name: 'lint', offset: 5, width: 1 },
]);

export const MADT_LOCAL_X2APIC = record('Processor Local x2APIC', `${SPEC}, 5.2.12.12`, 16, [
  { name: 'type', offset: 0, width: 1 },
  { name: 'length', offset: 1, width: 1 },
  { name: 'x2apicId', offset: 4, width: 4 },
  { name: 'flags', offset: 8, width: 4 },
  { name: 'processorUid', offset: 12, width: 4 },
]);

/** Version 0: the mailbox only; its processors cannot be taken offline again. */
export const MADT_MP_WAKEUP = record('Multiprocessor Wakeup', `${SPEC}, 5.2.12.19`, 16, [
  { name: 'type', offset: 0, width: 1 },
  { name: 'length', offset: 1, width: 1 },
  { name: 'mailboxVersion', offset: 2, width: 2 },
  { name: 'mailboxAddress', offset: 8, width: 8 },
]);

export const MADT_TYPE = {
  mpWakeup: 16,
  localApic: 0,
  ioApic: 1,
  sourceOverride: 2,
  localApicNmi: 4,
  localX2apic: 9,
} as const;

export const SRAT = record('SRAT', `${SPEC}, 5.2.16`, 48, [{ name: 'one', offset: 36, width: 4 }]);

export const SRAT_LOCAL_APIC = record('Processor Local APIC Affinity', `${SPEC}, 5.2.16.1`, 16, [
  { name: 'type', offset: 0, width: 1 },
  { name: 'length', offset: 1, width: 1 },
  { name: 'domainLow', offset: 2, width: 1 },
  { name: 'apicId', offset: 3, width: 1 },
  { name: 'flags', offset: 4, width: 4 },
  { name: 'clockDomain', offset: 12, width: 4 },
]);

export const SRAT_MEMORY = record('Memory Affinity', `${SPEC}, 5.2.16.2`, 40, [
  { name: 'type', offset: 0, width: 1 },
  { name: 'length', offset: 1, width: 1 },
  { name: 'domain', offset: 2, width: 4 },
  { name: 'base', offset: 8, width: 8 },
  { name: 'size', offset: 16, width: 8 },
  { name: 'flags', offset: 28, width: 4 },
]);

export const SRAT_LOCAL_X2APIC = record('Processor Local x2APIC Affinity', `${SPEC}, 5.2.16.3`, 24, [
  { name: 'type', offset: 0, width: 1 },
  { name: 'length', offset: 1, width: 1 },
  { name: 'domain', offset: 4, width: 4 },
  { name: 'x2apicId', offset: 8, width: 4 },
  { name: 'flags', offset: 12, width: 4 },
  { name: 'clockDomain', offset: 16, width: 4 },
]);

export const SRAT_TYPE = { localApic: 0, memory: 1, localX2apic: 2 } as const;

export const SPCR = record('SPCR', 'Microsoft Serial Port Console Redirection Table, revision 1.03', 80, [
  { name: 'interfaceType', offset: 36, width: 1 },
  { name: 'baseAddress', offset: 40, width: 12, bytes: true },
  { name: 'interruptType', offset: 52, width: 1 },
  { name: 'irq', offset: 53, width: 1 },
  { name: 'gsi', offset: 54, width: 4 },
  { name: 'baudRate', offset: 58, width: 1 },
  { name: 'parity', offset: 59, width: 1 },
  { name: 'stopBits', offset: 60, width: 1 },
  { name: 'flowControl', offset: 61, width: 1 },
  { name: 'terminalType', offset: 62, width: 1 },
  { name: 'pciDeviceId', offset: 64, width: 2 },
  { name: 'pciVendorId', offset: 66, width: 2 },
]);

export const WAET = record('WAET', 'Microsoft Windows ACPI Emulated Devices Table, version 1.0', 40, [
  { name: 'flags', offset: 36, width: 4 },
]);
/** The RTC needs no second read; the PM timer needs no second read. */
export const WAET_FLAG = { rtcGood: 1, pmTimerGood: 2 } as const;
