/** Requests in the GHCB MSR (AMD 56421, 2.3.1 and 4.?): what fits into 64 bits. The answer goes into the same MSR. */
import { EVENT, EVENT_CLASS, PAGE_USE, PRIVILEGED_OPERATION } from '../../abi/events.ts';
import { GHCB_MSR, GHCB_VERSION, HV_FEATURE, PAGE_OPERATION } from '../../abi/snp/ghcb.ts';
import { partitionVp, type VpState } from '../../chipset/partition/state.ts';
import type { Halves } from '../../seats/snp.ts';
import { cpuidForGuest } from './cpuid.ts';
import { changePageState, pageWorld } from './pages.ts';
import { isShared } from './pages.ts';
import { runVmpl } from './contexts.ts';
import { terminate } from './terminate.ts';
import { PAGE, type SnpVp } from './state.ts';
import type { HostCall } from '../state.ts';

const C_BIT = 51;
export const FEATURES =
  HV_FEATURE.snp | HV_FEATURE.apCreation | HV_FEATURE.restrictedInjection | HV_FEATURE.multiVmpl;
const NO_PREFERENCE = { lo: 0xffff_f000, hi: 0xffff_ffff };

/** Bits 63-12 as a page address; values above 2^52 do not exist. */
export const pageAddress = ({ lo, hi }: Halves): number =>
  (lo & ~0xfff) >>> 0 || hi ? hi * 0x1_0000_0000 + ((lo & ~0xfff) >>> 0) : 0;

/** Serves the request; false when it is one that nobody knows. */
export function answerGhcbMsr(call: HostCall, vp: VpState, target: SnpVp): void {
  const request = { ...target.vmcb.ghcb };
  const answer = (code: number, lo: number, hi: number): void => {
    target.vmcb.ghcb = { lo: ((lo & ~0xfff) | code) >>> 0, hi: hi >>> 0 };
  };
  switch (request.lo & 0xfff) {
    case GHCB_MSR.sevInfoRequest:
      answer(GHCB_MSR.sevInfoResponse, C_BIT << 24, (GHCB_VERSION.most << 16) | GHCB_VERSION.least);
      return;
    case GHCB_MSR.cpuidRequest: {
      // Function in 63:32, register in 31:30. Subleaf 0, XCR0 1.
      const registers = cpuidForGuest(call, partitionVp(call.state, vp.index), request.hi, 0, 1, 0);
      const value = [registers.eax, registers.ebx, registers.ecx, registers.edx][request.lo >>> 30] as number;
      answer(GHCB_MSR.cpuidResponse, request.lo, value);
      return;
    }
    case GHCB_MSR.preferredGpaRequest:
      answer(GHCB_MSR.preferredGpaResponse, NO_PREFERENCE.lo, NO_PREFERENCE.hi);
      return;
    case GHCB_MSR.registerGpaRequest: {
      const gpa = pageAddress(request);
      const plain = withoutAlias(call, gpa);
      const snp = call.state.snp;
      const ok = snp !== undefined && isShared(snp, plain, PAGE);
      if (ok) target.ghcbs[target.vmpl] = plain;
      if (ok && call.sink.mask & EVENT_CLASS.page)
        call.sink.emit(EVENT.pageUse, call.now, vp.index, plain, PAGE_USE.ghcb, 0, 0);
      // Refused: another number than the one asked for (all ones).
      answer(
        GHCB_MSR.registerGpaResponse,
        ok ? request.lo : NO_PREFERENCE.lo,
        ok ? request.hi : NO_PREFERENCE.hi,
      );
      return;
    }
    case GHCB_MSR.pageStateRequest: {
      // Page frame in 51:12, operation in 55:52.
      const operation = (request.hi >>> 20) & 0xf;
      const gpa = (request.hi & 0xf_ffff) * 0x1_0000_0000 + ((request.lo & ~0xfff) >>> 0);
      const known = operation === PAGE_OPERATION.private || operation === PAGE_OPERATION.shared;
      const ok = known && changePageState(pageWorld(call), gpa, false, operation === PAGE_OPERATION.private);
      tracePageStateRequest(call, vp, target, gpa, ok);
      answer(GHCB_MSR.pageStateResponse, 0, ok ? 0 : 1);
      return;
    }
    case GHCB_MSR.runVmplRequest: {
      const ok = runVmpl(call, target, request.hi & 0xff);
      answer(GHCB_MSR.runVmplResponse, 0, ok ? 0 : 1);
      return;
    }
    case GHCB_MSR.featuresRequest:
      answer(GHCB_MSR.featuresResponse, FEATURES << 12, FEATURES >>> 20);
      return;
    case GHCB_MSR.apResetHoldRequest:
      // Until somebody starts it again; then the answer is not zero.
      vp.activity = 'halted';
      answer(GHCB_MSR.apResetHoldResponse, 0x1000, 0);
      return;
    case GHCB_MSR.terminate:
      terminate(call, vp, (request.lo >>> 12) & 0xf, (request.lo >>> 16) & 0xff, 0n);
      return;
    default:
      // Left as it is: the guest finds its own request instead of a response.
      if (call.sink.mask & EVENT_CLASS.exit)
        call.sink.emit(EVENT.ghcbRefused, call.now, vp.index, request.lo & 0xfff, request.lo, request.hi, 0);
  }
}

/** The address without the bit that makes it a shared alias. */
export function withoutAlias(call: HostCall, gpa: number): number {
  const alias = call.state.snp?.aliasBit ?? 0;
  return alias !== 0 && gpa >= 2 ** alias && gpa < 2 ** (alias + 1) ? gpa - 2 ** alias : gpa;
}

/** Somebody in the guest has asked for another state of a page. */
export function tracePageStateRequest(
  { sink, now }: HostCall,
  { index }: VpState,
  { vmpl }: SnpVp,
  gpa: number,
  ok: boolean,
): void {
  if ((sink.mask & EVENT_CLASS.privileged) === 0) return;
  const refused = ok ? 0 : 1;
  sink.emit(EVENT.privilegedOperation, now, index, PRIVILEGED_OPERATION.pageStateChange, gpa, refused, vmpl);
}
