/** Decodes basic blocks into records, finds them again, and drops them when their code changes. */
import { decode, Insn, type DecodeMode, type DecodeResult } from './decoder.ts';
import type { Entry, OpcodeTable } from './encoding.ts';
import { variantKey } from './encoding.ts';
import {
  CASE,
  COLD,
  CPU,
  ENGINE,
  FS,
  GS,
  HEAD,
  JUMP,
  MODE,
  PAGEFLAG,
  REC,
  RECFLAG,
  SEG,
  SS,
  TLB,
  segField,
} from './layout.ts';
import type { MemoryPlan } from './memory-plan.ts';
import { REG, RM, type FlagUse } from './record-plan.ts';
import { eachFilledEntry } from './tlb.ts';

export interface Block {
  /** Address of the first record; a header (HEAD) lies in front of it. */
  readonly record: number;
  readonly host: number;
  readonly length: number;
  readonly secondHost: number;
  readonly mode: number;
  readonly ripLow: number;
  readonly ripHigh: number;
  stale: boolean;
}

/** Handlers that stand for a fault at decode time, by the names of the definitions that raise them. */
export interface PseudoHandlers {
  readonly ud: Entry;
  readonly gp: Entry;
  readonly nm: Entry;
}

export const MAX_BLOCK = 48;
const NONE: readonly Block[] = [];

/** Who keeps code that was made from blocks. */
export interface BlockObserver {
  dropped(block: Block): void;
  flushed(): void;
}

export class Blocks {
  readonly #table: OpcodeTable;
  readonly #plan: MemoryPlan;
  readonly #u8: Uint8Array;
  readonly #u16: Uint16Array;
  readonly #u32: Int32Array;
  readonly #pseudo: PseudoHandlers;
  readonly #insn = new Insn();
  readonly #scratch = new Uint8Array(32);
  #next: number;
  /** Of the block being decoded, by instruction. */
  readonly #flagUse: FlagUse[] = [];
  readonly #deadHandler: number[] = [];
  /** Blocks by frame (host address >> 12). */
  #byFrame = new Map<number, Block[]>();
  /** Blocks by the host address of their first byte. */
  #byHost = new Map<number, Block[]>();
  /** Addresses (rip) at which a debugger wants to stop: set by `setBreakpoints`. */
  #breakpoints: ReadonlySet<bigint> = new Set();
  /** Runs of a new block until it is hot. */
  heat: number = COLD;
  observer: BlockObserver | undefined;
  /** Counters for inspection. */
  decoded = 0;
  dropped = 0;
  flushes = 0;

  constructor(table: OpcodeTable, plan: MemoryPlan, memory: ArrayBuffer, pseudo: PseudoHandlers) {
    this.#table = table;
    this.#plan = plan;
    this.#u8 = new Uint8Array(memory);
    this.#u16 = new Uint16Array(memory);
    this.#u32 = new Int32Array(memory);
    this.#pseudo = pseudo;
    this.#next = plan.records;
    this.#u8.fill(0xff, plan.jumpCache, plan.jumpCache + (JUMP.entries << JUMP.shift));
  }

  /**
   * Makes the block for the rip of `cpu` known to the jump cache. `secondPage(vaLow, vaHigh)` gives the host address of the
   * next page for an instruction that goes on there, 0 when that faults; then this returns false.
   */
  prepare(cpu: number, secondPage: (low: number, high: number) => number): boolean {
    const w = cpu >> 2;
    const u32 = this.#u32;
    const ripLow = u32[w + (CPU.rip >> 2)] as number;
    const ripHigh = u32[w + (CPU.rip >> 2) + 1] as number;
    let linearLow = ripLow;
    let linearHigh = ripHigh;
    const single = u32[w + (CPU.wantSingle >> 2)] !== 0;
    const large = u32[w + (CPU.windowMask >> 2)] === -0x200000;
    const modeWord =
      (u32[w + (CPU.mode >> 2)] as number) | (single ? MODE.single : 0) | (large ? MODE.large : 0);
    const code = modeWord & MODE.codeMask;
    if (code !== MODE.code64) {
      linearLow = (ripLow + (u32[w + (segField(1, SEG.base) >> 2)] as number)) | 0;
      linearHigh = 0;
    }
    const host =
      ((u32[w + (CPU.windowHost >> 2)] as number) +
        linearLow -
        (u32[w + (CPU.windowBase >> 2)] as number)) >>>
      0;
    const known = this.#find(host, modeWord, ripLow, ripHigh);
    for (const block of known) {
      if (block.secondHost !== 0) {
        const second = secondPage(((linearLow | 0xfff) + 1) | 0, nextHigh(linearLow, linearHigh));
        if (second === 0) return false;
        if (second !== block.secondHost) continue;
      }
      this.#publish(block);
      return true;
    }
    if (this.#next + (MAX_BLOCK + 3) * REC.size > this.#plan.recordsEnd) this.flush();
    const block = this.#decodeBlock(
      host,
      ripLow,
      ripHigh,
      linearLow,
      linearHigh,
      modeWord,
      single,
      secondPage,
    );
    if (block === null) return false;
    this.decoded++;
    const same = this.#byHost.get(host);
    if (same) same.push(block);
    else this.#byHost.set(host, [block]);
    if (block.secondHost === 0) this.#register(host, block.length, block);
    else {
      this.#register(host, 4096 - (host & 0xfff), block);
      this.#register(block.secondHost, 16, block);
    }
    this.#publish(block);
    return true;
  }

  /** The block that the rip of `cpu` runs. */
  current(cpu: number): Block | undefined {
    const u32 = this.#u32;
    const w = cpu >> 2;
    const ripLow = u32[w + (CPU.rip >> 2)] as number;
    const ripHigh = u32[w + (CPU.rip >> 2) + 1] as number;
    const large = u32[w + (CPU.windowMask >> 2)] === -0x200000 ? MODE.large : 0;
    const mode = (u32[w + (CPU.mode >> 2)] as number) | large;
    const at = this.#jumpSlot(ripLow, ripHigh, mode);
    const host = (u32[at + (JUMP.host >> 2)] as number) >>> 0;
    const record = u32[at + (JUMP.record >> 2)];
    for (const block of this.#find(host, mode, ripLow, ripHigh)) if (block.record === record) return block;
    return undefined;
  }
  /** The block is not asked about again for long. */
  cool(block: Block): void {
    this.#u32[(block.record - HEAD.size + HEAD.heat) >> 2] = COLD;
  }

  /** Word index of the jump cache's entry. */
  #jumpSlot(ripLow: number, ripHigh: number, mode: number): number {
    const rotated = (ripLow >>> 15) | (ripHigh << 17);
    const index = (ripLow ^ rotated ^ (mode << 3)) & (JUMP.entries - 1);
    return (this.#plan.jumpCache + (index << JUMP.shift)) >> 2;
  }

  /** The blocks at `host` with this rip and key: more than one when they go on in different second pages. */
  #find(host: number, mode: number, ripLow: number, ripHigh: number): readonly Block[] {
    const list = this.#byHost.get(host);
    return list === undefined ? NONE : list.filter((block) => isAt(block, mode, ripLow, ripHigh));
  }

  /** The block at `host` that is reached with this rip and key, and lies in one window; undefined when none is decoded. */
  find(host: number, mode: number, ripLow: number, ripHigh: number): Block | undefined {
    const list = this.#byHost.get(host);
    if (list === undefined) return undefined;
    for (const block of list) if (block.secondHost === 0 && isAt(block, mode, ripLow, ripHigh)) return block;
    return undefined;
  }

  /** The block that ran last at this rip with this key, wherever it lies; undefined when the jump cache has forgotten it. */
  lately(mode: number, ripLow: number, ripHigh: number): Block | undefined {
    const u32 = this.#u32;
    const at = this.#jumpSlot(ripLow, ripHigh, mode);
    if (u32[at] !== ripLow || u32[at + 1] !== ripHigh || u32[at + (JUMP.mode >> 2)] !== mode)
      return undefined;
    const host = (u32[at + (JUMP.host >> 2)] as number) >>> 0;
    const record = u32[at + (JUMP.record >> 2)];
    return this.#find(host, mode, ripLow, ripHigh).find((block) => block.record === record);
  }
  /** As find(), of an instruction that goes on in another page; undefined when there is none, or one for each of several pages. */
  findSplit(host: number, mode: number, ripLow: number, ripHigh: number): Block | undefined {
    const list = this.#find(host, mode, ripLow, ripHigh);
    return list.length === 1 ? list[0] : undefined;
  }

  /** The blocks that hold code of a frame (host address >> 12). */
  inFrame(frame: number): readonly Block[] {
    return this.#byFrame.get(frame) ?? NONE;
  }

  /** Notes that `block` holds what lies at [host, host + length). */
  #register(host: number, length: number, block: Block): void {
    for (let frame = host >>> 12; frame <= (host + length - 1) >>> 12; frame++) {
      const list = this.#byFrame.get(frame);
      if (list) list.push(block);
      else this.#byFrame.set(frame, [block]);
      const from = Math.max(host, frame * 4096);
      this.#markCode(from, Math.min(host + length, (frame + 1) * 4096) - 1 - from);
    }
  }

  #publish(block: Block): void {
    const { ripLow, ripHigh, mode } = block;
    const at = this.#jumpSlot(ripLow, ripHigh, mode);
    const u32 = this.#u32;
    u32[at] = ripLow;
    u32[at + 1] = ripHigh;
    u32[at + (JUMP.host >> 2)] = block.host;
    u32[at + (JUMP.mode >> 2)] = mode;
    u32[at + (JUMP.record >> 2)] = block.record;
    u32[at + (JUMP.second >> 2)] = block.secondHost;
  }

  #decodeBlock(
    host: number,
    ripLow: number,
    ripHigh: number,
    linearLow: number,
    linearHigh: number,
    modeWord: number,
    single: boolean,
    secondPage: (low: number, high: number) => number,
  ): Block | null {
    const code = modeWord & MODE.codeMask;
    const mode: DecodeMode = {
      bits: code === MODE.code64 ? 64 : code === MODE.code32 ? 32 : 16,
      real: (modeWord & MODE.real) !== 0,
    };
    const insn = this.#insn;
    const start = this.#next + HEAD.size;
    this.#clear(this.#next);
    this.#u32[(this.#next + HEAD.heat) >> 2] = single ? COLD : this.heat;
    let record = start;
    let at = host;
    // Blocks and links stay inside one translation: a page, or the whole of a large window.
    const window = (modeWord & MODE.large) !== 0 ? 0x200000 : 0x1000;
    const pageEnd = ((host & -window) >>> 0) + window;
    let secondHost = 0;
    let count = 0;
    let offset = 0;
    let ended = false;
    const limit = codeLimit(modeWord);
    const max = single ? 1 : MAX_BLOCK;
    while (count < max && at < pageEnd) {
      if (this.#breakpoints.size > 0 && this.#isBreakpoint(mode, ripLow, ripHigh, offset)) {
        if (count > 0) break;
        this.#clear(record);
        this.#u16[record >> 1] = CASE.stop;
        this.#u32[(record + REC.next) >> 2] = ripLow;
        this.#u32[(record + REC.next + 4) >> 2] = ripHigh;
        this.#next = record + REC.size;
        return {
          record: start,
          host,
          length: 1,
          secondHost: 0,
          mode: modeWord,
          ripLow,
          ripHigh,
          stale: false,
        };
      }
      // Bytes that CS permits.
      const room = limit - ((ripLow + offset) >>> 0) + 1;
      let result: DecodeResult | 'limit' =
        room <= 0 ? 'limit' : decode(this.#table, mode, this.#u8, at, Math.min(pageEnd - at, room), insn);
      if (result === 'more' && room <= pageEnd - at) result = 'limit';
      if (result === 'more') {
        if (count > 0) break;
        const second = secondPage(((linearLow | 0xfff) + 1) | 0, nextHigh(linearLow, linearHigh));
        if (second === 0) return null;
        const here = pageEnd - at;
        this.#scratch.fill(0);
        this.#scratch.set(this.#u8.subarray(at, pageEnd));
        this.#scratch.set(this.#u8.subarray(second, second + 16), here);
        result = decode(this.#table, mode, this.#scratch, 0, Math.min(here + 16, room), insn);
        if (result === 'more') result = 'limit';
        secondHost = second;
      }
      if (result === 'limit') {
        insn.entry = undefined;
        insn.length = 1;
      }
      const entry = this.#entryOf(result, insn.entry, modeWord);
      const variant = entry === insn.entry ? insn.variant : variantKey(entry.sizes[0] ?? 4, false, 0);
      offset += insn.length;
      const { plan } = entry;
      this.#flagUse[count] = (insn.mem && plan.accesses) || entry !== insn.entry ? 'other' : plan.flagUse;
      this.#deadHandler[count] =
        (insn.mem || entry !== insn.entry ? undefined : entry.handlers[variant]?.deadFlags) ?? 0;
      this.#writeRecord(record, entry, variant, insn, mode, ripLow, ripHigh, offset, window);
      count++;
      record += REC.size;
      at += insn.length;
      const ends = entry.def.ends ?? 'no';
      if (ends !== 'no' || entry !== insn.entry || secondHost !== 0) {
        ended = ends !== 'no';
        break;
      }
    }
    if (!ended) {
      // Fall through to whatever follows: not an instruction of its own.
      this.#clear(record);
      const w = record >> 2;
      this.#u16[record >> 1] = CASE.end;
      this.#u32[w + (REC.next >> 2)] = (ripLow + offset) | 0;
      this.#u32[w + (REC.next >> 2) + 1] = advanceHigh(mode, ripLow, ripHigh, offset);
      this.#u32[w + (REC.fallthrough >> 2)] = single || ((linearLow + offset) ^ linearLow) & -window ? 1 : 0;
      record += REC.size;
    }
    for (let k = 0; k < count; k++) this.#u32[(start + k * REC.size + REC.after) >> 2] = count - 1 - k;
    this.#dropDeadFlags(start, count);
    if (single) {
      const last = start + (count - 1) * REC.size;
      this.#u32[(last + REC.taken) >> 2] = 1;
      this.#u32[(last + REC.fallthrough) >> 2] = 1;
    }
    this.#next = record;
    return {
      record: start,
      host,
      length: Math.max(1, at - host),
      secondHost,
      mode: modeWord,
      ripLow,
      ripHigh,
      stale: false,
    };
  }

  /** What is executed: the instruction, or the fault that decoding found. */
  #entryOf(result: DecodeResult | 'limit', entry: Entry | undefined, mode: number): Entry {
    if (result === 'too-long' || result === 'limit') return this.#pseudo.gp;
    if (result !== 'ok' || entry === undefined) return this.#pseudo.ud;
    if (entry.def.unit === undefined) return entry;
    const fault = unitFault(entry, mode);
    return fault === undefined ? entry : this.#pseudo[fault];
  }

  /**
   * Flags that a later instruction of the block overwrites are not computed, when nothing between can fault, look at them
   * or end the block. Events come only between blocks, and a block that is stepped has one instruction.
   */
  #dropDeadFlags(start: number, count: number): void {
    let dead = false;
    for (let k = count - 1; k >= 0; k--) {
      const handler = this.#deadHandler[k] as number;
      const record = start + k * REC.size;
      if (dead && handler !== 0 && (this.#u16[record >> 1] as number) >= CASE.hot)
        this.#u16[record >> 1] = handler;
      const use = this.#flagUse[k];
      if (use === 'writes') dead = true;
      else if (use === 'other') dead = false;
    }
  }

  #clear(record: number): void {
    const u32 = this.#u32;
    const end = (record + REC.size) >> 2;
    for (let w = record >> 2; w < end; w++) u32[w] = 0;
  }

  #writeRecord(
    record: number,
    entry: Entry,
    variant: number,
    insn: Insn,
    mode: DecodeMode,
    ripLow: number,
    ripHigh: number,
    end: number,
    window: number,
  ): void {
    const u32 = this.#u32;
    const u16 = this.#u16;
    const h = record >> 1;
    const w = record >> 2;
    const handler = entry.handlers[variant];
    if (handler === undefined) throw new Error(`${entry.def.name} (${entry.text}) has no variant ${variant}`);
    const long = mode.bits === 64;
    const general = !long || insn.addressSize !== 8;
    // What is in line in the switch assumes 64-bit mode and addresses.
    let where = handler.handler;
    if (where >= CASE.hot && general) {
      const ends = entry.def.ends ?? 'no';
      where = ends === 'no' ? CASE.cold : ends === 'jump' ? CASE.coldJump : CASE.coldSync;
    }
    const nextLow = (ripLow + end) | 0;
    const nextHigh2 = advanceHigh(mode, ripLow, ripHigh, end);
    const { plan } = entry;
    let targetCrosses = 1;
    let immLow = insn.imm;
    let immHigh = insn.immHigh;
    let fallCrosses = 1;
    if (plan.branch) {
      const sum = (nextLow >>> 0) + (insn.imm >>> 0);
      immLow = sum | 0;
      immHigh = long ? (nextHigh2 + insn.immHigh + (sum > 0xffffffff ? 1 : 0)) | 0 : 0;
      const page = ripLow & -window;
      targetCrosses = (immLow & -window) === page && immHigh === (long ? ripHigh : 0) ? 0 : 1;
      fallCrosses = (nextLow & -window) === page ? 0 : 1;
      if (!long) targetCrosses = 1;
      if (long && !canonical(immHigh) && where >= CASE.hot) where = CASE.coldJump;
    }
    // x87 instructions have no immediate: the field holds what FOP will show.
    if (entry.def.unit === 'x87') immLow = ((insn.opcode & 7) << 8) | insn.modrm;
    u16[h] = where;
    u16[h + (REC.slot >> 1)] = handler.slot;
    u16[h + (REC.reg >> 1)] = regField(plan.reg, insn);
    u16[h + (REC.rm >> 1)] = rmField(plan.rm, insn);
    u16[h + (REC.vvvv >> 1)] = CPU.gpr + insn.vvvv * 8;
    u16[h + (REC.base >> 1)] = insn.base >= 0 ? CPU.gpr + insn.base * 8 : CPU.zero;
    u16[h + (REC.index >> 1)] = insn.index >= 0 ? CPU.gpr + insn.index * 8 : CPU.zero;
    const segment = insn.segment;
    // In 64-bit mode only FS and GS have a base.
    u16[h + (REC.segBase >> 1)] =
      long && segment !== FS && segment !== GS ? CPU.zero : segField(segment, SEG.base);
    this.#u8[record + REC.scale] = insn.scale;
    this.#u8[record + REC.length] = insn.length;
    this.#u8[record + REC.addressSize] = insn.addressSize;
    this.#u8[record + REC.segment] = !insn.mem && plan.stack ? SS : segment;
    u32[w + (REC.flags >> 2)] =
      (insn.lock ? RECFLAG.lock : 0) |
      (insn.rex & 8 ? RECFLAG.rexW : 0) |
      (general ? RECFLAG.general : 0) |
      (insn.rep === 1 ? RECFLAG.repe : 0) |
      (insn.rep === 2 ? RECFLAG.repne : 0) |
      (insn.opsizePrefix ? RECFLAG.opsize16 : 0) |
      (insn.hasRex ? RECFLAG.rex : 0) |
      (long ? RECFLAG.long : 0);
    let dispLow = insn.disp;
    let dispHigh = insn.dispHigh;
    if (insn.ripRelative) {
      const sum = (nextLow >>> 0) + (insn.disp >>> 0);
      dispLow = sum | 0;
      dispHigh = (nextHigh2 + insn.dispHigh + (sum > 0xffffffff ? 1 : 0)) | 0;
    }
    u32[w + (REC.disp >> 2)] = dispLow;
    u32[w + (REC.disp >> 2) + 1] = dispHigh;
    u32[w + (REC.imm >> 2)] = immLow;
    u32[w + (REC.imm >> 2) + 1] = immHigh;
    u32[w + (REC.next >> 2)] = nextLow;
    u32[w + (REC.next >> 2) + 1] = nextHigh2;
    u32[w + (REC.taken >> 2)] = targetCrosses;
    u32[w + (REC.fallthrough >> 2)] = fallCrosses;
    u32[w + (REC.imm2 >> 2)] = insn.imm2;
  }

  #markCode(host: number, lastByte: number): void {
    const { frames, pageFlags, codeBitmap } = this.#plan;
    const frame = (host - frames) >>> 12;
    const first = (host - frames) >>> 6;
    const last = Math.min((host + lastByte - frames) >>> 6, (((frame + 1) << 6) >>> 0) - 1);
    for (let line = first; line <= last; line++) {
      const at = codeBitmap + (line >>> 3);
      this.#u8[at] = (this.#u8[at] as number) | (1 << (line & 7));
    }
    const flags = this.#u8[pageFlags + frame] as number;
    if (flags & PAGEFLAG.code) return;
    this.#u8[pageFlags + frame] = flags | PAGEFLAG.code;
    this.observePage((host & ~0xfff) >>> 0);
  }

  /** Makes every write translation (and read translation) of the frame at `host` take the slow path. */
  observePage(host: number, reads = false): void {
    const { tlbBase, vcpus, contexts } = this.#plan;
    const u32 = this.#u32;
    for (let context = 0; context < vcpus * contexts; context++) {
      eachFilledEntry(u32, tlbBase + context * TLB.areaBytes, (entry) => {
        this.#observeTag(entry, TLB.write, host);
        if (reads) this.#observeTag(entry, TLB.read, host);
      });
    }
  }
  #observeTag(entry: number, tag: number, host: number): void {
    const u32 = this.#u32;
    const low = u32[(entry + tag) >> 2] as number;
    if (low === -1 || (low & 0xfff) !== 0) return;
    if (((u32[(entry + TLB.addend) >> 2] as number) + low) >>> 0 === host) u32[(entry + tag) >> 2] = low | 1;
  }

  /** Makes every write translation of pages with code take the slow path: when a TLB was filled from outside. */
  observeCode(): void {
    for (const frame of this.#byFrame.keys()) this.observePage((frame << 12) >>> 0);
  }

  /** Drops the blocks that overlap [host, host + length). */
  codeChanged(host: number, length: number): void {
    const from = host >>> 0;
    const to = from + length;
    for (let frame = from >>> 12; frame <= (to - 1) >>> 12; frame++) this.#dropIn(frame, from, to);
  }

  #dropIn(frame: number, from: number, to: number): void {
    const blocks = this.#byFrame.get(frame);
    if (!blocks) return;
    const kept: Block[] = [];
    for (const block of blocks) {
      const crossing = block.secondHost !== 0;
      const hit =
        block.stale ||
        (block.host < to && block.host + block.length > from) ||
        (crossing && block.secondHost < to && block.secondHost + 16 > from);
      if (hit) this.#drop(block);
      else kept.push(block);
    }
    const { frames, pageFlags, codeBitmap } = this.#plan;
    if (kept.length === 0) {
      this.#byFrame.delete(frame);
      const index = frame - (frames >>> 12);
      this.#u8[pageFlags + index] = (this.#u8[pageFlags + index] as number) & ~PAGEFLAG.code;
      this.#u8.fill(0, codeBitmap + index * 8, codeBitmap + index * 8 + 8);
    } else this.#byFrame.set(frame, kept);
  }

  #drop(block: Block): void {
    if (block.stale) return;
    block.stale = true;
    this.dropped++;
    this.#u32[(this.#plan.engine + ENGINE.dropped) >> 2] = 1;
    const same = this.#byHost.get(block.host) as Block[];
    if (same.length === 1) this.#byHost.delete(block.host);
    else same.splice(same.indexOf(block), 1);
    this.observer?.dropped(block);
    // Each of its records now leads out, also for a run that is in the middle of it.
    let record = block.record;
    for (;;) {
      if (this.#u16[record >> 1] === CASE.end) break;
      const after = this.#u32[(record + REC.after) >> 2] as number;
      this.#u16[record >> 1] = CASE.stale;
      if (after === 0) break;
      record += REC.size;
    }
    const { ripLow, ripHigh, mode } = block;
    const at = this.#jumpSlot(ripLow, ripHigh, mode);
    if (this.#u32[at + (JUMP.record >> 2)] === block.record) this.#u32.fill(-1, at, at + 8);
  }

  #isBreakpoint(mode: DecodeMode, ripLow: number, ripHigh: number, offset: number): boolean {
    const high = advanceHigh(mode, ripLow, ripHigh, offset);
    return this.#breakpoints.has((BigInt(high >>> 0) << 32n) | BigInt((ripLow + offset) >>> 0));
  }

  /** Where run() shall stop with RUN.breakpoint. Only between runs. */
  setBreakpoints(addresses: ReadonlySet<bigint>): void {
    this.#breakpoints = addresses;
    this.flush();
  }

  /** Makes the block whose record is running end after that record. */
  leaveAfter(record: number): void {
    for (const blocks of this.#byFrame.values()) {
      for (const block of blocks) {
        if (block.stale || record < block.record || record >= block.record + (MAX_BLOCK + 2) * REC.size)
          continue;
        const after = this.#u32[(block.record + REC.after) >> 2] as number;
        if (record <= block.record + after * REC.size) {
          this.codeChanged(block.host, 1);
          return;
        }
      }
    }
  }

  /** Drops everything. Only between runs: records that are still running would be overwritten. */
  flush(): void {
    const { jumpCache, frames, pageFlags, codeBitmap, records } = this.#plan;
    this.#u8.fill(0xff, jumpCache, jumpCache + (JUMP.entries << JUMP.shift));
    for (const frame of this.#byFrame.keys()) {
      const index = frame - (frames >>> 12);
      this.#u8[pageFlags + index] = (this.#u8[pageFlags + index] as number) & ~PAGEFLAG.code;
      this.#u8.fill(0, codeBitmap + index * 8, codeBitmap + index * 8 + 8);
    }
    this.#byFrame = new Map();
    this.#byHost = new Map();
    this.#next = records;
    this.flushes++;
    this.observer?.flushed();
  }
}

const isAt = (block: Block, mode: number, ripLow: number, ripHigh: number): boolean =>
  !block.stale && block.mode === mode && block.ripLow === ripLow && block.ripHigh === ripHigh;

/** High half of rip + offset; outside 64-bit mode there is none (16-bit code may run past 64 KiB only to fault at its limit). */
function advanceHigh(mode: DecodeMode, low: number, high: number, offset: number): number {
  if (mode.bits !== 64) return 0;
  return (high + ((low >>> 0) + offset > 0xffffffff ? 1 : 0)) | 0;
}

/** Offset in the CPU structure, or a plain number, of what modrm.reg names. */
function regField(kind: number, insn: Insn): number {
  switch (kind) {
    case REG.byte:
      return byteRegister(insn, insn.reg);
    case REG.segment:
      return insn.reg & 7;
    case REG.number:
      return insn.reg;
    case REG.xmm:
      return CPU.xmm + insn.reg * 32;
    case REG.mmx:
      return CPU.st + (insn.reg & 7) * 16;
    default:
      return CPU.gpr + insn.reg * 8;
  }
}

/** The same of modrm.rm, or of the low bits of the opcode. */
function rmField(kind: number, insn: Insn): number {
  switch (kind) {
    case RM.byteOrMemory:
      return insn.mem ? CPU.gpr + insn.rm * 8 : byteRegister(insn, insn.rm);
    case RM.byte:
      return byteRegister(insn, insn.rm);
    case RM.xmm:
      return CPU.xmm + insn.rm * 32;
    case RM.mmx:
      return CPU.st + (insn.rm & 7) * 16;
    case RM.stack:
      return insn.rm & 7;
    default:
      return CPU.gpr + insn.rm * 8;
  }
}

function byteRegister(insn: Insn, n: number): number {
  return !insn.hasRex && n >= 4 && n < 8 ? CPU.gpr + (n - 4) * 8 + 1 : CPU.gpr + n * 8;
}

function nextHigh(linearLow: number, linearHigh: number): number {
  return (linearLow | 0xfff) === -1 ? (linearHigh + 1) | 0 : linearHigh;
}

function canonical(high: number): boolean {
  return (high << 16) >> 16 === high;
}

/** Of CS, from the key of a block. */
function codeLimit(mode: number): number {
  if ((mode & MODE.limited) === 0) return Infinity;
  const limit = mode >>> MODE.limitShift;
  return (mode & MODE.limitPages) === 0 ? limit : limit * 4096 + 4095;
}

/** CR0.EM/TS and CR4.OSFXSR decide before anything else (SDM vol. 3, table 2-2 and 13.1). */
function unitFault(entry: Entry, mode: number): 'ud' | 'nm' | undefined {
  switch (entry.def.unit) {
    case 'sse':
      if ((mode & MODE.em) !== 0 || (mode & MODE.osfxsr) === 0) return 'ud';
      return (mode & MODE.ts) !== 0 ? 'nm' : undefined;
    case 'mmx':
      if ((mode & MODE.em) !== 0) return 'ud';
      return (mode & MODE.ts) !== 0 ? 'nm' : undefined;
    case 'x87':
      return (mode & (MODE.em | MODE.ts)) !== 0 ? 'nm' : undefined;
    case 'wait':
      return (mode & (MODE.mp | MODE.ts)) === (MODE.mp | MODE.ts) ? 'nm' : undefined;
    default:
      return undefined;
  }
}
