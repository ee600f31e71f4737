/** What `vitrine report` found: fields, and checks that went one way or the other. */
import { logText } from '../sanitize.ts';

export const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

export class Lines {
  readonly #text: string[] = [];
  #failed = 0;
  #checked = 0;

  field(name: string, value: string | number | bigint | Uint8Array): void {
    const shown =
      value instanceof Uint8Array
        ? hex(value)
        : typeof value === 'bigint'
          ? `0x${value.toString(16)}`
          : String(value);
    this.#text.push(`${name.padEnd(20)} ${logText(shown)}`);
  }

  check(what: string, isGood: boolean): void {
    this.#checked++;
    if (!isGood) this.#failed++;
    this.#text.push(`${isGood ? 'good' : 'BAD '}  ${logText(what)}`);
  }

  note(text: string): void {
    this.#text.push(logText(text));
  }

  get failed(): boolean {
    return this.#failed > 0;
  }

  get checked(): number {
    return this.#checked;
  }

  toString(): string {
    return this.#text.map((line) => `${line}\n`).join('');
  }
}

export const NOTHING_ABOUT_HARDWARE =
  'This is a development PKI: whoever knows its seed can make such a report. It proves nothing about hardware.';
