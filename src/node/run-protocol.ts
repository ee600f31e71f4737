/** The host's half of the --run protocol (see initramfs.ts): frames in, bytes and a status out. */

export interface RunSink {
  stdout(bytes: Uint8Array): void;
  stderr(bytes: Uint8Array): void;
  /** The guest is ready for the next piece of standard input. */
  wantInput(): void;
  status(value: number): void;
}

/** Where in the stream a receiver is, as plain data. */
export interface ReceiverState {
  readonly line: string;
  readonly remaining: number;
  readonly target: 'o' | 'e';
}

/** Feeds on whatever pieces the UART gives; a line or a payload may be split anywhere. */
export class RunReceiver {
  readonly #sink: RunSink;
  #line = '';
  #remaining = 0;
  #target: 'o' | 'e' = 'o';

  constructor(sink: RunSink, saved?: ReceiverState) {
    this.#sink = sink;
    if (saved === undefined) return;
    this.#line = saved.line;
    this.#remaining = saved.remaining;
    this.#target = saved.target;
  }

  save(): ReceiverState {
    return { line: this.#line, remaining: this.#remaining, target: this.#target };
  }

  push(bytes: Uint8Array): void {
    let at = 0;
    while (at < bytes.length) {
      if (this.#remaining > 0) {
        const piece = bytes.subarray(at, at + this.#remaining);
        this.#remaining -= piece.length;
        at += piece.length;
        if (this.#target === 'o') this.#sink.stdout(piece);
        else this.#sink.stderr(piece);
        continue;
      }
      const byte = bytes[at++] as number;
      if (byte !== 10) {
        // A header is short; anything else is noise of the line, and dropped.
        if (this.#line.length < 16) this.#line += String.fromCharCode(byte);
        continue;
      }
      this.#header(this.#line);
      this.#line = '';
    }
  }

  #header(line: string): void {
    const match = /^([oeax])(?: (\d+))?$/.exec(line);
    if (match === null) return;
    const value = Number(match[2] ?? 0);
    switch (match[1]) {
      case 'o':
      case 'e':
        this.#target = match[1];
        this.#remaining = value;
        return;
      case 'a':
        this.#sink.wantInput();
        return;
      case 'x':
        this.#sink.status(value & 0xff);
    }
  }
}

/** Most bytes of standard input in one frame. */
export const INPUT_FRAME = 16384;

/** One frame of standard input; an empty one is the end. */
export function inputFrame(bytes: Uint8Array): Uint8Array {
  return Buffer.concat([Buffer.from(`${bytes.length}\n`), bytes]);
}
