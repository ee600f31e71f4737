/**
 * The virtual-APIC page of an L2 VM: registers in a private page that L1 gives, worked on by the processor (Intel SDM vol. 3,
 * 30.1 to 30.4): TPR, EOI and SELF_IPI without an exit, and delivery of what RVI names.
 */
import type { TdxModule } from './module.ts';
import { l2Field, VMCS } from './l2-fields.ts';
import type { L2State, VcpuState } from './state.ts';

const OFFSET = { tpr: 0x80, ppr: 0xa0, isr: 0x100, irr: 0x200 } as const;

/** Host address of the page; `undefined`: it is not mapped, or not set. */
export function apicPage(module: TdxModule, vcpu: VcpuState, vm: number): number | undefined {
  const gpa = l2Field(module, vcpu, vm, VMCS.virtualApic);
  if (!module.isPrivateGpa(gpa, 4096)) return undefined;
  const reached = module.reach(gpa, true);
  return reached.ok ? reached.host : undefined;
}

const bitAt = (page: number, set: number, vector: number): { at: number; mask: number } => ({
  at: page + set + (vector >>> 5) * 16,
  mask: 1 << (vector & 31),
});

function highest(module: TdxModule, page: number, set: number): number {
  for (let word = 7; word >= 0; word--) {
    const bits = module.engine.view.getUint32(page + set + word * 16, true);
    if (bits !== 0) return word * 32 + 31 - Math.clz32(bits);
  }
  return 0;
}
function change(module: TdxModule, page: number, set: number, vector: number, on: boolean): void {
  const { at, mask } = bitAt(page, set, vector);
  const { view } = module.engine;
  const old = view.getUint32(at, true);
  view.setUint32(at, on ? old | mask : old & ~mask, true);
}

export const readTpr = (module: TdxModule, page: number): number =>
  module.engine.view.getUint32(page + OFFSET.tpr, true) & 0xff;
export function writeTpr(module: TdxModule, page: number, value: number): void {
  module.engine.view.setUint32(page + OFFSET.tpr, value & 0xff, true);
}

function priority(module: TdxModule, page: number, l2: L2State): number {
  const tpr = readTpr(module, page);
  return tpr >>> 4 >= l2.svi >>> 4 ? tpr : l2.svi & 0xf0;
}

/** Vector that virtual-interrupt delivery would give now, but for RFLAGS.IF; -1: none. */
export function virtualInterrupt(module: TdxModule, page: number, l2: L2State): number {
  return l2.rvi >>> 4 > priority(module, page, l2) >>> 4 ? l2.rvi : -1;
}

export function deliverVirtualInterrupt(module: TdxModule, page: number, l2: L2State): number {
  const vector = l2.rvi;
  change(module, page, OFFSET.isr, vector, true);
  l2.svi = vector;
  change(module, page, OFFSET.irr, vector, false);
  l2.rvi = highest(module, page, OFFSET.irr);
  module.engine.view.setUint32(page + OFFSET.ppr, vector & 0xf0, true);
  return vector;
}

/** EOI virtualisation. The vector that ended. */
export function virtualEoi(module: TdxModule, page: number, l2: L2State): number {
  const vector = l2.svi;
  change(module, page, OFFSET.isr, vector, false);
  l2.svi = highest(module, page, OFFSET.isr);
  return vector;
}

export function virtualSelfIpi(module: TdxModule, page: number, l2: L2State, vector: number): void {
  change(module, page, OFFSET.irr, vector, true);
  l2.rvi = Math.max(l2.rvi, vector);
}
