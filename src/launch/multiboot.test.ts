import { describe, expect, test } from 'vitest';
import { MULTIBOOT_INFO, MULTIBOOT_MMAP_ENTRY, MULTIBOOT_MODULE } from '../abi/multiboot.ts';
import { ascii, concat } from '../abi/bytes.ts';
import { eachPage, type Directive } from './directives.ts';
import { MIB } from './memory-map.ts';
import { launchMultiboot, type MultibootConfig, type MultibootLaunch } from './multiboot.ts';
import { sentence } from './outcome.ts';
import { bzImage, elf32, elf64, multibootElf, multibootHeader } from './test-images.ts';

const MEMORY = 16 * MIB;
const config: MultibootConfig = {
  image: multibootElf(0x400000),
  commandLine: 'test.flat one two',
  modules: [],
  memoryBytes: MEMORY,
  vpCount: 1,
  boardPieces: [],
};

function launched(changes: Partial<MultibootConfig> = {}): MultibootLaunch {
  const outcome = launchMultiboot({ ...config, ...changes });
  if (!outcome.ok) throw new Error(sentence(outcome.error));
  return outcome.launch;
}

function refusal(changes: Partial<MultibootConfig>): string {
  const outcome = launchMultiboot({ ...config, ...changes });
  return outcome.ok ? 'taken' : sentence(outcome.error);
}

function memoryOf(directives: readonly Directive[]): Uint8Array {
  const memory = new Uint8Array(MEMORY);
  for (const entry of directives) {
    if (entry.kind === 'pages') eachPage(entry, (gpa, contents) => memory.set(contents, gpa));
  }
  return memory;
}

function textAt(memory: Uint8Array, at: number): string {
  return String.fromCharCode(...memory.subarray(at, memory.indexOf(0, at)));
}

describe('launchMultiboot', () => {
  test('enters an ELF in flat 32-bit mode with the magic and the boot information', () => {
    const launch = launched();
    const context = launch.directives.find((entry) => entry.kind === 'context');
    expect(context?.registers).toMatchObject({ rip: 0x40000cn, cr0: 0x11n, efer: 0n, rflags: 2n });
    expect(context?.registers.gprs[0]).toBe(0x2badb002n);
    expect(context?.registers.gprs[3]).toBe(BigInt(launch.info));
    expect(context?.registers.cs).toMatchObject({ base: 0n, limit: 0xffffffff, attributes: 0xc9b });
  });

  test('tells memory, command line, loader and modules', () => {
    const modules = [
      { bytes: Uint8Array.of(1, 2, 3), commandLine: 'initrd' },
      { bytes: new Uint8Array(5000).fill(9), commandLine: 'second' },
    ];
    const launch = launched({ modules });
    const memory = memoryOf(launch.directives);
    const info = MULTIBOOT_INFO.read(memory, launch.info);
    expect(info.flags).toBe(0x24d);
    expect([info.memLower, info.memUpper]).toEqual([640, 15 * 1024]);
    expect(textAt(memory, info.cmdline)).toBe('test.flat one two');
    expect(textAt(memory, info.bootLoaderName)).toBe('Vitrine');
    expect(info.modsCount).toBe(2);
    modules.forEach((module, i) => {
      const entry = MULTIBOOT_MODULE.read(memory, info.modsAddr + i * MULTIBOOT_MODULE.size);
      expect(entry.start % 4096).toBe(0);
      expect(memory.subarray(entry.start, entry.end)).toEqual(module.bytes);
      expect(textAt(memory, entry.string)).toBe(module.commandLine);
    });
    const last = MULTIBOOT_MMAP_ENTRY.read(
      memory,
      info.mmapAddr + info.mmapLength - MULTIBOOT_MMAP_ENTRY.size,
    );
    expect(last).toEqual({ size: 20, address: 0x100000n, length: BigInt(15 * MIB), type: 1 });
  });

  test('modules and boot information leave the zeroed part alone', () => {
    const image = elf32(0x10000c, [
      { paddr: 0x100000, bytes: concat(multibootHeader(), new Uint8Array(20)), memorySize: 3 * MIB },
    ]);
    const launch = launched({ image, modules: [{ bytes: Uint8Array.of(7), commandLine: '' }] });
    expect(memoryOf(launch.directives)[4 * MIB]).toBe(7);
  });

  test('boot information moves when the image lies in its place', () => {
    const image = multibootElf(0x8000);
    const launch = launched({ image });
    expect(launch.info).toBe(0x100000);
    expect(
      textAt(
        memoryOf(launch.directives),
        MULTIBOOT_INFO.low(memoryOf(launch.directives), 'cmdline', launch.info),
      ),
    ).toBe('test.flat one two');
  });

  test('loads a flat image by its address fields, header anywhere in the first 8 KiB', () => {
    const header = multibootHeader(0x10000, {
      headerAddr: 0x200010,
      loadAddr: 0x200000,
      loadEndAddr: 0x200100,
      bssEndAddr: 0x300000,
      entryAddr: 0x200040,
    });
    const image = concat(
      new Uint8Array(0x1000),
      ascii('0123456789abcdef'),
      header,
      new Uint8Array(0x200).fill(5),
    );
    const launch = launched({ image });
    const memory = memoryOf(launch.directives);
    expect(launch.entry).toBe(0x200040);
    expect(textAt(memory, 0x200000).slice(0, 16)).toBe('0123456789abcdef');
    expect([memory[0x2000ff], memory[0x200100]]).toEqual([5, 0]);
  });

  test('counts the file from where the image begins in it', () => {
    const fields = {
      headerAddr: 0x200000,
      loadAddr: 0x200000,
      loadEndAddr: 0x200120,
      bssEndAddr: 0,
      entryAddr: 0x200020,
    };
    const header = multibootHeader(0x10000, fields);
    const image = concat(new Uint8Array(0x100), header, new Uint8Array(0x100));
    expect(launched({ image }).entry).toBe(0x200020);
    expect(refusal({ image: image.subarray(0, -1) })).toContain('file ends before the image does');
  });

  test('memory may end where the image and its modules do', () => {
    const image = multibootElf(0x100000, 0x1000);
    const room = MEMORY - 0x102000;
    expect(launched({ image, modules: [{ bytes: new Uint8Array(room), commandLine: '' }] }).info).toBe(
      0x9000,
    );
    expect(refusal({ image, modules: [{ bytes: new Uint8Array(room + 1), commandLine: '' }] })).toContain(
      'module 1',
    );
    const high = multibootElf(MEMORY - 0x2000, 0x1000);
    expect(refusal({ image: high })).toBe('taken');
  });

  test('load_end 0 means the whole file', () => {
    const fields = {
      headerAddr: 0x200000,
      loadAddr: 0x200000,
      loadEndAddr: 0,
      bssEndAddr: 0,
      entryAddr: 0x200020,
    };
    const image = concat(multibootHeader(0x10000, fields), new Uint8Array(99).fill(3));
    expect(memoryOf(launched({ image }).directives)[0x200000 + image.length - 1]).toBe(3);
  });

  test('keeps the pages of the board', () => {
    const boardPieces = [{ gpa: 0xf5000, bytes: Uint8Array.of(1, 2), name: 'acpi' }];
    const memory = memoryOf(launched({ boardPieces }).directives);
    expect(Array.from(memory.subarray(0xf5000, 0xf5002))).toEqual([1, 2]);
    expect(refusal({ boardPieces, image: multibootElf(0xf4000) })).toContain('board has its tables');
  });

  test.each([
    ['an empty image', { image: new Uint8Array(0) }, 'is empty'],
    [
      'an image without header',
      { image: elf32(0x100000, [{ paddr: 0x100000, bytes: new Uint8Array(8) }]) },
      'no multiboot',
    ],
    [
      'a bad checksum',
      { image: multibootElf().map((byte, i) => (i === 84 + 8 ? byte ^ 1 : byte)) },
      'no multiboot',
    ],
    [
      'a wish for a video mode',
      { image: multibootElf(0x100000, 0x100, 4) },
      'features 0x4 (kernel, byte 0x58)',
    ],
    ['half a page of memory', { memoryBytes: MEMORY + 2048 }, 'memory size of 16779264 bytes'],
    ['4 GiB of memory', { memoryBytes: 2 ** 32 }, 'memory size of'],
    ['memory without end', { memoryBytes: Infinity }, 'memory size of Infinity'],
    [
      '33 modules',
      { modules: Array.from({ length: 33 }, () => ({ bytes: new Uint8Array(1), commandLine: '' })) },
      '33 modules',
    ],
    ['neither ELF nor addresses', { image: concat(multibootHeader(), new Uint8Array(64)) }, 'neither ELF'],
    ['a 64-bit ELF', { image: elf64(0x100000, [{ paddr: 0x100000, bytes: multibootHeader() }]) }, 'x86-64'],
    ['an image beyond memory', { image: multibootElf(MEMORY - 0x1000) }, 'needs memory up to'],
    [
      'a module beyond memory',
      { modules: [{ bytes: new Uint8Array(MEMORY), commandLine: '' }] },
      'does not fit',
    ],
    ['no memory', { memoryBytes: 0 }, 'memory size of 0 bytes'],
    ['no processors', { vpCount: 0 }, 'no number of processors'],
    ['a command line too long', { commandLine: 'y'.repeat(5000) }, 'command line'],
    [
      'an arm64 kernel',
      { image: new Uint8Array(100).fill(0).map((_, i) => ascii('ARM\x64')[i - 0x38] ?? 0) },
      'arm64',
    ],
  ])('refuses %s', (_, changes, expected) => {
    expect(refusal(changes)).toContain(expected);
  });

  test.each([
    ['a header before the image', { headerAddr: 0x1ffff0 }],
    ['an image that begins before the file', { headerAddr: 0x200400 }],
    ['a load end beyond the file', { loadEndAddr: 0x300000 }],
    ['a load end before the header', { loadEndAddr: 0x200000 }],
    ['a zeroed part that ends early', { bssEndAddr: 0x200010 }],
    ['an entry at the end', { entryAddr: 0x200080 }],
    ['an entry before the image', { entryAddr: 0x1fffff }],
  ])('refuses address fields with %s', (_, changes) => {
    const good = {
      headerAddr: 0x200000,
      loadAddr: 0x200000,
      loadEndAddr: 0x200080,
      bssEndAddr: 0x200100,
      entryAddr: 0x200020,
    };
    const image = concat(multibootHeader(0x10000, { ...good, ...changes }), new Uint8Array(0x100));
    expect(refusal({ image: concat(multibootHeader(0x10000, good), new Uint8Array(0x100)) })).toBe('taken');
    expect(refusal({ image })).toContain('byte 0xc');
  });

  test('does not take a bzImage for multiboot', () => {
    expect(refusal({ image: bzImage() })).toContain('no multiboot header');
  });
});
