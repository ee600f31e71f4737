/**
 * Hypercall dispatch (Hyper-V TLFS chapter 3): one table lists what a party serves; here is everything that is the
 * same for all calls: control word, shapes, slow, fast and XMM fast input, reps and their continuation.
 *
 * Input is checked before a handler runs, so a handler sees a buffer of exactly the size that its row promises.
 */

import { readControl, STATUS, writeControl, type Control, type Status } from '../abi/hyperv/hypercall.ts';
import { exact, setU32, u32 } from '../abi/record.ts';
import type { HostView } from '../seats/host-view.ts';

export interface HypercallRow<Context> {
  readonly name: string;
  readonly code: number;
  /** Bytes of the fixed input header. */
  readonly input: number;
  /** Bytes of the output header. */
  readonly output: number;
  /** A rep call: bytes of one input and one output element. Absent: a simple call. */
  readonly rep?: { readonly input: number; readonly output: number };
  /** The control word may announce a variable header. */
  readonly variableHeader?: boolean;
  /** Bits of CPUID 0x40000003 EBX, one of which the partition must hold. */
  readonly privilege?: number;
  readonly serve: (context: Context, call: Hypercall) => HypercallAnswer;
}

export interface Hypercall {
  readonly control: Control;
  /** Fixed header, then the variable header, then the rep elements, of which those before `repStart` are done. */
  readonly input: Uint8Array;
  /** Bytes that variable header and rep elements start at. */
  readonly variableAt: number;
  readonly elementsAt: number;
  /** To be filled: header, then rep elements. */
  readonly output: Uint8Array;
}

export interface HypercallAnswer {
  readonly status: Status;
  /** Reps done in all, those before `repStart` included. Simple calls: 0 or absent. */
  readonly reps?: number;
  /** The call has not ended: execute it again from `reps` on. */
  readonly unfinished?: boolean;
}

export const done = (status: Status): HypercallAnswer => ({ status });

export type HypercallTable<Context> = ReadonlyMap<number, HypercallRow<Context>>;

export function hypercallTable<Context>(rows: readonly HypercallRow<Context>[]): HypercallTable<Context> {
  const table = new Map<number, HypercallRow<Context>>();
  for (const row of rows) {
    if (table.has(row.code))
      throw new RangeError(`hypercall ${row.name} has a code that is in the table already`);
    table.set(row.code, row);
  }
  return table;
}

/** Where a caller's input and output are. */
export interface HypercallPort {
  readonly memory: Pick<HostView, 'read' | 'write'>;
  /** Control word, and input and output as addresses (slow) or contents (fast). */
  readonly control: readonly [low: number, high: number];
  readonly input: readonly [low: number, high: number];
  readonly output: readonly [low: number, high: number];
  /** 16 bytes of XMM0..XMM5, or `undefined` where the caller cannot pass them. */
  readXmm(index: number): Uint8Array | undefined;
  /** Output of a fast call: qword 0 is the input register, 1 the output register, then XMM0 low, high, ... */
  writeFast(qword: number, low: number, high: number): void;
  /** What the partition may use: CPUID 0x40000003 EBX and EDX. */
  readonly privilegesHigh: number;
  readonly xmmInput: boolean;
  readonly fastOutput: boolean;
}

export type HypercallOutcome =
  | { readonly kind: 'result'; readonly status: Status; readonly reps: number }
  /** Execute the instruction again with this control word. */
  | { readonly kind: 'again'; readonly control: readonly [low: number, high: number] };

const PAGE = 4096;
const FAST_REGISTERS = 16;
const FAST_LIMIT = FAST_REGISTERS + 6 * 16;

export function dispatchHypercall<Context>(
  table: HypercallTable<Context>,
  context: Context,
  port: HypercallPort,
): HypercallOutcome {
  const control = readControl(port.control[0], port.control[1]);
  const refuse = (status: Status): HypercallOutcome => ({ kind: 'result', status, reps: 0 });

  const row = table.get(control.code);
  if (row === undefined) return refuse(STATUS.invalidHypercallCode);
  // TLFS 3.7: reserved bits are zero, and `nested` speaks to a hypervisor that is not there.
  if (control.reserved || control.nested) return refuse(STATUS.invalidHypercallInput);
  const { rep } = row;
  if (rep === undefined) {
    if (control.repCount !== 0 || control.repStart !== 0) return refuse(STATUS.invalidHypercallInput);
  } else if (control.repCount === 0 || control.repStart >= control.repCount) {
    return refuse(STATUS.invalidHypercallInput);
  }
  if (control.variableHeaderQwords !== 0 && row.variableHeader !== true)
    return refuse(STATUS.invalidHypercallInput);
  if (row.privilege !== undefined && (port.privilegesHigh & row.privilege) === 0)
    return refuse(STATUS.accessDenied);

  const elementsAt = row.input + 8 * control.variableHeaderQwords;
  const inputSize = elementsAt + (rep?.input ?? 0) * control.repCount;
  const outputSize = row.output + (rep?.output ?? 0) * control.repCount;
  const source = control.fast
    ? fastInput(port, inputSize, outputSize)
    : slowInput(port, inputSize, outputSize);
  if (typeof source === 'number') return refuse(source);

  const output = new Uint8Array(outputSize);
  const call: Hypercall = { control, input: source, variableAt: row.input, elementsAt, output };
  const answer = row.serve(context, call);
  const reps = rep === undefined ? 0 : (answer.reps ?? 0);
  if (reps > control.repCount) throw new RangeError(`${row.name} served ${reps} of ${control.repCount} reps`);

  // Output of a call that failed is undefined, except for the reps that it completed.
  const first = row.output + (rep?.output ?? 0) * control.repStart;
  const end = row.output + (rep?.output ?? 0) * reps;
  const wanted = answer.status === STATUS.success || (rep !== undefined && reps > control.repStart);
  if (wanted && outputSize > 0) {
    const from = rep === undefined || control.repStart === 0 ? 0 : first;
    if (!writeOutput(port, control.fast, inputSize, output.subarray(0, Math.max(end, row.output)), from)) {
      return refuse(STATUS.invalidHypercallInput);
    }
  }
  if (answer.unfinished === true) {
    const next = writeControl({ ...control, repStart: reps });
    return { kind: 'again', control: [next.low, next.high] };
  }
  return { kind: 'result', status: answer.status, reps };
}

function slowInput(port: HypercallPort, inputSize: number, outputSize: number): Uint8Array | Status {
  // A pointer that the call does not use is not looked at: Linux and others leave junk there.
  const input = inputSize === 0 ? 0 : parameterAddress(port.input, inputSize);
  if (input === undefined) return STATUS.invalidAlignment;
  if (outputSize !== 0 && parameterAddress(port.output, outputSize) === undefined)
    return STATUS.invalidAlignment;
  if (inputSize === 0) return new Uint8Array(0);
  const bytes = port.memory.read(input, inputSize);
  return bytes.ok ? bytes.bytes : STATUS.invalidHypercallInput;
}

/** TLFS 3.6: parameter lists are 8-byte aligned and lie within one page. */
function parameterAddress([low, high]: readonly [number, number], size: number): number | undefined {
  const address = exact(low, high);
  if (address === undefined || address % 8 !== 0 || (address % PAGE) + size > PAGE) return undefined;
  return address;
}

function fastInput(port: HypercallPort, inputSize: number, outputSize: number): Uint8Array | Status {
  const inputRoom = roundUp(inputSize);
  if (inputRoom + roundUp(outputSize) > FAST_LIMIT) return STATUS.invalidHypercallInput;
  if (inputSize > FAST_REGISTERS && !port.xmmInput) return STATUS.invalidHypercallInput;
  if (outputSize > 0 && !port.fastOutput) return STATUS.invalidHypercallInput;
  const bytes = new Uint8Array(Math.max(inputRoom, FAST_REGISTERS));
  setU32(bytes, 0, port.input[0]);
  setU32(bytes, 4, port.input[1]);
  setU32(bytes, 8, port.output[0]);
  setU32(bytes, 12, port.output[1]);
  for (let at = FAST_REGISTERS, index = 0; at < inputRoom; at += 16, index++) {
    const xmm = port.readXmm(index);
    if (xmm === undefined) return STATUS.invalidHypercallInput;
    bytes.set(xmm, at);
  }
  return bytes.subarray(0, inputSize);
}

function roundUp(size: number): number {
  return (size + 15) & ~15;
}

function writeOutput(
  port: HypercallPort,
  fast: boolean,
  inputSize: number,
  output: Uint8Array,
  from: number,
): boolean {
  if (!fast) {
    const address = parameterAddress(port.output, output.length);
    return address !== undefined && port.memory.write(address + from, output.subarray(from)).ok;
  }
  // TLFS 3.7.2: output starts in the register pair behind the input.
  const padded = new Uint8Array(roundUp(output.length));
  padded.set(output);
  const firstQword = roundUp(inputSize) / 8;
  for (let qword = 0; qword * 8 < output.length; qword++) {
    port.writeFast(firstQword + qword, u32(padded, qword * 8), u32(padded, qword * 8 + 4));
  }
  return true;
}
