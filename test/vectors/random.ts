/** Cases of random bytes, valid or not, without those whose meaning depends on more than the processor and its CPUID. */
import {
  Code,
  Decoder,
  DecoderOptions,
  type Instruction,
  Mnemonic,
  OpKind,
  Register,
  RegisterExt,
} from 'iced-x86';
import {
  CODE,
  CODE_BYTES,
  CODE_SEGMENTS,
  DATA,
  FS_BASE,
  GS_BASE,
  RFLAGS,
  RIP,
  type Rng,
  type VectorCase,
  codeSegment,
  mix,
} from './state.ts';
import { CaseBuilder, chooseAddress } from './generate.ts';
import { KINDS, integer64 } from './values.ts';

const PREFIXES = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3];

/** Why a case of these bytes has no portable result, or undefined. */
export function excluded(code: Uint8Array): string | undefined {
  let at = 0;
  let operand16 = false;
  let repeat = false;
  for (; at < code.length; at++) {
    const byte = code[at] as number;
    if (byte === 0x66) operand16 = true;
    if (byte === 0xf2 || byte === 0xf3) repeat = true;
    if (!PREFIXES.includes(byte) && (byte & 0xf0) !== 0x40) break;
  }
  const op = code[at] ?? 0;
  const next = code[at + 1] ?? 0;
  const third = code[at + 2] ?? 0;
  const digit = (byte: number): number => (byte >> 3) & 7;
  if (op === 0xc4 || op === 0xc5 || op === 0x62) return 'AVX of the host';
  if ([0xcd, 0xf1, 0xcf, 0xca, 0xcb, 0x8e].includes(op)) return 'descriptor tables';
  if (op === 0xff && (digit(next) === 3 || digit(next) === 5)) return 'far transfer';
  if (op === 0x9c || op === 0x9d) return 'TF belongs to the measurement';
  if (operand16) {
    const near = (op & 0xf0) === 0x70 || [0xe8, 0xe9, 0xeb, 0xc2, 0xc3, 0xe0, 0xe1, 0xe2, 0xe3].includes(op);
    if (
      near ||
      (op === 0xff && (digit(next) === 2 || digit(next) === 4)) ||
      (op === 0x0f && (next & 0xf0) === 0x80)
    ) {
      return 'AMD and Intel differ';
    }
  }
  if ((op === 0xe0 || op === 0xe1) && repeat) return 'a prefix that nobody documents';
  if ((op === 0xc6 || op === 0xc7) && next === 0xf8) return 'TSX of the host';
  if (op !== 0x0f) return undefined;
  if ([0x05, 0x34, 0x35].includes(next)) return 'system call';
  if ([0x00, 0x01, 0x02, 0x03, 0xb2, 0xb4, 0xb5, 0xa1, 0xa9].includes(next)) return 'descriptor tables';
  if ([0xa2, 0x31, 0x33].includes(next)) return 'answers of the host';
  if (next === 0x78 || next === 0x79 || (next === 0x2b && repeat)) return 'SSE4a of the host';
  if (next === 0xae && third < 0xc0 && ![0, 2, 3, 7].includes(digit(third)))
    return 'state components of the host';
  if (next === 0xae && third >= 0xc0 && (operand16 || (repeat && digit(third) > 3)))
    return 'extensions of the host';
  if (next === 0xc7 && !(digit(third) === 1 && third < 0xc0)) return 'extensions of the host';
  if ((next & 0xfc) === 0x20 && code.subarray(0, at).includes(0xf0)) return 'AltMovCr8 of AMD';
  if (next === 0x38 && third >= 0xc8 && third <= 0xcf) return 'SHA and GFNI of the host';
  // WRSS; with 66 or F3 the byte is ADCX or ADOX.
  if (next === 0x38 && third === 0xf6 && !code.subarray(0, at).some((byte) => byte === 0x66 || byte === 0xf3))
    return 'CET of the host';
  if (next === 0x38 && ((third >= 0x80 && third <= 0x8f) || third === 0xf5 || third >= 0xf7))
    return 'extensions of the host';
  if (next === 0x3a && third >= 0xc8 && third <= 0xcf) return 'SHA and GFNI of the host';
  return undefined;
}

export function decode(code: Uint8Array, rip: bigint, bits: 16 | 32 | 64 = 64): Instruction {
  const decoder = new Decoder(bits, code, DecoderOptions.AMD);
  decoder.ip = rip;
  const instruction = decoder.decode();
  decoder.free();
  return instruction;
}

/** A form name for the table of masks: mnemonic and operand kinds. */
function nameOf(instruction: Instruction): string {
  const operands: string[] = [];
  const code = Code[instruction.code] ?? '';
  for (let i = 0; i < instruction.opCount; i++) {
    const kind = instruction.opKind(i);
    if (kind === OpKind.Register) {
      const register = instruction.opRegister(i);
      if (i > 0 && register === Register.CL && code.endsWith('_CL')) operands.push('cl');
      else if (RegisterExt.isGPR(register)) operands.push(`r${RegisterExt.size(register) * 8}`);
      else if (RegisterExt.isXMM(register)) operands.push('xmm');
      else operands.push(RegisterExt.isMM(register) ? 'mm' : 'register');
    } else if (kind === OpKind.Memory) {
      const match = /_(?:rm|m)(\d+)/.exec(code);
      operands.push(`m${match?.[1] ?? ''}`);
    } else operands.push(code.endsWith('_1') ? '1' : 'imm8');
  }
  return `random ${(Mnemonic[instruction.mnemonic] ?? 'invalid').toLowerCase()}${operands.length === 0 ? '' : ' '}${operands.join(',')}`;
}

export function randomKind(seed: number): (typeof KINDS)[number] {
  return KINDS[mix(seed, 7) % KINDS.length] ?? 'int';
}

/** One case of random bytes. */
export function randomCase(seed: number): VectorCase {
  const b = new CaseBuilder(randomKind(seed), seed);
  const { rng, v } = b;
  for (let i = 0; i < 16; i++) {
    if (rng.chance(0.7))
      b.set(i, chooseAddress(rng, 8, rng.chance(0.5)) - (rng.chance(0.3) ? BigInt(rng.below(256)) : 0n));
  }
  if (rng.chance(0.8)) b.set(4, BigInt(DATA + 64 + 8 * rng.below(1000)));
  v.setBigUint64(RIP, BigInt(CODE + rng.below(4096)), true);
  for (;;) {
    const bytes: number[] = [];
    while (rng.chance(0.25) && bytes.length < 14) bytes.push(rng.pick(PREFIXES));
    if (rng.chance(0.5)) bytes.push(0x40 | rng.below(16));
    if (rng.chance(0.55)) {
      bytes.push(0x0f);
      if (rng.chance(0.3)) bytes.push(rng.chance(0.7) ? 0x38 : 0x3a);
    }
    bytes.push(rng.below(256));
    bytes.push(rng.below(256));
    while (bytes.length < 16) bytes.push(rng.chance(0.3) ? rng.pick([0, 0xff, 0x10, 0x80]) : rng.below(256));
    const code = Uint8Array.from(bytes);
    if (excluded(code) !== undefined) continue;
    const instruction = decode(code, v.getBigUint64(RIP, true));
    if (
      /^rep|^lods|^stos|^movs[bwdq]?$|^cmps|^scas|^ins|^outs/.test(
        (Mnemonic[instruction.mnemonic] ?? '').toLowerCase(),
      )
    ) {
      b.set(1, rng.chance(0.8) ? BigInt(rng.below(20)) : integer64(rng));
      v.setUint32(RFLAGS, v.getUint32(RFLAGS, true), true);
    }
    const name = nameOf(instruction);
    const length = instruction.length;
    instruction.free();
    return b.finish(name, [...code.subarray(0, name.startsWith('random invalid') ? 15 : length)]);
  }
}

/** Why a case of these bytes has no portable result in compatibility mode. */
function excludedThere(code: Uint8Array): string | undefined {
  const op = code.find((byte) => !PREFIXES.includes(byte)) ?? 0;
  const next = code[code.indexOf(op) + 1] ?? 0;
  if ([0x07, 0x17, 0x1f, 0x9a, 0xea].includes(op)) return 'descriptor tables';
  if ((op === 0xc4 || op === 0xc5) && next < 0xc0) return 'descriptor tables';
  if (op === 0x62 && next < 0xc0) return undefined;
  // What is a REX prefix in 64-bit mode is INC or DEC: nothing behind it is looked at.
  if ((op & 0xf0) === 0x40) return undefined;
  if (op === 0xd6) return 'an instruction that nobody documents';
  return excluded(code);
}

/** BMI1 and BMI2 in their VEX encoding, right or nearly, with something behind it. */
function bitManipulation(rng: Rng): number[] {
  const map = rng.pick([2, 2, 3]);
  const opcode = map === 3 ? 0xf0 : rng.pick([0xf2, 0xf3, 0xf5, 0xf6, 0xf7]);
  const payload = (rng.below(2) << 7) | (rng.below(16) << 3) | (rng.chance(0.1) ? 4 : 0) | rng.below(4);
  const prefixes = rng.chance(0.1) ? [rng.pick(PREFIXES)] : [];
  return [...prefixes, 0xc4, 0xc0 | (rng.chance(0.9) ? 0x20 : 0) | map, payload, opcode].concat(
    Array.from({ length: 12 }, () => rng.below(256)),
  );
}

/** One case of random bytes in compatibility mode, with flat or with small segments. */
export function randomCompatibilityCase(seed: number): VectorCase {
  const kind = randomKind(seed);
  const b = new CaseBuilder(kind, seed);
  const { rng, v } = b;
  const flat = rng.chance(0.4);
  const data = (): number => (flat ? 1 : rng.pick([0, 1, 2, 2, 3, 3, 4, 5, 6]));
  const segments = {
    cs: flat ? 1 : rng.pick([1, 2, 2, 3]),
    ss: flat ? 1 : rng.pick([1, 2, 2, 3, 3, 4, 5]),
    ds: data(),
    es: data(),
  };
  const { bits, base } = codeSegment({ segments });
  for (let i = 0; i < 16; i++) {
    const small = !flat && rng.chance(0.75);
    const value = small
      ? BigInt(rng.below(0x2100) + (rng.chance(0.05) ? rng.next() & 0xffff0000 : 0))
      : rng.chance(0.7)
        ? chooseAddress(rng, 8, rng.chance(0.5))
        : b.get(i);
    b.set(i, value & 0xffff_ffffn);
  }
  const stack = segments.ss === 1 ? DATA : segments.ss >= 4 ? 0x1000 : 0;
  if (rng.chance(0.85)) b.set(4, BigInt(stack + 64 + 4 * rng.below(2000)));
  v.setBigUint64(RIP, BigInt(CODE - base + rng.below(rng.chance(0.05) ? CODE_BYTES : 4096)), true);
  // Around the end of the code segment.
  if (segments.cs === 3 && rng.chance(0.05))
    v.setBigUint64(RIP, BigInt((CODE_SEGMENTS[3]?.limit ?? 0) + 2 - rng.below(18)), true);
  const segmentsOfLong = [FS_BASE, GS_BASE];
  for (const at of segmentsOfLong) v.setBigUint64(at, 0n, true);
  for (;;) {
    const bytes: number[] = [];
    while (rng.chance(0.3) && bytes.length < 14)
      bytes.push(rng.chance(0.5) ? rng.pick([0x66, 0x67]) : rng.pick(PREFIXES));
    if (rng.chance(0.4)) {
      bytes.push(0x0f);
      if (rng.chance(0.3)) bytes.push(rng.chance(0.7) ? 0x38 : 0x3a);
    }
    bytes.push(rng.below(256), rng.below(256));
    while (bytes.length < 16) bytes.push(rng.chance(0.3) ? rng.pick([0, 0xff, 0x10, 0x80]) : rng.below(256));
    // Displacements and pointers inside the small segments.
    if (!flat && rng.chance(0.5)) for (let i = 4; i < 16; i += 2) bytes[i + 1] = rng.below(0x21);
    const vex = rng.chance(0.05);
    if (vex) bytes.splice(0, bytes.length, ...bitManipulation(rng));
    const code = Uint8Array.from(bytes);
    if (!vex && excludedThere(code) !== undefined) continue;
    const instruction = decode(code, v.getBigUint64(RIP, true), bits);
    if (
      /^(rep|lods|stos|movs[bwd]?$|cmps|scas|ins|outs)/.test(
        (Mnemonic[instruction.mnemonic] ?? '').toLowerCase(),
      )
    )
      b.set(1, rng.chance(0.8) ? BigInt(rng.below(20)) : b.get(1));
    const name = nameOf(instruction);
    const { length } = instruction;
    instruction.free();
    return {
      ...b.finish(name, [...code.subarray(0, name.startsWith('random invalid') ? 15 : length)]),
      segments,
    };
  }
}
