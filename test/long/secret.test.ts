/**
 * A Debian boot in which the guest draws a secret from its random source and prints it nowhere. From the moment it lies in guest
 * memory all that the host can see is searched for it at every exit: in `plain` it is found, in `snp`, `tdx` and
 * `tdx-paravisor` it never is.
 */
import { serialize } from 'node:v8';
import { describe, expect, test } from 'vitest';
import { REGISTER } from '../../src/abi/hyperv/registers.ts';
import type { Machine, Platform } from '../../src/machine/machine.ts';
import type { Exit } from '../../src/seats/exits.ts';
import type { SnpHostView } from '../../src/seats/snp.ts';
import type { TdxHostView } from '../../src/seats/tdx.ts';
import { makeLinux } from './linux.ts';
import { whyNoKernel } from '../e2e/vitrine.ts';

const PAGE = 4096;
/** Pages are compared in pieces of this size with what they were. */
const PIECE = 64 * PAGE;
const MEMORY = 256 * 2 ** 20;
/** Stands before the secret in its file, and nowhere else at the beginning of a page: the command has it in two parts. */
const MARK = Buffer.from('in a glass case:');
const SECRET_BYTES = 32;
const COMMAND = [
  `{ printf '%s%s' 'in a glass ' 'case:'; head -c ${SECRET_BYTES} /dev/urandom; } > /tmp/secret`,
  // Work with it: it goes through registers, pipes and another program's memory.
  'for n in 1 2 3; do sha256sum < /tmp/secret | cut -c 1-0; done',
  'ls -l /tmp/secret',
  'dmesg | tail -3',
].join('; ');

const missing = whyNoKernel();
/** Looks for the secret at exits. */
class Search {
  readonly #machine: Machine;
  readonly #memory: Buffer;
  #words: readonly Buffer[] = [];
  #before: Buffer | undefined;
  exits = 0;
  pages = 0;
  readonly found: string[] = [];

  constructor(machine: Machine) {
    this.#machine = machine;
    this.#memory = Buffer.from(machine.engine.memory.buffer);
  }

  get secret(): Buffer {
    return Buffer.concat(this.#words);
  }

  at(exit: Exit): void {
    if (this.#words.length === 0 && !this.#drawn()) return;
    this.exits++;
    this.#registers();
    this.#look(serialize([exit, this.#machine.platform.state]), `what the host knows at exit ${exit.kind}`);
    this.#changedPages((page) => {
      this.pages++;
      const seen = this.#read(page);
      if (seen !== undefined) this.#look(seen, `page ${page}`);
    });
  }

  /** Ground truth: whether there is a secret now. */
  #drawn(): boolean {
    const { frames, framesEnd } = this.#machine.engine.plan;
    for (let host = frames; host < framesEnd; host += PAGE) {
      if (this.#memory.compare(MARK, 0, MARK.length, host, host + MARK.length) !== 0) continue;
      const secret = Buffer.from(
        this.#memory.subarray(host + MARK.length, host + MARK.length + SECRET_BYTES),
      );
      if (secret.every((byte) => byte === 0)) continue;
      this.#words = [0, 8, 16, 24].map((at) => secret.subarray(at, at + 8));
      return true;
    }
    return false;
  }

  #look(bytes: Uint8Array, where: string): void {
    const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
    if (this.#words.some((word) => buffer.includes(word))) this.found.push(where);
  }

  /** What the host reads there: by system address where it has those. */
  #read(page: number): Uint8Array | undefined {
    const { view } = this.#machine;
    const { readSystem } = view as Partial<SnpHostView & TdxHostView>;
    const seen = readSystem?.(page * PAGE, PAGE) ?? view.read(page * PAGE, PAGE);
    return seen.ok ? seen.bytes : undefined;
  }

  #registers(): void {
    const { view } = this.#machine;
    for (let n = 0; n < 16; n++)
      for (const name of [REGISTER.rax + n, REGISTER.xmm0 + n]) {
        const register = view.getRegister(0, name);
        if (register !== undefined)
          this.#look(new Uint8Array(Uint32Array.from(register).buffer), `register ${name}`);
      }
  }

  /** Pages whose content is another than at the last exit; all of them at first. */
  #changedPages(visit: (page: number) => void): void {
    const { frames, framesEnd } = this.#machine.engine.plan;
    const toGuest = this.#machine.truth.reverse();
    const now = this.#memory.subarray(frames, framesEnd);
    const before = this.#before;
    for (let at = 0; at < now.length; at += PIECE) {
      const end = Math.min(at + PIECE, now.length);
      if (before !== undefined && now.compare(before, at, end, at, end) === 0) continue;
      for (let page = at; page < end; page += PAGE) {
        if (before !== undefined && now.compare(before, page, page + PAGE, page, page + PAGE) === 0) continue;
        const address = toGuest(frames + page);
        if (address >= 0) visit(address / PAGE);
      }
      if (before !== undefined) now.copy(before, at, at, end);
    }
    this.#before ??= Buffer.from(now);
  }
}

async function searched(name: string): Promise<{ readonly search: Search; readonly output: string }> {
  const guest = await makeLinux({ configuration: name, command: COMMAND, memoryBytes: MEMORY });
  const { machine } = guest;
  const inner = machine.platform;
  const search = new Search(machine);
  const platform: Platform = {
    ...inner,
    get state() {
      return inner.state;
    },
    exit(vp, exit, world) {
      search.at(exit);
      return inner.exit(vp, exit, world);
    },
  };
  machine.attach(platform);
  for (;;) {
    const reason = machine.run(2 ** 30);
    if (reason.kind === 'budget') continue;
    expect(reason).toEqual({ kind: 'end', reason: 'power-off' });
    return { search, output: guest.output() };
  }
}

describe.skipIf(missing !== undefined)('a secret of the guest', () => {
  test('plain: the host finds it', async () => {
    const { search, output } = await searched('plain');
    console.log(
      `plain: ${search.exits} exits, ${search.pages} pages read, found ${search.found.length} times`,
    );
    expect(output).toContain('/tmp/secret');
    expect(search.exits).toBeGreaterThan(50);
    expect(search.found).not.toEqual([]);
  });

  test.for(['snp', 'tdx', 'tdx-paravisor'])('%s: at no exit does the host see it', async (name) => {
    const { search, output } = await searched(name);
    console.log(
      `${name}: ${search.exits} exits, ${search.pages} pages read, found ${search.found.length} times`,
    );
    expect(output).toContain('/tmp/secret');
    expect(search.secret).toHaveLength(SECRET_BYTES);
    expect(search.exits).toBeGreaterThan(50);
    expect(search.found).toEqual([]);
  });
});
