import { expect, test } from 'vitest';
import { FORMS } from './forms.ts';
import { type Indexed, readRecording, writeRecording } from './format.ts';
import { generateCase } from './generate.ts';
import { mix } from './state.ts';

function sample(): Indexed[] {
  return FORMS.filter((_, i) => i % 37 === 0).map((form, index) => {
    const made = generateCase(form, mix(5, index));
    const state = made.state.slice();
    state[index % 128] = 0x5a;
    return {
      case: made,
      result:
        index % 5 === 0
          ? { vector: 14, errorCode: 6, cr2: 0xffff_8000_0000_0001n + BigInt(index), state, changes: [] }
          : {
              vector: undefined,
              errorCode: 0,
              cr2: 0n,
              state,
              changes: [{ address: 0x2000_0003, bytes: Uint8Array.of(1, 2, 3) }],
            },
      kind: form.kind,
      index,
    };
  });
}

test('a recording read back is what was written', () => {
  const cases = sample();
  const back = [...readRecording(writeRecording(5, cases))];
  expect(back).toEqual(cases.map(({ case: c, result }) => ({ case: c, result })));
});

test('a recording with a changed byte is refused', () => {
  const file = writeRecording(5, sample());
  file[file.length >> 1] = (file[file.length >> 1] as number) ^ 1;
  expect(() => [...readRecording(file)]).toThrow();
});

test('the generator is deterministic', () => {
  for (const form of FORMS.filter((_, i) => i % 101 === 0))
    expect(generateCase(form, 77)).toEqual(generateCase(form, 77));
});
