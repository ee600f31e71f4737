/** The command line under a pseudo-terminal, as a person sits at it: util-linux's `script` makes the terminal. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { appendFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { onTestFinished } from 'vitest';

/** To watch what a session shows. */
const LOG = process.env['VITRINE_TERMINAL_LOG'];
const PROGRAM = fileURLToPath(new URL('../../bin/vitrine.js', import.meta.url));

export const hasScript = spawnSync('script', ['--version']).status === 0;

const quoted = (word: string): string => `'${word.replaceAll("'", "'\\''")}'`;

export class TerminalSession {
  readonly #child: ChildProcess;
  #text = '';
  #seen = 0;
  #changed: (() => void) | undefined;
  readonly status: Promise<number>;

  constructor(args: readonly string[]) {
    const command = [process.execPath, PROGRAM, ...args].map(quoted).join(' ');
    this.#child = spawn('script', ['-qfec', command, '/dev/null'], { stdio: ['pipe', 'pipe', 'inherit'] });
    onTestFinished(() => void this.#child.kill('SIGKILL'));
    this.#child.stdout?.on('data', (data: Buffer) => {
      this.#text += data.toString('latin1');
      if (LOG !== undefined) appendFileSync(LOG, data);
      this.#changed?.();
    });
    this.status = new Promise((resolve) =>
      this.#child.on('close', (code) => {
        this.#changed?.();
        resolve(code ?? -1);
      }),
    );
  }

  send(text: string): void {
    this.#child.stdin?.write(text);
  }

  /** Waits for text after what was waited for before; gives what came until then. */
  async expect(pattern: RegExp, seconds = 1200): Promise<string> {
    const until = Date.now() + seconds * 1000;
    for (;;) {
      const match = pattern.exec(this.#text.slice(this.#seen));
      if (match !== null) {
        const before = this.#text.slice(this.#seen, this.#seen + match.index + match[0].length);
        this.#seen += match.index + match[0].length;
        return before;
      }
      if (Date.now() > until || this.#child.exitCode !== null)
        throw new Error(
          `${pattern} did not come; the last text was ${JSON.stringify(this.#text.slice(-2000))}`,
        );
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 1000);
        this.#changed = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }
}
