/** A guest whose console tries to steer the terminal, the CI system or the browser that shows it. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { BZIMAGE_PAYLOAD_AT, bzImage } from '../../src/launch/test-images.ts';
import { cpio, elfStart } from './files.ts';
import { vitrine, whyNoKernel } from './vitrine.ts';

const folder = mkdtempSync(join(tmpdir(), 'vitrine-hostile-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const HOSTILE = [
  '\x1b]0;title\x07\x1b[2J\x1b[31mred',
  '::set-output name=x::y',
  '  ::error file=a::b',
  '##[error]c',
  '##vso[task.complete result=Failed]d',
  '\x9b31m\x90q\x9c',
  'over\rwritten',
  '\u202etxt.exe',
  '<script>alert(1)</script>',
  '',
].join('\n');
const BYTES = Buffer.from(HOSTILE, 'utf8');

/** A kernel that writes BYTES to COM1 and then loads a page table that maps nothing: a triple fault. */
function hostileKernel(): Uint8Array {
  const image = bzImage();
  const code = [
    ...[0x48, 0x8d, 0x35, 0x13, 0, 0, 0], // lea rsi, [rip + 19]
    ...[0xb9, BYTES.length & 0xff, BYTES.length >> 8, 0, 0], // mov ecx, length
    ...[0x66, 0xba, 0xf8, 0x03], // mov dx, 0x3f8
    ...[0xac, 0xee, 0xe2, 0xfc], // next: lodsb; out dx, al; loop next
    ...[0x31, 0xc0, 0x0f, 0x22, 0xd8], // xor eax, eax; mov cr3, rax
    0xf4,
  ];
  const entry = BZIMAGE_PAYLOAD_AT + 0x200;
  image.set(code, entry);
  image.set(BYTES, entry + 26);
  return image;
}

const kernel = join(folder, 'bzImage');
const initrd = join(folder, 'initrd');
writeFileSync(kernel, hostileKernel());
writeFileSync(initrd, cpio({ init: elfStart(62) }));

function expectHarmless(text: string): void {
  expect(text).not.toMatch(/[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]/);
  expect(text).not.toMatch(/^\s*(::|##\[|##vso\[)/m);
  expect(text).toContain('\\x1b]0;title\\x07');
  expect(text).toContain('<script>');
}

test('its console in a log, and its last words, do nothing', () => {
  const { status, stdout, stderr } = vitrine(['boot', '--kernel', kernel, '--initrd', initrd]);
  expect(status).toBe(125);
  expect(stderr).toContain('the guest died: triple fault');
  expectHarmless(stdout.toString('utf8'));
  expectHarmless(Buffer.from(stderr, 'latin1').toString('utf8'));
});

test('--console gives it as it is, to a file and to standard output', () => {
  const file = join(folder, 'console');
  vitrine(['boot', '--kernel', kernel, '--initrd', initrd, '--console', file]);
  expect(readFileSync(file).equals(BYTES)).toBe(true);
  const { stdout } = vitrine(['boot', '--kernel', kernel, '--initrd', initrd, '--console', '-']);
  expect(stdout.equals(BYTES)).toBe(true);
});

const missing = whyNoKernel();
test.skipIf(missing !== undefined)(
  `in the matrix it forges neither a verdict nor markup, in any output${missing === undefined ? '' : ` (skipped: ${missing})`}`,
  () => {
    const [json, junit, html] = ['matrix.json', 'matrix.xml', 'matrix.html'].map((name) =>
      join(folder, name),
    );
    const { status, stdout } = vitrine([
      'matrix',
      ...['--kernel', kernel, '--only', 'plain', '--offline'],
      ...['--json', json as string, '--junit', junit as string, '--html', html as string],
    ]);
    expect(status).toBe(1);
    const text = stdout.toString('utf8');
    expectHarmless(text);
    expect(text).toMatch(/\n0 of 1 booted; statements: \d+ shown, \d+ failed, 0 not shown\n$/);
    for (const file of [json, junit, html]) {
      const written = readFileSync(file as string, 'utf8');
      expect(written).not.toMatch(/[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]/);
      expect(written).not.toMatch(/^\s*(::|##\[|##vso\[)/m);
    }
    for (const file of [junit, html]) expect(readFileSync(file as string, 'utf8')).not.toContain('<script');
  },
);
