/** The outside of the guest's UARTs: a terminal, or the standard streams of a --run command. */
import { fstatSync, readFileSync } from 'node:fs';

/** What takes a session's bytes: a machine. */
export interface SerialPort {
  readonly now: number;
  serialInput(unit: number, bytes: Uint8Array): number;
}
import { inputFrame, INPUT_FRAME, RunReceiver, type ReceiverState } from './run-protocol.ts';

/** How long the guest is held for input that the command may never read: files and pipes with data answer at once. */
const GRACE_MS = 200;

/** What the guest said last, for a report of its death. */
export function lastWords(recent: readonly Uint8Array[]): Uint8Array {
  const all = Buffer.concat(recent);
  return all.subarray(Math.max(0, all.length - 6000));
}

/** A --run conversation as plain data: part of a snapshot file. */
export interface RunState {
  readonly receiver: ReceiverState;
  readonly status: number | undefined;
  /** Frames that the guest asked for. */
  readonly wanted: number;
  /** Rest of a frame that the UART has not taken. */
  readonly toSend: Uint8Array;
  /** Read from standard input, in no frame yet. */
  readonly held: Uint8Array;
  /** Standard input ended. */
  readonly ended: boolean;
  /** The guest was told so. */
  readonly closed: boolean;
}

/** Standard streams of the command; input is read only when the guest asks for more. */
export class RunSession {
  status: number | undefined;
  /** Input may still come: an idle guest is not a dead one. */
  mayInput = true;
  /** Bytes that the UART took. */
  sent = 0;
  readonly #receiver: RunReceiver;
  readonly #chunks: Uint8Array[] = [];
  #ended = false;
  #wanted = 0;
  #toSend = new Uint8Array(0);
  #wake: (() => void) | undefined;
  /** Standard input was silent for the whole grace: the guest goes on without it until something comes. */
  #silent = false;
  readonly #input: NodeJS.ReadStream | undefined;

  constructor(saved?: RunState) {
    this.#receiver = new RunReceiver(
      {
        stdout: (bytes) => void process.stdout.write(Uint8Array.from(bytes)),
        stderr: (bytes) => void process.stderr.write(Uint8Array.from(bytes)),
        wantInput: () => void this.#wanted++,
        status: (value) => {
          this.status = value;
          this.mayInput = false;
        },
      },
      saved?.receiver,
    );
    if (saved !== undefined) {
      this.status = saved.status;
      this.#wanted = saved.wanted;
      this.#toSend = saved.toSend.slice();
      if (saved.held.length > 0) this.#chunks.push(saved.held.slice());
      this.mayInput = !saved.closed;
      if (saved.ended) {
        this.#ended = true;
        return;
      }
    }
    if (process.stdin.isTTY === true) {
      this.#ended = true;
      return;
    }
    this.#input = process.stdin;
    this.#input.on('data', this.#onData);
    this.#input.on('end', this.#onEnd);
    this.#input.on('error', this.#onEnd);
  }

  readonly #onData = (chunk: Buffer): void => {
    this.#chunks.push(chunk);
    this.#silent = false;
    // Enough for now: the guest takes it at its own pace.
    if (this.#chunks.length > 16) this.#input?.pause();
    this.#wake?.();
  };
  readonly #onEnd = (): void => {
    this.#ended = true;
    this.#silent = false;
    this.#wake?.();
  };

  push(bytes: Uint8Array): void {
    this.#receiver.push(bytes);
  }

  /** True while the guest asked for input and there is none: its time then goes no faster than the real one. */
  get waiting(): boolean {
    return this.#wanted > 0 && this.#silent;
  }

  /**
   * Gives the guest what it asked for, in whole frames while there is enough, so that the pieces of a pipe make no
   * difference. Holds the guest for input only for a moment: a command that reads none must not wait for it.
   */
  async feed(machine: SerialPort): Promise<void> {
    if (this.#toSend.length > 0) this.#send(machine);
    while (this.#wanted > 0 && this.#toSend.length === 0 && !this.#silent) {
      const held = this.#chunks.reduce((sum, { length }) => sum + length, 0);
      if (held < INPUT_FRAME && !this.#ended) {
        if (await this.#more()) continue;
        if (held === 0) {
          this.#silent = true;
          return;
        }
      }
      const data = Buffer.concat(this.#chunks.splice(0));
      if (data.length > INPUT_FRAME) this.#chunks.push(data.subarray(INPUT_FRAME));
      this.#wanted--;
      if (data.length === 0) this.mayInput = false;
      this.#toSend = Uint8Array.from(inputFrame(data.subarray(0, INPUT_FRAME)));
      this.#send(machine);
    }
    if (this.#silent) this.#input?.resume();
  }

  /** True when something came, false after the grace. */
  async #more(): Promise<boolean> {
    this.#input?.resume();
    return new Promise<boolean>((resolve) => {
      // What has arrived by then is delivered first, however late a busy computer fires the timer.
      const timer = setTimeout(() => setImmediate(() => done(false)), GRACE_MS);
      const wake = (): void => done(true);
      const done = (came: boolean): void => {
        if (this.#wake !== wake) return;
        clearTimeout(timer);
        this.#wake = undefined;
        resolve(came);
      };
      this.#wake = wake;
    });
  }

  #send(machine: SerialPort): void {
    const taken = machine.serialInput(1, this.#toSend);
    this.#toSend = this.#toSend.subarray(taken);
    this.sent += taken;
  }

  save(): RunState {
    return {
      receiver: this.#receiver.save(),
      status: this.status,
      wanted: this.#wanted,
      toSend: this.#toSend.slice(),
      held: Uint8Array.from(Buffer.concat(this.#chunks)),
      ended: this.#ended,
      closed: !this.mayInput,
    };
  }

  close(): void {
    this.#input?.off('data', this.#onData);
    this.#input?.pause();
  }
}

export interface Terminal {
  readonly left: boolean;
  /** Gives the UART what it had no room for. `idle`: the guest waits. */
  pump(machine: SerialPort, idle: boolean): void;
  restore(): void;
  /** Typed, and not yet taken by the UART: part of a snapshot file. */
  readonly typed: Uint8Array;
}

const HELP = '\r\nCtrl-A x  leave\r\nCtrl-A h  this help\r\nCtrl-A a  send Ctrl-A\r\n';

/** A raw terminal on the first UART. */
export function interactive(typed: Uint8Array): Terminal {
  const state = { left: false };
  let escape = false;
  let queue: Uint8Array = typed;
  const input = process.stdin;
  input.setRawMode(true);
  input.resume();
  const onData = (chunk: Buffer): void => {
    const out: number[] = [];
    for (const byte of chunk) {
      if (escape) {
        escape = false;
        if (byte === 0x78) state.left = true;
        else if (byte === 0x68) process.stdout.write(HELP);
        else if (byte === 0x61 || byte === 1) out.push(1);
      } else if (byte === 1) escape = true;
      else out.push(byte);
    }
    queue = Uint8Array.from([...queue, ...out]);
  };
  input.on('data', onData);
  return {
    get left() {
      return state.left;
    },
    pump(machine) {
      if (queue.length > 0) queue = queue.slice(machine.serialInput(0, queue));
    },
    get typed() {
      return queue;
    },
    restore() {
      input.off('data', onData);
      input.setRawMode(false);
      input.pause();
    },
  };
}

const END_OF_INPUT = 4;
/** Virtual time between two Ctrl-D: a program that changes the terminal's mode may lose one. */
const AGAIN_NS = 1e9;

/**
 * Standard input that is no terminal, typed into the first UART; its end is Ctrl-D, so that a shell there ends. A file is read
 * before the machine starts, so that two runs get it at the same instruction; a pipe comes when it comes.
 */
export function piped(typed: Uint8Array): Terminal {
  let queue: Uint8Array = typed;
  let ended = false;
  let last = -AGAIN_NS;
  const add = (bytes: Uint8Array): void => {
    queue = Uint8Array.from([...queue, ...bytes]);
  };
  const pump = (machine: SerialPort, idle: boolean): void => {
    if (ended && idle && queue.length === 0 && machine.now - last >= AGAIN_NS) {
      add(Uint8Array.of(END_OF_INPUT));
      last = machine.now;
    }
    if (queue.length > 0) queue = queue.slice(machine.serialInput(0, queue));
  };
  const stat = fstatSync(0);
  if (!stat.isFIFO() && !stat.isSocket()) {
    add(readFileSync(0));
    ended = true;
    return {
      left: false,
      pump,
      get typed() {
        return queue;
      },
      restore: () => undefined,
    };
  }
  const input = process.stdin;
  const onEnd = (): void => void (ended = true);
  input.on('data', add);
  input.once('end', onEnd);
  return {
    left: false,
    pump,
    get typed() {
      return queue;
    },
    restore() {
      input.off('data', add);
      input.off('end', onEnd);
      input.pause();
    },
  };
}
