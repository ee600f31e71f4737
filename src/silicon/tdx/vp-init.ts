/** State of a virtual processor after TDH.VP.INIT (Base Architecture, "Initial state of guest VCPU"). */
import type { InitialRegisters, SegmentRegister } from '../../seats/launch.ts';
import { CR0, CR4, EFER } from '../../x86/registers.ts';
import { CPU } from '../../x86/layout.ts';
import { configureVcpu, setRegisters, vcpuSeed, write64 } from '../vcpu.ts';
import { applyMsrBitmaps } from './l2-fields.ts';
import type { TdxModule } from './module.ts';
import { PLATFORM } from './layout.ts';
import { TSC_UNIT_HZ } from '../../abi/tdx/td-params.ts';
import type { VcpuState } from './state.ts';

const FLAT = 0xffff_ffff;
const segment = (selector: number, limit: number, attributes: number): SegmentRegister => ({
  selector,
  base: 0n,
  limit,
  attributes,
});
const DATA = segment(0, FLAT, 0xc93);

export const RESET_VECTOR = 0xffff_fff0;

function registers(gprs: readonly bigint[]): InitialRegisters {
  return {
    gprs,
    rip: BigInt(RESET_VECTOR),
    rflags: 2n,
    cs: segment(0, FLAT, 0xc9b),
    ss: DATA,
    ds: DATA,
    es: DATA,
    fs: DATA,
    gs: DATA,
    ldtr: segment(0, 0, 0x082),
    tr: segment(0, 0xffff, 0x08b),
    gdtr: { base: 0n, limit: 0xffff },
    idtr: { base: 0n, limit: 0xffff },
    cr0: BigInt(CR0.PE | CR0.ET | CR0.NE),
    cr2: 0n,
    cr3: 0n,
    cr4: BigInt(CR4.MCE),
    efer: BigInt(EFER.SCE | EFER.LME | EFER.NXE),
    xcr0: 1n,
    pat: 0x0007_0406_0007_0406n,
    dr6: 0xffff_0ff0n,
    dr7: 0x400n,
    mxcsr: 0x1f80,
    fcw: 0x40,
    mtrrDefType: 0n,
    mtrrFixed: Array.from({ length: 11 }, () => 0n),
  };
}

/** Bits of CR0 and CR4 that L1 may not change, and what they are. */
export const L1_CR0 = { mask: CR0.PE | CR0.NE | CR0.CD | CR0.NW, shadow: CR0.PE | CR0.NE } as const;
const SMXE = 1 << 14;
export const L1_CR4 = { mask: CR4.MCE | CR4.VMXE | SMXE, shadow: CR4.MCE } as const;

/** `launch`: what the host gave TDH.VP.INIT in RDX. */
export function initVcpu(module: TdxModule, vcpu: VcpuState, launch: bigint): void {
  const { engine, model, td } = module;
  // It counts from 0 when the TD is made.
  const tscHz = td.tscFrequency * TSC_UNIT_HZ;
  for (let vm = 0; vm < engine.plan.contexts; vm++) {
    const cpu = engine.cpu(vcpu.index, vm);
    configureVcpu(
      engine,
      cpu,
      { model, tscHz, tscAtZero: -BigInt(Math.round(module.now())) * BigInt(tscHz / 1e9) },
      vcpuSeed(module.seed, vcpu.index * 4 + vm),
    );
    write64(engine, cpu + CPU.xcr0Allowed, td.xfam);
    engine.view.setUint32(cpu + PLATFORM.vm, vm, true);
    engine.view.setUint32(cpu + CPU.msrMap, module.msrMapOf(vcpu.index, vm), true);
    if (vm > 0) {
      setRegisters(engine, cpu, registers(Array.from({ length: 16 }, () => 0n)));
      applyMsrBitmaps(module, vcpu, vm);
    }
  }
  const cpu = engine.cpu(vcpu.index, 0);
  const gprs = Array.from({ length: 16 }, () => 0n);
  gprs[1] = launch;
  gprs[2] = BigInt(model.signature);
  gprs[3] = BigInt(td.gpaw);
  gprs[6] = BigInt(vcpu.index);
  gprs[8] = launch;
  setRegisters(engine, cpu, registers(gprs));
  write64(engine, cpu + CPU.cr0Mask, BigInt(L1_CR0.mask >>> 0));
  write64(engine, cpu + CPU.cr0Shadow, BigInt(L1_CR0.shadow));
  write64(engine, cpu + CPU.cr4Mask, BigInt(L1_CR4.mask));
  write64(engine, cpu + CPU.cr4Shadow, BigInt(L1_CR4.shadow));
  vcpu.epoch = td.epoch;
}
