import { describe, expect, test } from 'vitest';
import { isBzImage, parseBzImage, placeBzImage, type BzImage } from './bzimage.ts';
import type { LaunchError } from './outcome.ts';
import { bzImage, BZIMAGE_PAYLOAD_AT, elf64 } from './test-images.ts';
import { ascii } from '../abi/bytes.ts';

function parsed(file: Uint8Array): BzImage {
  const outcome = parseBzImage(file);
  if (!outcome.ok) throw new Error(outcome.error.what);
  return outcome.image;
}

function refused(file: Uint8Array): LaunchError {
  const outcome = parseBzImage(file);
  if (outcome.ok) throw new Error('the image was taken');
  return outcome.error;
}

function withBytes(length: number, at: number, bytes: Uint8Array | number[]): Uint8Array {
  const file = new Uint8Array(length);
  file.set(bytes, at);
  return file;
}

describe('parseBzImage', () => {
  test('reads a 2.15 image', () => {
    const file = bzImage();
    expect(isBzImage(file)).toBe(true);
    const image = parsed(file);
    expect(image).toMatchObject({
      version: 0x20f,
      kernelVersion: '6.12.0-test (nobody) #1 SMP',
      prefAddress: 0x1000000,
      initSize: 0x400000,
      commandLineSize: 2047,
      relocatable: true,
    });
    expect(image.payload.byteOffset).toBe(BZIMAGE_PAYLOAD_AT);
    expect(image.payload).toHaveLength(0x1000);
    expect(image.header).toHaveLength(0x26c - 0x1f1);
  });

  test('setup_sects 0 means 4', () => {
    const file = new Uint8Array(5 * 512 + 0x1000);
    file.set(bzImage({ setupSects: 0 }).subarray(0, BZIMAGE_PAYLOAD_AT));
    expect(parsed(file).payload.byteOffset).toBe(5 * 512);
  });

  test('takes the least that is allowed', () => {
    const file = bzImage({
      version: 0x020c,
      initSize: 0x1000,
      jump: 0x66eb,
      payloadOffset: 0xf00,
      payloadLength: 0x100,
    });
    const image = parsed(file);
    expect(image.compressed).toEqual({ offset: 0xf00, length: 0x100 });
    expect(image.header).toHaveLength(0x268 - 0x1f1);
    expect(parsed(bzImage({ sysSize: 0x201 / 16 + 1 })).payload.length).toBeGreaterThan(0x200);
    expect(refused(bzImage({ sysSize: 0x200 / 16 })).what).toContain('has 512 bytes');
    expect(parsed(bzImage({ kernelVersion: 0 })).kernelVersion).toBe('');
    expect(parsed(bzImage({ jump: 0x8eeb })).header).toHaveLength(0x290 - 0x1f1);
  });

  test('the last paragraph need not be whole', () => {
    expect(parsed(bzImage({}, 0x1000).subarray(0, BZIMAGE_PAYLOAD_AT + 0xff1)).payload).toHaveLength(0xff1);
    expect(refused(bzImage({}, 0x1000).subarray(0, BZIMAGE_PAYLOAD_AT + 0xff0)).what).toContain('cut off');
  });

  test('does not repeat control bytes of the version text', () => {
    const file = bzImage();
    file.set(ascii('6.12\x1b[2J'), 0x300);
    expect(parsed(file).kernelVersion).toBe('');
  });

  test.each([
    ['an old protocol', { version: 0x020b }, 'boot protocol 2.11'],
    ['a zImage', { loadFlags: 0 }, 'zImage'],
    ['a 32-bit kernel', { xloadFlags: 0 }, 'no 64-bit entry'],
    ['a kernel for Xen', { hardwareSubarch: 2 }, 'asks for hardware 2'],
    ['an announced size beyond the file', { sysSize: 0x10000 }, 'cut off'],
    ['nothing behind the setup', { sysSize: 0 }, '0 bytes'],
    ['an alignment that is no power of two', { kernelAlignment: 0x300000 }, 'alignment'],
    ['an alignment of 0', { kernelAlignment: 0 }, 'alignment'],
    ['a load address beyond all memory', { prefAddress: 1n << 63n }, 'load address'],
    ['init_size below the image', { initSize: 0x800 }, 'says it needs 2048'],
    ['a huge init_size', { initSize: 0xffffffff }, 'says it needs'],
    ['a payload outside', { payloadOffset: 0xf00, payloadLength: 0x101 }, 'outside the image'],
    ['a header that ends too early', { jump: 0x10eb }, 'header ends at'],
    ['a header that ends too late', { jump: 0xffeb }, 'header ends at'],
  ])('refuses %s', (_, changes, what) => {
    const error = refused(bzImage(changes));
    expect(error.what).toContain(what);
    expect(error.advice).not.toBe('');
  });

  test.each([
    ['an empty file', new Uint8Array(0), 'is empty'],
    ['a short file', new Uint8Array(100), 'has only 100 bytes'],
    ['zeros', new Uint8Array(8192), 'no Linux kernel'],
    ['an arm64 kernel', withBytes(4096, 0x38, ascii('ARM\x64')), 'arm64 kernel'],
    ['a RISC-V kernel', withBytes(4096, 0x38, ascii('RSC\x05')), 'RISC-V kernel'],
    ['a gzip file', withBytes(4096, 0, [0x1f, 0x8b, 8]), 'gzip'],
    ['a .deb', withBytes(4096, 0, ascii('!<arch>\n')), '.deb'],
    ['an aarch64 ELF', elf64(0x1000000, [{ paddr: 0x1000000, bytes: new Uint8Array(9) }], 183), 'arm64'],
    ['a zstd file', withBytes(4096, 0, [0x28, 0xb5, 0x2f, 0xfd]), 'zstd'],
  ])('names %s', (_, file, what) => {
    expect(refused(file).what).toContain(what);
  });

  test('names an arm64 EFI program', () => {
    const file = withBytes(4096, 0, ascii('MZ'));
    const view = new DataView(file.buffer);
    view.setUint32(0x3c, 0x40, true);
    view.setUint32(0x40, 0x4550, true);
    view.setUint16(0x44, 0xaa64, true);
    expect(refused(file).what).toContain('EFI program for arm64');
  });

  test('refuses every truncation of a good image by a paragraph or more', () => {
    const file = bzImage();
    for (let length = 0; length <= file.length - 16; length += 7) {
      expect(parseBzImage(file.subarray(0, length)).ok).toBe(false);
    }
  });
});

describe('placeBzImage', () => {
  const floor = 0x200000;

  test('takes the preferred address', () => {
    expect(placeBzImage(parsed(bzImage()), floor, 0x2000000)).toEqual({ ok: true, base: 0x1000000 });
  });

  test('moves a relocatable kernel above the tables', () => {
    const image = parsed(bzImage({ prefAddress: 0x100000n }));
    expect(placeBzImage(image, floor, 0x2000000)).toEqual({ ok: true, base: 0x200000 });
  });

  test('refuses a fixed kernel that lies on the tables', () => {
    const image = parsed(bzImage({ prefAddress: 0x100000n, relocatableKernel: 0 }));
    expect(placeBzImage(image, floor, 0x2000000).ok).toBe(false);
  });

  test('needs room for init_size, to the byte', () => {
    const image = parsed(bzImage());
    expect(placeBzImage(image, floor, 0x1400000).ok).toBe(true);
    const outcome = placeBzImage(image, floor, 0x1400000 - 1);
    expect(outcome.ok).toBe(false);
    if (!outcome.ok) expect(outcome.error.advice).toBe('give the VM at least 20 MiB');
  });
});
