/**
 * What a debugger sees: registers and plaintext of everything. Importable from the shells and from tests only: no party
 * of the machine may know this.
 */
import { GENERAL_REGISTERS } from '../abi/general-registers.ts';
import { CPU, GS, FS, SEG, segField } from '../x86/layout.ts';
import type { Machine } from './machine.ts';
import { read64, rflags, setRflags, write64 } from '../silicon/vcpu.ts';

export interface Inspector {
  readonly vcpus: number;
  register(vp: number, name: string): bigint;
  setRegister(vp: number, name: string, value: bigint): void;
  /** Guest-virtual memory as vCPU `vp` translates it now; undefined where nothing is mapped. */
  read(vp: number, va: bigint, length: number): Uint8Array | undefined;
  write(vp: number, va: bigint, bytes: Uint8Array): boolean;
  /** Host address of a mapped byte, for watches. */
  host(vp: number, va: bigint): number | undefined;
}

const SEGMENTS = ['es', 'cs', 'ss', 'ds', 'fs', 'gs'];
const OFFSETS: ReadonlyMap<string, number> = new Map([
  ...GENERAL_REGISTERS.map((name, n): [string, number] => [name, CPU.gpr + n * 8]),
  ['rip', CPU.rip],
  ['fs_base', segField(FS, SEG.base)],
  ['gs_base', segField(GS, SEG.base)],
  ['k_gs_base', CPU.kernelGsBase],
  ['lstar', CPU.lstar],
  ['cr0', CPU.cr0],
  ['cr2', CPU.cr2],
  ['cr3', CPU.cr3],
  ['cr4', CPU.cr4],
  ['efer', CPU.efer],
]);

export function inspect(machine: Machine): Inspector {
  const { engine, truth, silicon } = machine;
  const eachPage = (
    vp: number,
    va: bigint,
    length: number,
    visit: (gpa: number, offset: number, bytes: number) => boolean,
  ): boolean => {
    for (let at = 0; at < length;) {
      const here = (va + BigInt(at)) & 0xffffffffffffffffn;
      const bytes = Math.min(length - at, 4096 - Number(here & 0xfffn));
      const gpa = engine.translate(silicon.cpu(vp), here);
      if (gpa === undefined || !visit(gpa, at, bytes)) return false;
      at += bytes;
    }
    return true;
  };
  return {
    vcpus: machine.config.vcpus,
    register(vp, name) {
      const cpu = silicon.cpu(vp);
      if (name === 'eflags') return BigInt(rflags(engine, cpu));
      const segment = SEGMENTS.indexOf(name);
      if (segment >= 0) return BigInt(engine.view.getUint32(cpu + segField(segment, SEG.selector), true));
      const offset = OFFSETS.get(name);
      return offset === undefined ? 0n : read64(engine, cpu + offset);
    },
    setRegister(vp, name, value) {
      const cpu = silicon.cpu(vp);
      if (name === 'eflags') setRflags(engine, cpu, Number(value & 0xffffffffn));
      else {
        const offset = OFFSETS.get(name);
        if (offset !== undefined) write64(engine, cpu + offset, value);
      }
      engine.updateMode(cpu);
    },
    read(vp, va, length) {
      const out = new Uint8Array(length);
      const ok = eachPage(vp, va, length, (gpa, offset, bytes) => {
        const piece = truth.read(gpa, bytes);
        if (piece === undefined) return false;
        out.set(piece, offset);
        return true;
      });
      return ok ? out : undefined;
    },
    write(vp, va, bytes) {
      return eachPage(vp, va, bytes.length, (gpa, offset, count) =>
        truth.write(gpa, bytes.subarray(offset, offset + count)),
      );
    },
    host(vp, va) {
      const gpa = engine.translate(silicon.cpu(vp), va);
      return gpa === undefined ? undefined : truth.host(gpa);
    },
  };
}
