import { describe, expect, it } from 'vitest';
import { PAGE_TYPE } from '../../../abi/snp/firmware.ts';
import { extendDigest } from './launch-digest.ts';
import { hex, bytes } from './test-guest.ts';

/** The save area of a boot processor as QEMU makes it for OVMF. */
function resetVmsa(features: number): Uint8Array {
  const page = new Uint8Array(4096);
  const view = new DataView(page.buffer);
  const segment = (at: number, selector: number, attributes: number, base = 0n): void => {
    view.setUint16(at, selector, true);
    view.setUint16(at + 2, attributes, true);
    view.setUint32(at + 4, 0xffff, true);
    view.setBigUint64(at + 8, base, true);
  };
  for (const at of [0x00, 0x20, 0x30, 0x40, 0x50]) segment(at, 0, 0x93);
  segment(0x10, 0xf000, 0x9b, 0xffff0000n);
  segment(0x60, 0, 0);
  segment(0x70, 0, 0x82);
  segment(0x80, 0, 0);
  segment(0x90, 0, 0x8b);
  for (const [at, value] of [
    [0xd0, 0x1000n],
    [0x148, 0x40n],
    [0x158, 0x10n],
    [0x160, 0x400n],
    [0x168, 0xffff0ff0n],
    [0x170, 2n],
    [0x178, 0xfff0n],
    [0x268, 0x0007040600070406n],
    [0x310, 0x800f12n],
    [0x3b0, BigInt(features)],
    [0x3e8, 1n],
  ] as const)
    view.setBigUint64(at, value, true);
  view.setUint32(0x408, 0x1f80, true);
  view.setUint16(0x410, 0x37f, true);
  return page;
}

describe('extendDigest', () => {
  // Digests that virtee/sev-snp-measure 0.0.13 publishes in tests/test_guest.py for OVMF's AmdSev flavour, one processor, no
  // kernel: the pages of its metadata, and the VMSA, after the digest of the image.
  it.each([
    [
      0x21,
      'e1e1ca029dd7973ab9513295be68198472dcd4fc834bd9af9b63f6e8a1674dbf281a9278a4a2ebe0eed9f22adbcd0e2b',
    ],
    [
      0x01,
      '19358ba9a7615534a9a1e2f0dfc29384dcd4dcb7062ff9c6013b26869a5fc6ecabe033c48dd6f6db5d6d76e7c5df632d',
    ],
  ])('gives the published digest for SEV features 0x%i', (features, published) => {
    let digest = bytes(
      '086e2e9149ebf45abdc3445fba5b2da8270bdbb04094d7a2c37faaa4b24af3aa16aff8c374c2a55c467a50da6d466b74',
    );
    const run = (type: number, gpa: number, pages: number): void => {
      for (let i = 0; i < pages; i++) digest = extendDigest(digest, { type, gpa: gpa + 4096 * i });
    };
    run(PAGE_TYPE.zero, 0x800000, 9);
    run(PAGE_TYPE.zero, 0x80a000, 3);
    run(PAGE_TYPE.secrets, 0x80d000, 1);
    run(PAGE_TYPE.cpuid, 0x80e000, 1);
    run(PAGE_TYPE.zero, 0x80f000, 2);
    run(PAGE_TYPE.zero, 0x811000, 15);
    digest = extendDigest(digest, {
      type: PAGE_TYPE.vmsa,
      gpa: 0xffff_ffff_f000n,
      contents: resetVmsa(features),
    });
    expect(hex(digest)).toBe(published);
  });
  it('does not see scale and offset of the TSC in a VMSA, and sees every other byte', () => {
    const start = new Uint8Array(48);
    const digestOf = (at: number): string => {
      const contents = resetVmsa(1);
      contents[at] = 0xa5;
      return hex(extendDigest(start, { type: PAGE_TYPE.vmsa, gpa: 0, contents }));
    };
    const plain = hex(extendDigest(start, { type: PAGE_TYPE.vmsa, gpa: 0, contents: resetVmsa(1) }));
    expect(digestOf(0x2f0)).toBe(plain);
    expect(digestOf(0x2ff)).toBe(plain);
    expect(digestOf(0x300)).not.toBe(plain);
    expect(digestOf(0x2ef)).not.toBe(plain);
  });
  it('leaves the page as it was, also a Buffer, whose slices are views', () => {
    const contents = Buffer.from(resetVmsa(1));
    contents[0x2f0] = 7;
    extendDigest(new Uint8Array(48), { type: PAGE_TYPE.vmsa, gpa: 0, contents });
    expect(contents[0x2f0]).toBe(7);
  });
  it('depends on type, address and permissions', () => {
    const start = new Uint8Array(48);
    const page = { type: PAGE_TYPE.zero, gpa: 0x1000 } as const;
    const seen = [
      page,
      { ...page, type: PAGE_TYPE.unmeasured },
      { ...page, gpa: 0x2000 },
      { ...page, permissions: [1, 0, 0] as const },
      { ...page, permissions: [0, 0, 1] as const },
    ].map((entry) => hex(extendDigest(start, entry as Parameters<typeof extendDigest>[1])));
    expect(new Set(seen).size).toBe(seen.length);
  });
});
