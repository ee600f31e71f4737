import { describe, expect, test } from 'vitest';
import { GIB, KIB, memoryMap, MIB, type MemoryMap } from './memory-map.ts';

function mapOf(bytes: number, most?: number): MemoryMap {
  const outcome = memoryMap(bytes, most);
  if (!outcome.ok) throw new Error(outcome.error.what);
  return outcome.map;
}

describe('memoryMap', () => {
  test('512 MiB lie in one piece', () => {
    const map = mapOf(512 * MIB);
    expect(map.e820).toEqual([
      { gpa: 0, length: 640 * KIB, type: 1 },
      { gpa: 640 * KIB, length: 384 * KIB, type: 2 },
      { gpa: MIB, length: MIB, type: 3 },
      { gpa: 2 * MIB, length: 510 * MIB, type: 1 },
    ]);
    expect(map.regions).toEqual([{ kind: 'region', gpa: 0, length: 512 * MIB, backing: 'ram' }]);
    expect(map.lowMmio).toEqual({ gpa: 0xf8000000, length: 128 * MIB });
    expect(map.highMmio).toEqual({ gpa: 4 * GIB, length: 512 * MIB });
  });

  test('RAM beyond the MMIO gap goes above 4 GiB, the high window behind it', () => {
    const map = mapOf(6 * GIB + MIB, 64 * GIB);
    expect(map.lowEnd).toBe(0xf8000000);
    const high = 6 * GIB + MIB - 0xf8000000;
    expect(map.regions[1]).toEqual({ kind: 'region', gpa: 4 * GIB, length: high, backing: 'ram' });
    expect(map.highMmio.gpa).toBe(4 * GIB + high + MIB);
    expect(map.highMmio.gpa % (2 * MIB)).toBe(0);
  });

  test('e820 is ascending, without overlap, and accounts for all RAM', () => {
    for (const bytes of [16 * MIB, 512 * MIB, 3.5 * GIB, 5 * GIB]) {
      const { e820 } = mapOf(bytes, 64 * GIB);
      e820.slice(1).forEach((entry, i) => {
        const before = e820[i];
        expect(before && before.gpa + before.length).toBeLessThanOrEqual(entry.gpa);
      });
      expect(e820.reduce((sum, entry) => sum + entry.length, 0)).toBe(bytes);
    }
  });

  test.each([0, -4096, 1.5, Number.NaN, Infinity, 8 * MIB, 512 * MIB + 1, 4 * GIB, 2 ** 60])(
    'refuses %d',
    (bytes) => {
      const outcome = memoryMap(bytes);
      expect(outcome.ok).toBe(false);
      if (!outcome.ok) expect(outcome.error.where).toBe('memory');
    },
  );
});
