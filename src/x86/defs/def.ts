/**
 * The form in which an instruction is defined: once.
 *
 * `enc` holds encodings in the manuals' notation, one string each:
 *
 *   [NP|NR|66|F3|F2] opcode [/r|/0../7][:m|:r] [=XX] [modifiers] operands
 *
 * - Mandatory prefix first: NP (none of 66/F3/F2), NR (no F3/F2; 66 is the operand size), 66, F3, F2. Absent: prefixes are not part of the opcode.
 * - Opcode in hex without spaces, with its escape bytes: `00`, `0FA2`, `0F3800`. `50+` takes a register in its low
 *   3 bits. VEX: `VEX.L0.66.0F38.W0 F7` (L: L0|L1|LIG; W: W0|W1|WIG).
 * - `/r` modrm with a register in reg; `/3` an opcode extension. `:m` memory only, `:r` register only.
 *   `=C1` the whole modrm byte.
 * - Modifiers: `d64` operand size 64 by default in 64-bit mode (no 32), `f64` forced to 64 there, `o64` only in 64-bit mode,
 *   `i64` invalid there, `v` a variant for each operand size although no operand shows it, `rep` variants for
 *   none/F3/F2, `lock` may take LOCK with a memory destination, `anymod` modrm.mod is
 *   ignored, `nolong`=i64.
 * - Operands, comma-separated, `-` for none. A trailing `!` is read and written, `=` is written only; else read.
 *     Eb Ew Ed Eq Ev Ey    modrm.rm general register or memory (v: 2/4/8 by operand size; y: 4/8; b w d q: fixed)
 *     Edw                  register of operand size, or 16-bit memory (MOV Sreg, SMSW...)
 *     Gb Gw Gd Gq Gv Gy    modrm.reg general register
 *     Rd Rq Ry Rv          modrm.rm, register only; By: VEX.vvvv general register
 *     Zb Zv                register in the opcode's low 3 bits
 *     AL CL DX AX rAX eAX 1   fixed (rAX by operand size)
 *     Ib Iw Iz Iv Ibs      immediate (b: zero-extended byte; bs: sign-extended to operand size; z: 2/4 sign-extended)
 *     Jb Jz                relative target; Ap far pointer immediate
 *     Ob Ov                moffs
 *     M Mb Mw Md Mq Mx Mt Mp   memory only of no/8/16/32/64/128/80-bit size (M: address only; Mp far pointer)
 *     Sw Cy Dy             segment, control, debug register in modrm.reg
 *     Vx Vq Vd             XMM in modrm.reg as v128 / low i64 / low i32; Wx aligned 128-bit xmm/m128, Wu unaligned,
 *                          Wq Wd Ww Wb xmm-or-memory of that width; Ux Uq: XMM in rm, register only
 *     Pq Qq Nq Qd          MMX in reg; mmx/m64 in rm; register only; mmx/m32
 *     STi                  x87 register number from modrm.rm
 */
import type { Sem } from '../sem.ts';

export type Feature =
  | 'fpu'
  | 'tsc'
  | 'msr'
  | 'cx8'
  | 'cmov'
  | 'mmx'
  | 'fxsr'
  | 'sse'
  | 'sse2'
  | 'sse3'
  | 'pclmul'
  | 'monitor'
  | 'ssse3'
  | 'cx16'
  | 'sse4.1'
  | 'sse4.2'
  | 'movbe'
  | 'popcnt'
  | 'aes'
  | 'xsave'
  | 'rdrand'
  | 'fsgsbase'
  | 'bmi1'
  | 'bmi2'
  | 'invpcid'
  | 'rdseed'
  | 'adx'
  | 'smap'
  | 'clflushopt'
  | 'clwb'
  | 'xsaveopt'
  | 'xsavec'
  | 'xsaves'
  | 'pku'
  | 'pks'
  | 'pcid'
  | 'rdpid'
  | 'lahf'
  | 'lzcnt'
  | '3dnowprefetch'
  | 'rdtscp'
  | 'syscall'
  | 'sep'
  | 'clflush'
  | 'wbnoinvd'
  | 'la57'
  | 'sha'
  | 'serialize'
  | 'vmx'
  | 'svm'
  | 'invlpgb'
  | 'long';

/** What decides whether an SSE, MMX or x87 instruction raises #NM or #UD before anything else. */
export type Unit = 'x87' | 'mmx' | 'sse' | 'wait';

/** What follows the instruction. */
export type Ends =
  /** The next instruction of the block. */
  | 'no'
  /** rip was set: dispatch there. */
  | 'jump'
  /** As jump, and interrupts, mode, pending work and the TLB window are looked at again. rip is set by the definition or, if
   * it leaves rip alone, is the next instruction's (`Sem` sets it before the semantics run). */
  | 'sync';

export interface Def {
  readonly name: string;
  readonly enc: readonly string[];
  readonly feature?: Feature;
  readonly unit?: Unit;
  readonly ends?: Ends;
  /** Writes the semantics of one variant. */
  readonly sem: (e: Sem) => void;
}
