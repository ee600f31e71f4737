/** What both machines boot: one kernel, one initramfs, one command line. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Apt } from '../src/node/apt.ts';
import { Cache } from '../src/node/cache.ts';
import { defaultCacheDir } from '../src/node/cache-folder.ts';
import { buildInitramfs, busyboxFromDeb } from '../src/node/initramfs.ts';
import { packageBytes, resolveKernel, type PackageSource } from '../src/node/kernel.ts';

/** A member of the compute suite: a shell command in the guest whose output must be the same everywhere. */
export interface Member {
  readonly name: string;
  readonly what: string;
  readonly command: string;
}

export interface Guest {
  readonly kernel: string;
  readonly kernelName: string;
  /** Powers off as soon as user space runs. */
  readonly bootInitrd: string;
  /** Runs the suite with a mark before and behind each member, then powers off. */
  readonly suiteInitrd: string;
  readonly members: readonly Member[];
  /** Members that could not be made here, with the reason. */
  readonly skipped: readonly string[];
}

/** Without `quiet` the console's cost would be measured too: it is the same text, but on other UART models. */
export const COMMAND_LINE = 'console=ttyS0,115200 panic=-1 quiet';

const BUSYBOX_MEMBERS: readonly Member[] = [
  {
    name: 'sha256sum',
    what: 'hash of 64 MiB',
    command: 'for n in 1 2 3 4; do sha256sum /data/text /data/text /data/text /data/text; done | sha256sum',
  },
  { name: 'gzip', what: 'compression of 4 MiB', command: 'gzip -c /data/text | sha256sum' },
  {
    name: 'awk',
    what: 'word counts',
    command:
      "awk '{ for (i = 1; i <= NF; i++) n[$i]++ } END { for (w in n) t += n[w] * length(w); print t }' /data/text",
  },
  { name: 'sort', what: 'sort of 4 MiB of lines', command: 'sort /data/text | sha256sum' },
];
const XZ_MEMBER: Member = {
  name: 'xz',
  what: 'decompression to 4 MiB',
  command: 'for n in 1 2 3; do unxz -c /data/text.xz; done | sha256sum',
};
const PROGRAMS: Readonly<Record<string, string>> = {
  integer: 'multiplies, divides, rotates',
  branchy: 'quicksort of random numbers',
  calls: 'recursion, calls through pointers',
  sse2: 'packed integers, floats, doubles',
  x87: '80-bit arithmetic',
  chase: 'pointers over 32 MiB',
  copies: 'memcpy, memcmp, memset',
  syscalls: '1.5 M system calls',
  switches: '120 k context switches',
  faults: '164 k page faults',
};

export const MEMBER_NAMES: readonly string[] = [
  ...[...BUSYBOX_MEMBERS, XZ_MEMBER].map(({ name }) => name),
  ...Object.keys(PROGRAMS),
];

/** 4 MiB of words and numbers, always the same. */
function text(): Uint8Array {
  const words =
    'page frame leaf root guest host silicon report digest nonce vector table walk fault exit ring'.split(
      ' ',
    );
  let state = 12345;
  const next = (below: number): number => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return (state >>> 8) % below;
  };
  const lines: string[] = [];
  for (let bytes = 0; bytes < 4 << 20;) {
    const parts = Array.from({ length: 4 + next(8) }, () =>
      next(4) === 0 ? String(next(1000000)) : (words[next(words.length)] as string),
    );
    const line = parts.join(' ');
    lines.push(line);
    bytes += line.length + 1;
  }
  return new TextEncoder().encode(lines.join('\n') + '\n');
}

const prologue = `#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /tmp
/bin/busybox mount -t proc proc /proc
/bin/busybox --install -s /bin
export PATH=/bin
`;
const epilogue = '/bin/busybox poweroff -f\n';

export async function makeGuest(
  folder: string,
  only?: readonly string[],
  kernelPackage?: string,
): Promise<Guest> {
  const cache = new Cache(defaultCacheDir());
  const source: PackageSource = { cache, apt: new Apt(cache), offline: false, say: () => undefined };
  const kernel = await resolveKernel(kernelPackage === undefined ? {} : { package: kernelPackage }, source);
  const busybox = await packageBytes('busybox-static', source);
  const program = await busyboxFromDeb(busybox.bytes, busybox.entry.name, cache);
  mkdirSync(folder, { recursive: true });
  const place = (name: string, data: Uint8Array): string => {
    const path = join(folder, name);
    writeFileSync(path, data);
    return path;
  };
  const encode = (value: string): Uint8Array => new TextEncoder().encode(value);
  const skipped: string[] = [];
  const members: Member[] = [...BUSYBOX_MEMBERS];
  const data = text();
  const extra = [{ path: 'data/text', data, mode: 0o644 }];
  const textFile = place('text', data);
  const xz = spawnSync('xz', ['-9', '-k', '-c', textFile], { maxBuffer: 1 << 26 });
  if (xz.status === 0) {
    extra.push({ path: 'data/text.xz', data: new Uint8Array(xz.stdout), mode: 0o644 });
    members.push(XZ_MEMBER);
  } else skipped.push('xz: there is no xz to compress its input with');
  const suite = join(folder, 'suite');
  const source_ = fileURLToPath(new URL('programs/suite.c', import.meta.url));
  const compiled = spawnSync('cc', ['-O2', '-static', '-o', suite, source_], { encoding: 'utf8' });
  if (compiled.status === 0 && existsSync(suite)) {
    extra.push({ path: 'bin/suite', data: new Uint8Array(readFileSync(suite)), mode: 0o755 });
    for (const [name, what] of Object.entries(PROGRAMS))
      members.push({ name, what, command: `suite ${name}` });
  } else
    skipped.push(`${Object.keys(PROGRAMS).join(', ')}: no C compiler that links statically (cc -static)`);
  const wanted = members.filter(({ name }) => only === undefined || only.includes(name));
  const script = wanted.map(
    ({ name, command }) => `echo "@begin ${name}"\necho "@result $(${command})"\necho "@end ${name}"\n`,
  );
  const initramfs = (init: string, files: typeof extra): Uint8Array =>
    buildInitramfs({
      busybox: program,
      modules: new Map(),
      extra: [{ path: 'init', data: encode(init), mode: 0o755 }, ...files],
    });
  return {
    kernel: place('vmlinuz', kernel.image),
    kernelName: kernel.name,
    bootInitrd: place('boot.cpio', initramfs(prologue + epilogue, [])),
    suiteInitrd: place('suite.cpio', initramfs(prologue + script.join('') + epilogue, extra)),
    members: wanted,
    skipped,
  };
}

export const scratchFolder = (): string => join(tmpdir(), `vitrine-bench-${process.pid}`);
