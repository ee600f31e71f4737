/** A flat BIOS image on the bare test board, started at the reset vector (test386). */
import { checkDirectives, PAGE, type Directive } from './directives.ts';
import { resetEntry } from './entry-state.ts';
import { GIB, KIB, MIB } from './memory-map.ts';
import { fail, size, type Failure } from './outcome.ts';

export interface BiosConfig {
  readonly image: Uint8Array;
  readonly memoryBytes: number;
  /** CPUID.1:EAX, which RESET leaves in EDX. */
  readonly signature: number;
}

export type BiosOutcome =
  { readonly ok: true; readonly launch: { readonly directives: readonly Directive[] } } | Failure;

const SIZES = [64 * KIB, 128 * KIB, 256 * KIB];
const LEAST_MEMORY = MIB;
const MOST_MEMORY = 3.5 * GIB;

/** The image lies twice: as ROM below 4 GiB, where the first instruction is fetched, and as RAM below 1 MiB. */
export function launchBios(config: BiosConfig): BiosOutcome {
  const { image, memoryBytes } = config;
  if (!SIZES.includes(image.length)) {
    return fail(
      `the BIOS image has ${image.length} bytes`,
      'BIOS image',
      `give one of ${SIZES.map((length) => size(length)).join(' or ')}`,
    );
  }
  const whole = Number.isSafeInteger(memoryBytes) && memoryBytes % PAGE === 0;
  if (!whole || memoryBytes < LEAST_MEMORY || memoryBytes > MOST_MEMORY) {
    return fail(
      `a memory size of ${memoryBytes} bytes does not work`,
      'memory',
      `give whole MiB from ${size(LEAST_MEMORY)} to ${size(MOST_MEMORY)}`,
    );
  }
  const { length } = image;
  const rom = 4 * GIB - length;
  const contents = { kind: 'pages', length, type: 'normal', measured: true, data: image } as const;
  const directives: Directive[] = [
    { kind: 'region', gpa: 0, length: memoryBytes, backing: 'ram' },
    { kind: 'region', gpa: rom, length, backing: 'rom' },
    { ...contents, gpa: MIB - length, name: 'bios copy' },
    { ...contents, gpa: rom, name: 'bios' },
    { kind: 'context', vp: 0, activity: 'running', registers: resetEntry(config.signature) },
  ];
  const checked = checkDirectives(directives);
  return checked.ok ? { ok: true, launch: { directives } } : checked;
}
