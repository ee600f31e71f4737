import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import * as abi from '../abi/acpi.ts';
import { ascii } from '../abi/bytes.ts';
import { acpiTables, PM, type AcpiConfig, type AcpiTables } from './acpi.ts';

const BASE = 0x100000;
const config: AcpiConfig = {
  base: BASE,
  limit: 0x200000,
  apicIds: [0, 1, 2, 3],
  uarts: 2,
  entropy: new Uint8Array(64).fill(0x5a),
  mmio: [
    { gpa: 0xf8000000, length: 0x8000000 },
    { gpa: 0x100000000, length: 0x20000000 },
  ],
  memory: [{ gpa: 0, length: 0x20000000 }],
};
const whole = acpiTables(config);

function tableOf(tables: AcpiTables, signature: string): Uint8Array {
  const entry = tables.index.find((row) => row.signature === signature);
  if (entry === undefined) throw new Error(`no ${signature}`);
  return tables.tables.subarray(entry.gpa - BASE, entry.gpa - BASE + entry.length);
}

const sum = (bytes: Uint8Array): number => bytes.reduce((total, byte) => (total + byte) & 0xff, 0);

describe('acpiTables', () => {
  test('RSDP and every table but FACS sum to zero', () => {
    expect(sum(whole.rsdp)).toBe(0);
    expect(sum(whole.rsdp.subarray(0, 20))).toBe(0);
    for (const { signature } of whole.index) {
      if (signature !== 'FACS') expect([signature, sum(tableOf(whole, signature))]).toEqual([signature, 0]);
    }
  });

  test('are reached from the RSDP, without overlap', () => {
    const at = (gpa: bigint | number): number => Number(gpa) - BASE;
    const xsdtAt = at(abi.RSDP.get(whole.rsdp, 'xsdtAddress'));
    const length = abi.TABLE_HEADER.low(whole.tables, 'length', xsdtAt);
    const view = new DataView(whole.tables.buffer);
    const found: string[] = [];
    for (let entry = xsdtAt + 36; entry < xsdtAt + length; entry += 8) {
      const signature = whole.tables.subarray(at(view.getBigUint64(entry, true))).subarray(0, 4);
      found.push(String.fromCharCode(...signature));
    }
    expect(found).toEqual(['FACP', 'OEM0', 'WAET', 'APIC', 'SRAT', 'SPCR']);
    whole.index.slice(1).forEach((row, i) => {
      const before = whole.index[i];
      expect(before && before.gpa + before.length).toBeLessThanOrEqual(row.gpa);
    });
  });

  test('FADT points to FACS and DSDT and has the PM ports in 64-bit form only', () => {
    const fadt = tableOf(whole, 'FACP');
    const signatureAt = (gpa: bigint): string =>
      String.fromCharCode(...whole.tables.subarray(Number(gpa) - BASE).subarray(0, 4));
    expect(signatureAt(abi.FADT.get(fadt, 'xDsdt'))).toBe('DSDT');
    const facs = abi.FADT.get(fadt, 'xFirmwareCtrl');
    expect(signatureAt(facs)).toBe('FACS');
    expect(Number(facs) % 64).toBe(0);
    expect(abi.FADT.low(fadt, 'pm1aEvtBlk')).toBe(0);
    const control = abi.GENERIC_ADDRESS.read(fadt, abi.FADT.offsetOf('xPm1aCntBlk'));
    expect(control).toMatchObject({ space: 1, bitWidth: 16, address: BigInt(PM.control) });
    expect(abi.FADT.low(fadt, 'flags') & abi.FADT_FLAG.hwReduced).toBe(0);
  });

  test('FADT values', () => {
    const fadt = tableOf(whole, 'FACP');
    const values = abi.FADT.read(fadt);
    const io = (address: number, bitWidth: number): Uint8Array =>
      Uint8Array.of(1, bitWidth, 0, 0, address & 0xff, address >> 8, 0, 0, 0, 0, 0, 0);
    const nothing = new Uint8Array(12);
    expect(values).toMatchObject({
      sciInt: 9,
      smiCmd: 0,
      pm1EvtLen: 4,
      pm1CntLen: 2,
      pmTmrLen: 4,
      gpe0BlkLen: 4,
      pLvl2Lat: 101,
      pLvl3Lat: 1001,
      iapcBootArch: 4,
      flags: 0x85b5,
      resetReg: io(0x433, 8),
      resetValue: 1,
      minorVersion: 0,
      xPm1aEvtBlk: io(0x400, 32),
      xPm1aCntBlk: io(0x404, 16),
      xPmTmrBlk: io(0x408, 32),
      xGpe0Blk: io(0x40c, 32),
      xPm1bEvtBlk: nothing,
      sleepControlReg: nothing,
    });
  });

  test('the small tables', () => {
    expect(abi.FACS.read(tableOf(whole, 'FACS'))).toMatchObject({ length: 64, version: 2, flags: 0 });
    expect(abi.WAET.low(tableOf(whole, 'WAET'), 'flags')).toBe(3);
    expect(abi.SPCR.read(tableOf(whole, 'SPCR'))).toEqual({
      interfaceType: 0,
      baseAddress: Uint8Array.of(1, 8, 0, 0, 0xf8, 3, 0, 0, 0, 0, 0, 0),
      interruptType: 2,
      irq: 0,
      gsi: 4,
      baudRate: 7,
      parity: 0,
      stopBits: 1,
      flowControl: 0,
      terminalType: 3,
      pciDeviceId: 0xffff,
      pciVendorId: 0xffff,
    });
    const revisions = whole.index
      .filter(({ signature }) => signature !== 'FACS')
      .map(({ signature }) => [signature, abi.TABLE_HEADER.low(tableOf(whole, signature), 'revision')]);
    expect(Object.fromEntries(revisions)).toEqual({
      DSDT: 2,
      FACP: 6,
      OEM0: 1,
      WAET: 1,
      APIC: 5,
      SRAT: 3,
      SPCR: 2,
      XSDT: 1,
    });
  });

  test('SRAT puts all processors and all memory on one enabled node', () => {
    const srat = tableOf(
      acpiTables({ ...config, apicIds: [3, 300], memory: [{ gpa: 0x1000, length: 0x2_0000_0000 }] }),
      'SRAT',
    );
    let at = abi.SRAT.size;
    expect(abi.SRAT.low(srat, 'one')).toBe(1);
    expect(abi.SRAT_LOCAL_APIC.read(srat, at)).toMatchObject({ type: 0, length: 16, apicId: 3, flags: 1 });
    at += abi.SRAT_LOCAL_APIC.size;
    expect(abi.SRAT_LOCAL_X2APIC.read(srat, at)).toMatchObject({
      type: 2,
      length: 24,
      x2apicId: 300,
      flags: 1,
    });
    at += abi.SRAT_LOCAL_X2APIC.size;
    expect(abi.SRAT_MEMORY.read(srat, at)).toEqual({
      type: 1,
      length: 40,
      domain: 0,
      base: 0x1000n,
      size: 0x2_0000_0000n,
      flags: 1,
    });
    expect(at + abi.SRAT_MEMORY.size).toBe(srat.length);
  });

  test('MADT has the IO-APIC, the SCI as level-triggered, and LINT1 as NMI', () => {
    const madt = tableOf(whole, 'APIC');
    let at = abi.MADT.size;
    expect(abi.MADT.low(madt, 'localApicAddress')).toBe(0xfee00000);
    expect(abi.MADT_IO_APIC.read(madt, at)).toEqual({
      type: 1,
      length: 12,
      ioApicId: 0,
      address: 0xfec00000,
      gsiBase: 0,
    });
    at += abi.MADT_IO_APIC.size;
    expect(abi.MADT_SOURCE_OVERRIDE.read(madt, at)).toEqual({
      type: 2,
      length: 10,
      bus: 0,
      source: 9,
      gsi: 9,
      flags: 0xd,
    });
    at += abi.MADT_SOURCE_OVERRIDE.size;
    expect(abi.MADT_LOCAL_APIC_NMI.read(madt, at)).toEqual({
      type: 4,
      length: 6,
      processorUid: 1,
      flags: 0,
      lint: 1,
    });
    at += abi.MADT_LOCAL_APIC_NMI.size;
    expect(abi.MADT_LOCAL_APIC.read(madt, at)).toMatchObject({ apicId: 0, flags: 1 });
  });

  test('the DSDT has ports and interrupts of RTC and UARTs, shared where two UARTs have one line', () => {
    const resources = (uarts: number): string => {
      const dsdt = tableOf(acpiTables({ ...config, uarts }), 'DSDT');
      const found: string[] = [];
      for (let at = 36; at + 17 <= dsdt.length; at++) {
        // An I/O port descriptor, followed by an extended interrupt descriptor of one interrupt.
        if (dsdt[at] !== 0x47 || dsdt[at + 8] !== 0x89) continue;
        const io = new DataView(dsdt.buffer, dsdt.byteOffset + at);
        const kind = io.getUint8(11) & 0x08 ? 'shared' : 'own';
        found.push(
          `${io.getUint16(2, true).toString(16)}+${io.getUint8(7)} ${io.getUint32(13, true)} ${kind}`,
        );
      }
      return found.join(', ');
    };
    expect(resources(2)).toBe('70+2 8 own, 3f8+8 4 own, 2f8+8 3 own');
    expect(resources(3)).toBe('70+2 8 own, 3f8+8 4 shared, 2f8+8 3 own, 3e8+8 4 shared');
    expect(resources(4)).toBe('70+2 8 own, 3f8+8 4 shared, 2f8+8 3 shared, 3e8+8 4 shared, 2e8+8 3 shared');
  });

  test('MADT lists each VP, and no legacy PIC', () => {
    const madt = tableOf(acpiTables({ ...config, apicIds: [0, 7, 255, 300] }), 'APIC');
    expect(abi.MADT.low(madt, 'flags')).toBe(0);
    const seen: [number, number, number][] = [];
    for (let at = abi.MADT.size; at < madt.length; at += madt[at + 1] ?? 1) {
      if (madt[at] === abi.MADT_TYPE.localApic) {
        const { processorUid, apicId } = abi.MADT_LOCAL_APIC.read(madt, at);
        seen.push([0, processorUid, apicId]);
      }
      if (madt[at] === abi.MADT_TYPE.localX2apic) {
        const { processorUid, x2apicId } = abi.MADT_LOCAL_X2APIC.read(madt, at);
        seen.push([9, processorUid, x2apicId]);
      }
    }
    expect(seen).toEqual([
      [0, 1, 0],
      [0, 2, 7],
      [9, 3, 255],
      [9, 4, 300],
    ]);
  });

  test('OEM0 is what Linux takes entropy from, and absent without entropy', () => {
    const oem0 = tableOf(whole, 'OEM0');
    expect(Array.from(oem0.subarray(16, 24))).toEqual(Array.from(ascii('MICROSFT')));
    expect(oem0.subarray(36)).toEqual(config.entropy);
    const none = acpiTables({ ...config, entropy: new Uint8Array(0) });
    expect(none.index.map(({ signature }) => signature)).not.toContain('OEM0');
  });

  test('SPCR is there exactly when COM1 is', () => {
    const has = (uarts: number): boolean =>
      acpiTables({ ...config, uarts }).index.some(({ signature }) => signature === 'SPCR');
    expect([has(0), has(1)]).toEqual([false, true]);
  });

  test('255 VPs fit', () => {
    const many = acpiTables({ ...config, apicIds: Array.from({ length: 255 }, (_, i) => i) });
    expect(devices(tableOf(many, 'DSDT')).filter((name) => /^\\_SB_\.P[0-9A-F]{3}$/.test(name))).toHaveLength(
      255,
    );
  });

  test('two runs give the same bytes', () => {
    expect(acpiTables(config)).toEqual(whole);
  });
});

/** Paths of the devices in a DSDT: a reader of the few opcodes that ours has, written from ACPI 6.5 chapter 20. */
function devices(dsdt: Uint8Array): string[] {
  const paths: string[] = [];
  let at = 36;
  const next = (): number => {
    const byte = dsdt[at++];
    if (byte === undefined) throw new Error('AML ends inside a term');
    return byte;
  };
  const packageEnd = (): number => {
    const start = at;
    const lead = next();
    if (lead < 0x40) return start + lead;
    let length = lead & 0xf;
    for (let i = 0; i < lead >> 6; i++) length += next() * 2 ** (4 + 8 * i);
    return start + length;
  };
  const segment = (): string => String.fromCharCode(next(), next(), next(), next());
  const path = (): string => {
    let name = '';
    if (dsdt[at] === 0x5c) {
      name = '\\';
      at++;
    }
    if (dsdt[at] === 0x2e) {
      at++;
      return `${name}${segment()}.${segment()}`;
    }
    return name + segment();
  };
  const value = (): void => {
    const opcode = next();
    if (opcode === 0 || opcode === 1) return;
    if (opcode === 0x0a) at += 1;
    else if (opcode === 0x0b) at += 2;
    else if (opcode === 0x0c) at += 4;
    else if (opcode === 0x0e) at += 8;
    else if (opcode === 0x0d) while (next() !== 0);
    else if (opcode === 0x11 || opcode === 0x12) at = packageEnd();
    else throw new Error(`opcode ${opcode} at ${at - 1} is no data`);
  };
  const terms = (end: number, prefix: string): void => {
    while (at < end) {
      const opcode = next();
      if (opcode === 0x08) {
        path();
        value();
      } else if (opcode === 0x10) {
        const scopeEnd = packageEnd();
        terms(scopeEnd, path());
      } else if (opcode === 0x5b && next() === 0x82) {
        const deviceEnd = packageEnd();
        const full = `${prefix}.${path()}`;
        paths.push(full);
        terms(deviceEnd, full);
      } else throw new Error(`opcode ${opcode} at ${at - 1} is no term`);
    }
    if (at !== end) throw new Error(`a term ends at ${at}, its package at ${end}`);
  };
  terms(dsdt.length, '');
  return paths;
}

test('the DSDT has the devices of a Generation 2 VM', () => {
  expect(devices(tableOf(whole, 'DSDT'))).toEqual([
    '\\_SB_.VMOD',
    '\\_SB_.VMOD.VMBS',
    '\\_SB_.RTC0',
    '\\_SB_.UAR1',
    '\\_SB_.UAR2',
    '\\_SB_.P001',
    '\\_SB_.P002',
    '\\_SB_.P003',
    '\\_SB_.P004',
  ]);
});

const iasl = spawnSync('iasl', ['-v']).status === 0;

describe.skipIf(!iasl)('iasl (skipped where acpica-tools is not installed)', () => {
  test('disassembles every table without complaint', { timeout: 20_000 }, () => {
    const folder = mkdtempSync(join(tmpdir(), 'vitrine-acpi-'));
    try {
      for (const { signature } of whole.index) {
        writeFileSync(join(folder, `${signature}.aml`), tableOf(whole, signature));
        // iasl has no template for OEM0, whose contents are our own.
        if (signature === 'OEM0') continue;
        const run = spawnSync('iasl', ['-d', `${signature}.aml`], { cwd: folder, encoding: 'utf8' });
        expect([signature, run.status]).toEqual([signature, 0]);
        expect(run.stdout + run.stderr).not.toMatch(/error|warning|invalid|incorrect/i);
      }
      const source = readFileSync(join(folder, 'DSDT.dsl'), 'utf8');
      expect(source).toMatch(
        /QWordMemory \(ResourceProducer[^)]*0x00000000F8000000,[^)]*0x00000000FFFFFFFF,/,
      );
      expect(source).toContain('EisaId ("PNP0501")');
      expect(source).toContain('Name (_HID, "VMBUS")');
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
