/** Runs the guest on QEMU's TCG or on Vitrine and notes when each line of its console arrived. */
import { spawn, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { COMMAND_LINE } from './guest.ts';

export type Machine = 'tcg' | 'vitrine';

export interface Run {
  /** Wall-clock seconds of the whole command. */
  readonly seconds: number;
  readonly status: number | null;
  /** Lines of the console, with seconds since the start. */
  readonly lines: readonly { readonly at: number; readonly text: string }[];
  /** Largest resident set of the process, in bytes (0 where the system does not tell). */
  readonly resident: number;
  readonly errors: string;
}

export interface Ask {
  readonly kernel: string;
  readonly initrd: string;
  readonly configuration?: string;
  readonly engine?: string;
  readonly memory?: string;
  /** More arguments of `vitrine boot`. */
  readonly more?: readonly string[];
  readonly timeoutSeconds: number;
}

export const QEMU = 'qemu-system-x86_64';
const PROGRAM = fileURLToPath(new URL('../src/node/main.ts', import.meta.url));

export function qemuVersion(): string | undefined {
  const said = spawnSync(QEMU, ['--version'], { encoding: 'utf8' });
  return said.status === 0 ? said.stdout.split('\n')[0] : undefined;
}

function command(machine: Machine, ask: Ask): [string, string[]] {
  const memory = ask.memory ?? '512M';
  if (machine === 'tcg') {
    const board = [
      '-nodefaults',
      '-no-reboot',
      '-display',
      'none',
      '-serial',
      'stdio',
      '-m',
      memory,
      '-smp',
      '1',
    ];
    return [
      QEMU,
      [
        '-accel',
        'tcg,thread=single',
        ...board,
        '-kernel',
        ask.kernel,
        '-initrd',
        ask.initrd,
        '-append',
        COMMAND_LINE,
      ],
    ];
  }
  const engine = ask.engine === undefined ? [] : ['--engine', ask.engine];
  const configuration = ask.configuration ?? 'plain';
  return [
    process.execPath,
    [
      '--no-warnings',
      PROGRAM,
      'boot',
      configuration,
      '--kernel',
      ask.kernel,
      '--initrd',
      ask.initrd,
      '--memory',
      memory,
      '--append',
      'quiet',
      ...(configuration.startsWith('tdx') ? ['--cpu-model', 'SapphireRapids'] : []),
      ...engine,
      ...(ask.more ?? []),
    ],
  ];
}

/** VmHWM of a process; the last reading before it ends is the figure. */
function residentPeak(pid: number): number {
  try {
    return Number(/VmHWM:\s*(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) * 1024;
  } catch {
    return 0;
  }
}

export function run(machine: Machine, ask: Ask): Promise<Run> {
  const [program, args] = command(machine, ask);
  return new Promise((resolve, reject) => {
    const start = process.hrtime.bigint();
    const since = (): number => Number(process.hrtime.bigint() - start) / 1e9;
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    const lines: { at: number; text: string }[] = [];
    let partial = '';
    let errors = '';
    let resident = 0;
    const poll = setInterval(() => {
      if (child.pid !== undefined) resident = Math.max(resident, residentPeak(child.pid));
    }, 100);
    const killer = setTimeout(() => child.kill('SIGKILL'), ask.timeoutSeconds * 1000);
    child.stdout.setEncoding('latin1').on('data', (text: string) => {
      const at = since();
      const pieces = (partial + text).split('\n');
      partial = pieces.pop() ?? '';
      for (const piece of pieces) lines.push({ at, text: piece.replace(/\r$/, '') });
    });
    child.stderr.setEncoding('latin1').on('data', (text: string) => void (errors += text));
    child.on('error', reject);
    child.on('close', (status) => {
      clearInterval(poll);
      clearTimeout(killer);
      resolve({ seconds: since(), status, lines, resident, errors });
    });
  });
}
