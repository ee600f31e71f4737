/** What is said of a guest that died: why, its registers, its stack by name, and its last exits. */
import { inspect } from '../machine/inspect.ts';
import type { Machine, StopReason } from '../machine/machine.ts';
import type { FlightRecorder } from './flight-recorder.ts';
import type { Symbols } from './symbols.ts';

const hex = (value: bigint): string => value.toString(16).padStart(16, '0');

const END = {
  'power-off': 'it powered off before the command of --run ended',
  hibernate: 'it hibernated before the command of --run ended',
  reset: 'it reset',
  'triple-fault': 'triple fault',
} as const;

export function describeStop(reason: StopReason): string {
  switch (reason.kind) {
    case 'crash':
      return `it reported a crash (${reason.parameters.map((value) => `0x${value.toString(16)}`).join(' ')})`;
    case 'end':
      return END[reason.reason];
    case 'idle':
      return 'all processors wait and nothing will wake them';
    case 'terminated':
      return `processor ${reason.vp} was ended, ${reason.what}`;
    case 'stuck':
      return `processor ${reason.vp} repeats ${reason.exit} without progress`;
    default:
      return reason.kind;
  }
}

export function deathReport(
  machine: Machine,
  reason: StopReason,
  symbols: Symbols | undefined,
  recorder: FlightRecorder,
): string {
  return [
    `vitrine: the guest died: ${describeStop(reason)} after ${machine.instructions} instructions`,
    ...registers(machine),
    ...(symbols === undefined ? [] : stack(machine, symbols)),
    ...recorder.lines(),
  ]
    .map((line) => `${line}\n`)
    .join('');
}

const GPRS = ['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi'].concat(
  Array.from({ length: 8 }, (_, n) => `r${n + 8}`),
);

function registers(machine: Machine): string[] {
  const inspector = inspect(machine);
  const lines: string[] = [];
  for (let vp = 0; vp < inspector.vcpus; vp++) {
    const show = (name: string, label = name): string => `${label} ${hex(inspector.register(vp, name))}`;
    lines.push(
      `vp ${vp} ${show('rip')} ${show('eflags', 'rflags')} ${show('cr2')} ${show('cr3')}`,
      ...[0, 4, 8, 12].map(
        (row) =>
          `  ${GPRS.slice(row, row + 4)
            .map((name) => show(name, name.padEnd(3)))
            .join(' ')}`,
      ),
    );
  }
  return lines;
}

const MOST_NAMES = 64;
const STACK_WORDS = 512n;

/** Return addresses on each stack: every word that lies in the symbols' code, so some may be left from before. */
function stack(machine: Machine, symbols: Symbols): string[] {
  const inspector = inspect(machine);
  const lines: string[] = [];
  for (let vp = 0; vp < machine.config.vcpus; vp++) {
    symbols.place('entry_SYSCALL_64', inspector.register(vp, 'lstar'));
    const at = symbols.name(inspector.register(vp, 'rip'));
    if (at === undefined) continue;
    const names = [at];
    const from = inspector.register(vp, 'rsp');
    for (let word = 0n; word < STACK_WORDS && names.length < MOST_NAMES; word++) {
      const bytes = inspector.read(vp, from + word * 8n, 8);
      if (bytes === undefined) break;
      const name = symbols.name(new DataView(bytes.buffer).getBigUint64(0, true));
      if (name !== undefined) names.push(name);
    }
    lines.push(`vp ${vp} stack`, ...names.map((name) => `  ${name}`));
  }
  return lines;
}
