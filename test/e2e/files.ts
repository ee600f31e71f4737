/** Small archives for tests. */
import { writeCpio } from '../../src/node/cpio.ts';

const encode = (text: string): Uint8Array => new TextEncoder().encode(text);

/** An ar archive (deb(5)). */
export function ar(members: Readonly<Record<string, Uint8Array>>): Uint8Array {
  const parts = [encode('!<arch>\n')];
  for (const [name, data] of Object.entries(members)) {
    parts.push(encode(`${name.padEnd(16)}${'0'.padEnd(32)}${String(data.length).padEnd(10)}\`\n`), data);
    if (data.length % 2 === 1) parts.push(encode('\n'));
  }
  return Uint8Array.from(Buffer.concat(parts));
}

/** The first 64 bytes of a program for `machine` (e_machine). */
export function elfStart(machine: number): Uint8Array {
  const bytes = new Uint8Array(64);
  bytes.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  bytes.set([2, 0, machine & 0xff, machine >> 8], 16);
  return bytes;
}

export function cpio(files: Readonly<Record<string, Uint8Array>>): Uint8Array {
  return writeCpio(Object.entries(files).map(([path, data]) => ({ path, mode: 0o100755, data })));
}
