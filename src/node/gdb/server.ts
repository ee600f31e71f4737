/** GDB remote serial protocol, transport: one client at a time on a loopback port, driving the machine. */
import { createServer, type Server, type Socket } from 'node:net';
import { inspect } from '../../machine/inspect.ts';
import type { Machine, StopReason } from '../../machine/machine.ts';
import { UserError } from '../errors.ts';
import { escapeBinary, frame, PacketReader } from './packet.ts';
import { GdbStub, type GdbTarget } from './stub.ts';

const SIGINT = 2;
const SIGTRAP = 5;

interface Watch {
  readonly address: bigint;
  readonly host: number;
  readonly length: number;
  readonly read: boolean;
  readonly write: boolean;
}

/** The machine under a debugger: `run` takes the place of Machine.run. */
export class GdbServer {
  readonly #machine: Machine;
  readonly #stub: GdbStub;
  readonly #breakpoints = new Set<bigint>();
  #watches: Watch[] = [];
  #server: Server | undefined;
  #socket: Socket | undefined;
  /** 'running' until the client stops it. */
  #state: 'halted' | 'running';
  #stepVp: number | undefined;
  #interrupted = false;
  #killed = false;
  #change: (() => void) | undefined;

  constructor(machine: Machine, wait: boolean) {
    this.#machine = machine;
    this.#state = wait ? 'halted' : 'running';
    const inspector = inspect(machine);
    const target: GdbTarget = {
      vcpus: inspector.vcpus,
      current: () => machine.current,
      register: (vp, name) => inspector.register(vp, name),
      setRegister: (vp, name, value) => inspector.setRegister(vp, name, value),
      read: (vp, address, length) => inspector.read(vp, address, length),
      write: (vp, address, bytes) => inspector.write(vp, address, bytes),
      setBreakpoint: (address, on) => {
        if (on) this.#breakpoints.add(address);
        else this.#breakpoints.delete(address);
        machine.engine.blocks.setBreakpoints(new Set(this.#breakpoints));
      },
      setWatch: (vp, address, length, kind, on) => {
        this.#watches = this.#watches.filter((watch) => watch.address !== address);
        if (on) {
          const host = inspector.host(vp, address);
          if (host === undefined) return false;
          this.#watches.push({ address, host, length, read: kind !== 'write', write: kind !== 'read' });
        }
        machine.engine.setWatches(this.#watches);
        return true;
      },
    };
    this.#stub = new GdbStub(target);
    machine.engine.onWatch = ({ watch }) => machine.stopForWatch(watch);
  }

  async listen(port: number): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const server = createServer((socket) => this.#connect(socket));
      server.once('error', (error: NodeJS.ErrnoException) =>
        reject(
          new UserError(
            `cannot listen for gdb on port ${port} (${error.code ?? 'error'}): give another one with --gdb`,
          ),
        ),
      );
      server.listen(port, '127.0.0.1', () => resolve());
      this.#server = server;
    });
  }

  #connect(socket: Socket): void {
    if (this.#socket !== undefined) {
      socket.destroy();
      return;
    }
    this.#socket = socket;
    socket.setNoDelay(true);
    // A client that connects finds a stopped machine.
    if (this.#state === 'running') this.#interrupted = true;
    const reader = new PacketReader();
    socket.on('data', (data) => {
      for (const event of reader.push(data.toString('latin1'))) {
        if (event.kind === 'interrupt') this.#interrupted = true;
        else if (event.kind === 'bad') socket.write('-');
        else {
          if (!this.#stub.noAck) socket.write('+');
          this.#handle(event.data);
        }
      }
      this.#change?.();
    });
    const gone = (): void => {
      if (this.#socket !== socket) return;
      this.#socket = undefined;
      this.#clear();
      this.#state = 'running';
      this.#change?.();
    };
    socket.on('close', gone);
    socket.on('error', gone);
  }

  #clear(): void {
    this.#breakpoints.clear();
    this.#watches = [];
    this.#machine.engine.blocks.setBreakpoints(new Set());
    this.#machine.engine.setWatches([]);
  }

  #send(data: string): void {
    this.#socket?.write(frame(escapeBinary(data)), 'latin1');
  }

  #handle(packet: string): void {
    const action = this.#stub.handle(packet);
    switch (action.kind) {
      case 'reply':
        this.#send(action.data);
        return;
      case 'continue':
        this.#state = 'running';
        return;
      case 'step':
        this.#stepVp = action.vp;
        this.#state = 'running';
        return;
      case 'detach':
        this.#send(action.data);
        this.#clear();
        this.#state = 'running';
        return;
      case 'kill':
        this.#killed = true;
    }
  }

  #halt(signal: number, watch?: bigint): void {
    this.#state = 'halted';
    this.#send(this.#stub.stopped({ signal, ...(watch === undefined ? {} : { watch }) }));
  }

  /** True when the client asked to end the machine. */
  get killed(): boolean {
    return this.#killed;
  }

  /** Waits while the client holds the machine. */
  async ready(): Promise<void> {
    while (this.#state === 'halted' && !this.#killed) {
      await new Promise<void>((resolve) => (this.#change = resolve));
      this.#change = undefined;
    }
  }

  run(budget: number, idleTo: number): StopReason {
    const machine = this.#machine;
    if (this.#interrupted) {
      this.#interrupted = false;
      this.#halt(SIGINT);
      return { kind: 'budget' };
    }
    const { blocks } = machine.engine;
    // The instruction at a breakpoint itself runs first.
    if (this.#breakpoints.size > 0) {
      blocks.setBreakpoints(new Set());
      const first = machine.run(1, idleTo);
      blocks.setBreakpoints(new Set(this.#breakpoints));
      if (first.kind !== 'budget' && first.kind !== 'idle' && first.kind !== 'debug') return first;
      if (first.kind === 'debug') return this.#debug(first);
      if (this.#stepVp !== undefined && first.kind === 'budget') {
        this.#stepVp = undefined;
        this.#halt(SIGTRAP);
        return { kind: 'budget' };
      }
    } else if (this.#stepVp !== undefined) {
      const stepped = machine.run(1, idleTo);
      if (stepped.kind === 'debug') return this.#debug(stepped);
      if (stepped.kind !== 'budget') return stepped;
      this.#stepVp = undefined;
      this.#halt(SIGTRAP);
      return stepped;
    }
    const reason = machine.run(budget, idleTo);
    return reason.kind === 'debug' ? this.#debug(reason) : reason;
  }

  #debug(reason: StopReason & { kind: 'debug' }): StopReason {
    this.#stepVp = undefined;
    this.#halt(SIGTRAP, reason.cause === 'watch' ? this.#watches[reason.watch]?.address : undefined);
    return { kind: 'budget' };
  }

  close(): void {
    const socket = this.#socket;
    this.#socket = undefined;
    // The client learns that there is nothing left to debug; it need not hang up for us to end.
    socket?.end(frame('W00'), 'latin1');
    socket?.unref();
    this.#server?.close();
  }
}
