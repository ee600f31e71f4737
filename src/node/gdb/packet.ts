/** GDB remote serial protocol, packets: `$data#checksum`, `}` escapes, `+`/`-` acknowledgements, 0x03 to interrupt. */

export type PacketEvent =
  | { readonly kind: 'packet'; readonly data: string }
  | { readonly kind: 'interrupt' }
  | { readonly kind: 'bad' };

export function checksum(data: string): string {
  let sum = 0;
  for (let k = 0; k < data.length; k++) sum = (sum + data.charCodeAt(k)) & 0xff;
  return sum.toString(16).padStart(2, '0');
}

/** Frames a reply; binary data is escaped already by `escapeBinary`. */
export function frame(data: string): string {
  return `$${data}#${checksum(data)}`;
}

/** Escapes #, $, } and * in the data of a qXfer reply. */
export function escapeBinary(data: string): string {
  return data.replace(/[#$}*]/g, (char) => `}${String.fromCharCode(char.charCodeAt(0) ^ 0x20)}`);
}

/** Takes bytes (as latin-1) in any pieces and gives whole packets. */
export class PacketReader {
  #buffer = '';

  push(text: string): PacketEvent[] {
    this.#buffer += text;
    const events: PacketEvent[] = [];
    for (;;) {
      const first = this.#buffer.charAt(0);
      if (first === '') return events;
      if (first === '\x03') {
        events.push({ kind: 'interrupt' });
        this.#buffer = this.#buffer.slice(1);
        continue;
      }
      if (first !== '$') {
        this.#buffer = this.#buffer.slice(1);
        continue;
      }
      const end = this.#buffer.indexOf('#');
      if (end < 0 || this.#buffer.length < end + 3) return events;
      const data = this.#buffer.slice(1, end);
      const good = checksum(data) === this.#buffer.slice(end + 1, end + 3).toLowerCase();
      this.#buffer = this.#buffer.slice(end + 3);
      events.push(
        good
          ? {
              kind: 'packet',
              data: data.replace(/}([\s\S])/g, (_, char: string) =>
                String.fromCharCode(char.charCodeAt(0) ^ 0x20),
              ),
            }
          : { kind: 'bad' },
      );
    }
  }
}
