import { createDecipheriv } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { STATUS } from '../../../abi/snp/firmware.ts';
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
import { CURVE_P384, publicKey, report, SIGNED, toFirmware } from '../../../abi/snp/report.ts';
import { createContext, type GuestContext } from './guest-context.ts';
import { guestRequest, seal } from './guest-request.ts';
import { isSigned } from './launch.ts';
import { tscScale } from './tsc.ts';
import { platform, POLICY_VALUE, nothing, hex, launched } from './test-guest.ts';

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
