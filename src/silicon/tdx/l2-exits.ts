/**
 * Where an exit of an L2 VM goes (TDX Module 1.5 TD Partitioning, table of L2 VM exits): most to L1, some to the host, a few are
 * the module's own. An L2 VM never sees #VE.
 */
import type { ExitKind } from '../../abi/exit-kinds.ts';
import { EVENT, EVENT_CLASS } from '../../abi/events.ts';
import {
  controlQualification,
  debugQualification,
  EXIT_REASON,
  EXTENDED_EPT,
  ioQualification,
} from '../../abi/tdx/exit-reasons.ts';
import { TDG } from '../../abi/tdx/leaves.ts';
import { L2_CTL } from '../../abi/tdx/l2.ts';
import { OPERAND, status, STATUS } from '../../abi/tdx/status.ts';
import { VMCALL_MASK } from '../../abi/tdx/ghci.ts';
import { CONFIG_FLAG } from '../../abi/tdx/td-params.ts';
import { CPU, EXIT, INTERCEPT, RAISE, REC } from '../../x86/layout.ts';
import { WRITE } from '../../x86/runtime/paging.ts';
import { CR0, EFER } from '../../x86/registers.ts';
import { complete, raiseFault, read64, write64 } from '../vcpu.ts';
import { apicPage, readTpr, virtualEoi, virtualSelfIpi, writeTpr } from './l2-apic.ts';
import { l1InterceptsMsr, l2Field, PROC, SECONDARY, VMCS } from './l2-fields.ts';
import { l2Exit, returnToL1, type L2ExitCause } from './l2-return.ts';
import { eptQualification, machineCheck, takeExit, vmcallRegisters, type Destination } from './l1-exits.ts';
import { EXIT_TDX } from './layout.ts';
import { readMsr, writeMsr } from './msr-access.ts';
import { MSR } from './msr.ts';
import { exitRegisters, type TdxModule } from './module.ts';
import { contextRegisters } from './registers.ts';
import type { L2State, VcpuState } from './state.ts';
import { PAGE, SEPT } from './tables.ts';
import { instructionLength } from './ve.ts';

interface L2 {
  readonly module: TdxModule;
  readonly vcpu: VcpuState;
  readonly l2: L2State;
  readonly cpu: number;
}

export function routeL2(module: TdxModule, vcpu: VcpuState): Destination {
  const cpu = module.engine.cpu(vcpu.index, vcpu.vm);
  const at: L2 = { module, vcpu, l2: vcpu.l2[vcpu.vm - 1] as L2State, cpu };
  const { view } = module.engine;
  const { code } = takeExit(module, cpu);
  const info = view.getUint32(cpu + CPU.raiseInfo, true);
  const reason = EXIT_REASON;
  switch (code) {
    case EXIT_TDX.tdcall:
      return tdcallExit(at);
    case EXIT_TDX.eptViolation:
      return eptViolation(at);
    case EXIT_TDX.reservedAddress:
      return toL1(at, 'nested-fault', { ...violation(at), reason: reason.eptViolation, kind: 'async' });
    case EXIT_TDX.integrity:
      return machineCheck(module, vcpu);
    case EXIT.exception:
      return exception(at);
    case EXIT.cpuid:
      return instruction(at, 'cpuid', reason.cpuid);
    case EXIT.hlt:
      return instruction(at, 'hlt', reason.hlt);
    case EXIT.vmcall:
      return instruction(at, 'hypercall', reason.vmcall);
    case EXIT.mwait:
      return instruction(at, 'monitor', reason.mwait);
    case EXIT.monitor:
      return instruction(at, 'monitor', reason.monitor);
    case EXIT.wbinvd:
      return instruction(at, 'cache', info === 0 ? reason.invd : reason.wbinvd);
    case EXIT.pause:
      complete(module.engine, cpu, { kind: 'done' });
      return { to: 'silicon', cause: 'pause' };
    case EXIT.io: {
      const flags = view.getUint32(cpu + CPU.raiseInfo2, true);
      const qualification = ioQualification({
        size: flags & 0xff,
        input: (flags & 0x100) === 0,
        string: (flags & 0x200) !== 0,
        repeated: (flags & 0x400) !== 0,
        immediate: false,
        port: info,
      });
      return instruction(at, 'io', reason.io, BigInt(qualification));
    }
    case EXIT.rdmsr:
      return msrAccess(at, info, false, 0n);
    case EXIT.wrmsr:
      return msrAccess(at, info, true, read64(module.engine, cpu + CPU.raiseInfo2));
    case EXIT.intercept:
      return controlRegister(at, info);
    case EXIT.readCr8:
    case EXIT.writeCr8:
      return taskPriority(at, code === EXIT.writeCr8, info);
    case EXIT.instruction:
      return intercepted(at, info);
    case EXIT.tripleFault:
      return toL1(at, 'triple-fault', { reason: reason.tripleFault, qualification: 0n, kind: 'async' });
    default:
      throw new Error(`the L2 VM left with exit code ${code}, which nobody handles`);
  }
}

/** Event that was being delivered, in the form of IDT-vectoring information. */
function vectoring({ module, cpu }: L2): bigint {
  const { view } = module.engine;
  if (view.getUint32(cpu + CPU.deliver, true) === 0) return 0n;
  const vector = view.getUint32(cpu + CPU.raiseVector, true);
  const kind = view.getUint32(cpu + CPU.raiseKind, true);
  const hasError = view.getUint32(cpu + CPU.raiseHasError, true) !== 0;
  const type = kind === RAISE.external ? (vector === 2 ? 2 : 0) : kind === RAISE.software ? 4 : 3;
  const info = 0x8000_0000n | BigInt(vector | (type << 8) | (hasError ? 0x800 : 0));
  return info | (BigInt(hasError ? view.getUint32(cpu + CPU.raiseError, true) : 0) << 32n);
}

function toL1(at: L2, cause: ExitKind, exit: L2ExitCause, code?: number): Destination {
  const from = at.vcpu.vm;
  const told = { ...exit, vectoring: vectoring(at) };
  // L1 delivers it again, if it wants to.
  at.module.engine.view.setUint32(at.cpu + CPU.deliver, 0, true);
  returnToL1(at.module, at.vcpu, told, code);
  return { to: 'l1', cause, from };
}

/** An instruction that stays undone: RIP is on it, and L1 learns its length. */
function instruction(
  at: L2,
  cause: ExitKind,
  reason: number,
  qualification = 0n,
  information = 0,
): Destination {
  const length = BigInt(instructionLength(at.module, at.cpu));
  return toL1(at, cause, {
    reason,
    qualification,
    instruction: BigInt(information >>> 0) | (length << 32n),
    kind: 'async',
  });
}

function fault(at: L2, cause: ExitKind, vector: number, errorCode?: number): Destination {
  raiseFault(at.module.engine, at.cpu, vector, errorCode);
  return { to: 'guest', cause };
}

/** TDG.VP.VMCALL goes straight to the host where L1 allows it; everything else is L1's. */
function tdcallExit(at: L2): Destination {
  const { module, vcpu, l2, cpu } = at;
  const { engine } = module;
  const rax = read64(engine, cpu + CPU.gpr);
  const direct = rax === BigInt(TDG.vpVmcall) && (l2.ctls & L2_CTL.enableTdvmcall) !== 0n;
  if (!direct) return instruction(at, 'tdcall', EXIT_REASON.tdcall);
  const mask = read64(engine, cpu + CPU.gpr + 8);
  const forbidden =
    VMCALL_MASK.forbidden | ((module.td.configFlags & CONFIG_FLAG.noRbpMod) !== 0n ? VMCALL_MASK.rbp : 0);
  complete(engine, cpu, { kind: 'done' });
  if (mask > VMCALL_MASK.known || (Number(mask & 0xffffn) & forbidden) !== 0) {
    write64(engine, cpu + CPU.gpr, status(STATUS.operandInvalid, OPERAND.rcx));
    return { to: 'silicon', cause: 'tdcall' };
  }
  vcpu.vmcall = Number(mask);
  vcpu.l2Exit = l2Exit({ reason: EXIT_REASON.tdcall, qualification: 0n, kind: 'tdvmcall' });
  return { to: 'host', cause: 'tdvmcall', exit: vmcallRegisters(vcpu, contextRegisters(engine, cpu)) };
}

function violation({ module, cpu }: L2): Pick<L2ExitCause, 'qualification' | 'gla' | 'gpa'> {
  const { engine } = module;
  const access = Number(read64(engine, cpu + CPU.stageExitInfo));
  return {
    qualification: BigInt(eptQualification(module, cpu, access)),
    gla: read64(engine, cpu + CPU.walkAddress),
    gpa: read64(engine, cpu + CPU.stageExitGpa),
  };
}

function eptViolation(at: L2): Destination {
  const { module, vcpu, cpu } = at;
  const what = violation(at);
  const gpa = what.gpa ?? 0n;
  const length = BigInt(instructionLength(module, cpu)) << 32n;
  const told: L2ExitCause = {
    ...what,
    reason: EXIT_REASON.eptViolation,
    instruction: length,
    kind: 'async',
  };
  const plain = module.plainGpa(gpa);
  if (module.sink.mask & EVENT_CLASS.io) {
    const access = Number(read64(module.engine, cpu + CPU.stageExitInfo));
    const isPrivate = module.isShared(gpa) ? 0 : 1;
    module.sink.emit(
      EVENT.mmioRoute,
      module.now(),
      vcpu.index,
      plain,
      isPrivate,
      access & WRITE ? 1 : 0,
      isPrivate === 1 ? 0 : -1,
    );
  }
  if (!module.isShared(gpa)) {
    const entry = module.tables.entry(plain - (plain % PAGE));
    // L1 has the page: its alias for this VM, or the rights in it, are missing.
    if (entry.state === SEPT.mapped) return toL1(at, 'nested-fault', told);
    if (entry.state === SEPT.pending)
      return toL1(at, 'not-validated', { ...told, extended: BigInt(EXTENDED_EPT.pending) });
  }
  // The host is asked first. It may let L1 have it (RESUME_L1).
  vcpu.l2Exit = l2Exit({ ...told, vectoring: vectoring(at) });
  return {
    to: 'host',
    cause: 'nested-fault',
    exit: exitRegisters(EXIT_REASON.eptViolation, {
      qualification: told.qualification,
      gpa: gpa & ~0xfffn,
      vm: vcpu.vm,
    }),
  };
}

/** An exception of L1's bitmap. CR2 is not written; L1 finds the address in the qualification. */
function exception(at: L2): Destination {
  const { module, cpu } = at;
  const { view } = module.engine;
  const vector = view.getUint32(cpu + CPU.raiseVector, true);
  const hasError = view.getUint32(cpu + CPU.raiseHasError, true) !== 0;
  const software = view.getUint32(cpu + CPU.stageKind, true) === RAISE.software;
  const type = software ? 6 : 3;
  const info = 0x8000_0000n | BigInt(vector | (type << 8) | (hasError ? 0x800 : 0));
  const error = BigInt(hasError ? view.getUint32(cpu + CPU.raiseError, true) : 0);
  const qualification = vector === 14 || vector === 1 ? read64(module.engine, cpu + CPU.raiseInfo) : 0n;
  const length = BigInt(instructionLength(module, cpu));
  view.setUint32(cpu + CPU.delivering, 0, true);
  return toL1(at, 'interrupt', {
    reason: EXIT_REASON.exceptionOrNmi,
    qualification,
    interruption: info | (error << 32n),
    instruction: software ? length << 32n : 0n,
    kind: 'async',
  });
}

function msrAccess(at: L2, index: number, write: boolean, value: bigint): Destination {
  const { module, vcpu, l2, cpu } = at;
  if (l1InterceptsMsr(l2, index, write))
    return instruction(at, 'msr', write ? EXIT_REASON.wrmsr : EXIT_REASON.rdmsr);
  const { engine } = module;
  const page = apicPage(module, vcpu, vcpu.vm);
  const done = (): Destination => {
    complete(engine, cpu, { kind: 'done' });
    return { to: 'silicon', cause: 'msr' };
  };
  // The virtual APIC's registers that L1 leaves to the VM.
  if (page !== undefined && index === MSR.tpr) {
    if (write && value > 0xffn) return fault(at, 'msr', 13, 0);
    if (!write) {
      complete(engine, cpu, { kind: 'value', lo: readTpr(module, page), hi: 0 });
      return { to: 'silicon', cause: 'msr' };
    }
    writeTpr(module, page, Number(value));
    complete(engine, cpu, { kind: 'done' });
    return belowThreshold(at, 'msr', Number(value)) ?? { to: 'silicon', cause: 'msr' };
  }
  if (page !== undefined && write && index === MSR.eoi) {
    if (value !== 0n) return fault(at, 'msr', 13, 0);
    const vector = virtualEoi(module, page, l2);
    const encoding = 0x201c + (vector >>> 6) * 2;
    const wanted = (l2Field(module, vcpu, vcpu.vm, encoding) >> BigInt(vector & 63)) & 1n;
    if (wanted === 0n) return done();
    // Virtualised EOI is trap-like: the write is done.
    complete(engine, cpu, { kind: 'done' });
    return {
      to: 'l1-after',
      cause: 'msr',
      exit: { reason: EXIT_REASON.virtualizedEoi, qualification: BigInt(vector), kind: 'async' },
    };
  }
  if (page !== undefined && write && index === MSR.selfIpi) {
    if (value > 0xffn) return fault(at, 'msr', 13, 0);
    virtualSelfIpi(module, page, l2, Number(value));
    return done();
  }
  // EFER of an L2 VM is L1's to change.
  if (write && index === MSR.efer) {
    const old = read64(engine, cpu + CPU.efer);
    if ((old ^ value) & ~BigInt(EFER.SCE)) return fault(at, 'msr', 13, 0);
    write64(engine, cpu + CPU.efer, value);
    return done();
  }
  const outcome = write ? writeMsr(module, vcpu, cpu, index, value) : readMsr(module, vcpu, cpu, index);
  switch (outcome.kind) {
    case 'value':
      complete(engine, cpu, {
        kind: 'value',
        lo: Number(outcome.value & 0xffff_ffffn),
        hi: Number((outcome.value >> 32n) & 0xffff_ffffn),
      });
      return { to: 'silicon', cause: 'msr' };
    case 'done':
      return done();
    case 'gp':
      return fault(at, 'msr', 13, 0);
    case 've':
      // What would be #VE in L1 is L1's to answer for its VM.
      return instruction(at, 'msr', write ? EXIT_REASON.wrmsr : EXIT_REASON.rdmsr);
  }
}

/** Number of the general register that an instruction names. */
function registerOperand({ module, cpu }: L2): number {
  const { view } = module.engine;
  const record = view.getUint32(cpu + CPU.record, true);
  return record === 0 ? 0 : (view.getUint16(record + REC.rm, true) - CPU.gpr) >>> 3;
}

/** L1's bits go to L1, and so does what only the module keeps; CR0.NE, which VMX itself keeps set, is #GP. */
function controlRegister(at: L2, info: number): Destination {
  const { module, vcpu, cpu } = at;
  const { engine } = module;
  const register = info >>> 8;
  const how = info & 0xff;
  const value = read64(engine, cpu + CPU.raiseInfo2);
  const [mask, shadow] = register === 0 ? [VMCS.cr0Mask, VMCS.cr0Shadow] : [VMCS.cr4Mask, VMCS.cr4Shadow];
  const owned = l2Field(module, vcpu, vcpu.vm, mask);
  const isL1s = ((value ^ l2Field(module, vcpu, vcpu.vm, shadow)) & owned) !== 0n;
  if (!isL1s && register === 0 && how === 0 && (value & BigInt(CR0.NE)) === 0n)
    return fault(at, 'control-register', 13, 0);
  const gpr = how === 0 ? registerOperand(at) : 0;
  const source = how === 3 ? Number(value & 0xffffn) : 0;
  return instruction(
    at,
    'control-register',
    EXIT_REASON.controlRegister,
    BigInt(controlQualification({ register, access: how, gpr, source })),
  );
}

/** Trap-like, where L1 delivers the VM's interrupts itself (SDM vol. 3, 30.1.2). */
function belowThreshold({ module, vcpu }: L2, cause: ExitKind, priority: number): Destination | undefined {
  const secondary = Number(l2Field(module, vcpu, vcpu.vm, VMCS.secondaryControls));
  const threshold = Number(l2Field(module, vcpu, vcpu.vm, VMCS.tprThreshold));
  if (secondary & SECONDARY.virtualInterrupts || priority >>> 4 >= threshold) return undefined;
  return {
    to: 'l1-after',
    cause,
    exit: { reason: EXIT_REASON.tprBelowThreshold, qualification: 0n, kind: 'async' },
  };
}

function taskPriority(at: L2, write: boolean, value: number): Destination {
  const { module, vcpu, cpu } = at;
  const proc = Number(l2Field(module, vcpu, vcpu.vm, VMCS.procControls));
  const page = apicPage(module, vcpu, vcpu.vm);
  if ((proc & (write ? PROC.cr8Load : PROC.cr8Store)) !== 0 || page === undefined)
    return instruction(
      at,
      'cr8',
      EXIT_REASON.controlRegister,
      BigInt(
        controlQualification({ register: 8, access: write ? 0 : 1, gpr: registerOperand(at), source: 0 }),
      ),
    );
  if (write) {
    writeTpr(module, page, (value & 0xf) << 4);
    complete(module.engine, cpu, { kind: 'done' });
    const exit = belowThreshold(at, 'cr8', (value & 0xf) << 4);
    if (exit !== undefined) return exit;
  } else complete(module.engine, cpu, { kind: 'value', lo: readTpr(module, page) >>> 4, hi: 0 });
  return { to: 'silicon', cause: 'cr8' };
}

function intercepted(at: L2, which: number): Destination {
  switch (which) {
    case INTERCEPT.rdtsc:
      return instruction(at, 'tsc', EXIT_REASON.rdtsc);
    case INTERCEPT.rdtscp:
      return instruction(at, 'tsc', EXIT_REASON.rdtscp);
    case INTERCEPT.rdpmc:
      return instruction(at, 'pmc', EXIT_REASON.rdpmc);
    default: {
      const how = at.module.engine.view.getUint32(at.cpu + CPU.raiseInfo2, true);
      const qualification = debugQualification({
        register: how & 7,
        read: how >>> 8 === 0,
        gpr: registerOperand(at),
      });
      return instruction(at, 'debug-register', EXIT_REASON.debugRegister, BigInt(qualification));
    }
  }
}
