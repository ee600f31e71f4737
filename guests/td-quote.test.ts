/** From a register that the guest extends to a quote that others accept: TDG.MR.RTMR.EXTEND, TDG.MR.REPORT, GetQuote. */
import { describe, expect, it } from 'vitest';
import { QUOTE_BUFFER, TDVMCALL } from '../src/abi/tdx/ghci.ts';
import { TDG } from '../src/abi/tdx/leaves.ts';
import { readQuote, tdBody10 } from '../src/abi/tdx/quote.ts';
import { sha384 } from '../src/silicon/sha384.ts';
import { verifyQuote } from '../test/dcap.ts';
import { at, rax, rbx, rdi, rsi } from './asm.ts';
import { linear, mapAt, SHARED, store, vmcall } from './td-calls.ts';
import { AT, ENGINES, runTd, type TdGuest, type TdRun } from './td.ts';

const DATA = BigInt(AT.scratch);
const REPORT_DATA = DATA + 0x40n;
const REPORT = DATA + 0x400n;
const BUFFER = BigInt(AT.free);
const BUFFER_BYTES = 0x3000n;
const REPORT_BYTES = 1024;

/** Extends RTMR `index` by `value` in the first word, asks for a report and for its quote. */
const attest =
  (index: bigint, value: bigint) =>
  (guest: TdGuest): void => {
    const { a, tdcall } = guest;
    store(guest, DATA, value);
    store(guest, REPORT_DATA, 0x7e57n);
    tdcall(TDG.mrRtmrExtend, { rcx: DATA, rdx: index }, 0);
    tdcall(TDG.mrReport, { rcx: REPORT, rdx: REPORT_DATA, r8: 0n }, 8);
    vmcall(guest, TDVMCALL.mapGpa, [BUFFER | SHARED, BUFFER_BYTES], 16);
    mapAt(guest, 0, BUFFER | SHARED);
    const word = (offset: number, content: bigint): void => store(guest, linear(0, offset), content);
    word(QUOTE_BUFFER.version, 1n);
    word(QUOTE_BUFFER.status, 0n);
    word(QUOTE_BUFFER.inLength, BigInt(REPORT_BYTES));
    a.movabs(rsi, REPORT);
    a.movabs(rdi, linear(0, QUOTE_BUFFER.data));
    a.mov(rbx, REPORT_BYTES / 8);
    a.label('copy');
    a.mov(rax, at({ base: rsi }));
    a.mov(at({ base: rdi }), rax);
    a.alu('add', rsi, 8);
    a.alu('add', rdi, 8);
    a.alu('sub', rbx, 1);
    a.jcc('ne', 'copy');
    vmcall(guest, TDVMCALL.getQuote, [BUFFER | SHARED, BUFFER_BYTES], 24);
    a.label('wait');
    a.movabs(rbx, linear(0, QUOTE_BUFFER.status));
    a.mov(rax, at({ base: rbx }));
    a.inc(rax);
    a.jcc('e', 'wait');
  };

const quoteOf = ({ machine }: TdRun): Uint8Array => {
  const seen = machine.view.read(AT.free, Number(BUFFER_BYTES));
  if (!seen.ok) throw new Error('the buffer is not shared');
  const view = new DataView(seen.bytes.buffer, seen.bytes.byteOffset);
  expect(view.getBigUint64(QUOTE_BUFFER.status, true)).toBe(0n);
  const length = view.getUint32(QUOTE_BUFFER.outLength, true);
  return seen.bytes.slice(QUOTE_BUFFER.data, QUOTE_BUFFER.data + length);
};
const bodyOf = (quote: Uint8Array): Uint8Array => readQuote(quote)?.body as Uint8Array;
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

describe.each(ENGINES)('a quote of a small guest, %s', (engine) => {
  const BUDGET = 40_000_000;
  it('has the extended register, and an independent verifier accepts it', () => {
    const run = runTd(attest(2n, 0x1234n), { engine, budget: BUDGET });
    expect([0, 8, 16, 24].map(run.word)).toEqual([0n, 0n, 0n, 0n]);
    const quote = quoteOf(run);
    expect(verifyQuote(quote).status).toBe('UpToDate');
    const body = tdBody10.read(bodyOf(quote));
    const extended = new Uint8Array(96);
    extended.set([0x34, 0x12], 48);
    expect(hex(body.rtmr2)).toBe(hex(sha384(extended)));
    for (const other of [body.rtmr0, body.rtmr1, body.rtmr3]) expect(hex(other)).toBe('0'.repeat(96));
    expect(hex(body.reportData).slice(0, 4)).toBe('577e');
  });

  it('differs in the register, the report and the signature when one bit of the value does', () => {
    const of = (value: bigint): ReturnType<typeof tdBody10.read> & { readonly signature: string } => {
      const quote = quoteOf(runTd(attest(3n, value), { engine, budget: BUDGET }));
      return { ...tdBody10.read(bodyOf(quote)), signature: hex(readQuote(quote)?.signature as Uint8Array) };
    };
    const [one, other] = [of(0n), of(1n)];
    expect(hex(one.rtmr3)).not.toBe(hex(other.rtmr3));
    expect(one.signature).not.toBe(other.signature);
    expect(hex(one.mrTd)).not.toBe(hex(other.mrTd));
  });

  it('is refused by the verifier when a bit of the register is changed in it', () => {
    const quote = quoteOf(runTd(attest(0n, 5n), { engine, budget: BUDGET }));
    const changed = Uint8Array.from(quote);
    const at0 = 48 + tdBody10.offsetOf('rtmr0');
    changed[at0] = (changed[at0] as number) ^ 1;
    expect(() => verifyQuote(changed)).toThrow();
  });
});
