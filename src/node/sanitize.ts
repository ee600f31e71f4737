/**
 * Guest text made harmless. A guest's console may carry terminal control sequences, CI workflow commands and markup; where
 * it is shown outside the guest's own raw console, nothing of that may work.
 */

const visible = (char: string): string => `\\x${char.charCodeAt(0).toString(16).padStart(2, '0')}`;
const HARMFUL =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g;

/** For terminals and logs: control characters but newline and tab become visible. */
export function plainText(bytes: Uint8Array | string): string {
  const text = typeof bytes === 'string' ? bytes : new TextDecoder('utf-8', { fatal: false }).decode(bytes);
  return text.replace(/\r\n/g, '\n').replace(HARMFUL, visible);
}

/** As plainText, where a line of ours must stay one line. */
export function oneLine(bytes: Uint8Array | string): string {
  return plainText(bytes).replace(/\n/g, '\\n');
}

/** For logs that a CI system reads line by line: workflow commands (::name::, ##[name]) cannot start a line. */
export function logText(bytes: Uint8Array | string): string {
  return plainText(bytes).replace(/^(\s*)(::|##\[|##vso\[)/gm, '$1\\$2');
}

/** JSON in which every harmful character is an escape: what reads it gets the same value. */
export function jsonText(value: unknown): string {
  return JSON.stringify(value, null, 2).replace(
    /[\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

/** For HTML and XML. */
export function markupText(bytes: Uint8Array | string): string {
  const ENTITIES: Record<string, string> = {
    '&': '&amp;',
    '<': '&lt;',
    '>': '&gt;',
    '"': '&quot;',
    "'": '&#39;',
  };
  return plainText(bytes)
    .toWellFormed()
    .replace(/[\ufffe\uffff]/g, '\ufffd')
    .replace(/[&<>"']/g, (char) => ENTITIES[char] as string);
}

/** As logText, for a console that arrives in pieces: what comes out does not depend on where it was cut. */
export class LogStream {
  readonly #decoder = new TextDecoder('utf-8', { fatal: false });
  /** Held back until it is known what follows: the start of a line, or a carriage return. */
  #held = '';
  #atStart = true;

  push(bytes: Uint8Array): string {
    return this.#take(this.#decoder.decode(bytes, { stream: true }), false);
  }

  /** What is still held back when the console ends. */
  end(): string {
    return this.#take(this.#decoder.decode(), true);
  }

  #take(text: string, last: boolean): string {
    let rest = this.#held + text;
    this.#held = '';
    let out = '';
    while (rest !== '') {
      if (this.#atStart) {
        const indent = (/^[ \t]*/.exec(rest) as RegExpExecArray)[0];
        const after = rest.slice(indent.length, indent.length + 6);
        const undecided =
          after === '' || [':', '::', '#', '##', '##[', '##v', '##vs', '##vso', '##vso['].includes(after);
        // A line of blanks alone is not held for ever.
        if (
          undecided &&
          !last &&
          indent.length < 200 &&
          rest.length === indent.length + after.length &&
          !/^(::|##\[|##vso\[)/.test(after)
        ) {
          this.#held = rest;
          return out;
        }
        out += indent;
        if (/^(::|##\[|##vso\[)/.test(after)) out += '\\';
        rest = rest.slice(indent.length);
        this.#atStart = false;
      }
      const end = rest.indexOf('\n');
      let line = end < 0 ? rest : rest.slice(0, end);
      rest = end < 0 ? '' : rest.slice(end + 1);
      if (line.endsWith('\r')) {
        if (end >= 0) line = line.slice(0, -1);
        else if (!last) {
          this.#held = '\r';
          line = line.slice(0, -1);
        }
      }
      out += line.replace(HARMFUL, visible);
      if (end < 0) return out;
      out += '\n';
      this.#atStart = true;
    }
    return out;
  }
}
