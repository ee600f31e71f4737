import { describe, expect, test } from 'vitest';
import { TDVMCALL, TDVMCALL_STATUS } from '../../abi/tdx/ghci.ts';
import type { HostRequest } from '../requests.ts';
import { OWN_VECTOR } from '../turn.ts';
import { decode, encode } from './communication.ts';

const SHARED = 1n << 47n;
const MASK = 0xfc00n;
const pages: HostRequest = { kind: 'page-state', gpas: [0x1000, 0x2000, 0x3000, 0x9000], shared: true };

/** R10 to R15 of a call. */
const operands = (request: HostRequest, from = 0): readonly bigint[] => {
  const registers = encode(request, from, SHARED);
  expect(registers[0]).toBe(0n);
  expect(registers[1]).toBe(MASK);
  return registers.slice(10);
};

describe('encode', () => {
  test.for<[string, HostRequest, readonly bigint[]]>([
    [
      'IN',
      { kind: 'io', port: 0x3fd, size: 1, write: false, value: 0 },
      [0n, BigInt(TDVMCALL.io), 1n, 0n, 0x3fdn, 0n],
    ],
    [
      'OUT',
      { kind: 'io', port: 0x3f8, size: 1, write: true, value: 0x41 },
      [0n, BigInt(TDVMCALL.io), 1n, 1n, 0x3f8n, 0x41n],
    ],
    [
      'RDMSR',
      { kind: 'msr', index: 0x4000_0083, write: false, lo: 0, hi: 0 },
      [0n, BigInt(TDVMCALL.rdmsr), 0x4000_0083n, 0n, 0n, 0n],
    ],
    [
      'WRMSR',
      { kind: 'msr', index: 0x830, write: true, lo: 0xffff_ffff, hi: 1 },
      [0n, BigInt(TDVMCALL.wrmsr), 0x830n, 0x1_ffff_ffffn, 0n, 0n],
    ],
    [
      'CPUID',
      { kind: 'cpuid', leaf: 0x4000_0003, subleaf: 2 },
      [0n, BigInt(TDVMCALL.cpuid), 0x4000_0003n, 2n, 0n, 0n],
    ],
    [
      'a device of the host, by the shared alias',
      { kind: 'mmio', gpa: 0xfec0_0010, size: 4, write: true, lo: 7, hi: 0 },
      [0n, BigInt(TDVMCALL.mmio), 4n, 1n, 0xfec0_0010n | SHARED, 7n],
    ],
    [
      'an IPI to the paravisor on another processor',
      { kind: 'wake', vp: 3 },
      [0n, BigInt(TDVMCALL.wrmsr), 0x830n, (3n << 32n) | BigInt(OWN_VECTOR.wake), 0n, 0n],
    ],
    ['the end', { kind: 'fail', reason: 4 }, [0n, BigInt(TDVMCALL.reportFatalError), 4n, 0n, 0n, 0n]],
  ])('%s', ([, request, expected]) => expect(operands(request)).toEqual(expected));

  test('pages in a row are one MapGPA, whose address says which way', () => {
    expect(operands(pages).slice(1, 4)).toEqual([BigInt(TDVMCALL.mapGpa), 0x1000n | SHARED, 0x3000n]);
    expect(operands(pages, 3).slice(1, 4)).toEqual([BigInt(TDVMCALL.mapGpa), 0x9000n | SHARED, 0x1000n]);
    expect(operands({ ...pages, shared: false }, 1).slice(2, 4)).toEqual([0x2000n, 0x2000n]);
  });

  test('a hypercall is a fast one with its input in RDX and R8', () => {
    const input = Uint8Array.from({ length: 16 }, (_, k) => k);
    const registers = encode({ kind: 'hypercall', code: 0x5d, reps: 0, input }, 0, SHARED);
    expect(registers[1]).toBe(MASK | 0x104n);
    expect([registers[10], registers[2], registers[8]]).toEqual([
      0x1_005dn,
      0x0706_0504_0302_0100n,
      0x0f0e_0d0c_0b0a_0908n,
    ]);
  });
});

const answer = (r10: bigint, r11 = 0n, rest: readonly bigint[] = []): bigint[] => [
  ...Array.from({ length: 10 }, () => 0n),
  r10,
  r11,
  ...rest,
];

describe('decode', () => {
  const { success, retry, invalidOperand } = TDVMCALL_STATUS;
  test('a value comes in R11, and a refusal is one', () => {
    const request: HostRequest = { kind: 'msr', index: 1, write: false, lo: 0, hi: 0 };
    expect(decode(request, answer(success, 0x2_0000_0001n), 0)).toEqual({ ok: true, lo: 1, hi: 2 });
    expect(decode(request, answer(invalidOperand, 5n), 0)).toEqual({ ok: false, lo: 0, hi: 0 });
  });
  test('CPUID comes in R12 to R15', () => {
    expect(
      decode({ kind: 'cpuid', leaf: 1, subleaf: 0 }, answer(success, 0n, [1n, 2n, 3n, 4n]), 0),
    ).toMatchObject({
      ok: true,
      lo: 1,
      hi: 2,
      ecx: 3,
      edx: 4,
    });
  });
  test.for<[string, bigint[], number, number | undefined]>([
    ['all of a run', answer(success), 0, 3],
    ['the last run', answer(success), 3, 1],
    ['a part', answer(retry, 0x3000n | SHARED), 0, 2],
    ['no progress', answer(retry, 0x1000n | SHARED), 0, undefined],
    ['an address behind the run', answer(retry, 0x5000n | SHARED), 0, undefined],
    ['an address before it', answer(retry, SHARED), 0, undefined],
    ['half a page', answer(retry, 0x2800n | SHARED), 0, undefined],
    ['a refusal', answer(invalidOperand), 0, undefined],
  ])('MapGPA: %s', ([, registers, from, done]) => {
    const decoded = decode(pages, registers, from);
    expect(decoded.ok).toBe(done !== undefined);
    expect(decoded.done).toBe(done);
  });
  test('the result of a hypercall is R11, whatever R10 says', () => {
    const request: HostRequest = { kind: 'hypercall', code: 0x5d, reps: 0, input: new Uint8Array(16) };
    expect(decode(request, answer(5n, 0x12n), 0)).toEqual({ ok: true, lo: 0x12, hi: 0 });
  });
});
