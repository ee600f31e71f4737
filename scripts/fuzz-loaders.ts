/**
 * Mutated kernels, initial RAM disks and Debian packages through the loaders: each is either taken or refused with one sentence,
 * without an exception, in bounded time and memory. Deterministic: a case is known by its number.
 *
 *   npm run fuzz:loaders -- [CASES] [FIRST]
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { packTar } from 'modern-tar';
import { launchPlain } from '../src/launch/plain.ts';
import { sentence } from '../src/launch/outcome.ts';
import { bzImage, elf64 } from '../src/launch/test-images.ts';
import { findConfiguration, makeMachine, type Configuration } from '../src/machine/configurations.ts';
import { Apt } from '../src/node/apt.ts';
import { Cache } from '../src/node/cache.ts';
import { defaultCacheDir } from '../src/node/cache-folder.ts';
import { UserError } from '../src/node/errors.ts';
import { checkInitrd } from '../src/node/initrd.ts';
import { kernelFromFile, resolveKernel } from '../src/node/kernel.ts';
import { oneLine } from '../src/node/sanitize.ts';
import { findCpuModel, type CpuModel } from '../src/x86/cpuid.ts';
import { ar, cpio, elfStart } from '../test/e2e/files.ts';

const CASES = Number(process.argv[2] ?? 100_000);
const FIRST = Number(process.argv[3] ?? 0);
const MEMORY = 128 * 2 ** 20;
/** Cases that take a whole distribution file are rare: each costs as much as thousands of small ones. */
const LARGE_EVERY = 2000;
/** Taken cases of which one is also started. */
const START_EVERY = 400;
const SLOW_MS = 5000;
/** What may be in use at once: started machines go when the collector comes to them. */
const MOST_MORE = 2 ** 30;
/** What may be left at the end that was not there after a tenth of the cases, both behind a collection. */
const MOST_LEFT = 20 * 2 ** 20;

/** A small generator: the number of the case is its seed. */
function generator(seed: number): (below: number) => number {
  let state = (Math.imul(seed, 0x9e3779b1) ^ 0x5bd1e995) >>> 0;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return below <= 0 ? 0 : state % below;
  };
}

const INTERESTING = [0, 1, 0x7f, 0x80, 0xff, 0x30, 0x37];

/** Bytes changed, cut, grown, doubled, swapped: mostly near the front, where the headers are. */
function mutate(original: Uint8Array, next: (below: number) => number): Uint8Array {
  let bytes = original.slice();
  for (let change = next(6); change >= 0; change--) {
    const at = next(next(3) === 0 ? bytes.length : Math.min(bytes.length, 0x600));
    switch (next(8)) {
      case 0:
        bytes = bytes.slice(0, next(bytes.length + 1));
        break;
      case 1: {
        const grown = new Uint8Array(bytes.length + next(5000));
        grown.set(bytes);
        bytes = grown;
        break;
      }
      case 2:
        bytes.copyWithin(at, next(bytes.length), next(bytes.length));
        break;
      case 3: {
        // A number field of any width.
        const width = [2, 4, 8][next(3)] ?? 4;
        const value = INTERESTING[next(INTERESTING.length)] ?? 0;
        bytes.fill(value, at, at + width);
        break;
      }
      default:
        if (at < bytes.length)
          bytes[at] = next(2) === 0 ? next(256) : (INTERESTING[next(INTERESTING.length)] ?? 0);
    }
  }
  return bytes;
}

const encode = (text: string): Uint8Array => new TextEncoder().encode(text);

function xz(bytes: Uint8Array): Uint8Array | undefined {
  const { status, stdout } = spawnSync('xz', ['-c', '-6'], { input: bytes, maxBuffer: 2 ** 28 });
  return status === 0 ? Uint8Array.from(stdout) : undefined;
}

/** A relocatable ELF64 file with a .modinfo section. */
function module(depends: string): Uint8Array {
  const names = encode('\0.modinfo\0.shstrtab\0');
  const info = encode(`license=GPL\0depends=${depends}\0`);
  const bytes = new Uint8Array(64 + 128 + 3 * 64);
  const view = new DataView(bytes.buffer);
  bytes.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setUint16(16, 1, true);
  view.setUint16(18, 62, true);
  view.setBigUint64(40, 192n, true);
  view.setUint16(58, 64, true);
  view.setUint16(60, 3, true);
  view.setUint16(62, 2, true);
  bytes.set(info, 64);
  bytes.set(names, 128);
  for (const [index, name, at, length] of [
    [1, 1, 64, info.length],
    [2, 10, 128, names.length],
  ] as const) {
    view.setUint32(192 + index * 64, name, true);
    view.setBigUint64(192 + index * 64 + 24, BigInt(at), true);
    view.setBigUint64(192 + index * 64 + 32, BigInt(length), true);
  }
  return bytes;
}

const files = {
  './boot/vmlinuz-1': bzImage(),
  './boot/System.map-1': encode('ffffffff81000000 T _text\n'.repeat(300)),
  './lib/modules/1/hv_vmbus.ko': module('tsm,hv_utils'),
  './lib/modules/1/tsm.ko.xz': xz(module('')) ?? module(''),
};

async function tarOf(mutation?: (bytes: Uint8Array) => Uint8Array): Promise<Uint8Array> {
  return packTar(
    Object.entries(files).map(([name, data]) => {
      const body = mutation === undefined ? data : mutation(data);
      return { header: { name, size: body.length, type: 'file' as const }, body };
    }),
  );
}
const tar = await tarOf();
const packed = xz(tar);
const debs = [
  ar({ 'debian-binary': encode('2.0\n'), 'control.tar.gz': gzipSync(tar), 'data.tar': tar }),
  ar({ 'data.tar.gz': gzipSync(tar) }),
  ar({ 'data.tar.zst': zstdCompressSync(tar) }),
  ...(packed === undefined ? [] : [ar({ 'data.tar.xz': packed })]),
];
const archive = cpio({ init: elfStart(62), 'bin/sh': elfStart(62), text: encode('hello'.repeat(200)) });
const initrds = [
  archive,
  gzipSync(archive),
  zstdCompressSync(archive),
  Buffer.concat([archive, new Uint8Array(300), gzipSync(archive)]),
  ...[xz(archive)].filter((bytes) => bytes !== undefined),
].map((bytes) => Uint8Array.from(bytes));
const segment = { paddr: 0x1000000, bytes: new Uint8Array(0x1800), memorySize: 0x3000 };
const kernels = [bzImage(), bzImage({ relocatableKernel: 0 }), elf64(0x1000000, [segment])];

/** The default kernel's package, when the cache has it. */
const cache = new Cache(defaultCacheDir());
const [realEntry] = existsSync(cache.dir) ? cache.find((name) => name.startsWith('linux-image')) : [];
const realDeb = realEntry === undefined ? undefined : cache.read(realEntry);
const realKernel =
  realDeb === undefined
    ? undefined
    : (await resolveKernel({}, { cache, apt: new Apt(cache), offline: true, say: () => undefined })).image;

const pick = <T>(list: readonly T[], next: (below: number) => number): T => list[next(list.length)] as T;
const model = findCpuModel('EPYC-Milan') as CpuModel;
let taken = 0;
let started = 0;

/** Undefined when the input is taken, else the sentence that refuses it. */
async function load(number: number): Promise<string | undefined> {
  const next = generator(number);
  next(1);
  const large = number % LARGE_EVERY === LARGE_EVERY - 1;
  let kernel = bzImage();
  let initrd = archive;
  try {
    switch (number % 3) {
      case 0:
        kernel = mutate(large ? (realKernel ?? kernel) : pick(kernels, next), next);
        break;
      case 1:
        initrd = await checkInitrd(mutate(pick(initrds, next), next), 'case');
        break;
      default: {
        const inner = next(3) === 0;
        const deb = inner
          ? ar({ 'data.tar': await tarOf((bytes) => (next(2) === 0 ? bytes : mutate(bytes, next))) })
          : mutate(large ? (realDeb ?? (debs[0] as Uint8Array)) : pick(debs, next), next);
        kernel = (await kernelFromFile(deb, 'case')).image;
      }
    }
  } catch (error) {
    if (error instanceof UserError) return error.message;
    throw error;
  }
  const sizes = { memoryBytes: MEMORY, vpCount: 1 };
  const outcome = launchPlain({
    ...sizes,
    kernel,
    initrd,
    commandLine: 'x',
    uarts: 2,
    entropy: new Uint8Array(8),
  });
  if (!outcome.ok) return sentence(outcome.error);
  if (taken++ % START_EVERY === 0) {
    started++;
    const made = makeMachine(findConfiguration('plain') as Configuration, {
      ...sizes,
      kernel,
      initrd,
      commandLine: 'x',
      model,
      seed: 1n,
      startDate: 0,
      hyperv: true,
      withheld: [],
      sink: { mask: 0, emit: () => undefined },
    });
    if (made.ok) made.machine.run(20_000);
  }
  return undefined;
}

const sentences = new Map<string, number>();
let failures = 0;
let slowest = 0;
let most = 0;
const base = process.memoryUsage().rss;
setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;
/** Memory of WebAssembly goes in turns of the event loop behind a collection. */
async function settled(): Promise<number> {
  for (let round = 0; round < 4; round++) {
    collect();
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}
let early = 0;
const begun = performance.now();
for (let number = FIRST; number < FIRST + CASES; number++) {
  const before = performance.now();
  try {
    const refusal = await load(number);
    if (refusal !== undefined) {
      if (!/^[^\x00-\x1f\x7f-\x9f]{10,400}$/.test(oneLine(refusal).replaceAll('\t', ' '))) {
        failures++;
        console.log(`case ${number}: not one sentence: ${JSON.stringify(refusal)}`);
      }
      const kind = refusal.replace(/0x[0-9a-f]+|[\d.]+|'[^']*'/g, '#').slice(0, 60);
      sentences.set(kind, (sentences.get(kind) ?? 0) + 1);
    }
  } catch (error) {
    failures++;
    console.log(`case ${number}: ${(error as Error).stack ?? String(error)}`);
  }
  const took = performance.now() - before;
  slowest = Math.max(slowest, took);
  if (took > SLOW_MS && number % LARGE_EVERY !== LARGE_EVERY - 1)
    console.log(`case ${number}: took ${Math.round(took)} ms`);
  if (number % 256 === 0) most = Math.max(most, process.memoryUsage().rss);
  if (number === FIRST + Math.floor(CASES / 10)) early = await settled();
}
const left = (await settled()) - early;
const grown = most - base;
const mib = (bytes: number): string => `${Math.round(bytes / 2 ** 20)} MiB`;
console.log(
  `${CASES} cases from ${FIRST} on: ${taken} taken (${started} of them started), ${CASES - taken - failures} refused in ${sentences.size} kinds of sentence, ${failures} failures`,
);
console.log(
  `slowest ${Math.round(slowest)} ms, ${Math.round((performance.now() - begun) / 1000)} s, memory ${mib(base)} at the start, at most ${mib(grown)} more, ${mib(left)} more at the end than after a tenth`,
);
for (const [kind, count] of [...sentences].sort(([, a], [, b]) => b - a))
  console.log(`${String(count).padStart(7)}  ${kind}`);
const bounded = grown <= MOST_MORE && left <= MOST_LEFT;
if (!bounded) console.log('memory is not bounded');
process.exitCode = failures === 0 && bounded ? 0 : 1;
