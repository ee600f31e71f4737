/** Which encodings that a definition has in 64-bit mode, in each form and operand size, have a recorded case. */
import { readFileSync, readdirSync } from 'node:fs';
import { x86Defs } from '../../src/x86/all.ts';
import { decode, Insn } from '../../src/x86/decoder.ts';
import { type Entry, buildOpcodeTable } from '../../src/x86/encoding.ts';
import { readRecording } from './format.ts';

const FOLDER = new URL('recorded/', import.meta.url);

/** Descriptor tables, model-specific registers or the host's kernel decide what these do: kvm-unit-tests runs them. */
export const SYSTEM: ReadonlySet<string> = new Set([
  ...['callf', 'jmpf', 'retf', 'int', 'int1', 'iret', 'lss', 'lfs', 'lgs', 'lar', 'lsl', 'verr', 'verw'],
  ...['sldt', 'str', 'smsw', 'sgdt', 'sidt', 'lgdt', 'lidt', 'syscall', 'sysret', 'sysenter', 'sysexit'],
  ...['rdpmc', 'monitor', 'mwait', 'vmcall', 'vmmcall', 'serialize'],
]);
const SYSTEM_FORMS = new Set([
  // Always #UD.
  'ud2 0FFF /r Ev',
  'mov 8E /r Sw=,Ew',
  'pop 0FA1 d64 v -',
  'pop 0FA9 d64 v -',
]);
/** The operand size changes nothing, or nothing that is reached: one case of each form is enough. */
const ONE_SIZE = new Set(['nop', 'ud2', 'rdpid', 'cmpxchg8b', 'invpcid', 'in', 'out', 'ins', 'outs']);
const ALIASES = new Set(['test F7 /1 Ev,Iz']);

const nameOf = ({ def, text }: Entry): string => `${def.name} ${text}`;

/** Sizes that exist in 64-bit mode; near branches with a 16-bit operand size differ between the vendors. */
function sizesOf(entry: Entry): readonly number[] {
  const { sizes } = entry;
  if (sizes.length === 1 || ONE_SIZE.has(entry.def.name) || ALIASES.has(nameOf(entry))) return [0];
  if (entry.f64) return [8];
  return entry.d64 ? sizes.filter((size) => size !== 4) : sizes;
}
function formsOf({ modrm, exact, form, anyMod }: Entry): readonly string[] {
  if (!modrm || exact !== undefined) return [''];
  if (form === 'any' && !anyMod) return ['memory', 'register'];
  return [form === 'mem' ? 'memory' : 'register'];
}

export const table = buildOpcodeTable(x86Defs);

/** Encoding, size and form of every recorded case; size 0 stands for any. */
export const recorded = ((): ReadonlySet<string> => {
  const insn = new Insn();
  const keys = new Set<string>();
  const files = readdirSync(FOLDER).filter((name) => /\.zst$/.test(name) && !name.startsWith('sequence'));
  for (const file of files) {
    for (const { case: c } of readRecording(readFileSync(new URL(file, FOLDER)))) {
      if (decode(table, { bits: 64, real: false }, c.code, 0, c.code.length, insn) !== 'ok') continue;
      const { entry, operandSize, mem } = insn;
      if (entry === undefined) continue;
      const form = formsOf(entry)[0] === '' ? '' : mem ? 'memory' : 'register';
      for (const size of [0, operandSize]) keys.add(`${nameOf(entry)} ${size} ${form}`);
    }
  }
  return keys;
})();

/** Forms and sizes of the definitions in 64-bit mode that are not among `keys`. */
export const uncovered = (keys: ReadonlySet<string>): string[] =>
  table.entries
    .filter((entry) => !entry.no64)
    .flatMap((entry) =>
      sizesOf(entry).flatMap((size) => formsOf(entry).map((form) => `${nameOf(entry)} ${size} ${form}`)),
    )
    .filter((key) => !keys.has(key));

export const isSystem = (key: string): boolean =>
  SYSTEM.has(key.split(' ')[0] as string) || [...SYSTEM_FORMS].some((name) => key.startsWith(name));

/** Definitions of which no form is recorded, and single forms: what the table of counts says about them. */
export function describeUncovered(): string {
  const names = new Set(uncovered(recorded).map((key) => key.split(' ')[0] ?? ''));
  const whole = [...names].filter((name) => SYSTEM.has(name)).sort();
  const total = table.entries.filter((entry) => !entry.no64).length;
  return [
    `Of ${total} encodings in 64-bit mode every form and operand size is recorded, except for these:`,
    '',
    `- ${whole.join(' ')}: descriptor tables, model-specific registers, a hypervisor or the host's kernel decide the result. kvm-unit-tests, test386 and the tests in src/x86 and guests run them.`,
    '- mov to a segment register, pop fs, pop gs: as above; 0FFF: always #UD, recorded with random bytes.',
    '- Instructions for privilege level 0 are recorded at level 3: the recorded result is the fault.',
  ].join('\n');
}
