import { createHash, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { PAGE_TYPE, POLICY, STATUS } from '../../../abi/snp/firmware.ts';
import { idAuth, idBlock, secretsPage } from '../../../abi/snp/launch.ts';
import {
  CURVE_P384,
  ECDSA_P384_SHA384,
  publicKey,
  report,
  signature,
  SIGNED,
  toFirmware,
} from '../../../abi/snp/report.ts';
import { ecKey, sign, type EcKey } from '../../pki/ec.ts';
import { createContext, type GuestContext } from './guest-context.ts';
import { isSigned, launchFinish, launchStart, launchUpdate } from './launch.ts';
import { platform, POLICY_VALUE, nothing, hex, bytes, launched } from './test-guest.ts';

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

const KNOWN_ID_KEY = {
  x: 'b20fd1a1c2bd2b65183a76e2390ac805f6d8e5e2af725e5a8e93cf87ec029f9d45eb326b04b92beb714e14fa986f8a9a',
  y: '2c94a0b8ab30cc76352675944876891e954ff6ef5826a6231ba6d6d7f6ebfb68ce330e1e59394efb7080883ddc69364b',
};

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
