import { expect, test } from 'vitest';
import { UserError } from './errors.ts';
import { Symbols } from './symbols.ts';

const MAP = `ffffffff81000000 T _text
ffffffff81000100 t panic
ffffffff81000200 T entry_SYSCALL_64
ffffffff81000300 D some_data
ffffffff81001000 T _etext
`;

test('Symbols.name gives the symbol below and the distance', () => {
  const symbols = Symbols.fromSystemMap(MAP, 'map');
  expect(symbols.name(0xffffffff81000100n)).toBe('panic+0x0');
  expect(symbols.name(0xffffffff810002f0n)).toBe('entry_SYSCALL_64+0xf0');
  expect(symbols.name(0xffffffff810003f0n)).toBeUndefined();
  expect(symbols.name(0xffffffff80ffffffn)).toBeUndefined();
  expect(symbols.name(0xffffffff81001000n)).toBeUndefined();
});

test('Symbols.place follows a kernel that moved', () => {
  const symbols = Symbols.fromSystemMap(MAP, 'map');
  symbols.place('entry_SYSCALL_64', 0xffffffffa2a00200n);
  expect(symbols.name(0xffffffffa2a00104n)).toBe('panic+0x4');
  symbols.place('nothing of that name', 1n);
  expect(symbols.name(0xffffffffa2a00104n)).toBe('panic+0x4');
});

test('a file without symbols is refused', () => {
  expect(() => Symbols.fromSystemMap('ffffffffffffffff B The real System.map is elsewhere', 'x')).toThrow(
    UserError,
  );
});
