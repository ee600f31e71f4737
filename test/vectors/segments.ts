/** Cases of the instructions that load segments, ask about them, or go through them: in all modes that user code has. */
import { CaseBuilder } from './generate.ts';
import { CODE, DATA, FS_BASE, GS_BASE, RIP, type VectorCase, codeSegment } from './state.ts';

/** LDT and GDT entries at each privilege level of the request, null selectors, and what lies behind the tables' ends. */
const SELECTORS: readonly number[] = [
  ...Array.from({ length: 7 }, (_, i) => i * 8),
  ...[0x40, 0x48, 0x50, 0x58, 0x60, 0x80, 0x1230, 0xfff8],
].flatMap((at) => [0, 3].map((level) => at | level));
const LOCAL: readonly number[] = Array.from({ length: 12 }, (_, i) => i * 8 + 4).flatMap((at) =>
  [0, 1, 3, 3].map((level) => at | level),
);

export function segmentCase(seed: number): VectorCase {
  const b = new CaseBuilder('int', seed);
  const { rng, v } = b;
  const cs = rng.below(4);
  const long = cs === 0;
  const segments = { cs, ss: long ? 1 : rng.pick([1, 2, 3, 4]), ds: long ? 0 : rng.pick([1, 2]), es: 1 };
  const { bits, base } = codeSegment({ segments });
  v.setBigUint64(RIP, BigInt(CODE - base + 64 + rng.below(4000)), true);
  for (const at of [FS_BASE, GS_BASE]) v.setBigUint64(at, 0n, true);
  if (!long) for (let i = 0; i < 16; i++) b.set(i, b.get(i) & 0xffff_ffffn);
  const selector = (): number => (rng.chance(0.6) ? rng.pick(LOCAL) : rng.pick(SELECTORS));
  // A pointer to a far pointer, of an offset of 2, 4 or 8 bytes.
  const dataBase = segments.ds === 2 ? 0 : DATA;
  const at = 16 + 8 * rng.below(900);
  const wide = long && rng.chance(0.3);
  const narrow = rng.chance(0.3);
  const size = wide ? 8 : (bits === 16) !== narrow ? 2 : 4;
  const prefixes = [...(narrow ? [0x66] : []), ...(wide ? [0x48] : [])];
  const offset = BigInt(
    (rng.chance(0.9) ? rng.below(0x2100) : rng.next() >>> 0) + (rng.chance(0.4) ? CODE : 0),
  );
  const pointer = (where: number, value: bigint, low = size): void => {
    b.patchValue(BigInt(where), value, low);
    b.patchValue(BigInt(where + low), BigInt(selector()), 2);
  };
  // ModRM of memory at rBX: [bx], [ebx], [rbx].
  const memory = (reg: number): number => (reg << 3) | (bits === 16 ? 7 : 3);
  const register = (reg: number): number => 0xc0 | (reg << 3) | 2;
  b.set(3, BigInt(dataBase + at));
  b.set(2, BigInt(selector()) | (b.get(2) & ~0xffffn));
  const stack = (segments.ss === 1 ? DATA : segments.ss === 4 ? 0x1000 : 0) + 64 + 8 * rng.below(500);
  const stackLinear = segments.ss === 1 ? stack : segments.ss === 4 ? DATA + stack - 0x1000 : DATA + stack;
  b.set(4, BigInt(stack));
  const far = (form: string, code: number[]): VectorCase => ({
    ...b.finish(form, code),
    ...(long ? {} : { segments }),
  });
  const immediate = (): number[] => {
    const to = selector();
    return [
      ...Array.from({ length: size }, (_, i) => Number(offset >> BigInt(8 * i)) & 0xff),
      to & 0xff,
      to >> 8,
    ];
  };
  switch (rng.below(long ? 8 : 11)) {
    case 0:
      return far('lar', [...prefixes, 0x0f, 0x02, register(rng.below(8))]);
    case 1:
      return far('lsl', [...prefixes, 0x0f, 0x03, register(rng.below(8))]);
    case 2:
      return far('verr', [0x0f, 0x00, register(4 + rng.below(2))]);
    case 3: {
      // MOV to ES, DS, FS, GS.
      const to = rng.pick([0, 3, 4, 5]);
      return far('mov sreg', [...prefixes, 0x8e, register(to)]);
    }
    case 4: {
      b.patchValue(BigInt(stackLinear), BigInt(selector()), 2);
      return far('pop sreg', [...(narrow ? [0x66] : []), 0x0f, rng.chance(0.5) ? 0xa1 : 0xa9]);
    }
    case 5:
      pointer(DATA + at, offset);
      return far('lfs', [...prefixes, 0x0f, 0xb4 + rng.below(2), memory(rng.below(8))]);
    case 6:
      pointer(DATA + at, offset);
      return rng.chance(0.5)
        ? far('callf', [...prefixes, 0xff, memory(3)])
        : far('jmpf', [...prefixes, 0xff, memory(5)]);
    case 7: {
      const room = size;
      b.patchValue(BigInt(stackLinear), offset, room);
      b.patchValue(BigInt(stackLinear + room), BigInt(selector()), 2);
      return rng.chance(0.7)
        ? far('retf', [...prefixes, 0xcb])
        : far('retf', [...prefixes, 0xca, rng.below(64), 0]);
    }
    case 8:
      pointer(DATA + at, offset);
      return far('lds', [...(narrow ? [0x66] : []), 0xc4 + rng.below(2), memory(rng.below(8))]);
    case 9:
      return rng.chance(0.5)
        ? far('jmpf', [...(narrow ? [0x66] : []), 0xea, ...immediate()])
        : far('callf', [...(narrow ? [0x66] : []), 0x9a, ...immediate()]);
    default:
      b.patchValue(BigInt(stackLinear), BigInt(selector()), 2);
      return far('pop sreg', [...(narrow ? [0x66] : []), rng.chance(0.5) ? 0x07 : 0x1f]);
  }
}
