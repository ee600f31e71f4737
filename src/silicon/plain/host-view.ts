/** The HostView of an ordinary VM: clear text and all registers, as copies. */
import { REGISTER, type RegisterValue } from '../../abi/hyperv/registers.ts';
import type { HostView } from '../../seats/host-view.ts';
import { type Frames, HIDDEN_PAGES } from './frames.ts';
import type { Engine } from '../../x86/engine.ts';
import { CPU } from '../../x86/layout.ts';
import { rflags, setRflags } from '../vcpu.ts';

const FIELDS: ReadonlyMap<number, number> = new Map([
  ...Array.from({ length: 16 }, (_, n): [number, number] => [REGISTER.rax + n, CPU.gpr + n * 8]),
  [REGISTER.rip, CPU.rip],
  [REGISTER.cr0, CPU.cr0],
  [REGISTER.cr2, CPU.cr2],
  [REGISTER.cr3, CPU.cr3],
  [REGISTER.cr4, CPU.cr4],
  [REGISTER.efer, CPU.efer],
  [REGISTER.pat, CPU.pat],
  [REGISTER.star, CPU.star],
  [REGISTER.lstar, CPU.lstar],
  [REGISTER.cstar, CPU.cstar],
  [REGISTER.sfmask, CPU.sfmask],
  [REGISTER.kernelGsBase, CPU.kernelGsBase],
]);

export function createHostView(engine: Engine, frames: Frames, vcpus: number): HostView {
  const { view } = engine;
  return {
    read(gpa, length) {
      const bytes = frames.read(gpa, length);
      return bytes === undefined ? { ok: false, reason: 'unmapped' } : { ok: true, bytes };
    },
    write(gpa, bytes) {
      return frames.write(gpa, bytes, (host, length) => engine.blocks.codeChanged(host, length))
        ? { ok: true }
        : { ok: false, reason: 'unmapped' };
    },
    overlay(slot, gpa) {
      if (slot >= HIDDEN_PAGES) return { ok: false, reason: 'unsupported' };
      if (!frames.overlay(slot, gpa)) return { ok: false, reason: 'unmapped' };
      for (let vp = 0; vp < vcpus; vp++) engine.tlbFlush(engine.cpu(vp));
      return { ok: true };
    },
    getRegister(vp, name): RegisterValue | undefined {
      const cpu = engine.cpu(vp);
      if (name === REGISTER.rflags) return [rflags(engine, cpu), 0, 0, 0];
      if (name >= REGISTER.xmm0 && name < REGISTER.xmm0 + 16) {
        const at = cpu + CPU.xmm + (name - REGISTER.xmm0) * 32;
        return [
          view.getUint32(at, true),
          view.getUint32(at + 4, true),
          view.getUint32(at + 8, true),
          view.getUint32(at + 12, true),
        ];
      }
      const field = FIELDS.get(name);
      if (field === undefined) return undefined;
      return [view.getUint32(cpu + field, true), view.getUint32(cpu + field + 4, true), 0, 0];
    },
    setRegister(vp, name, value) {
      const cpu = engine.cpu(vp);
      if (name === REGISTER.rflags) {
        setRflags(engine, cpu, value[0]);
        engine.updateMode(cpu);
        return true;
      }
      if (name >= REGISTER.xmm0 && name < REGISTER.xmm0 + 16) {
        const at = cpu + CPU.xmm + (name - REGISTER.xmm0) * 32;
        for (const [k, word] of value.entries()) view.setUint32(at + k * 4, word, true);
        return true;
      }
      const field = FIELDS.get(name);
      if (field === undefined) return false;
      view.setUint32(cpu + field, value[0], true);
      view.setUint32(cpu + field + 4, value[1], true);
      return true;
    },
  };
}
