/** TDG.MR.RTMR.EXTEND, TDG.MR.REPORT, TDG.MR.VERIFYREPORT. */
import { OPERAND, STATUS } from '../../abi/tdx/status.ts';
import { extendRtmr } from './attestation/report.ts';
import type { LeafOutcome } from './module.ts';
import { GPR } from './registers.ts';
import { ended, invalid, succeeded, type Caller } from './tdcall.ts';

const RTMRS = 4n;
const DIGEST = 48;

export function mrRtmrExtend(caller: Caller): LeafOutcome {
  const { module, registers } = caller;
  const gpa = registers.get(GPR.rcx);
  const index = registers.get(GPR.rdx);
  if (!module.isPrivateGpa(gpa, 64)) return invalid(caller, OPERAND.rcx);
  if (index >= RTMRS) return invalid(caller, OPERAND.rtmr);
  const reached = module.reach(gpa, false);
  if (!reached.ok) return { kind: 'exit', exit: reached.exit };
  const before = module.td.rtmr[Number(index)] as Uint8Array;
  module.td.rtmr[Number(index)] = extendRtmr(before, module.readHost(reached.host, DIGEST));
  return succeeded(caller);
}

export function mrReport(caller: Caller): LeafOutcome {
  const { module, registers } = caller;
  const { attestation } = module;
  const report = registers.get(GPR.rcx);
  const data = registers.get(GPR.rdx);
  // Both may be private or shared.
  if (!module.isGpa(report) || report % 1024n !== 0n) return invalid(caller, OPERAND.rcx);
  if (!module.isGpa(data) || data % 64n !== 0n) return invalid(caller, OPERAND.rdx);
  if (registers.get(GPR.r8) !== 0n) return invalid(caller, OPERAND.r8);
  const from = module.reach(data, false);
  if (!from.ok) return { kind: 'exit', exit: from.exit };
  const to = module.reach(report, true);
  if (!to.ok) return { kind: 'exit', exit: to.exit };
  module.writeHost(to.host, attestation.report(module, module.readHost(from.host, 64)));
  return succeeded(caller);
}

export function mrVerifyReport(caller: Caller): LeafOutcome {
  const { module, registers } = caller;
  const { attestation } = module;
  const gpa = registers.get(GPR.rcx);
  if (!module.isGpa(gpa) || gpa % 256n !== 0n) return invalid(caller, OPERAND.rcx);
  const reached = module.reach(gpa, false);
  if (!reached.ok) return { kind: 'exit', exit: reached.exit };
  switch (attestation.verify(module.readHost(reached.host, 256))) {
    case 'valid':
      return succeeded(caller);
    case 'cpu-svn':
      return ended(caller, STATUS.invalidCpuSvn);
    case 'mac':
      return ended(caller, STATUS.invalidReportMacStruct);
  }
}
