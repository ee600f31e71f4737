import { expect, test } from 'vitest';
import { launchBios } from './bios.ts';
import { GIB, KIB, MIB } from './memory-map.ts';

const image = new Uint8Array(64 * KIB).fill(0x90);

test('launchBios shows the image below 4 GiB and below 1 MiB, and starts at the reset vector', () => {
  const outcome = launchBios({ image, memoryBytes: 16 * MIB, signature: 0x663 });
  if (!outcome.ok) throw new Error(outcome.error.what);
  const { directives } = outcome.launch;
  const gpas = directives.flatMap((entry) => (entry.kind === 'pages' ? [entry.gpa] : []));
  expect(gpas).toEqual([MIB - 64 * KIB, 4 * GIB - 64 * KIB]);
  expect(directives).toContainEqual({
    kind: 'region',
    gpa: 4 * GIB - 64 * KIB,
    length: 64 * KIB,
    backing: 'rom',
  });
  const context = directives.find((entry) => entry.kind === 'context');
  expect(context?.registers).toMatchObject({ rip: 0xfff0n, cr0: 0x60000010n });
  expect(context?.registers.cs).toMatchObject({ selector: 0xf000, base: 0xffff0000n });
  expect(context?.registers.gprs[2]).toBe(0x663n);
});

test.each([64, 128, 256])('launchBios takes an image of %d KiB', (length) => {
  const outcome = launchBios({ image: new Uint8Array(length * KIB), memoryBytes: 3.5 * GIB, signature: 0 });
  expect(outcome.ok).toBe(true);
});

test.each([0, 1, 65535, 65537, MIB])('launchBios refuses an image of %d bytes', (length) => {
  expect(launchBios({ image: new Uint8Array(length), memoryBytes: MIB, signature: 0 }).ok).toBe(false);
});

test.each([0, 64 * KIB, 4 * GIB, 1.5 * MIB + 1, 2 * MIB + 0.5, Infinity])(
  'launchBios refuses %d bytes of memory',
  (memoryBytes) => {
    expect(launchBios({ image, memoryBytes, signature: 0 }).ok).toBe(false);
  },
);
