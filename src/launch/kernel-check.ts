/** Says what is wrong with a kernel or a memory size before anything is fetched or made for it. */
import { isBzImage, parseBzImage } from './bzimage.ts';
import { isElf, parseElf } from './elf.ts';
import { memoryMap } from './memory-map.ts';
import type { Failure } from './outcome.ts';

type Checked = { readonly ok: true } | Failure;

export function checkKernel(kernel: Uint8Array): Checked {
  const outcome = isElf(kernel) && !isBzImage(kernel) ? parseElf(kernel, 64) : parseBzImage(kernel);
  return outcome.ok ? { ok: true } : outcome;
}

export function checkMemory(memoryBytes: number): Checked {
  const outcome = memoryMap(memoryBytes);
  return outcome.ok ? { ok: true } : outcome;
}
