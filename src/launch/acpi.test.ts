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

/** What iasl says besides its greeting. */
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
