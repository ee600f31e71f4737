/** RDMSR and WRMSR of L1, by the table in msr.ts. */
import { CPU } from '../../x86/layout.ts';
import { EFER } from '../../x86/registers.ts';
import { read64, write64 } from '../vcpu.ts';
import type { TdxModule } from './module.ts';
import { ARCH_CAPABILITIES, MSR, msrRow, SPEC_CTRL_WRITABLE } from './msr.ts';
import type { VcpuState } from './state.ts';
import { addVector } from '../../chipset/vector-set.ts';
import { endOfInterrupt, processorPriority } from './vapic.ts';

export type MsrOutcome =
  | { readonly kind: 'value'; readonly value: bigint }
  | { readonly kind: 'done' }
  | { readonly kind: 'gp' }
  | { readonly kind: 've' };

const GP: MsrOutcome = { kind: 'gp' };
const VE: MsrOutcome = { kind: 've' };
const DONE: MsrOutcome = { kind: 'done' };
const value = (v: bigint): MsrOutcome => ({ kind: 'value', value: v });

export function readMsr(module: TdxModule, vcpu: VcpuState, cpu: number, index: number): MsrOutcome {
  const { read } = msrRow(index);
  if (read === 've') return VE;
  if (read === 'gp') return GP;
  if (index >= MSR.isr && index < 0x828) {
    const word = index & 7;
    const set = index < MSR.tmr ? vcpu.isr : index < MSR.irr ? undefined : vcpu.irr;
    return value(BigInt(set?.[word] ?? 0));
  }
  switch (index) {
    case MSR.specCtrl:
      return value(read64(module.engine, cpu + CPU.specCtrl));
    case MSR.predCmd:
    case MSR.flushCmd:
      // Write-only.
      return GP;
    case MSR.xapicDisableStatus:
      return value(1n);
    case MSR.archCapabilities:
      return value(ARCH_CAPABILITIES);
    case MSR.tpr:
      return value(BigInt(vcpu.tpr));
    case MSR.ppr:
      return value(BigInt(processorPriority(vcpu)));
    case 0x809:
    case 0x80c:
    case 0x80e:
      return value(0n);
    default:
      return value(vcpu.msrs[index] ?? 0n);
  }
}

/** DEBUGCTL: LBR and BTF; TR and BTS need features that are not there. */
const DEBUGCTL_WRITABLE = 0x3n;

export function writeMsr(
  module: TdxModule,
  vcpu: VcpuState,
  cpu: number,
  index: number,
  written: bigint,
): MsrOutcome {
  const { write } = msrRow(index);
  if (write === 've') return VE;
  if (write === 'gp') return GP;
  const { engine } = module;
  switch (index) {
    case MSR.specCtrl:
      if ((written & ~SPEC_CTRL_WRITABLE) !== 0n) return GP;
      write64(engine, cpu + CPU.specCtrl, written);
      return DONE;
    case MSR.predCmd:
      // IBPB.
      return (written & ~1n) === 0n ? DONE : GP;
    case MSR.flushCmd:
      return (written & ~1n) === 0n ? DONE : GP;
    case MSR.debugCtl:
      if ((written & ~DEBUGCTL_WRITABLE) !== 0n) return GP;
      vcpu.msrs[index] = written;
      return DONE;
    case MSR.tpr:
      if (written > 0xffn) return GP;
      vcpu.tpr = Number(written);
      return DONE;
    case MSR.eoi:
      if (written !== 0n) return GP;
      endOfInterrupt(vcpu);
      return DONE;
    case MSR.selfIpi:
      if (written > 0xffn) return GP;
      // Vectors 0 to 15 are illegal and are dropped; the others are the processor's own affair.
      if (written >= 16n) addVector(vcpu.irr, Number(written));
      return DONE;
    case MSR.xss:
      // No supervisor component is in XFAM.
      return written === 0n ? DONE : GP;
    case MSR.efer: {
      const old = read64(engine, cpu + CPU.efer);
      const change = old ^ written;
      if (change === 0n) return DONE;
      if ((written & ~BigInt(EFER.SCE | EFER.LME | EFER.LMA | EFER.NXE)) !== 0n) return GP;
      // LMA follows paging; LME and NXE are kept.
      if ((change & ~BigInt(EFER.SCE | EFER.LMA)) !== 0n) return VE;
      write64(engine, cpu + CPU.efer, old ^ (change & BigInt(EFER.SCE)));
      return DONE;
    }
    default:
      vcpu.msrs[index] = written;
      return DONE;
  }
}
