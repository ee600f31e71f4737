import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { Directive, PagesDirective } from '../../launch/directives.ts';
import { PagesFile } from '../../node/attestation/pages-file.ts';
import type { PageVisitor } from './measurement.ts';
import { measureSnp } from './snp.ts';
import { measureTdx } from './tdx.ts';

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const hasPython = spawnSync('python3', ['--version']).status === 0;
const pages = (gpa: number, fill: number, values: Partial<PagesDirective> = {}): PagesDirective => ({
  kind: 'pages',
  gpa,
  length: 0x3000,
  type: 'normal',
  measured: true,
  name: 'x',
  data: new Uint8Array(0x2001).fill(fill),
  ...values,
});
const registers = {} as never;
const list: readonly Directive[] = [
  { kind: 'region', gpa: 0, length: 0x100000, backing: 'ram' },
  pages(0x1000, 1),
  pages(0x8000, 1),
  pages(0x10000, 2, { measured: false }),
  pages(0x20000, 0, { type: 'zero', data: new Uint8Array(0) }),
  pages(0x30000, 3, { type: 'secrets', length: 0x1000, data: new Uint8Array(0) }),
  pages(0x31000, 4, { type: 'cpuid', length: 0x1000, data: new Uint8Array(4096) }),
  pages(0x40000, 5, { type: 'shared' }),
  { kind: 'parameter', gpa: 0x50000, length: 0x1000, contents: [{ parameter: 'memory-map', offset: 0 }] },
  pages(0x60000, 9, { type: 'vmsa', length: 0x1000, data: new Uint8Array(4096).fill(9) }),
  { kind: 'context', vp: 0, activity: 'running', gpa: 0x60000, registers },
];

/** The value that another language finds in the written list. */
function recomputed(script: string, technology: string, measure: (visit: PageVisitor) => Uint8Array): string {
  const folder = mkdtempSync(join(tmpdir(), 'vitrine-'));
  try {
    const path = join(folder, 'pages');
    const file = new PagesFile(path, technology);
    measure((page) => file.add(page));
    file.finish();
    expect(readdirSync(folder).sort()).toEqual(technology === 'tdx' ? ['pages', 'pages.data'] : ['pages']);
    const program = new URL(`../../../scripts/${script}`, import.meta.url).pathname;
    return execFileSync('python3', [program, path], { encoding: 'utf8' }).trim();
  } finally {
    rmSync(folder, { recursive: true });
  }
}

describe('measureSnp', () => {
  it('gives pages to the firmware in order and by their types', () => {
    const seen: string[] = [];
    measureSnp(list, ({ type, gpa }) => seen.push(`${type} ${gpa.toString(16)}`));
    expect(seen).toEqual([
      ...['1000', '2000', '3000', '8000', '9000', 'a000'].map((gpa) => `normal ${gpa}`),
      ...['10000', '11000', '12000'].map((gpa) => `unmeasured ${gpa}`),
      ...['20000', '21000', '22000'].map((gpa) => `zero ${gpa}`),
      'secrets 30000',
      'cpuid 31000',
      'unmeasured 50000',
      'vmsa 60000',
    ]);
  });
  it('depends on every measured bit, on order and address, and not on what is not measured', () => {
    const value = (of: readonly Directive[]): string => hex(measureSnp(of));
    const base = value(list);
    const change = (at: number, to: Directive): readonly Directive[] =>
      list.map((entry, i) => (i === at ? to : entry));
    const bit = new Uint8Array(0x2001).fill(1);
    bit[0x2000] = 3;
    expect(value(change(1, pages(0x1000, 1, { data: bit })))).not.toBe(base);
    expect(value(change(1, pages(0x4000, 1)))).not.toBe(base);
    expect(value([...list].reverse())).not.toBe(base);
    expect(value(change(3, pages(0x10000, 7, { measured: false })))).toBe(base);
    expect(
      value(
        change(6, pages(0x31000, 8, { type: 'cpuid', length: 0x1000, data: new Uint8Array(4096).fill(1) })),
      ),
    ).toBe(base);
    expect(value(change(7, pages(0x40000, 8, { type: 'shared' })))).toBe(base);
    expect(value(change(9, pages(0x60000, 8, { type: 'vmsa', length: 0x1000 })))).not.toBe(base);
    expect(value(change(8, pages(0x50000, 1, { length: 0x1000, measured: false })))).toBe(base);
  });
  // Without the python3 command there is nothing to compare with.
  it.skipIf(!hasPython)('is what another language computes from the list of pages', () => {
    const value = hex(measureSnp(list));
    expect(recomputed('snp-launch-digest.py', 'snp', (visit) => measureSnp(list, visit))).toBe(value);
  });
});

describe('measureTdx', () => {
  it('counts addresses of all pages but shared ones, and contents of those that are measured', () => {
    const value = (of: readonly Directive[]): string => hex(measureTdx(of));
    const base = value(list);
    const change = (at: number, to: Directive): readonly Directive[] =>
      list.map((entry, i) => (i === at ? to : entry));
    expect(value(change(1, pages(0x1000, 2)))).not.toBe(base);
    expect(value(change(3, pages(0x10000, 7, { measured: false })))).toBe(base);
    expect(value(change(3, pages(0x14000, 2, { measured: false })))).not.toBe(base);
    expect(value(change(7, pages(0x44000, 5, { type: 'shared' })))).toBe(base);
    expect(value(list.slice(0, -1))).toBe(base);
    expect(value(list.filter((entry) => entry.kind !== 'parameter'))).not.toBe(base);
  });
  it.skipIf(!hasPython)('is what another language computes from the list of pages and their contents', () => {
    expect(recomputed('tdx-mrtd.py', 'tdx', (visit) => measureTdx(list, visit))).toBe(hex(measureTdx(list)));
  });
});

describe('PagesFile', () => {
  it('leaves nothing behind when it is discarded', () => {
    const folder = mkdtempSync(join(tmpdir(), 'vitrine-'));
    try {
      const file = new PagesFile(join(folder, 'pages'), 'tdx');
      file.add({ type: 'added', gpa: 0 });
      file.discard();
      expect(readdirSync(folder)).toEqual([]);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
