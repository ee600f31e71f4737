import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { addBlocks, finish, sha384, start } from './sha384.ts';

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const native = (bytes: Uint8Array): string => createHash('sha384').update(bytes).digest('hex');

describe('sha384', () => {
  it('gives the digest of FIPS 180-4 appendix examples', () => {
    expect(hex(sha384(new TextEncoder().encode('abc')))).toBe(
      'cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7',
    );
  });
  it('agrees with another implementation at every length around the block and buffer limits', () => {
    const data = Uint8Array.from({ length: 200_000 }, (_, i) => (i * 31 + (i >> 8)) & 0xff);
    for (const length of [
      0, 1, 110, 111, 112, 113, 127, 128, 129, 239, 240, 255, 256, 4096, 65_279, 65_280, 65_281,
    ])
      expect(hex(sha384(data.subarray(3, 3 + length))), `${length}`).toBe(
        native(data.subarray(3, 3 + length)),
      );
    expect(hex(sha384(data))).toBe(native(data));
  });
  it('goes on after a digest was taken in between', () => {
    const data = new Uint8Array(1024).fill(7);
    const state = start();
    addBlocks(state, data.subarray(0, 256));
    expect(hex(finish(state))).toBe(native(data.subarray(0, 256)));
    addBlocks(state, data.subarray(256, 512));
    expect(hex(finish(state, data.subarray(512, 777)))).toBe(native(data.subarray(0, 777)));
  });
});
