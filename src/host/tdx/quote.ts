/** GetQuote: asynchronous, as on a real host. The report lies in shared memory, and may change at any time. */
import { QUOTE_BUFFER, QUOTE_BUFFER_VERSION, QUOTE_STATUS } from '../../abi/tdx/ghci.ts';
import { EVENT, EVENT_CLASS, PAGE_USE } from '../../abi/events.ts';
import { join, u32 } from '../../abi/record.ts';
import { requestInterrupt } from '../../chipset/partition/interrupts.ts';
import type { VpState } from '../state.ts';
import type { PendingQuote, TdxCall, TdxHostState } from './state.ts';

/** Virtual time in ns that a quote takes. */
const QUOTE_TIME = 5_000_000;
const REPORT_BYTES = 1024;
const PAGE = 4096;
const MOST_PENDING = 16;

function u64(bytes: Uint8Array, at: number): bigint {
  return join(u32(bytes, at), u32(bytes, at + 4));
}
function le64(value: bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, value, true);
  return bytes;
}

/** False: the buffer is not shared memory, or says something that nobody understands. */
export function startQuote(call: TdxCall, vp: VpState, gpa: number, size: number): boolean {
  const { td } = call.state;
  const header = call.view.read(gpa, QUOTE_BUFFER.data);
  if (!header.ok || !call.view.read(gpa, size).ok) return false;
  if (td.quotes.length >= MOST_PENDING) return false;
  if (u64(header.bytes, QUOTE_BUFFER.version) !== BigInt(QUOTE_BUFFER_VERSION)) {
    finish(call, gpa, QUOTE_STATUS.error);
    return true;
  }
  call.view.write(gpa + QUOTE_BUFFER.status, le64(QUOTE_STATUS.inFlight));
  td.quotes.push({ due: call.now + QUOTE_TIME, gpa, size, vp: vp.index });
  if (call.sink.mask & EVENT_CLASS.page)
    for (let at = 0; at < size; at += PAGE)
      call.sink.emit(EVENT.pageUse, call.now, vp.index, gpa + at, PAGE_USE.quote, 0, 0);
  return true;
}

export function quotesNextEvent({ td }: TdxHostState): number {
  return Math.min(Infinity, ...td.quotes.map(({ due }) => due));
}

export function quotesAdvance(call: TdxCall): void {
  const { td, vps } = call.state;
  for (const quote of td.quotes.filter(({ due }) => due <= call.now)) {
    td.quotes.splice(td.quotes.indexOf(quote), 1);
    answer(call, quote);
    const vector = td.notify[quote.vp] ?? 0;
    const vp = vps[quote.vp];
    if (vector !== 0 && vp !== undefined) requestInterrupt(call, vp, vector, {});
  }
}

function answer(call: TdxCall, { gpa, size }: PendingQuote): void {
  const { view } = call;
  // One copy: everything below looks at it, and not at memory that may change.
  const copy = view.read(gpa, Math.min(size, QUOTE_BUFFER.data + REPORT_BYTES));
  if (!copy.ok) return;
  const inLength = u32(copy.bytes, QUOTE_BUFFER.inLength);
  if (inLength !== REPORT_BYTES || copy.bytes.length < QUOTE_BUFFER.data + REPORT_BYTES)
    return finish(call, gpa, QUOTE_STATUS.error);
  const quote = view.quote(copy.bytes.slice(QUOTE_BUFFER.data));
  if (quote === undefined || QUOTE_BUFFER.data + quote.length > size)
    return finish(call, gpa, QUOTE_STATUS.error);
  const length = new Uint8Array(4);
  new DataView(length.buffer).setUint32(0, quote.length, true);
  view.write(gpa + QUOTE_BUFFER.outLength, length);
  view.write(gpa + QUOTE_BUFFER.data, quote);
  finish(call, gpa, QUOTE_STATUS.success);
}

function finish({ view }: TdxCall, gpa: number, status: bigint): void {
  view.write(gpa + QUOTE_BUFFER.status, le64(status));
}
