/**
 * What happens when L1 leaves its code: the module answers, injects #VE or a fault, or makes a TD exit (TDX Module Base
 * Architecture, "Guest TD execution", and the module's table of exit reasons).
 */
import type { ExitKind } from '../../abi/exit-kinds.ts';
import { EVENT, EVENT_CLASS } from '../../abi/events.ts';
import {
  controlQualification,
  EPT_QUALIFICATION,
  EXIT_REASON,
  EXTENDED_EPT,
  ioQualification,
} from '../../abi/tdx/exit-reasons.ts';
import { TD_CTL } from '../../abi/tdx/td-params.ts';
import { STATUS } from '../../abi/tdx/status.ts';
import { cr4Allowed } from '../../x86/cpuid.ts';
import { CPU, EXIT, VEC } from '../../x86/layout.ts';
import { FETCH, WRITE } from '../../x86/runtime/paging.ts';
import { CR0, CR4 } from '../../x86/registers.ts';
import { complete, raiseFault, read64 } from '../vcpu.ts';
import { isNativeLeaf, tdCpuid } from './cpuid.ts';
import { EXIT_TDX } from './layout.ts';
import { readMsr, writeMsr, type MsrOutcome } from './msr-access.ts';
import { exitRegisters, type TdExitRegisters, type TdxModule } from './module.ts';
import { contextRegisters, type Registers } from './registers.ts';
import { PAGE, SEPT, SHARED } from './tables.ts';
import { tdcall } from './tdcall.ts';
import type { L2ExitCause } from './l2-return.ts';
import { injectVe, raiseNested, type VeCause } from './ve.ts';
import type { VcpuState } from './state.ts';

export type Destination =
  | { readonly to: 'silicon' | 'guest'; readonly cause: ExitKind }
  | { readonly to: 'host'; readonly cause: ExitKind; readonly exit: TdExitRegisters }
  | { readonly to: 'l2'; readonly cause: ExitKind; readonly vm: number }
  /** The exit of an L2 VM is in L1's registers. */
  | { readonly to: 'l1'; readonly cause: ExitKind; readonly from: number }
  /** The same, once the instruction that is done is behind itself. */
  | { readonly to: 'l1-after'; readonly cause: ExitKind; readonly exit: L2ExitCause };

interface L1 {
  readonly module: TdxModule;
  readonly vcpu: VcpuState;
  readonly cpu: number;
}

/** Reads what left the processor, and clears it. */
export function takeExit(module: TdxModule, cpu: number): { readonly code: number; readonly stage: boolean } {
  const { view } = module.engine;
  const stage = view.getUint32(cpu + CPU.stageExit, true);
  if (stage === 0) return { code: view.getUint32(cpu + CPU.raiseVector, true), stage: false };
  view.setUint32(cpu + CPU.stageExit, 0, true);
  // The event that was being delivered is described as before.
  view.setUint32(cpu + CPU.raiseKind, view.getUint32(cpu + CPU.stageKind, true), true);
  return { code: stage, stage: true };
}

export function routeL1(module: TdxModule, vcpu: VcpuState, cpu: number): Destination {
  const l1: L1 = { module, vcpu, cpu };
  const { view } = module.engine;
  const { code } = takeExit(module, cpu);
  const info = view.getUint32(cpu + CPU.raiseInfo, true);
  switch (code) {
    case EXIT_TDX.tdcall:
      return routeTdcall(l1);
    case EXIT_TDX.eptViolation:
      return eptViolation(l1);
    case EXIT_TDX.reservedAddress:
      return reservedAddress(l1);
    case EXIT_TDX.integrity:
      return machineCheck(module, vcpu);
    case EXIT.cpuid:
      return cpuid(l1, info, view.getUint32(cpu + CPU.raiseInfo2, true));
    case EXIT.rdmsr:
      return msrAccess(l1, readMsr(module, vcpu, cpu, info), false);
    case EXIT.wrmsr:
      return msrAccess(
        l1,
        writeMsr(module, vcpu, cpu, info, read64(module.engine, cpu + CPU.raiseInfo2)),
        true,
      );
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
      return ve(l1, 'io', { reason: EXIT_REASON.io, qualification: BigInt(qualification) });
    }
    case EXIT.hlt:
      return ve(l1, 'hlt', { reason: EXIT_REASON.hlt });
    case EXIT.mwait:
      return ve(l1, 'monitor', { reason: EXIT_REASON.mwait });
    case EXIT.monitor:
      return ve(l1, 'monitor', { reason: EXIT_REASON.monitor });
    case EXIT.vmcall:
      return ve(l1, 'hypercall', { reason: EXIT_REASON.vmcall });
    case EXIT.wbinvd:
      // INVD, then WBINVD and WBNOINVD.
      return ve(l1, 'cache', { reason: info === 0 ? EXIT_REASON.invd : EXIT_REASON.wbinvd });
    case EXIT.intercept:
      return controlRegister(l1, info);
    case EXIT.readCr8:
      complete(module.engine, cpu, { kind: 'value', lo: vcpu.tpr >>> 4, hi: 0 });
      return { to: 'silicon', cause: 'cr8' };
    case EXIT.writeCr8:
      vcpu.tpr = (info & 0xf) << 4;
      complete(module.engine, cpu, { kind: 'done' });
      return { to: 'silicon', cause: 'cr8' };
    case EXIT.pause:
      complete(module.engine, cpu, { kind: 'done' });
      return { to: 'silicon', cause: 'pause' };
    case EXIT.tripleFault:
      return dead(l1);
    default:
      throw new Error(`the TD left with exit code ${code}, which nobody handles`);
  }
}

/** The virtual processor has ended; the host learns it with this exit and every later entry. */
function dead({ vcpu }: L1): Destination {
  vcpu.state = 'disabled';
  return {
    to: 'host',
    cause: 'triple-fault',
    exit: exitRegisters(EXIT_REASON.tripleFault, { code: STATUS.nonRecoverableVcpu }),
  };
}

function ve(l1: L1, cause: ExitKind, what: VeCause): Destination {
  return injectVe(l1.module, l1.vcpu, l1.cpu, what) ? { to: 'guest', cause } : dead(l1);
}

function fault({ module, cpu }: L1, cause: ExitKind, vector: number, errorCode?: number): Destination {
  raiseFault(module.engine, cpu, vector, errorCode);
  return { to: 'guest', cause };
}
const gp = (l1: L1, cause: ExitKind): Destination => fault(l1, cause, VEC.GP, 0);

function routeTdcall(l1: L1): Destination {
  const { module, vcpu, cpu } = l1;
  const { engine } = module;
  // Only in 64-bit mode (ABI, TDCALL).
  if ((engine.view.getUint32(cpu + CPU.mode, true) & 3) !== 2) return gp(l1, 'tdcall');
  const outcome = tdcall({ module, vcpu, registers: contextRegisters(engine, cpu), cpu });
  switch (outcome.kind) {
    case 'done':
      complete(engine, cpu, { kind: 'done' });
      return { to: 'silicon', cause: 'tdcall' };
    case 'fault':
      return fault(l1, 'tdcall', outcome.vector, outcome.errorCode);
    case 'exit':
      // Restartable: the instruction runs again when the host comes back.
      return { to: 'host', cause: 'nested-fault', exit: outcome.exit };
    case 'vmcall':
      complete(engine, cpu, { kind: 'done' });
      return { to: 'host', cause: 'tdvmcall', exit: vmcallRegisters(vcpu, contextRegisters(engine, cpu)) };
    case 'enter-l2':
      complete(engine, cpu, { kind: 'done' });
      return { to: 'l2', cause: 'context-entry', vm: outcome.vm };
  }
}

/** TDH.VP.ENTER's outputs for TDG.VP.VMCALL: the registers that RCX selects, zeros for the others. */
export function vmcallRegisters(vcpu: VcpuState, caller: Registers): TdExitRegisters {
  const mask = vcpu.vmcall ?? 0;
  const registers = [...exitRegisters(EXIT_REASON.tdcall)];
  registers[1] = BigInt(mask >>> 0) | (BigInt(vcpu.vm) << 52n);
  for (let n = 2; n < 16; n++) registers[n] = (mask >>> n) & 1 ? caller.get(n) : 0n;
  return registers;
}

/** EPT-violation qualification of the access that left. */
export function eptQualification(module: TdxModule, cpu: number, access: number, rights = 0): number {
  const done = module.engine.view.getUint32(cpu + CPU.walkDone, true) !== 0;
  const q = EPT_QUALIFICATION;
  return (
    (access & WRITE ? q.write : access & FETCH ? q.fetch : q.read) |
    rights |
    q.linearValid |
    (done ? q.linearTranslation : 0)
  );
}

function eptViolation(l1: L1): Destination {
  const { module, vcpu, cpu } = l1;
  const { engine, tables, td } = module;
  const gpa = read64(engine, cpu + CPU.stageExitGpa);
  const access = Number(read64(engine, cpu + CPU.stageExitInfo));
  const gla = read64(engine, cpu + CPU.walkAddress);
  const at = module.plainGpa(gpa);
  if (module.isShared(gpa)) {
    const { flags } = tables.covers(at) ? tables.sharedEntry(at) : { flags: 0 };
    const qualification = eptQualification(
      module,
      cpu,
      access,
      flags & SHARED.present ? EPT_QUALIFICATION.readable : 0,
    );
    // Shared memory is never executable, and page tables in it are as good as that: the host is asked, and cannot help.
    if ((flags & SHARED.suppressVe) === 0 && (access & FETCH) === 0) {
      if (module.sink.mask & EVENT_CLASS.io)
        module.sink.emit(EVENT.mmioRoute, module.now(), vcpu.index, at, 0, access & WRITE ? 1 : 0, -1);
      return ve(l1, 'mmio', {
        reason: EXIT_REASON.eptViolation,
        qualification: BigInt(qualification),
        gla,
        gpa,
      });
    }
    return {
      to: 'host',
      cause: 'nested-fault',
      exit: module.eptViolation(gpa, (access & WRITE) !== 0, qualification),
    };
  }
  const entry = tables.entry(at - (at % PAGE));
  const qualification = eptQualification(module, cpu, access);
  if (entry.state === SEPT.pending) {
    if ((td.tdCtls & TD_CTL.pendingVeDisable) === 0n)
      return ve(l1, 'not-validated', {
        reason: EXIT_REASON.eptViolation,
        qualification: BigInt(qualification),
        gla,
        gpa,
      });
    return {
      to: 'host',
      cause: 'not-validated',
      exit: module.eptViolation(gpa, (access & WRITE) !== 0, qualification, BigInt(EXTENDED_EPT.pending)),
    };
  }
  return {
    to: 'host',
    cause: 'nested-fault',
    exit: module.eptViolation(gpa, (access & WRITE) !== 0, qualification),
  };
}

/** Address bits above the shared bit: a page fault with a reserved bit, where there is a linear address. */
function reservedAddress(l1: L1): Destination {
  const { module, cpu } = l1;
  const { engine } = module;
  const access = Number(read64(engine, cpu + CPU.stageExitInfo));
  const user = engine.view.getUint32(cpu + CPU.cpl, true) === 3;
  const code = 0x9 | (access & WRITE ? 2 : 0) | (user ? 4 : 0) | (access & FETCH ? 16 : 0);
  if (!raiseNested(module, cpu, VEC.PF, code)) return dead(l1);
  engine.view.setBigUint64(cpu + CPU.raiseInfo, read64(engine, cpu + CPU.walkAddress), true);
  return { to: 'guest', cause: 'nested-fault' };
}

/** The line's check failed: a machine check in the TD, which is fatal to it. */
export function machineCheck(module: TdxModule, vcpu: VcpuState): Destination {
  module.td.fatal = true;
  for (const each of module.vcpus) if (each.state === 'ready') each.state = 'disabled';
  return {
    to: 'host',
    cause: 'machine-check',
    exit: exitRegisters(EXIT_REASON.exceptionOrNmi, {
      code: STATUS.nonRecoverableTd,
      interruption: BigInt(0x8000_0300 | VEC.MC),
      vm: vcpu.vm,
    }),
  };
}

function cpuid(l1: L1, leaf: number, subleaf: number): Destination {
  const { module, vcpu, cpu } = l1;
  const { engine, td } = module;
  const { view } = engine;
  const forced = view.getUint32(cpu + CPU.cpl, true) === 0 ? vcpu.cpuidSupervisorVe : vcpu.cpuidUserVe;
  if (forced || !isNativeLeaf(leaf)) return ve(l1, 'cpuid', { reason: EXIT_REASON.cpuid });
  const answer = tdCpuid(
    {
      model: module.model,
      state: {
        cr4: view.getUint32(cpu + CPU.cr4, true),
        xcr0: view.getUint32(cpu + CPU.xcr0, true),
        xss: view.getUint32(cpu + CPU.xss, true),
      },
      vcpu: vcpu.index,
      vcpus: td.numVcpus,
      xfam: td.xfam,
      tscFrequency: td.tscFrequency,
    },
    leaf,
    subleaf,
  );
  complete(engine, cpu, { kind: 'registers', ...answer });
  if (module.sink.mask & EVENT_CLASS.cpuid)
    module.sink.emit(EVENT.cpuid, module.now(), vcpu.index, leaf, subleaf, answer.eax, answer.ebx);
  return { to: 'silicon', cause: 'cpuid' };
}

function msrAccess(l1: L1, outcome: MsrOutcome, write: boolean): Destination {
  const { module, cpu } = l1;
  switch (outcome.kind) {
    case 'value':
      complete(module.engine, cpu, {
        kind: 'value',
        lo: Number(outcome.value & 0xffff_ffffn),
        hi: Number((outcome.value >> 32n) & 0xffff_ffffn),
      });
      return { to: 'silicon', cause: 'msr' };
    case 'done':
      complete(module.engine, cpu, { kind: 'done' });
      return { to: 'silicon', cause: 'msr' };
    case 'gp':
      return gp(l1, 'msr');
    case 've':
      return ve(l1, 'msr', { reason: write ? EXIT_REASON.wrmsr : EXIT_REASON.rdmsr });
  }
}

/** A write that touches a bit which the module keeps: illegal values fault as on any processor, others are #VE. */
function controlRegister(l1: L1, info: number): Destination {
  const { module, cpu } = l1;
  const value = read64(module.engine, cpu + CPU.raiseInfo2);
  const register = info >>> 8;
  const low = Number(value & 0xffff_ffffn);
  const set = (bit: number): boolean => (low & bit) !== 0;
  if (register === 0) {
    const illegal = (set(CR0.PG) && !set(CR0.PE)) || (set(CR0.NW) && !set(CR0.CD));
    if (illegal || !set(CR0.NE)) return gp(l1, 'control-register');
  } else {
    const kept = CR4.VMXE | (1 << 14);
    if (((low & ~(cr4Allowed(module.model) | kept)) | 0) !== 0 || value >> 32n !== 0n)
      return gp(l1, 'control-register');
  }
  const qualification = controlQualification({ register, access: info & 0xff, gpr: 0, source: low & 0xffff });
  return ve(l1, 'control-register', {
    reason: EXIT_REASON.controlRegister,
    qualification: BigInt(qualification),
  });
}
