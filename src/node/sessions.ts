/** The outside of the guest's UARTs: a terminal, or the standard streams of a --run command. */
import type { Machine } from '../machine/machine.ts';
import { inputFrame, INPUT_FRAME, RunReceiver } from './run-protocol.ts';

/** What the guest said last, for a report of its death. */
export function lastWords(recent: readonly Uint8Array[]): Uint8Array {
  const all = Buffer.concat(recent);
  return all.subarray(Math.max(0, all.length - 6000));
}

/** Standard streams of the command; input is read only when the guest asks for more. */
export class RunSession {
  status: number | undefined;
  /** Input may still come: an idle guest is not a dead one. */
  mayInput = true;
  readonly #receiver: RunReceiver;
  readonly #chunks: Uint8Array[] = [];
  #ended = false;
  #wanted = 0;
  #toSend = new Uint8Array(0);
  #wake: (() => void) | undefined;
  readonly #input: NodeJS.ReadStream | undefined;

  constructor() {
    this.#receiver = new RunReceiver({
      stdout: (bytes) => void process.stdout.write(Uint8Array.from(bytes)),
      stderr: (bytes) => void process.stderr.write(Uint8Array.from(bytes)),
      wantInput: () => void this.#wanted++,
      status: (value) => {
        this.status = value;
        this.mayInput = false;
      },
    });
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
    // Enough for now: the guest takes it at its own pace.
    if (this.#chunks.length > 16) this.#input?.pause();
    this.#wake?.();
  };
  readonly #onEnd = (): void => {
    this.#ended = true;
    this.#wake?.();
  };

  push(bytes: Uint8Array): void {
    this.#receiver.push(bytes);
  }

  /** Gives the guest what it asked for. Waits for the outside when the guest waits, so that input is not a matter of timing. */
  async feed(machine: Machine): Promise<void> {
    if (this.#toSend.length > 0) this.#send(machine);
    while (this.#wanted > 0 && this.#toSend.length === 0) {
      const data = Buffer.concat(this.#chunks.splice(0));
      if (data.length > INPUT_FRAME) this.#chunks.push(data.subarray(INPUT_FRAME));
      if (data.length === 0 && !this.#ended) {
        this.#input?.resume();
        await new Promise<void>((resolve) => (this.#wake = resolve));
        this.#wake = undefined;
        continue;
      }
      this.#wanted--;
      if (data.length === 0) this.mayInput = false;
      this.#toSend = Uint8Array.from(inputFrame(data.subarray(0, INPUT_FRAME)));
      this.#send(machine);
    }
  }

  #send(machine: Machine): void {
    const taken = machine.serialInput(1, this.#toSend);
    this.#toSend = this.#toSend.subarray(taken);
  }

  close(): void {
    this.#input?.off('data', this.#onData);
    this.#input?.pause();
  }
}

export interface Terminal {
  readonly left: boolean;
  restore(): void;
}

const HELP = '\r\nCtrl-A x  leave\r\nCtrl-A h  this help\r\nCtrl-A a  send Ctrl-A\r\n';

/** A raw terminal on the first UART. */
export function interactive(machine: Machine): Terminal {
  const state = { left: false };
  let escape = false;
  let queue = new Uint8Array(0);
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
    queue = queue.subarray(machine.serialInput(0, queue)) as Uint8Array<ArrayBuffer>;
  };
  input.on('data', onData);
  return {
    get left() {
      return state.left;
    },
    restore() {
      input.off('data', onData);
      input.setRawMode(false);
      input.pause();
    },
  };
}
