/** Where things lie in the one fixed-size linear memory: small structures low, decoded records, then guest frames. */
import { CPU, ENGINE, JUMP, TLB } from './layout.ts';

export interface MemoryPlan {
  readonly engine: number;
  readonly jumpCache: number;
  /** CPU structure of context c of vCPU v: cpuBase + (v * contexts + c) * CPU.size; its TLB area likewise. */
  readonly cpuBase: number;
  readonly tlbBase: number;
  readonly tlbEmpty: number;
  readonly contexts: number;
  readonly vcpus: number;
  readonly pageFlags: number;
  readonly codeBitmap: number;
  /** For the second stage's tables. */
  readonly stage: number;
  readonly stageBytes: number;
  readonly records: number;
  readonly recordsEnd: number;
  readonly frames: number;
  readonly framesEnd: number;
  readonly pages: number;
}

const RECORD_BYTES = 96 << 20;
const MIB2 = 2 << 20;

const align = (value: number, to: number): number => Math.ceil(value / to) * to;

/** `frameBytes`: guest frames, a multiple of 2 MiB. `stageBytes`: room for the second stage's tables. */
export function planMemory(
  vcpus: number,
  contexts: number,
  frameBytes: number,
  stageBytes: number,
): MemoryPlan {
  let at = 0x1000;
  const take = (bytes: number, to = 64): number => {
    const start = align(at, to);
    at = start + bytes;
    return start;
  };
  const engine = take(ENGINE.size);
  const cpuBase = take(vcpus * contexts * CPU.size, 4096);
  const tlbEmpty = take(TLB.arrayBytes, 4096);
  const tlbBase = take(vcpus * contexts * TLB.areaBytes, 4096);
  const jumpCache = take(JUMP.entries << JUMP.shift, 4096);
  const frames4k = frameBytes / 4096;
  const pageFlags = take(frames4k);
  const codeBitmap = take(frameBytes / 64 / 8);
  const stage = take(stageBytes, 4096);
  const records = take(RECORD_BYTES, 4096);
  const recordsEnd = at;
  const frames = take(frameBytes, MIB2);
  return {
    engine,
    jumpCache,
    cpuBase,
    tlbBase,
    tlbEmpty,
    contexts,
    vcpus,
    pageFlags,
    codeBitmap,
    stage,
    stageBytes,
    records,
    recordsEnd,
    frames,
    framesEnd: frames + frameBytes,
    pages: Math.ceil((frames + frameBytes) / 65536),
  };
}
