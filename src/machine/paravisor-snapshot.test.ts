import { expect, test } from 'vitest';
import { BZIMAGE_PAYLOAD_AT, bzImage } from '../launch/test-images.ts';
import { ALL_PARTS } from '../paravisor/parts.ts';
import { restoreSnapshot, takeSnapshot } from './snapshot.ts';
import { stateHash } from './state-hash.ts';
import { testMachine } from './test-machine.ts';

/** Asks CPUID for ever. */
function kernel(): Uint8Array {
  const image = bzImage();
  image.set([0x0f, 0xa2, 0xeb, 0xfc], BZIMAGE_PAYLOAD_AT + 0x200);
  return image;
}

const BUILD = new Uint8Array(48).fill(7);

test.each([
  ['snp-paravisor', 'EPYC-Milan'],
  ['tdx-paravisor', 'SapphireRapids'],
] as const)('%s goes on from a snapshot with its paravisor, as if there had been none', (name, model) => {
  const machine = testMachine(name, model, {
    kernel: kernel(),
    initrd: new Uint8Array(4096).fill(1),
    paravisor: { build: BUILD, parts: ALL_PARTS, hideIsolation: false },
  });
  expect(machine.run(1_000).kind).toBe('budget');
  const bytes = takeSnapshot(machine);
  const options = { sink: machine.config.sink, paravisorBuild: BUILD };
  const restored = restoreSnapshot(bytes, options);
  if (!restored.ok) throw new Error(restored.reason);
  expect(restored.machine.config.program).toEqual(machine.config.program);
  expect(stateHash(restored.machine)).toBe(stateHash(machine));
  const ends = [machine, restored.machine].map((each) => each.run(2_000));
  expect(ends[1]).toEqual(ends[0]);
  expect(restored.machine.exits).toBe(machine.exits);
  expect(machine.exits).toBeGreaterThan(1);
  expect(stateHash(restored.machine)).toBe(stateHash(machine));

  const other = restoreSnapshot(bytes, { ...options, paravisorBuild: new Uint8Array(48) });
  expect(other).toEqual({ ok: false, reason: 'its paravisor has other code' });
});
