/** The `plain` configuration: an ordinary Hyper-V Generation 2 VM. Kernel, initrd, command line and sizes in; launch directives out. */
import { checkDirectives, type Directive } from './directives.ts';
import { parkedFrom1 } from './entry-state.ts';
import { linuxImage, type LaunchPart, type LinuxConfig, type LinuxImage } from './linux.ts';
import type { MemoryMap } from './memory-map.ts';
import type { Failure } from './outcome.ts';

export { MOST_UARTS, type LaunchPart } from './linux.ts';
export type PlainConfig = LinuxConfig;

export interface Launch {
  readonly directives: readonly Directive[];
  readonly map: MemoryMap;
  readonly kernel: { readonly format: 'bzimage' | 'elf'; readonly version: string; readonly entry: number };
  /** What lies where, ascending, for reports. */
  readonly parts: readonly LaunchPart[];
}

export type LaunchOutcome = { readonly ok: true; readonly launch: Launch } | Failure;

export function launchPlain(config: PlainConfig): LaunchOutcome {
  const linux = linuxImage(config);
  if (!linux.ok) return linux;
  const { image } = linux;
  const directives: Directive[] = [
    ...image.map.regions,
    ...image.pages,
    { kind: 'context', vp: 0, activity: 'running', registers: image.registers },
    ...parkedFrom1(config.vpCount),
  ];
  return launchOf(image, directives);
}

/** A launch of these directives, when they can be carried out. */
export function launchOf(image: LinuxImage, directives: readonly Directive[]): LaunchOutcome {
  const checked = checkDirectives(directives);
  if (!checked.ok) return checked;
  const { map, kernel, parts } = image;
  return { ok: true, launch: { directives, map, kernel, parts } };
}
