/** Every encoding that a definition has in 64-bit mode, in each form and operand size, has a recorded case. */
import { readFileSync, readdirSync } from 'node:fs';
import { expect, test } from 'vitest';
import { x86Defs } from '../../src/x86/all.ts';
import { decode, Insn } from '../../src/x86/decoder.ts';
import { type Entry, buildOpcodeTable } from '../../src/x86/encoding.ts';
import { readRecording } from './format.ts';

const FOLDER = new URL('recorded/', import.meta.url);

/** Descriptor tables, model-specific registers or the host's kernel decide what these do: kvm-unit-tests runs them. */
const SYSTEM = new Set([
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

const table = buildOpcodeTable(x86Defs);

/** Encoding, size and form of every recorded case; size 0 stands for any. */
const recorded = ((): ReadonlySet<string> => {
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
const uncovered = (keys: ReadonlySet<string>): string[] =>
  table.entries
    .filter((entry) => !entry.no64)
    .flatMap((entry) =>
      sizesOf(entry).flatMap((size) => formsOf(entry).map((form) => `${nameOf(entry)} ${size} ${form}`)),
    )
    .filter((key) => !keys.has(key));

const isSystem = (key: string): boolean =>
  SYSTEM.has(key.split(' ')[0] as string) || [...SYSTEM_FORMS].some((name) => key.startsWith(name));

test('every form of every definition is recorded, but for what user code cannot run', () => {
  expect(table.entries.length).toBeGreaterThan(900);
  const missing = uncovered(recorded);
  expect(missing.filter((key) => !isSystem(key))).toEqual([]);
  // The list names nothing that is covered.
  const listed = new Set(missing.map((key) => key.split(' ')[0]));
  expect([...SYSTEM].filter((name) => !listed.has(name))).toEqual([]);
});

test('a form whose cases are missing is found', () => {
  const fewer = new Set([...recorded].filter((key) => !key.startsWith('fbstp')));
  expect(uncovered(fewer).filter((key) => !isSystem(key))).toEqual(['fbstp DF /6:m Mt 0 memory']);
});
