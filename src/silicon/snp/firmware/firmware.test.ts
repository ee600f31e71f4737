import { execFileSync, spawnSync } from 'node:child_process';
import { createDecipheriv, createHash, X509Certificate } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { PAGE_TYPE, POLICY, STATUS } from '../../../abi/snp/firmware.ts';
import {
  GUEST_FIELD,
  KEY_SELECT,
  keyRequest,
  keyResponse,
  MESSAGE,
  messageHeader,
  reportRequest,
  reportResponse,
  tscInfoResponse,
} from '../../../abi/snp/guest-message.ts';
import { cpuidFunction, cpuidPage, idAuth, idBlock, secretsPage } from '../../../abi/snp/launch.ts';
import {
  CURVE_P384,
  ECDSA_P384_SHA384,
  publicKey,
  report,
  signature,
  SIGNED,
  toFirmware,
} from '../../../abi/snp/report.ts';
import { readCertificateTable } from '../../../abi/snp/certificate-table.ts';
import { ecKey, sign, type EcKey } from '../../pki/ec.ts';
import { pem } from '../../pki/pem.ts';
import { certificateChainPem, hostCertificateTable, snpCertificates } from './certificates.ts';
import type { CpuidRegisters } from './cpuid-page.ts';
import { createContext, type GuestContext } from './guest-context.ts';
import { guestRequest, seal } from './guest-request.ts';
import { extendDigest } from './launch-digest.ts';
import { isSigned, launchFinish, launchStart, launchUpdate } from './launch.ts';
import { snpPlatform } from './platform.ts';
import { tscScale } from './tsc.ts';

const hasOpenssl = spawnSync('openssl', ['version']).status === 0;
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'hex'));
const nothing = (): CpuidRegisters => ({ eax: 0, ebx: 0, ecx: 0, edx: 0 });
const platform = snpPlatform(1n, 0x00a00f11, 2_000_000);
const POLICY_VALUE = 0x30000n;

function launched(finish: Parameters<typeof launchFinish>[1] = {}): GuestContext {
  const context = createContext(platform, 0);
  expect(launchStart(context, { policy: POLICY_VALUE, desiredTscKhz: 3_000_000 })).toBe(STATUS.success);
  const page = { type: PAGE_TYPE.normal, gpa: 0x1000, contents: new Uint8Array(4096).fill(1) };
  expect(launchUpdate(platform, context, page, nothing).status).toBe(STATUS.success);
  expect(launchFinish(context, finish)).toBe(STATUS.success);
  return context;
}

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

describe('launchStart', () => {
  it.each([
    ['bit 17 clear', 0x10000n, STATUS.policyFailure],
    ['a bit that must be zero', POLICY_VALUE | (1n << 21n), STATUS.policyFailure],
    ['a newer minor version', POLICY_VALUE | 0x138n, STATUS.policyFailure],
    ['a newer major version', POLICY_VALUE | 0x200n, STATUS.policyFailure],
    ['this version', POLICY_VALUE | 0x137n, STATUS.success],
    ['debug', POLICY_VALUE | POLICY.debug, STATUS.success],
    ['no SMT', POLICY.reserved, STATUS.success],
  ])('%s', (_, policy, status) => {
    expect(launchStart(createContext(platform, 0), { policy })).toBe(status);
  });
  it('is refused twice', () => {
    const context = createContext(platform, 0);
    launchStart(context, { policy: POLICY_VALUE });
    expect(launchStart(context, { policy: POLICY_VALUE })).toBe(STATUS.invalidGuestState);
  });
});

describe('launchUpdate', () => {
  const started = (): GuestContext => {
    const context = createContext(platform, 7);
    launchStart(context, { policy: POLICY_VALUE, desiredTscKhz: 3_000_000 });
    return context;
  };
  const contents = new Uint8Array(4096).fill(0x5a);
  it('writes the secrets page with the keys of the guest', () => {
    const context = started();
    const result = launchUpdate(
      platform,
      context,
      { type: PAGE_TYPE.secrets, gpa: 0x9000, contents },
      nothing,
    );
    const page = secretsPage.read(result.contents as Uint8Array);
    expect(page.version).toBe(3);
    expect(page.fms).toBe(0x00a00f11);
    expect(hex(page.vmpck0)).toBe(hex(context.vmpcks[0] as Uint8Array));
    expect(hex(page.vmpck3)).toBe(hex(context.vmpcks[3] as Uint8Array));
    expect(page.svsmSize).toBe(0n);
    expect(new Set([0, 1, 2, 3].map((i) => hex(context.vmpcks[i] as Uint8Array))).size).toBe(4);
  });
  it('zeroes a zero page, keeps a normal one, refuses an unknown type', () => {
    const context = started();
    const update = (type: number) => launchUpdate(platform, context, { type, gpa: 0, contents }, nothing);
    expect(update(PAGE_TYPE.zero).contents).toEqual(new Uint8Array(4096));
    expect(update(PAGE_TYPE.normal).contents).toEqual(contents);
    const before = hex(context.measurement);
    expect(update(0).status).toBe(STATUS.invalidParam);
    expect(update(7).status).toBe(STATUS.invalidParam);
    expect(hex(context.measurement)).toBe(before);
  });
  it('gives a VMSA with Secure TSC its scale', () => {
    const vmsa = new Uint8Array(4096);
    vmsa[0x3b1] = 2;
    const result = launchUpdate(
      platform,
      started(),
      { type: PAGE_TYPE.vmsa, gpa: 0, contents: vmsa },
      nothing,
    );
    expect(new DataView((result.contents as Uint8Array).buffer).getBigUint64(0x2f0, true)).toBe(
      0x1_8000_0000n,
    );
  });
  it('is refused before the start and after the finish', () => {
    const update = { type: PAGE_TYPE.zero, gpa: 0, contents };
    expect(launchUpdate(platform, createContext(platform, 0), update, nothing).status).toBe(
      STATUS.invalidGuestState,
    );
    expect(launchUpdate(platform, launched(), update, nothing).status).toBe(STATUS.invalidGuestState);
  });
});

describe('checkCpuidPage', () => {
  const CHIP: Readonly<Record<string, CpuidRegisters>> = {
    '0,0': { eax: 0x10, ebx: 1, ecx: 2, edx: 3 },
    '1,0': { eax: 0x00a00f11, ebx: 0x00010800, ecx: 0x40000001, edx: 0xff },
    '13,0': { eax: 0x207, ebx: 0x340, ecx: 0x988, edx: 0 },
    '13,2': { eax: 0x100, ebx: 0x240, ecx: 0, edx: 0 },
    '13,9': { eax: 8, ebx: 0x980, ecx: 0, edx: 0 },
    '13,1': { eax: 0xf, ebx: 0, ecx: 0, edx: 0 },
    [`${0x8000001f},0`]: { eax: 0x1a, ebx: 51 | (4 << 12), ecx: 0, edx: 0 },
  };
  const chip = (leaf: number, subleaf: number): CpuidRegisters => CHIP[`${leaf},${subleaf}`] ?? nothing();
  const page = (...functions: Partial<ReturnType<typeof cpuidFunction.read>>[]): Uint8Array => {
    const made = new Uint8Array(4096);
    cpuidPage.write({ count: functions.length }, made);
    functions.forEach((values, i) => cpuidFunction.write(values, made, 16 + 48 * i));
    return made;
  };
  const submit = (made: Uint8Array) => {
    const context = createContext(platform, 0);
    launchStart(context, { policy: POLICY_VALUE });
    return launchUpdate(platform, context, { type: PAGE_TYPE.cpuid, gpa: 0, contents: made }, chip);
  };
  it.each([
    ['a hypervisor leaf, whatever it says', { eaxIn: 0x40000001, eax: 0x31237648, ebx: 99 }],
    [
      'fewer features, any APIC id, OSXSAVE and the hypervisor bit',
      { eaxIn: 1, eax: 0x00800f12, ebx: 0x07ff0833, ecx: 0x88000001, edx: 3 },
    ],
    ['a smaller last leaf', { eaxIn: 0, eax: 0xd, ebx: 77 }],
    [
      'the area size of the state that is asked',
      { eaxIn: 0xd, xcr0In: 0x207n, eax: 0x207, ebx: 0x988, ecx: 5 },
    ],
    ['the compacted size', { eaxIn: 0xd, ecxIn: 1, xcr0In: 0x205n, eax: 1, ebx: 0x348 }],
    [
      'another number of reduced address bits',
      { eaxIn: 0x8000001f, eax: 2, ebx: 51 | (5 << 6) | (4 << 12), ecx: 500 },
    ],
  ])('accepts %s', (_, values) => {
    expect(submit(page(values)).status).toBe(STATUS.success);
  });
  it.each([
    ['a feature that the chip lacks', { eaxIn: 1, eax: 0x00a00f11, ebx: 0x800, ecx: 0x3 }, { ecx: 1 }],
    ['a newer processor', { eaxIn: 1, eax: 0x00a10f00, ebx: 0x800 }, { eax: 0x00a00f11 }],
    ['another line size', { eaxIn: 1, eax: 0, ebx: 0x1000 }, { ebx: 0x800 }],
    ['an area without its components', { eaxIn: 0xd, xcr0In: 7n, eax: 3, ebx: 0x240 }, { ebx: 0x340 }],
    ['x87 without SSE', { eaxIn: 0xd, xcr0In: 1n, eax: 1, ebx: 0x240 }, { eax: 3 }],
    ['a function that the chip does not have', { eaxIn: 0x15, eax: 1 }, { eax: 0 }],
    ['a subleaf that does not exist', { eaxIn: 1, ecxIn: 1, eax: 1 }, { eax: 0 }],
    ['another C-bit', { eaxIn: 0x8000001f, eax: 2, ebx: 47 | (4 << 12) }, { ebx: 51 | (4 << 12) }],
  ])('refuses %s and says what it would accept', (_, values, expected) => {
    const result = submit(page({ eaxIn: 0, eax: 1 }, values));
    expect(result.status).toBe(STATUS.invalidParam);
    expect(cpuidFunction.read(result.contents as Uint8Array, 64)).toMatchObject(expected);
    expect(submit(result.contents as Uint8Array).status).toBe(STATUS.success);
  });
  it('refuses reserved fields and more than 64 functions', () => {
    const many = page();
    many[0] = 65;
    expect(submit(many).status).toBe(STATUS.invalidParam);
    const reserved = page();
    reserved[8] = 1;
    expect(submit(reserved).status).toBe(STATUS.invalidParam);
    expect(submit(page({ eaxIn: 0, reserved: 1n })).status).toBe(STATUS.invalidParam);
  });
});

describe('launchFinish', () => {
  const firmwareKey = ({ x, y }: EcKey): Uint8Array =>
    publicKey.write({ curve: CURVE_P384, x: toFirmware(x), y: toFirmware(y) });
  const firmwareSignature = (key: EcKey, message: Uint8Array): Uint8Array => {
    const { r, s } = sign(key, message);
    return signature.write({ r: toFirmware(r), s: toFirmware(s) });
  };
  const idKey = ecKey('p-384', 5n, 'id key');
  const authorKey = ecKey('p-384', 5n, 'author key');
  const started = (): GuestContext => {
    const context = createContext(platform, 0);
    launchStart(context, { policy: POLICY_VALUE });
    launchUpdate(
      platform,
      context,
      { type: PAGE_TYPE.zero, gpa: 0, contents: new Uint8Array(4096) },
      nothing,
    );
    return context;
  };
  const identity = (context: GuestContext, change: Partial<ReturnType<typeof idBlock.read>> = {}) => {
    const block = idBlock.write({
      digest: context.measurement,
      familyId: new Uint8Array(16).fill(1),
      imageId: new Uint8Array(16).fill(2),
      version: 1,
      guestSvn: 3,
      policy: POLICY_VALUE,
      ...change,
    });
    const auth = idAuth.write({
      idKeyAlgorithm: ECDSA_P384_SHA384,
      authorKeyAlgorithm: ECDSA_P384_SHA384,
      idBlockSignature: firmwareSignature(idKey, block),
      idKey: firmwareKey(idKey),
      idKeySignature: firmwareSignature(authorKey, firmwareKey(idKey)),
      authorKey: firmwareKey(authorKey),
    });
    return { block, auth, authorKey: true };
  };
  it('takes a signed ID block over and reports digests of the keys', () => {
    const context = started();
    expect(launchFinish(context, { id: identity(context), hostData: new Uint8Array(32).fill(9) })).toBe(
      STATUS.success,
    );
    expect(hex(context.idKeyDigest)).toBe(createHash('sha384').update(firmwareKey(idKey)).digest('hex'));
    expect(hex(context.authorKeyDigest)).toBe(
      createHash('sha384').update(firmwareKey(authorKey)).digest('hex'),
    );
    expect(context.authorKeyEnabled).toBe(true);
  });
  it('refuses another digest, another policy, and signatures that do not fit', () => {
    const finish = (make: (context: GuestContext) => ReturnType<typeof identity>): number => {
      const context = started();
      const status = launchFinish(context, { id: make(context) });
      expect(context.state).toBe(status === STATUS.success ? 'running' : 'launch');
      return status;
    };
    expect(finish((context) => identity(context, { digest: new Uint8Array(48) }))).toBe(
      STATUS.badMeasurement,
    );
    expect(finish((context) => identity(context, { policy: 0x20000n }))).toBe(STATUS.policyFailure);
    const damaged = (at: number) => (context: GuestContext) => {
      const id = identity(context);
      id.auth[at] = (id.auth[at] as number) ^ 1;
      return id;
    };
    expect(finish(damaged(0))).toBe(STATUS.invalidParam);
    expect(finish(damaged(4))).toBe(STATUS.invalidParam);
    expect(finish(damaged(0x40))).toBe(STATUS.badSignature);
    expect(finish(damaged(0x244))).toBe(STATUS.badSignature);
    expect(finish(damaged(0x680))).toBe(STATUS.badSignature);
    expect(finish(damaged(0x884))).toBe(STATUS.badSignature);
  });
  it('hashes an ID key as the published tool does', () => {
    // virtee/sev-snp-measure 0.0.13, tests/test_id_block.py: the test key's point and id_key_hash.
    const key = publicKey.write({
      curve: CURVE_P384,
      x: toFirmware(bytes(KNOWN_ID_KEY.x)),
      y: toFirmware(bytes(KNOWN_ID_KEY.y)),
    });
    expect(createHash('sha384').update(key).digest('base64')).toBe(
      'hwt+NcU/inLQ0yL3WrKvgmJ5Kq9leWIs5BMcPyHyied8sFYKXjuQs5MuZ07HCcsU',
    );
  });
});

const KNOWN_ID_KEY = {
  x: 'b20fd1a1c2bd2b65183a76e2390ac805f6d8e5e2af725e5a8e93cf87ec029f9d45eb326b04b92beb714e14fa986f8a9a',
  y: '2c94a0b8ab30cc76352675944876891e954ff6ef5826a6231ba6d6d7f6ebfb68ce330e1e59394efb7080883ddc69364b',
};

describe('guestRequest', () => {
  const ask = (context: GuestContext, type: number, payload: Uint8Array, vmpck = 0) => {
    const sequence = (context.messageCounts[vmpck] as bigint) + 1n;
    return guestRequest(
      platform,
      context,
      seal(context.vmpcks[vmpck] as Uint8Array, sequence, type, vmpck, payload),
      nothing,
    );
  };
  /** What a guest reads, with another library's cipher. */
  const openAnswer = (context: GuestContext, answer: Uint8Array, vmpck = 0): Uint8Array => {
    const header = messageHeader.read(answer);
    const iv = Buffer.alloc(12);
    iv.writeBigUInt64LE(header.sequence);
    const decipher = createDecipheriv('aes-256-gcm', context.vmpcks[vmpck] as Uint8Array, iv);
    decipher.setAAD(answer.subarray(0x30, 0x60));
    decipher.setAuthTag(answer.subarray(0, 16));
    return new Uint8Array(Buffer.concat([decipher.update(answer.subarray(0x60)), decipher.final()]));
  };
  const reportData = Uint8Array.from({ length: 64 }, (_, i) => i);

  it('answers a report request with a report signed by the VCEK', () => {
    const context = launched({ hostData: new Uint8Array(32).fill(7) });
    const { status, response } = ask(
      context,
      MESSAGE.reportRequest,
      reportRequest.write({ reportData, vmpl: 2 }),
    );
    expect(status).toBe(STATUS.success);
    const header = messageHeader.read(response as Uint8Array);
    expect(header).toMatchObject({ type: 6, sequence: 2n, messageSize: 0x4c0, headerSize: 0x60, vmpck: 0 });
    const payload = openAnswer(context, response as Uint8Array);
    expect(reportResponse.read(payload)).toEqual({ status: 0, reportSize: 0x4a0 });
    const made = payload.subarray(0x20);
    const fields = report.read(made);
    expect(fields).toMatchObject({
      version: 3,
      vmpl: 2,
      policy: POLICY_VALUE,
      cpuidFamily: 0x19,
      cpuidModel: 1,
      cpuidStepping: 1,
    });
    expect(fields.reportData).toEqual(reportData);
    expect(fields.measurement).toEqual(context.measurement);
    expect(fields.hostData).toEqual(new Uint8Array(32).fill(7));
    const { x, y } = platform.vcek;
    const key = publicKey.write({ curve: CURVE_P384, x: toFirmware(x), y: toFirmware(y) });
    expect(isSigned(made.subarray(0, SIGNED), fields.signature, key)).toBe(true);
    const changed = made.slice();
    changed[0x90] = (changed[0x90] as number) ^ 1;
    expect(isSigned(changed.subarray(0, SIGNED), fields.signature, key)).toBe(false);
  });
  it('counts two for each exchange and refuses a replay, a gap and another counter', () => {
    const context = launched();
    const request = seal(
      context.vmpcks[0] as Uint8Array,
      1n,
      MESSAGE.reportRequest,
      0,
      reportRequest.write({ reportData }),
    );
    expect(guestRequest(platform, context, request, nothing).status).toBe(STATUS.success);
    expect(context.messageCounts).toEqual([2n, 0n, 0n, 0n]);
    expect(guestRequest(platform, context, request, nothing).status).toBe(STATUS.aeadOverflow);
    const later = seal(
      context.vmpcks[0] as Uint8Array,
      5n,
      MESSAGE.reportRequest,
      0,
      reportRequest.write({ reportData }),
    );
    expect(guestRequest(platform, context, later, nothing).status).toBe(STATUS.aeadOverflow);
    context.messageCounts[0] = (1n << 64n) - 2n;
    expect(ask(context, MESSAGE.reportRequest, reportRequest.write({ reportData })).status).toBe(
      STATUS.aeadOverflow,
    );
    expect(context.messageCounts[0]).toBe((1n << 64n) - 2n);
  });
  it('refuses every bit that somebody changed on the way, and counts nothing', () => {
    const context = launched();
    const good = seal(
      context.vmpcks[0] as Uint8Array,
      1n,
      MESSAGE.reportRequest,
      0,
      reportRequest.write({ reportData }),
    );
    for (const at of [0, 15, 0x20, 0x30, 0x31, 0x32, 0x34, 0x35, 0x36, 0x38, 0x3c, 0x5f, 0x60, 0xbf]) {
      const changed = good.slice();
      changed[at] = (changed[at] as number) ^ 0x80;
      const { status, response } = guestRequest(platform, context, changed, nothing);
      expect([STATUS.badMeasurement, STATUS.invalidParam], `byte ${at}`).toContain(status);
      expect(response).toBeUndefined();
    }
    expect(context.messageCounts).toEqual([0n, 0n, 0n, 0n]);
    expect(guestRequest(platform, context, good.subarray(0, 0x50), nothing).status).toBe(STATUS.invalidParam);
    expect(guestRequest(platform, context, good.subarray(0, 0x80), nothing).status).toBe(STATUS.invalidParam);
    expect(guestRequest(platform, createContext(platform, 0), good, nothing).status).toBe(
      STATUS.invalidGuestState,
    );
  });
  it('does not let a key speak for a more privileged level', () => {
    const context = launched();
    const status = (vmpck: number, vmpl: number): number => {
      const { response } = ask(
        context,
        MESSAGE.reportRequest,
        reportRequest.write({ reportData, vmpl }),
        vmpck,
      );
      return reportResponse.get(openAnswer(context, response as Uint8Array, vmpck), 'status');
    };
    expect(status(2, 1)).toBe(STATUS.invalidParam);
    expect(status(2, 2)).toBe(STATUS.success);
    expect(status(2, 3)).toBe(STATUS.success);
    expect(status(0, 4)).toBe(STATUS.invalidParam);
  });
  it('signs with no key that is not there', () => {
    const context = launched({ vcekDisabled: true });
    const status = (keySelect: number): number => {
      const { response } = ask(
        context,
        MESSAGE.reportRequest,
        reportRequest.write({ reportData, keySelect }),
      );
      return reportResponse.get(openAnswer(context, response as Uint8Array), 'status');
    };
    expect(status(KEY_SELECT.vlekOrVcek)).toBe(STATUS.invalidKey);
    expect(status(KEY_SELECT.vlek)).toBe(STATUS.invalidKey);
    expect(status(4)).toBe(STATUS.invalidParam);
  });
  it('derives keys that depend on what was selected', () => {
    const context = launched();
    const other = launched();
    other.measurement = new Uint8Array(48).fill(1);
    const derive = (of: GuestContext, values: Parameters<typeof keyRequest.write>[0]): string => {
      const { response } = ask(of, MESSAGE.keyRequest, keyRequest.write(values));
      const { status, key } = keyResponse.read(openAnswer(of, response as Uint8Array));
      return status === 0 ? hex(key) : `status ${status}`;
    };
    const plain = derive(context, {});
    expect(plain).toMatch(/^[0-9a-f]{64}$/);
    expect(derive(context, {})).toBe(plain);
    expect(derive(other, {})).toBe(plain);
    expect(derive(context, { vmpl: 1 })).not.toBe(plain);
    expect(derive(context, { select: 1 })).not.toBe(plain);
    const measured = { guestFieldSelect: GUEST_FIELD.measurement };
    expect(derive(context, measured)).not.toBe(derive(other, measured));
    const tcb = (tcbVersion: bigint) =>
      derive(context, { guestFieldSelect: GUEST_FIELD.tcbVersion, tcbVersion });
    expect(tcb(platform.tcb)).toMatch(/^[0-9a-f]{64}$/);
    expect(tcb(0n)).not.toBe(tcb(platform.tcb));
    expect(tcb(platform.tcb + 1n)).toBe('status 22');
    expect(tcb(1n << 16n)).toBe('status 22');
    expect(derive(context, { guestFieldSelect: GUEST_FIELD.guestSvn, guestSvn: 1 })).toBe('status 22');
    expect(derive(context, { guestFieldSelect: 1n << 6n })).toBe('status 22');
    expect(derive(context, { select: 8 })).toBe('status 22');
    expect(derive(context, { select: 4 })).toBe('status 39');
  });
  it('tells the scale of the TSC', () => {
    const context = launched();
    const { response } = ask(context, MESSAGE.tscInfoRequest, new Uint8Array(128));
    expect(tscInfoResponse.read(openAnswer(context, response as Uint8Array))).toEqual({
      status: 0,
      scale: 0x1_8000_0000n,
      offset: 0n,
      factor: 0,
    });
  });
  it('has no answer for migration and unknown messages', () => {
    const context = launched();
    for (const type of [0, 2, 6, MESSAGE.exportRequest, MESSAGE.importRequest, MESSAGE.vmrkRequest, 19, 255])
      expect(ask(context, type, new Uint8Array(16)).status, `${type}`).toBe(STATUS.invalidParam);
  });
});

describe('tscScale', () => {
  it('rounds up in 8.32 fixed point', () => {
    expect(tscScale(1, 1)).toBe(1n << 32n);
    expect(tscScale(1, 3)).toBe(0x5555_5556n);
    expect(tscScale(1, 0)).toBe(0n);
  });
});

describe('isSigned', () => {
  it('accepts a report of a real Milan by its own VCEK', () => {
    const folder = new URL('../../../../test/attestation/', import.meta.url);
    const real = bytes(readFileSync(new URL('milan-report.hex', folder), 'latin1').trim());
    const jwk = new X509Certificate(readFileSync(new URL('milan-vcek.pem', folder))).publicKey.export({
      format: 'jwk',
    });
    const key = publicKey.write({
      curve: CURVE_P384,
      x: toFirmware(Buffer.from(jwk.x as string, 'base64url')),
      y: toFirmware(Buffer.from(jwk.y as string, 'base64url')),
    });
    expect(isSigned(real.subarray(0, SIGNED), report.get(real, 'signature'), key)).toBe(true);
    real[0x50] = (real[0x50] as number) ^ 1;
    expect(isSigned(real.subarray(0, SIGNED), report.get(real, 'signature'), key)).toBe(false);
  });
});

describe('snpCertificates', () => {
  const certificates = snpCertificates(platform);
  it('form a chain that another implementation verifies, and say what they are', () => {
    const [ark, ask, vcek] = [certificates.ark, certificates.ask, certificates.vcek].map(
      (der) => new X509Certificate(der),
    ) as [X509Certificate, X509Certificate, X509Certificate];
    expect(ark.verify(ark.publicKey)).toBe(true);
    expect(ask.verify(ark.publicKey)).toBe(true);
    expect(vcek.verify(ask.publicKey)).toBe(true);
    for (const { subject } of [ark, ask, vcek])
      expect(subject).toMatch(/Development PKI: proves nothing about hardware/);
    expect(vcek.publicKey.asymmetricKeyDetails?.namedCurve).toBe('secp384r1');
    expect(ark.publicKey.asymmetricKeyDetails?.modulusLength).toBe(4096);
  });
  it('are the same for the same seed and others for another one', () => {
    expect(hex(snpCertificates(snpPlatform(1n, 0x00a00f11, 1)).vcek)).toBe(hex(certificates.vcek));
    expect(hex(snpCertificates(snpPlatform(2n, 0x00a00f11, 1)).vcek)).not.toBe(hex(certificates.vcek));
  });
  it('fit as a table into what Linux takes', () => {
    const table = hostCertificateTable(certificates);
    expect(table.length).toBeLessThanOrEqual(0x4000);
    expect(readCertificateTable(table)?.map((entry) => entry.bytes)).toEqual([
      certificates.vcek,
      certificates.ask,
      certificates.ark,
    ]);
  });
  // Without the openssl command there is nothing to compare with.
  it.skipIf(!hasOpenssl)('verify by OpenSSL alone, with report and revocation list', () => {
    const folder = mkdtempSync(join(tmpdir(), 'vitrine-'));
    try {
      const context = launched();
      const request = seal(
        context.vmpcks[0] as Uint8Array,
        1n,
        MESSAGE.reportRequest,
        0,
        reportRequest.write({}),
      );
      const { response } = guestRequest(platform, context, request, nothing);
      const file = (name: string, contents: Uint8Array | string): string => {
        writeFileSync(join(folder, name), contents);
        return join(folder, name);
      };
      const script = new URL('../../../../scripts/verify-snp-report.sh', import.meta.url).pathname;
      // Under key and sequence of this test the payload is known to start with the response header.
      const iv = Buffer.alloc(12);
      iv[0] = 2;
      const decipher = createDecipheriv('aes-256-gcm', context.vmpcks[0] as Uint8Array, iv);
      const made = decipher.update((response as Uint8Array).subarray(0x60)).subarray(0x20);
      const path = file('report.bin', made);
      const chain = file('chain.pem', certificateChainPem(certificates));
      expect(execFileSync(script, [path, chain], { encoding: 'utf8' })).toMatch(/report: signature good/);
      const crl = file('crl.pem', pem('X509 CRL', certificates.crl));
      const ark = file('ark.pem', pem('CERTIFICATE', certificates.ark));
      expect(
        execFileSync('openssl', ['crl', '-in', crl, '-CAfile', ark, '-noout', '-verify'], {
          encoding: 'utf8',
          stdio: 'pipe',
        }),
      ).toBe('');
      made[0x90] = (made[0x90] as number) ^ 1;
      expect(() => execFileSync(script, [file('bad.bin', made), chain], { stdio: 'pipe' })).toThrow();
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
