/** The report of `--engine check`: where the engines part, with disassembly. */
import type { Divergence } from '../machine/lockstep.ts';

const SHOWN = 24;

export async function describeDivergence({ agreed, run, differences, path }: Divergence): Promise<string> {
  const { Decoder, DecoderOptions, Formatter, FormatterSyntax } = await import('iced-x86');
  const formatter = new Formatter(FormatterSyntax.Intel);
  const lines = [
    `vitrine: the engines agree up to instruction ${agreed} and differ within the next ${run}`,
    'difference: translator, interpreter',
  ];
  for (const { what, first, second } of differences.slice(0, SHOWN))
    lines.push(`  ${what}: ${first}, ${second}`);
  if (differences.length > SHOWN) lines.push(`  and ${differences.length - SHOWN} more`);
  lines.push('instructions of the interpreter from there:');
  for (const [n, { rip, code, bits }] of path.entries()) {
    const decoder = new Decoder(bits, code, DecoderOptions.None);
    decoder.ip = rip;
    const instruction = decoder.decode();
    lines.push(
      `  +${n} ${rip.toString(16)}: ${code.length > 0 ? formatter.format(instruction) : '(not mapped)'}`,
    );
    instruction.free();
    decoder.free();
  }
  formatter.free();
  return lines.join('\n') + '\n';
}
