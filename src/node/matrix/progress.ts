/** How far the boots are: lines that redraw themselves on a terminal, a line for each new stage otherwise. */
import type { Progress } from './observe-boot.ts';

export interface ProgressView {
  update(configuration: string, progress: Progress): void;
}

const millions = (value: number): string => (value / 1e6).toFixed(0);

function lineOf(configuration: string, { stage, instructions, seconds }: Progress): string {
  const speed = seconds > 0 && instructions > 0 ? `${millions(instructions / seconds)} MIPS` : '';
  return `${configuration.padEnd(24)}${stage.padEnd(11)}${millions(instructions).padStart(6)} M instructions ${seconds.toFixed(1).padStart(6)} s  ${speed}`;
}

export function progressView(
  out: { readonly isTTY?: boolean; write(text: string): unknown },
  configurations: readonly string[],
): ProgressView {
  return out.isTTY === true ? redrawn(out, configurations) : plain(out);
}

function redrawn(out: { write(text: string): unknown }, configurations: readonly string[]): ProgressView {
  const lines = new Map(configurations.map((name) => [name, `${name.padEnd(24)}waits`]));
  let drawn = false;
  const draw = (): void => {
    const up = drawn ? `\u001b[${lines.size}A` : '';
    out.write(up + [...lines.values()].map((line) => `\u001b[2K${line}\n`).join(''));
    drawn = true;
  };
  return {
    update(configuration, progress) {
      lines.set(configuration, lineOf(configuration, progress));
      draw();
    },
  };
}

function plain(out: { write(text: string): unknown }): ProgressView {
  const stages = new Map<string, string>();
  return {
    update(configuration, progress) {
      if (stages.get(configuration) === progress.stage) return;
      stages.set(configuration, progress.stage);
      out.write(`vitrine: ${lineOf(configuration, progress)}\n`);
    },
  };
}
