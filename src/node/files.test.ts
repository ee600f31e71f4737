/** Archives, modules and the cache: what a damaged file or folder leads to. */
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { packTar } from 'modern-tar';
import { afterAll, describe, expect, test } from 'vitest';
import { readAr } from './ar.ts';
import { Cache, sha256 } from './cache.ts';
import { MODE, writeCpio } from './cpio.ts';
import { readDeb } from './deb.ts';
import { UserError } from './errors.ts';
import { buildInitramfs } from './initramfs.ts';
import { loadOrder, moduleName, readModule, type KernelModule } from './modules.ts';
import { Unpacked } from './unpacked.ts';

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const folder = mkdtempSync(join(tmpdir(), 'vitrine-test-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function ar(members: Readonly<Record<string, Uint8Array>>): Uint8Array {
  const parts = [bytes('!<arch>\n')];
  for (const [name, data] of Object.entries(members)) {
    parts.push(bytes(`${name.padEnd(16)}${'0'.padEnd(32)}${String(data.length).padEnd(10)}\`\n`), data);
    if (data.length % 2 === 1) parts.push(bytes('\n'));
  }
  return Uint8Array.from(Buffer.concat(parts));
}

describe('writeCpio', () => {
  test('aligns names and data to four bytes and ends with the trailer', () => {
    const archive = Buffer.from(writeCpio([{ path: 'a', mode: MODE.file, data: bytes('hello') }]));
    expect(archive.toString('latin1', 0, 6)).toBe('070701');
    expect(archive.toString('latin1', 54, 62)).toBe('00000005');
    expect(archive.toString('latin1', 112, 117)).toBe('hello');
    expect(archive.toString('latin1', 120, 126)).toBe('070701');
    expect(archive.includes('TRAILER!!!')).toBe(true);
    expect(archive.length % 512).toBe(0);
  });
});

describe('readAr', () => {
  test('reads members of odd and even length', () => {
    expect(
      readAr(ar({ one: bytes('abc'), two: bytes('de') }), 'x').map(({ name, data }) => [name, data.length]),
    ).toEqual([
      ['one', 3],
      ['two', 2],
    ]);
  });

  test.for([
    ['no archive', bytes('MZ no archive'), /not a Debian package/],
    ['empty', new Uint8Array(0), /not a Debian package/],
    ['cut in a header', ar({ one: bytes('abc') }).subarray(0, 30), /cut off at byte 8/],
    ['cut in a member', ar({ one: bytes('abcd') }).subarray(0, 70), /cut off in member 'one'/],
    ['a damaged header', ar({ one: bytes('abcd') }).fill(0x78, 56, 66), /damaged member header/],
  ] as const)('%s: one sentence', ([, data, sentence]) => {
    expect(() => readAr(data, 'x.deb')).toThrow(UserError);
    expect(() => readAr(data, 'x.deb')).toThrow(sentence);
  });
});

describe('readDeb', () => {
  test('gives the wanted files of a gzip data archive', async () => {
    const tar = await packTar([
      { header: { name: './boot/vmlinuz', size: 3, type: 'file' }, body: 'abc' },
      { header: { name: './doc', size: 1, type: 'file' }, body: 'd' },
    ]);
    const files = await readDeb(ar({ 'data.tar.gz': gzipSync(tar) }), 'x.deb', (path) =>
      path.startsWith('boot/'),
    );
    expect(files.map(({ path, data }) => [path, Buffer.from(data).toString()])).toEqual([
      ['boot/vmlinuz', 'abc'],
    ]);
  });

  test.for([
    ['no data archive', ar({ other: bytes('a') }), /no data archive/],
    ['gzip that is none', ar({ 'data.tar.gz': bytes('nonsense') }), /cannot be unpacked/],
    ['xz that is none', ar({ 'data.tar.xz': bytes('nonsense') }), /cannot be unpacked/],
    ['zstd that is none', ar({ 'data.tar.zst': bytes('nonsense') }), /cannot be unpacked/],
  ] as const)('%s: one sentence', async ([, data, sentence]) => {
    await expect(readDeb(data, 'x.deb', () => true)).rejects.toThrow(UserError);
    await expect(readDeb(data, 'x.deb', () => true)).rejects.toThrow(sentence);
  });
});

describe('modules', () => {
  const module = (name: string, ...depends: string[]): [string, KernelModule] => [
    name,
    { name, depends, aliases: [], data: new Uint8Array(0) },
  ];
  const names = (wanted: string[]): string[] =>
    loadOrder(
      new Map([module('a', 'b', 'c'), module('b', 'c'), module('c'), module('d', 'e'), module('e', 'd')]),
      wanted,
    ).map(({ name }) => name);

  test('loadOrder puts dependencies first, each once, and ends on cycles', () => {
    expect(names(['a', 'b', 'absent'])).toEqual(['c', 'b', 'a']);
    expect(names(['d'])).toEqual(['e', 'd']);
  });

  test('moduleName is without folder, ending and dashes', () => {
    expect(moduleName('lib/hv-x.ko.xz')).toBe('hv_x');
  });

  test('readModule refuses what is no ELF file', async () => {
    await expect(readModule('x.ko', new Uint8Array(200))).rejects.toThrow(UserError);
  });
});

describe('buildInitramfs', () => {
  const module = (name: string, depends: readonly string[], aliases: readonly string[]): KernelModule => ({
    name,
    depends,
    aliases,
    data: bytes(name),
  });
  const built = (modules: readonly KernelModule[]): string =>
    Buffer.from(
      buildInitramfs({
        busybox: bytes('busybox'),
        modules: new Map(modules.map((entry) => [entry.name, entry])),
        extra: [],
      }),
    ).toString('latin1');

  test('a module is loaded with what it needs, for the devices that it names, and the others stay out', () => {
    const text = built([
      module('hv_vmbus', ['below'], ['acpi*:VMBus:*', 'acpi*:VMBUS:*']),
      module('below', [], []),
      module('sev_guest', ['tsm'], ['platform:sev-guest']),
      module('tsm', [], []),
      module('gcm', [], []),
      module('another', [], ['acpi*:ANY:*']),
    ]);
    expect(text).toContain('  case $1 in acpi*:VMBus:*|acpi*:VMBUS:*) load below hv_vmbus ;; esac\n');
    expect(text).toContain('  case $1 in platform:sev-guest) load gcm tsm sev_guest ;; esac\n');
    expect(text).toContain('vitrine/modules.d/tsm.ko');
    expect(text).not.toContain('another');
  });

  test('a pattern that a shell would run is left out', () => {
    expect(built([module('hv_vmbus', [], ['acpi:$(reboot)'])])).not.toContain('reboot)');
  });

  test('a kernel without modules has a script that does nothing', () => {
    expect(built([])).toContain('plug() {\n  :\n}\n');
  });
});

describe('Unpacked', () => {
  const unpacked = new Unpacked<{ readonly image: Uint8Array }>('thing-1');
  const hash = (name: string): string => sha256(bytes(name));

  test('gives back what was kept for a package, and nothing for another', () => {
    const cache = new Cache(join(folder, 'unpacked'));
    unpacked.keep(cache, hash('a'), { image: bytes('kernel') });
    expect(unpacked.kept(cache, hash('a'))).toEqual({ image: bytes('kernel') });
    expect(unpacked.kept(cache, hash('b'))).toBeUndefined();
    expect(new Unpacked('thing-2').kept(cache, hash('a'))).toBeUndefined();
  });

  test('does not believe what was altered', () => {
    const cache = new Cache(join(folder, 'unpacked-poisoned'));
    unpacked.keep(cache, hash('a'), { image: bytes('kernel') });
    writeFileSync(join(cache.dir, cache.list()[0]?.file ?? ''), 'poison');
    expect(unpacked.kept(cache, hash('a'))).toBeUndefined();
    expect(cache.list()).toEqual([]);
  });

  test('keeps a bounded number, and nothing where nothing can be written', () => {
    const cache = new Cache(join(folder, 'unpacked-many'));
    for (let k = 0; k < 12; k++) unpacked.keep(cache, hash(String(k)), { image: bytes('kernel') });
    expect(cache.list()).toHaveLength(8);
    writeFileSync(join(folder, 'no-folder'), '');
    const none = new Cache(join(folder, 'no-folder', 'below'));
    unpacked.keep(none, hash('a'), { image: bytes('kernel') });
    expect(unpacked.kept(none, hash('a'))).toBeUndefined();
  });
});

describe('Cache', () => {
  test('gives back what was written and leaves no temporary file', () => {
    const cache = new Cache(join(folder, 'good'));
    const entry = cache.write('thing', bytes('content'));
    expect(Buffer.from(cache.read(entry) ?? []).toString()).toBe('content');
    expect(readdirSync(cache.dir)).toEqual([`thing.${sha256(bytes('content'))}`]);
  });

  test('a poisoned entry is not believed and is removed', () => {
    const cache = new Cache(join(folder, 'poisoned'));
    const entry = cache.write('thing', bytes('content'));
    writeFileSync(join(cache.dir, entry.file), 'poison');
    expect(cache.read(entry)).toBeUndefined();
    expect(cache.list()).toEqual([]);
  });

  test('a folder that cannot be: one sentence', () => {
    writeFileSync(join(folder, 'file'), '');
    expect(() => new Cache(join(folder, 'file', 'below')).prepare()).toThrow(UserError);
    expect(() => new Cache(join(folder, 'file', 'below')).prepare()).toThrow(
      /give another one with --cache-dir/,
    );
  });
});
