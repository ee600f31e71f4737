/** Bad arguments, files and surroundings: status 2, one sentence, and nothing half-written. */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { packTar } from 'modern-tar';
import { afterAll, describe, expect, test } from 'vitest';
import { bzImage, elf64 } from '../../src/launch/test-images.ts';
import { sha256 } from '../../src/node/cache.ts';
import { ar, cpio, elfStart } from './files.ts';
import { vitrineAsync, type Ran } from './vitrine.ts';

const folder = mkdtempSync(join(tmpdir(), 'vitrine-bad-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const cache = join(folder, 'cache');
mkdirSync(cache);

const noise = Uint8Array.from({ length: 5000 }, (_, k) => (k * 7919) >>> 3);
const AARCH64 = 183;
const arm64 = new Uint8Array(4096);
arm64.set(new TextEncoder().encode('ARM\x64'), 0x38);

async function deb(files: Readonly<Record<string, Uint8Array>>): Promise<Uint8Array> {
  const tar = await packTar(
    Object.entries(files).map(([name, body]) => ({
      header: { name, size: body.length, type: 'file' as const },
      body,
    })),
  );
  return ar({ 'debian-binary': new TextEncoder().encode('2.0\n'), 'data.tar.gz': gzipSync(tar) });
}

const goodCpio = cpio({ init: elfStart(62), 'big/file': new Uint8Array(9000).fill(1) });
const good = bzImage();
const kernelDeb = await deb({ './boot/vmlinuz-1': good });
const busyboxDeb = await deb({ './bin/busybox': elfStart(62) });

const FILES: Readonly<Record<string, Uint8Array>> = {
  good,
  empty: new Uint8Array(0),
  noise,
  cut: good.subarray(0, good.length - 1000),
  'cut-header': good.subarray(0, 0x1f8),
  arm64,
  'elf-aarch64': elfStart(AARCH64),
  'elf-cut': elf64(0x1000000, [{ paddr: 0x1000000, bytes: new Uint8Array(0x1800) }]).subarray(0, 0x400),
  'kernel.gz': gzipSync(good),
  'initrd-cut': goodCpio.subarray(0, 3000),
  'initrd-header': Uint8Array.from(goodCpio).fill(0x78, 40, 60),
  'initrd-aarch64': cpio({ init: elfStart(AARCH64), text: noise }),
  'initrd-cut.gz': gzipSync(Buffer.concat([goodCpio, noise])).subarray(0, 200),
  'initrd-cut.zst': zstdCompressSync(Buffer.concat([goodCpio, noise])).subarray(0, 200),
  'initrd-inner.gz': gzipSync(goodCpio.subarray(0, 3000)),
  'initrd-zeros': new Uint8Array(8192),
  'initrd-large': cpio({ large: new Uint8Array(64 << 20).fill(1) }),
  'initrd-good': goodCpio,
  'cut.deb': kernelDeb.subarray(0, kernelDeb.length - 100),
  'none.deb': await deb({ './usr/share/doc/x': noise }),
  'arm64.deb': await deb({ './boot/vmlinuz-1': arm64 }),
  'no-data.deb': ar({ other: noise }),
  'bad-data.deb': ar({ 'data.tar.xz': noise }),
  'no.json': noise,
  'other.json': new TextEncoder().encode('{"configuration":{"cpus":"many"}}'),
};
for (const [name, data] of Object.entries(FILES)) writeFileSync(join(folder, name), data);
writeFileSync(join(folder, 'oversized'), '');
truncateSync(join(folder, 'oversized'), 3 * 2 ** 30);
mkdirSync(join(folder, 'modules'));
writeFileSync(join(folder, 'modules', 'hv_vmbus.ko'), noise);

/** `@name` is a file of the test's folder. */
const inFolder = (text: string): string => text.replace(/@/g, `${folder}/`);

function expectSentence({ status, stdout, stderr }: Ran, words: RegExp): void {
  expect(stderr).toMatch(/^vitrine: [^\n]+\n$/);
  expect(stderr).toMatch(words);
  expect(stdout.length).toBe(0);
  expect(status).toBe(2);
}

const run = (line: string): Promise<Ran> =>
  vitrineAsync([
    ...inFolder(line)
      .split(' ')
      .filter((word) => word !== ''),
    ...(/^(boot|matrix)/.test(line) ? ['--cache-dir', cache, '--offline'] : []),
  ]);

test.concurrent.for([
  ['', /no command/],
  ['nonsense', /unknown command 'nonsense'/],
  ['boot --memry 512M', /unknown option '--memry'/],
  ['boot nowhere', /there is no configuration 'nowhere'/],
  ['boot plain plain', /too many arguments/],
  ['boot --cpus 0', /from 1 to 64/],
  ['boot --cpus 1e2', /from 1 to 64/],
  ['boot --memory lots', /such as 512M/],
  ['boot --memory 0', /such as 512M/],
  ['boot --memory 1M', /1 MiB of memory are too little/],
  ['boot --memory 100G', /100 GiB of memory are too much/],
  ['boot --memory 99999999999G', /such as 512M/],
  ['boot --memory 536870913', /not whole pages/],
  ['boot --memory 48M --kernel @good --initrd @initrd-large', /does not fit .*give the VM at least/],
  ['matrix --only nowhere', /there is no configuration 'nowhere'.*--only/],
  ['matrix --memory 1M', /1 MiB of memory are too little/],
  ['matrix --limit 0', /give a number from 1/],
  ['matrix --kernel @missing', /cannot read kernel .*missing \(ENOENT\)/],
  ['matrix --kernel @noise', /no Linux kernel/],
  ['matrix --kernel @cut', /cut off/],
  ['matrix --kernel @good --kernel-package linux-image', /do not go together/],
  ['matrix --initrd @initrd-good', /leave out --initrd/],
  ['matrix --junit @missing/matrix.xml', /--junit/],
  ['matrix --html @missing/matrix.html', /--html/],
  ['matrix --json @missing/matrix.json', /--json/],
  ['boot --cpu-model Z80', /give one of EPYC-Milan/],
  ['boot snp-paravisor --paravisor-without irq.apc', /no part 'irq.apc'/],
  [
    'boot tdx-paravisor --paravisor-without irq.apic --hyperv-without x2apic',
    /give either --paravisor-without irq\.apic or --hyperv-without x2apic/,
  ],
  ['boot --date yesterday', /give a date/],
  ['boot --date 2026-02-30', /give a date/],
  ['boot --trace -', /--trace - is no file/],
  ['boot --seed -1', /argument/],
  ['boot --seed 18446744073709551616', /2\^64/],
  ['boot --limit 0', /give a number from 1/],
  ['boot --hyperv perhaps', /give one of on, off/],
  ['boot --hyperv-without teeth', /give one of invariant-tsc/],
  ['boot --kernel @good --kernel-package linux-image', /do not go together/],
  ['boot --resume @good --run true', /do not go together/],
  ['boot --initrd @initrd-good --run true', /do not go together/],
  ['boot --bios @good', /give --board test/],
  ['boot --kernel @missing', /cannot read kernel .*missing \(ENOENT\)/],
  ['boot --kernel @modules', /not a file/],
  ['boot --kernel @empty', /is empty/],
  ['boot --kernel @noise', /no Linux kernel/],
  ['boot --kernel @cut', /cut off/],
  ['boot --kernel @cut-header', /kernel/],
  ['boot --kernel @arm64', /arm64 kernel/],
  ['boot --kernel @elf-aarch64', /ELF file for/],
  ['boot --kernel @elf-cut', /kernel/],
  ['boot --kernel @kernel.gz', /gzip-compressed/],
  ['boot --kernel @oversized', /more than 2 GiB/],
  ['boot --kernel @cut.deb', /cut off/],
  ['boot --kernel @none.deb', /holds no kernel/],
  ['boot --kernel @arm64.deb', /arm64 kernel/],
  ['boot --kernel @no-data.deb', /no data archive/],
  ['boot --kernel @bad-data.deb', /cannot be unpacked/],
  ['boot --kernel @good --initrd @missing', /cannot read initrd/],
  ['boot --kernel @good --initrd @empty', /is empty/],
  ['boot --kernel @good --initrd @noise', /neither a cpio archive nor/],
  ['boot --kernel @good --initrd @good', /neither a cpio archive nor/],
  ['boot --kernel @good --initrd @initrd-cut', /cut off/],
  ['boot --kernel @good --initrd @initrd-header', /damaged header/],
  ['boot --kernel @good --initrd @initrd-aarch64', /programs in the initrd are for AArch64|for arm64/i],
  ['boot --kernel @good --initrd @initrd-cut.gz', /cannot be unpacked/],
  ['boot --kernel @good --initrd @initrd-cut.zst', /cannot be unpacked/],
  ['boot --kernel @good --initrd @initrd-inner.gz', /cut off/],
  ['boot --kernel @good --initrd @initrd-zeros', /only zeros/],
  ['boot --kernel @good --initrd @oversized', /more than 2 GiB/],
  ['boot --kernel @good --modules @missing', /cannot read the modules folder/],
  ['boot --kernel @good --modules @modules', /not a kernel module/],
  ['boot --kernel @good --initrd @initrd-good --append ü', /command line/],
  ['boot --kernel @good --initrd @initrd-good --symbols @noise', /names no code/],
  ['boot --kernel @good --initrd @initrd-good --json @missing/report', /cannot write --json/],
  ['boot --kernel @good --initrd @initrd-good --trace @modules', /is a folder/],
  ['boot --kernel @good --initrd @initrd-good --snapshot @missing/s', /cannot write --snapshot/],
  ['boot --kernel @good --initrd @initrd-good --console @missing/c', /cannot write --console/],
  ['boot --resume @noise', /damaged or no snapshot/],
  ['boot --resume @missing', /cannot read snapshot/],
  ['boot --config @no.json', /is not JSON/],
  ['boot --config @other.json', /no good value for 'cpus'/],
  ['boot --kernel @good', /busybox-static is not in the cache/],
  ['boot', /has no kernel: run once without --offline/],
  ['kernel fetch --cache-dir /dev/null/cache', /cannot write to the cache folder/],
  ['cache list --cache-dir @noise', /cannot read the cache folder/],
] as const)('vitrine %s: status 2 and one sentence', async ([line, words]) =>
  expectSentence(await run(line), words),
);

test('a run that cannot start leaves no file', async () => {
  const outputs = ['--json', '--trace', '--snapshot', '--console'];
  const ran = await run(
    `boot --kernel @noise ${outputs.map((option) => `${option} @out${option}`).join(' ')}`,
  );
  expect(ran.status).toBe(2);
  expect(readdirSync(folder).filter((name) => name.startsWith('out'))).toEqual([]);
});

test('a port that is taken is said before anything runs', async () => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const ran = await run(`boot --kernel @good --initrd @initrd-good --gdb ${port}`);
  server.close();
  expectSentence(ran, /cannot listen for gdb/);
});

/** An apt of our own: what a real one would do on a network that fails. */
const bin = join(folder, 'bin');
mkdirSync(bin);
writeFileSync(join(folder, 'busybox.deb'), busyboxDeb);
writeFileSync(
  join(bin, 'apt-get'),
  `#!/bin/sh
case "$*" in
  update*) [ -z "$FAKE_OFFLINE" ] || { echo 'E: Could not resolve host' >&2; exit 100; } ;;
  *--print-uris*) echo "'http://host/x.deb' busybox-static_1_amd64.deb $(wc -c < "$FAKE_DEB") SHA256:$(sha256sum < "$FAKE_DEB" | cut -d' ' -f1)" ;;
  download*) sleep 0.2; head -c "\${FAKE_BYTES:-99999999}" "$FAKE_DEB" > busybox-static_1_amd64.deb ;;
esac
`,
);
chmodSync(join(bin, 'apt-get'), 0o755);

const withApt = (where: string, more: Readonly<Record<string, string>> = {}): Promise<Ran> =>
  vitrineAsync(['kernel', 'fetch', 'busybox-static', '--cache-dir', where], {
    ...process.env,
    PATH: `${bin}:${process.env['PATH'] ?? ''}`,
    FAKE_DEB: join(folder, 'busybox.deb'),
    ...more,
  });
const lastLine = (ran: Ran): Ran => ({ ...ran, stderr: `${ran.stderr.trim().split('\n').at(-1) ?? ''}\n` });

describe('downloads', () => {
  test('a computer without apt is told what to do', async () => {
    const ran = await withApt(join(folder, 'no-apt'), { PATH: join(folder, 'modules') });
    expectSentence(lastLine(ran), /has no apt-get: give --kernel FILE/);
  });

  test('a download that fails leaves nothing in the cache', async () => {
    const where = join(folder, 'offline');
    expectSentence(lastLine(await withApt(where, { FAKE_OFFLINE: '1' })), /Could not resolve host/);
    expect(readdirSync(where).filter((name) => name !== 'apt')).toEqual([]);
  });

  test('a download that was cut off is not kept, and the next one is', async () => {
    const where = join(folder, 'cut-off');
    expectSentence(lastLine(await withApt(where, { FAKE_BYTES: '100' })), /cut off or altered/);
    expect(readdirSync(where).filter((name) => name !== 'apt')).toEqual([]);
    expect((await withApt(where)).status).toBe(0);
  });

  test('four at once make one good file', async () => {
    const where = join(folder, 'concurrent');
    const ran = await Promise.all([1, 2, 3, 4].map(() => withApt(where)));
    expect(ran.map(({ status }) => status)).toEqual([0, 0, 0, 0]);
    expect(readdirSync(where).filter((name) => name !== 'apt')).toEqual([
      `busybox-static_1_amd64.deb.${sha256(busyboxDeb)}`,
    ]);
  });

  test('a poisoned file is not used, and removed', async () => {
    const where = join(folder, 'poisoned');
    mkdirSync(where);
    const file = join(where, `busybox-static_1_amd64.deb.${sha256(busyboxDeb)}`);
    writeFileSync(file, kernelDeb);
    expectSentence(
      await vitrineAsync(['kernel', 'fetch', 'busybox-static', '--offline', '--cache-dir', where]),
      /was damaged in the cache/,
    );
    expect(existsSync(file)).toBe(false);
  });

  test('cache verify finds and removes what is damaged; clear removes what is ours alone', async () => {
    const where = join(folder, 'verified');
    await withApt(where);
    writeFileSync(join(where, `bad.${'0'.repeat(64)}`), 'x');
    writeFileSync(join(where, 'a file of the user'), 'x');
    const verified = await vitrineAsync(['cache', 'verify', '--cache-dir', where]);
    expect(verified.status).toBe(1);
    expect(verified.stdout.toString()).toBe('good busybox-static_1_amd64.deb\ndamaged, removed bad\n');
    expect((await vitrineAsync(['cache', 'clear', '--cache-dir', where])).stdout.toString()).toBe(
      '1 files removed\n',
    );
    expect(readdirSync(where)).toEqual(['a file of the user']);
  });
});
