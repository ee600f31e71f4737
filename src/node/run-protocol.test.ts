import { expect, test } from 'vitest';
import * as fc from 'fast-check';
import { inputFrame, RunReceiver } from './run-protocol.ts';

function collect(): {
  receiver: RunReceiver;
  out: number[];
  err: number[];
  asked: () => number;
  status: () => number | undefined;
} {
  const out: number[] = [];
  const err: number[] = [];
  let asked = 0;
  let status: number | undefined;
  const receiver = new RunReceiver({
    stdout: (bytes) => out.push(...bytes),
    stderr: (bytes) => err.push(...bytes),
    wantInput: () => asked++,
    status: (value) => (status = value),
  });
  return { receiver, out, err, asked: () => asked, status: () => status };
}

test('frames arrive whole wherever the line is cut', () => {
  const bytes = Buffer.concat([
    Buffer.from('a\no 5\n'),
    Buffer.from([0, 10, 255, 120, 32]),
    Buffer.from('e 2\n'),
    Buffer.from([10, 10]),
    Buffer.from('x 7\n'),
  ]);
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 30 }), (cuts) => {
      const { receiver, out, err, asked, status } = collect();
      let at = 0;
      for (let k = 0; at < bytes.length; k++) {
        const length = cuts[k % cuts.length] as number;
        receiver.push(bytes.subarray(at, at + length));
        at += length;
      }
      expect(out).toEqual([0, 10, 255, 120, 32]);
      expect(err).toEqual([10, 10]);
      expect(asked()).toBe(1);
      expect(status()).toBe(7);
    }),
  );
});

test('noise on the line does not stop the receiver', () => {
  const { receiver, status } = collect();
  receiver.push(Buffer.from('garbage that is much longer than any header\nx 0\n'));
  expect(status()).toBe(0);
});

test('inputFrame names its length', () => {
  expect(Buffer.from(inputFrame(new Uint8Array([1, 2]))).toString('latin1')).toBe('2\n\u0001\u0002');
  expect(Buffer.from(inputFrame(new Uint8Array(0))).toString('latin1')).toBe('0\n');
});
