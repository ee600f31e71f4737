/** Creation of a TD and its virtual processors, measurement, and the end of a TD. */
import {
  CONFIG_FLAG,
  EPTP_LEVELS_4,
  EPTP_LEVELS_5,
  TD_ATTRIBUTE,
  TD_CTL,
  TD_PARAMS,
  TSC_UNIT_HZ,
} from '../../abi/tdx/td-params.ts';
import { OPERAND, status, STATUS } from '../../abi/tdx/status.ts';
import { xcr0Allowed } from '../../x86/cpuid.ts';
import { CHUNK, finishMeasurement, measureExtend, startMeasurement } from './attestation/mrtd.ts';
import { createTd } from './state.ts';
import { checkTd, systemPage, takePage, type HostLeaf } from './seamcall.ts';
import { PAGE, PAMT, SEPT } from './tables.ts';
import { initVcpu } from './vp-init.ts';

const OK = status(STATUS.success);
/** Private key identifiers of the platform. */
const HKIDS = 64n;
const TDCS_PAGES = 9;
const TDVPS_PAGES = 6;
const MAX_L2_VMS = 3;

export function mngCreate({ module, rcx, rdx }: HostLeaf): bigint {
  if (module.td.lifeCycle !== 'none') return status(STATUS.operandBusy, OPERAND.rcx);
  if (rdx === 0n || rdx >= HKIDS) return status(STATUS.operandInvalid, OPERAND.rdx);
  const page = takePage(module, rcx, OPERAND.rcx, PAMT.tdr);
  if ('error' in page) return page.error;
  module.td = { ...createTd(), lifeCycle: 'hkid-assigned', tdr: page.spa, hkid: Number(rdx) };
  return OK;
}

export function mngKeyConfig({ module, rcx }: HostLeaf): bigint {
  const { td } = module;
  if (td.lifeCycle === 'none' || rcx !== BigInt(td.tdr))
    return status(STATUS.pageMetadataIncorrect, OPERAND.rcx);
  if (td.lifeCycle !== 'hkid-assigned') return status(STATUS.lifecycleStateIncorrect, OPERAND.rcx);
  td.lifeCycle = 'keys-configured';
  return OK;
}

export function mngAddcx({ module, rcx, rdx }: HostLeaf): bigint {
  const error = checkTd(module, rdx, OPERAND.rdx, 'any');
  if (error !== undefined) return error;
  const { td } = module;
  if (td.operation !== 'uninitialised') return status(STATUS.tdInitialized);
  if (td.tdcx.length >= TDCS_PAGES) return status(STATUS.tdcxNumIncorrect);
  const page = takePage(module, rcx, OPERAND.rcx, PAMT.tdcx);
  if ('error' in page) return page.error;
  td.tdcx.push(page.spa);
  td.children++;
  return OK;
}

const KNOWN_ATTRIBUTES = TD_ATTRIBUTE.debug | TD_ATTRIBUTE.septVeDisable;
const KNOWN_CONFIG = CONFIG_FLAG.gpaw52 | CONFIG_FLAG.flexiblePendingVe | CONFIG_FLAG.noRbpMod;

/** What a TD may be: checked in the order of the structure (ABI, TDH.MNG.INIT). */
export function mngInit({ module, rcx, rdx }: HostLeaf): bigint {
  const error = checkTd(module, rcx, OPERAND.rcx, 'any');
  if (error !== undefined) return error;
  const { td, tables } = module;
  if (td.operation !== 'uninitialised') return status(STATUS.tdInitialized);
  if (td.tdcx.length !== TDCS_PAGES) return status(STATUS.tdcxNumIncorrect);
  if (rdx % BigInt(TD_PARAMS.size) !== 0n) return status(STATUS.operandInvalid, OPERAND.rdx);
  const spa = systemPage(module, rdx - (rdx % BigInt(PAGE)));
  if (spa === undefined || tables.pageType(spa) !== PAMT.none)
    return status(STATUS.operandInvalid, OPERAND.rdx);
  const params = TD_PARAMS.read(
    module.readHost(tables.hostOf(spa) + Number(rdx % BigInt(PAGE)), TD_PARAMS.size),
  );
  const bad = (operand: number): bigint => status(STATUS.operandInvalid, operand);
  if ((params.attributes & ~KNOWN_ATTRIBUTES) !== 0n) return bad(OPERAND.attributes);
  const xfamAllowed = BigInt(xcr0Allowed(module.model));
  if ((params.xfam & ~xfamAllowed) !== 0n || (params.xfam & 3n) !== 3n) return bad(OPERAND.xfam);
  if (params.maxVcpus === 0 || params.maxVcpus > module.vcpus.length) return bad(OPERAND.maxVcpus);
  if (params.numL2Vms > MAX_L2_VMS || params.numL2Vms > module.engine.plan.contexts - 1)
    return bad(OPERAND.numL2Vms);
  if ((params.configFlags & ~KNOWN_CONFIG) !== 0n) return bad(OPERAND.execControls);
  const wide = (params.configFlags & CONFIG_FLAG.gpaw52) !== 0n;
  // A GPA width of 52 needs five levels.
  if (params.eptpControls !== EPTP_LEVELS_5 && (wide || params.eptpControls !== EPTP_LEVELS_4))
    return bad(OPERAND.eptpControls);
  // 100 MHz to 10 GHz.
  if (params.tscFrequency < 4 || params.tscFrequency > 400) return bad(OPERAND.tscFrequency);
  // This processor counts whole ticks for each nanosecond.
  if ((params.tscFrequency * TSC_UNIT_HZ) % 1e9 !== 0) return bad(OPERAND.tscFrequency);
  Object.assign(td, {
    attributes: params.attributes,
    xfam: params.xfam,
    maxVcpus: params.maxVcpus,
    numL2Vms: params.numL2Vms,
    configFlags: params.configFlags,
    tdCtls: (params.attributes & TD_ATTRIBUTE.septVeDisable) !== 0n ? TD_CTL.pendingVeDisable : 0n,
    eptpControls: params.eptpControls,
    gpaw: wide ? 52 : 48,
    tscFrequency: params.tscFrequency,
    mrConfigId: params.mrConfigId,
    mrOwner: params.mrOwner,
    mrOwnerConfig: params.mrOwnerConfig,
    measurement: startMeasurement(),
    operation: 'initialised',
  });
  tables.setSharedBit(module.sharedBit);
  return OK;
}

export function vpCreate({ module, rcx, rdx }: HostLeaf): bigint {
  const error = checkTd(module, rdx, OPERAND.rdx, 'initialised');
  if (error !== undefined) return error;
  const { td } = module;
  if (td.operation === 'runnable') return status(STATUS.tdFinalized);
  const vcpu = module.vcpus.find(({ state }) => state === 'absent');
  if (vcpu === undefined) return status(STATUS.maxVcpusExceeded);
  const page = takePage(module, rcx, OPERAND.rcx, PAMT.tdvpr);
  if ('error' in page) return page.error;
  vcpu.state = 'created';
  vcpu.tdvpr = page.spa;
  td.children++;
  return OK;
}

export function vpAddcx({ module, rcx, rdx }: HostLeaf): bigint {
  const vcpu = module.vcpus.find(({ state, tdvpr }) => state !== 'absent' && BigInt(tdvpr) === rdx);
  if (vcpu === undefined) return status(STATUS.pageMetadataIncorrect, OPERAND.rdx);
  if (vcpu.state !== 'created') return status(STATUS.vcpuStateIncorrect, OPERAND.rdx);
  if (vcpu.tdcx.length >= TDVPS_PAGES - 1) return status(STATUS.tdcxNumIncorrect);
  const page = takePage(module, rcx, OPERAND.rcx, PAMT.tdcx);
  if ('error' in page) return page.error;
  vcpu.tdcx.push(page.spa);
  module.td.children++;
  return OK;
}

export function vpInit({ module, rcx, rdx }: HostLeaf): bigint {
  const vcpu = module.vcpus.find(({ state, tdvpr }) => state !== 'absent' && BigInt(tdvpr) === rcx);
  if (vcpu === undefined) return status(STATUS.pageMetadataIncorrect, OPERAND.rcx);
  const { td } = module;
  if (td.fatal) return status(STATUS.tdFatal, OPERAND.rcx);
  if (vcpu.state !== 'created') return status(STATUS.vcpuStateIncorrect, OPERAND.rcx);
  if (vcpu.tdcx.length !== TDVPS_PAGES - 1) return status(STATUS.tdcxNumIncorrect);
  if (td.numVcpus >= td.maxVcpus) return status(STATUS.maxVcpusExceeded);
  td.numVcpus++;
  vcpu.state = 'ready';
  initVcpu(module, vcpu, rdx);
  return OK;
}

export function vpFlush({ module, rcx }: HostLeaf): bigint {
  const vcpu = module.vcpus.find(({ state, tdvpr }) => state !== 'absent' && BigInt(tdvpr) === rcx);
  if (vcpu === undefined) return status(STATUS.pageMetadataIncorrect, OPERAND.rcx);
  module.flushTlb(vcpu.index);
  return OK;
}

export function mngVpflushdone({ module, rcx }: HostLeaf): bigint {
  const { td } = module;
  if (td.lifeCycle === 'none' || rcx !== BigInt(td.tdr))
    return status(STATUS.pageMetadataIncorrect, OPERAND.rcx);
  if (td.lifeCycle !== 'keys-configured' && td.lifeCycle !== 'hkid-assigned')
    return status(STATUS.lifecycleStateIncorrect, OPERAND.rcx);
  td.lifeCycle = 'blocked';
  return OK;
}

export function mngKeyFreeid({ module, rcx }: HostLeaf): bigint {
  const { td } = module;
  if (td.lifeCycle === 'none' || rcx !== BigInt(td.tdr))
    return status(STATUS.pageMetadataIncorrect, OPERAND.rcx);
  if (td.lifeCycle !== 'blocked') return status(STATUS.lifecycleStateIncorrect, OPERAND.rcx);
  td.lifeCycle = 'teardown';
  return OK;
}

export function mrExtend({ module, rcx, rdx }: HostLeaf): bigint {
  const error = checkTd(module, rdx, OPERAND.rdx, 'building');
  if (error !== undefined) return error;
  const { td, tables } = module;
  if (!module.isPrivateGpa(rcx, CHUNK)) return status(STATUS.operandInvalid, OPERAND.rcx);
  const gpa = Number(rcx);
  const entry = tables.entry(gpa);
  if (entry.level !== 0 || entry.state !== SEPT.mapped) return status(STATUS.eptWalkFailed, OPERAND.rcx);
  if (td.measurement === undefined) return status(STATUS.opStateIncorrect, OPERAND.rdx);
  measureExtend(td.measurement, gpa, module.readHost(tables.hostOf(entry.spa) + (gpa % PAGE), CHUNK));
  return OK;
}

export function mrFinalize({ module, rcx }: HostLeaf): bigint {
  const error = checkTd(module, rcx, OPERAND.rcx, 'building');
  if (error !== undefined) return error;
  const { td } = module;
  if (td.measurement === undefined) return status(STATUS.opStateIncorrect, OPERAND.rcx);
  td.mrtd = finishMeasurement(td.measurement);
  td.measurement = undefined;
  td.operation = 'runnable';
  return OK;
}
