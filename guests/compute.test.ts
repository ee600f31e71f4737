import { expect, test } from 'vitest';
import { COMPUTE_GUESTS, IDLE_GUEST } from './compute.ts';

test.each([IDLE_GUEST, ...COMPUTE_GUESTS].map((guest) => [guest.name, guest] as const))(
  '%s is a multiboot ELF32 image and the same each time',
  (_name, guest) => {
    const image = guest.image(0.01);
    const view = new DataView(image.buffer);
    expect(view.getUint32(0, true)).toBe(0x464c457f);
    const segment = view.getUint32(52 + 4, true);
    const header = [0, 4, 8].map((offset) => view.getUint32(segment + offset, true));
    expect(header[0]).toBe(0x1badb002);
    expect(header.reduce((sum, word) => (sum + word) >>> 0)).toBe(0);
    expect(guest.image(0.01)).toEqual(image);
  },
);
