import { expect, test } from 'vitest';
import * as acpi from './acpi.ts';

test('table sizes are those of the specification', () => {
  const sizes = Object.fromEntries(
    Object.entries(acpi).flatMap(([name, value]) =>
      typeof value === 'object' && 'offsetOf' in value ? [[name, value.size]] : [],
    ),
  );
  expect(sizes).toEqual({
    RSDP: 36,
    TABLE_HEADER: 36,
    GENERIC_ADDRESS: 12,
    FADT: 276,
    FACS: 64,
    MADT: 44,
    MADT_LOCAL_APIC: 8,
    MADT_IO_APIC: 12,
    MADT_SOURCE_OVERRIDE: 10,
    MADT_LOCAL_APIC_NMI: 6,
    MADT_LOCAL_X2APIC: 16,
    MADT_MP_WAKEUP: 16,
    SRAT: 48,
    SRAT_LOCAL_APIC: 16,
    SRAT_MEMORY: 40,
    SRAT_LOCAL_X2APIC: 24,
    SPCR: 80,
    WAET: 40,
  });
});

test('FADT fields lie where ACPI 6.5 table 5.9 says', () => {
  expect(acpi.FADT.offsetOf('sciInt')).toBe(46);
  expect(acpi.FADT.offsetOf('pmTmrLen')).toBe(91);
  expect(acpi.FADT.offsetOf('iapcBootArch')).toBe(109);
  expect(acpi.FADT.offsetOf('flags')).toBe(112);
  expect(acpi.FADT.offsetOf('resetReg')).toBe(116);
  expect(acpi.FADT.offsetOf('xDsdt')).toBe(140);
  expect(acpi.FADT.offsetOf('xPm1aEvtBlk')).toBe(148);
  expect(acpi.FADT.offsetOf('xPmTmrBlk')).toBe(208);
  expect(acpi.FADT.offsetOf('xGpe0Blk')).toBe(220);
  expect(acpi.FADT.offsetOf('hypervisorVendorId')).toBe(268);
});
