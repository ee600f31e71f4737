import fc from 'fast-check';
import { crc32 as reference } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { crc32 } from './crc32.ts';
import { headersEnd, isIgvm, readIgvm, writeIgvm, type IgvmFile } from './file.ts';
import * as layouts from './headers.ts';

/** The smallest file with one platform, byte by byte. */
function handmade(): Buffer {
  const file = Buffer.alloc(24 + 8 + 16);
  file.write('IGVM', 0, 'latin1');
  file.writeUInt32LE(1, 4);
  file.writeUInt32LE(24, 8);
  file.writeUInt32LE(24, 12);
  file.writeUInt32LE(48, 16);
  file.writeUInt32LE(1, 24);
  file.writeUInt32LE(16, 28);
  file.writeUInt32LE(1, 32);
  file[36] = 2;
  file[37] = 2;
  file.writeUInt16LE(1, 38);
  file.writeBigUInt64LE(1n << 46n, 40);
  file.writeUInt32LE(reference(file), 20);
  return file;
}
const check = (file: Buffer): Buffer => {
  file.writeUInt32LE(0, 20);
  file.writeUInt32LE(reference(file.subarray(0, file.readUInt32LE(8) + file.readUInt32LE(12))), 20);
  return file;
};

describe('headers', () => {
  // From the C structures of igvm_defs.
  it.each([
    [layouts.fixedHeader, 24, { checksum: 20 }],
    [layouts.fixedHeader2, 32, { architecture: 24, pageSize: 28 }],
    [layouts.supportedPlatform, 16, { highestVtl: 4, platform: 5, platformVersion: 6, sharedGpaBoundary: 8 }],
    [layouts.guestPolicy, 16, { mask: 8 }],
    [layouts.parameterArea, 16, { index: 8, fileOffset: 12 }],
    [layouts.pageData, 24, { mask: 8, fileOffset: 12, flags: 16, type: 20 }],
    [layouts.parameterInsert, 16, { mask: 8, index: 12 }],
    [layouts.parameter, 8, { byteOffset: 4 }],
    [layouts.vpContext, 20, { mask: 8, fileOffset: 12, vp: 16 }],
    [layouts.requiredMemory, 24, { mask: 8, size: 12, flags: 16 }],
    [layouts.errorRange, 16, { mask: 8, size: 12 }],
  ])('$name', (layout, size, offsets) => {
    expect(layout.size).toBe(size);
    for (const [name, offset] of Object.entries(offsets))
      expect(layout.offsetOf(name as never), name).toBe(offset);
  });
});

describe('crc32', () => {
  it('is that of zlib', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => crc32(bytes) === reference(bytes)));
  });
});

describe('readIgvm', () => {
  it('reads a file made by hand', () => {
    const outcome = readIgvm(handmade());
    if (!outcome.ok) throw new Error(outcome.what);
    expect(outcome.file).toMatchObject({ version: 1, architecture: 0, pageSize: 4096, dataOffset: 48 });
    expect(outcome.file.headers.length).toBe(1);
    expect(layouts.supportedPlatform.read(outcome.file.headers[0]?.payload as Uint8Array)).toEqual({
      mask: 1,
      highestVtl: 2,
      platform: 2,
      platformVersion: 1,
      sharedGpaBoundary: 1n << 46n,
    });
  });
  it.each([
    ['another magic', (file: Buffer) => void file.write('IGVX'), 0],
    ['version 3', (file: Buffer) => void file.writeUInt32LE(3, 4), 4],
    ['headers inside the fixed header', (file: Buffer) => void file.writeUInt32LE(16, 8), 8],
    ['headers behind the end', (file: Buffer) => void file.writeUInt32LE(32, 12), 12],
    ['another size', (file: Buffer) => void file.writeUInt32LE(49, 16), 16],
    ['a changed byte', (file: Buffer) => void (file[40] = 1), 20],
    ['a header that is too long', (file: Buffer) => void check((file.writeUInt32LE(17, 28), file)), 24],
    ['a type between the sections', (file: Buffer) => void check((file.writeUInt32LE(0x250, 24), file)), 24],
  ])('refuses %s and says where', (_, change, at) => {
    const file = handmade();
    change(file);
    expect(readIgvm(file)).toMatchObject({ ok: false, at });
  });
  it('refuses types out of order', () => {
    const headers = [
      { type: 0x302, optional: false, payload: new Uint8Array(24) },
      { type: 0x101, optional: false, payload: new Uint8Array(16) },
    ];
    const data = new Uint8Array(0);
    const written = writeIgvm({
      version: 1,
      architecture: 0,
      pageSize: 4096,
      headers,
      data,
      dataOffset: headersEnd(1, headers),
    });
    expect(readIgvm(written)).toMatchObject({ ok: false, at: 24 + 32 });
  });
  it('ends for every input, and never throws', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (tail) => {
        const file = Buffer.concat([handmade(), Buffer.from(tail)]);
        file.writeUInt32LE(file.length, 16);
        file.writeUInt32LE((24 + tail.length) & ~7, 12);
        return typeof readIgvm(check(file)).ok === 'boolean';
      }),
    );
  });
});

describe('writeIgvm', () => {
  const kinds = fc.constantFrom(1, 2, 0x101, 0x150, 0x301, 0x302, 0x3ff);
  const header = fc.record({
    type: kinds,
    optional: fc.boolean(),
    payload: fc.uint8Array({ maxLength: 40 }),
  });
  it('gives back what was read, unknown headers and data too', () => {
    fc.assert(
      fc.property(
        fc.array(header, { maxLength: 8 }),
        fc.uint8Array({ maxLength: 50 }),
        fc.constantFrom(1, 2),
        (list, data, version) => {
          const headers = [...list].sort((a, b) => a.type - b.type);
          const dataOffset = headersEnd(version, headers);
          const file: IgvmFile = {
            version,
            architecture: version - 1,
            pageSize: 4096,
            headers,
            data,
            dataOffset,
          };
          const written = writeIgvm(file);
          expect(isIgvm(written)).toBe(true);
          expect(readIgvm(written)).toEqual({
            ok: true,
            file: version === 1 ? { ...file, architecture: 0 } : file,
          });
        },
      ),
    );
  });
});
