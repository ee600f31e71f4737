/** What a stock kernel does under a paravisor without one of its parts: the table in docs/paravisor.md. */
import { describe, expect, test } from 'vitest';
import { vitrine, whyNoKernel } from '../e2e/vitrine.ts';

const missing = whyNoKernel();
const reason = missing === undefined ? '' : ` (skipped: no kernel: ${missing})`;

const SNP = 'snp-paravisor';
const TDX = 'tdx-paravisor';
const BOTH = [SNP, TDX];

/** `vmbus`: whether hv_vmbus is loaded. */
type Fate =
  | { readonly kind: 'boots'; readonly vmbus: boolean; readonly cpus?: number }
  | { readonly kind: 'dies'; readonly words: RegExp };
const BOOTS: Fate = { kind: 'boots', vmbus: true };
const dies = (words: RegExp): Fate => ({ kind: 'dies', words });

const ROWS: readonly (readonly [string, readonly string[], Fate, cpus?: number])[] = [
  ['irq.filtered', BOTH, BOOTS],
  ['mem.preaccepted', [SNP], dies(/set 7, reason 4/)],
  ['mem.preaccepted', [TDX], dies(/reported a crash \(0x4/)],
  ['exc.reflect', [SNP], dies(/set 1, reason 3/)],
  ['exc.reflect', [TDX], BOOTS],
  ['cpuid.trusted', [SNP], dies(/set 1, reason 3/)],
  ['cpuid.trusted', [TDX], { kind: 'boots', vmbus: false }],
  ['mem.visibility-call', BOTH, { kind: 'boots', vmbus: false }],
  ['irq.apic', BOTH, BOOTS],
  ['irq.apic', BOTH, { ...BOOTS, cpus: 4 }, 4],
  ['ap.start', BOTH, { ...BOOTS, cpus: 1 }, 2],
  ['time.trusted', BOTH, BOOTS],
  // Its UARTs have no interrupts, so init sends no answer and powers off.
  ['dev.ioapic', BOTH, dies(/powered off before the command of --run ended/)],
  ['dev.ioapic,irq.filtered', BOTH, BOOTS],
  ['dev.legacy', BOTH, BOOTS],
];

describe.for(ROWS)('without %s', ([parts, configurations, fate, cpus = 1]) => {
  test.skipIf(missing !== undefined).for(configurations)(
    `%s, ${cpus} processors${reason}`,
    (configuration) => {
      const { status, stdout, stderr } = vitrine([
        ...['boot', configuration, '--paravisor-without', parts, '--cpus', String(cpus)],
        ...['--timeout', '90'],
        ...['--run', 'uname -r; nproc; grep -c hv_vmbus /proc/modules'],
      ]);
      const words = stderr.split('\n').find((line) => line.startsWith('vitrine: the ')) ?? '';
      console.log(
        `${configuration} without ${parts}: ${stdout.toString().trim().replaceAll('\n', ' ')} ${words}`,
      );
      switch (fate.kind) {
        case 'boots':
          expect(stdout.toString(), stderr).toMatch(/^6\.12/);
          expect(stdout.toString().trim().split('\n').slice(1)).toEqual([
            String(fate.cpus ?? 1),
            fate.vmbus ? '1' : '0',
          ]);
          return;
        case 'dies':
          expect(status, stderr).toBe(125);
          expect(words).toMatch(fate.words);
      }
    },
  );
});
