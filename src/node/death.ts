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

/** True when the bytes before an address end with a near call (SDM vol. 2: E8 rel32, FF /2 with its ModRM forms). */
export function endsWithCall(before: Uint8Array): boolean {
  const byte = (back: number): number => before[before.length - back] ?? 0;
  if (byte(5) === 0xe8) return true;
  const lengths: readonly [back: number, modrm: (value: number) => boolean][] = [
    [2, (value) => value >= 0xd0 || (value <= 0x17 && value !== 0x14 && value !== 0x15)],
    [3, (value) => value === 0x14 || (value >= 0x50 && value <= 0x57 && value !== 0x54)],
    [4, (value) => value === 0x54],
    [6, (value) => value === 0x15 || (value >= 0x90 && value <= 0x97 && value !== 0x94)],
    [7, (value) => value === 0x14 || value === 0x94],
  ];
  return lengths.some(
    ([back, fits]) => byte(back) === 0xff && ((byte(back - 1) >> 3) & 7) === 2 && fits(byte(back - 1)),
  );
}

const LONGEST_CALL = 7;

/** Return addresses on each stack: every word that lies in the symbols' code behind a call, so some may be left from before. */
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
      const address = new DataView(bytes.buffer).getBigUint64(0, true);
      const name = symbols.name(address);
      if (name === undefined || name === names.at(-1)) continue;
      const before = inspector.read(vp, address - BigInt(LONGEST_CALL), LONGEST_CALL);
      if (before !== undefined && endsWithCall(before)) names.push(name);
    }
    lines.push(`vp ${vp} stack`, ...names.map((name) => `  ${name}`));
  }
  return lines;
}
