import { describe, expect, test } from 'vitest';
import { ascii } from '../abi/bytes.ts';
import { SETUP_HEADER, ZERO_PAGE } from '../abi/boot-params.ts';
import { readE820 } from './boot-params.ts';
import { checkDirectives, eachPage, type ContextDirective, type Directive } from './directives.ts';
import { GIB, LOW, MIB, RSDP_ADDRESS } from './memory-map.ts';
import { sentence } from './outcome.ts';
import { launchPlain, type Launch, type PlainConfig } from './plain.ts';
import { bzImage, elf64 } from './test-images.ts';

const config: PlainConfig = {
  kernel: bzImage(),
  initrd: new Uint8Array(5000).fill(0x77),
  commandLine: 'console=ttyS0',
  memoryBytes: 64 * MIB,
  vpCount: 2,
  uarts: 2,
  entropy: new Uint8Array(64).fill(1),
};

function launched(changes: Partial<PlainConfig> = {}): Launch {
  const outcome = launchPlain({ ...config, ...changes });
  if (!outcome.ok) throw new Error(sentence(outcome.error));
  return outcome.launch;
}

/** Guest memory after the launch, as far as `length`, the way a host carries the list out. */
function memoryOf(directives: readonly Directive[], length: number): Uint8Array {
  const memory = new Uint8Array(length);
  for (const entry of directives) {
    if (entry.kind !== 'pages') continue;
    eachPage(entry, (gpa, contents) => {
      memory.set(contents, gpa);
    });
  }
  return memory;
}

function contexts(launch: Launch): ContextDirective[] {
  return launch.directives.filter((entry) => entry.kind === 'context');
}

describe('launchPlain', () => {
  const launch = launched();
  const memory = memoryOf(launch.directives, 64 * MIB);
  const page = memory.subarray(LOW.bootParams, LOW.bootParams + 4096);

  test('gives a list that a host can carry out', () => {
    expect(checkDirectives(launch.directives)).toEqual({ ok: true });
  });

  test('enters the kernel at +0x200 with RSI = boot_params', () => {
    const registers = contexts(launch)[0]?.registers;
    expect(registers?.rip).toBe(0x1000200n);
    expect(registers?.gprs[6]).toBe(BigInt(LOW.bootParams));
    expect(registers?.cr3).toBe(BigInt(LOW.pageTables));
    expect(Array.from(memory.subarray(0x1000000, 0x1000004))).toEqual([0, 7, 14, 21]);
  });

  test('a small kernel that must lie at 1 MiB does, and the ACPI tables lie behind it', () => {
    const low = { relocatableKernel: 0, prefAddress: 0x100000n, initSize: 0x6acf8 };
    const small = launched({ kernel: bzImage(low) });
    expect(checkDirectives(small.directives)).toEqual({ ok: true });
    expect(contexts(small)[0]?.registers.rip).toBe(0x100200n);
    const content = memoryOf(small.directives, 64 * MIB);
    const view = new DataView(content.buffer);
    const tables = Number(view.getBigUint64(RSDP_ADDRESS + 24, true));
    expect(tables).toBeGreaterThanOrEqual(0x100000 + 0x6acf8);
    expect(ascii('XSDT')).toEqual(content.slice(tables, tables + 4));
    const entries = readE820(content.subarray(LOW.bootParams, LOW.bootParams + 4096));
    const type = (at: number): number | undefined =>
      entries.find(({ gpa, length }) => at >= gpa && at < gpa + length)?.type;
    expect([0x100000, 0x16acf7, tables, 0x1fffff, 0x200000].map(type)).toEqual([1, 1, 3, 3, 1]);
    // One that needs more than fits there has no place.
    const large = launchPlain({ ...config, kernel: bzImage({ ...low, initSize: 0xd0000 }) });
    expect(!large.ok && sentence(large.error)).toContain('must lie at 0x100000');
  });

  test('parks the other processors', () => {
    expect(contexts(launch).map(({ vp, activity }) => [vp, activity])).toEqual([
      [0, 'running'],
      [1, 'wait-for-sipi'],
    ]);
  });

  test('all processors have the same MTRRs', () => {
    const [first, ...others] = contexts(launch);
    for (const other of others) {
      expect(other.registers.mtrrDefType).toBe(first?.registers.mtrrDefType);
      expect(other.registers.mtrrFixed).toEqual(first?.registers.mtrrFixed);
    }
  });

  test('hands the setup header of a bzImage on, and makes one for a vmlinux', () => {
    expect(SETUP_HEADER.low(page, 'version')).toBe(0x20f);
    expect(SETUP_HEADER.low(page, 'initSize')).toBe(0x400000);
    const kernel = elf64(0x1000000, [{ paddr: 0x1000000, bytes: new Uint8Array(64) }]);
    const elfPage = memoryOf(launched({ kernel }).directives, 64 * MIB).subarray(LOW.bootParams);
    expect(SETUP_HEADER.low(elfPage, 'version')).toBe(0);
    expect(SETUP_HEADER.low(elfPage, 'header')).toBe(0x53726448);
  });

  test('passes command line, initrd, map and tables', () => {
    expect(SETUP_HEADER.low(page, 'cmdLinePtr')).toBe(LOW.commandLine);
    const line = memory.subarray(LOW.commandLine, LOW.commandLine + 14);
    expect(String.fromCharCode(...line)).toBe('console=ttyS0\0');
    const initrd = SETUP_HEADER.low(page, 'ramdiskImage');
    expect(initrd).toBe(0x1400000);
    expect(memory.subarray(initrd, initrd + 5000)).toEqual(config.initrd);
    expect(SETUP_HEADER.low(page, 'ramdiskSize')).toBe(5000);
    expect(readE820(page)).toEqual(launch.map.e820);
    const rsdp = ZERO_PAGE.low(page, 'acpiRsdpAddr');
    expect(String.fromCharCode(...memory.subarray(rsdp, rsdp + 8))).toBe('RSD PTR ');
  });

  test('what the kernel must find lies where it says what it is', () => {
    const typeAt = (gpa: number): number | undefined =>
      launch.map.e820.find((entry) => gpa >= entry.gpa && gpa < entry.gpa + entry.length)?.type;
    const types = Object.fromEntries(launch.parts.map(({ name, gpa }) => [name, typeAt(gpa)]));
    expect(types).toEqual({
      gdt: 1,
      boot_params: 1,
      'command line': 1,
      'page tables': 1,
      rsdp: 2,
      acpi: 3,
      kernel: 1,
      initrd: 1,
    });
  });

  test('two runs give the same list', () => {
    expect(launched()).toEqual(launch);
  });

  test('does without initrd and UARTs, and with all UARTs', () => {
    const { initrd: _, ...without } = config;
    expect(launchPlain({ ...without, uarts: 4 }).ok).toBe(true);
    const outcome = launchPlain({ ...without, uarts: 0 });
    expect(outcome.ok && outcome.launch.parts.map(({ name }) => name)).not.toContain('initrd');
  });

  test('loads a vmlinux by its segments', () => {
    const kernel = elf64(0x1000040, [
      { paddr: 0x1000000, bytes: new Uint8Array(0x1800).fill(1), memorySize: 0x1800 },
      { paddr: 0x1001800, bytes: new Uint8Array(0x10).fill(2), memorySize: 0x800000 },
    ]);
    const { directives, parts, kernel: loaded } = launched({ kernel });
    const image = memoryOf(directives, 64 * MIB);
    expect(loaded).toEqual({ format: 'elf', version: '', entry: 0x1000040 });
    expect([image[0x10017ff], image[0x1001800], image[0x1001810]]).toEqual([1, 2, 0]);
    expect(parts.find(({ name }) => name === 'initrd')?.gpa).toBe(0x1a00000);
  });

  test('memory may end where the kernel, or the initrd, does', () => {
    const { initrd: _, ...without } = config;
    expect(launchPlain({ ...without, memoryBytes: 20 * MIB }).ok).toBe(true);
    expect(launched({ memoryBytes: 64 * MIB, initrd: new Uint8Array(44 * MIB) }).parts.at(-1)?.name).toBe(
      'initrd',
    );
    const kernel = elf64(0x1000000, [{ paddr: 0x1000000, bytes: new Uint8Array(64), memorySize: 48 * MIB }]);
    expect(launchPlain({ ...without, kernel }).ok).toBe(true);
    const low = elf64(0x200000, [{ paddr: 0x200000, bytes: new Uint8Array(64) }]);
    expect(launchPlain({ ...without, kernel: low }).ok).toBe(true);
  });

  test("the initrd's last byte may lie at the kernel's limit", () => {
    const limit = 0x1400000 + 5000 - 1;
    expect(launchPlain({ ...config, kernel: bzImage({ initrdAddrMax: limit }) }).ok).toBe(true);
    expect(launchPlain({ ...config, kernel: bzImage({ initrdAddrMax: limit - 1 }) }).ok).toBe(false);
  });

  test.each([8, 4096])('takes %d bytes of entropy', (length) => {
    expect(launchPlain({ ...config, entropy: new Uint8Array(length) }).ok).toBe(true);
  });

  test('parts are ascending', () => {
    const starts = launch.parts.map(({ gpa }) => gpa);
    expect(starts).toEqual([...starts].sort((a, b) => a - b));
  });

  test('RAM above 4 GiB is a region and an e820 entry of its own', () => {
    const large = launched({ memoryBytes: 6 * GIB, mostMemory: 8 * GIB });
    expect(large.directives.filter((entry) => entry.kind === 'region')).toHaveLength(2);
    expect(large.map.e820.at(-1)).toEqual({ gpa: 4 * GIB, length: 6 * GIB - 0xf8000000, type: 1 });
  });
});

describe('launchPlain refuses', () => {
  test.each([
    ['an empty kernel', { kernel: new Uint8Array(0) }, 'kernel is empty'],
    ['a kernel too big for the memory', { memoryBytes: 16 * MIB }, 'needs memory up to 20 MiB'],
    ['an initrd too big', { initrd: new Uint8Array(44 * MIB + 1) }, 'initrd of 44.0 MiB does not fit'],
    ['an empty initrd', { initrd: new Uint8Array(0) }, 'initrd is empty'],
    ['a command line too long', { commandLine: 'x'.repeat(2048) }, 'command line is 2 KiB long'],
    ['no processors', { vpCount: 0 }, '0 is no number of processors'],
    ['too many processors', { vpCount: 256 }, '256 is no number of processors'],
    ['half a processor', { vpCount: 1.5 }, '1.5 is no number of processors'],
    ['five UARTs', { uarts: 5 }, '5 is no number of UARTs'],
    ['too little entropy for Linux', { entropy: new Uint8Array(7) }, 'entropy has 7 bytes'],
    ['too much entropy for Linux', { entropy: new Uint8Array(4097) }, 'entropy has 4097 bytes'],
    ['too much memory', { memoryBytes: 4 * GIB }, 'too much'],
    [
      'a vmlinux on the tables',
      { kernel: elf64(0x100000, [{ paddr: 0x100000, bytes: new Uint8Array(64) }]) },
      'must lie at 0x100000',
    ],
    [
      'a vmlinux too big for the memory',
      { kernel: elf64(0x1000000, [{ paddr: 0x1000000, bytes: new Uint8Array(64), memorySize: 2 ** 40 }]) },
      'needs memory up to 1.0 TiB',
    ],
    [
      'an initrd above the limit of the kernel',
      { kernel: bzImage({ initrdAddrMax: 0x1000000 }) },
      'this kernel',
    ],
  ] as const)('%s', (_, changes: Partial<PlainConfig>, what: string) => {
    const outcome = launchPlain({ ...config, ...changes });
    expect(outcome.ok).toBe(false);
    if (!outcome.ok) expect(sentence(outcome.error)).toContain(what);
  });
});
