/**
 * GDB remote serial protocol, commands: strings in, strings out, over a narrow target. Registers of amd64 in GDB's order with a
 * target description; vCPUs are threads 1, 2...
 */

export interface GdbTarget {
  readonly vcpus: number;
  /** vCPU that stopped last. */
  current(): number;
  register(vp: number, name: string): bigint;
  setRegister(vp: number, name: string, value: bigint): void;
  read(vp: number, address: bigint, length: number): Uint8Array | undefined;
  write(vp: number, address: bigint, bytes: Uint8Array): boolean;
  setBreakpoint(address: bigint, on: boolean): void;
  /** False when the address is not mapped. */
  setWatch(
    vp: number,
    address: bigint,
    length: number,
    kind: 'write' | 'read' | 'access',
    on: boolean,
  ): boolean;
}

/** What the transport does after a command. */
export type GdbAction =
  | { readonly kind: 'reply'; readonly data: string }
  | { readonly kind: 'continue' }
  | { readonly kind: 'step'; readonly vp: number }
  | { readonly kind: 'detach'; readonly data: string }
  | { readonly kind: 'kill' };

interface Register {
  readonly name: string;
  readonly bits: 32 | 64;
  readonly type: string;
  readonly feature: 'core' | 'linux' | 'segments' | 'system';
}

const r64 = (name: string, type = 'int64'): Register => ({ name, bits: 64, type, feature: 'core' });
const r32 = (name: string, type = 'int32'): Register => ({ name, bits: 32, type, feature: 'core' });

/** GDB's own order for amd64 (features/i386/64bit-core.xml); x87 control registers read as zero. */
export const REGISTERS: readonly Register[] = [
  ...['rax', 'rbx', 'rcx', 'rdx', 'rsi', 'rdi'].map((name) => r64(name)),
  r64('rbp', 'data_ptr'),
  r64('rsp', 'data_ptr'),
  ...['r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15'].map((name) => r64(name)),
  r64('rip', 'code_ptr'),
  r32('eflags'),
  ...['cs', 'ss', 'ds', 'es', 'fs', 'gs'].map((name) => r32(name)),
  { name: 'fs_base', bits: 64, type: 'int', feature: 'segments' },
  { name: 'gs_base', bits: 64, type: 'int', feature: 'segments' },
  ...['k_gs_base', 'cr0', 'cr2', 'cr3', 'cr4', 'efer'].map((name): Register => ({
    name,
    bits: 64,
    type: 'int64',
    feature: 'system',
  })),
];

function description(): string {
  const lines = (feature: Register['feature']): string =>
    REGISTERS.map((register, number) => ({ register, number }))
      .filter(({ register }) => register.feature === feature)
      .map(
        ({ register, number }) =>
          `<reg name="${register.name}" bitsize="${register.bits}" type="${register.type}" regnum="${number}"/>`,
      )
      .join('');
  // GDB wants the eight x87 registers in the core feature.
  const st = Array.from(
    { length: 8 },
    (_, n) => `<reg name="st${n}" bitsize="80" type="i387_ext" regnum="${100 + n}"/>`,
  ).join('');
  const control = ['fctrl', 'fstat', 'ftag', 'fiseg', 'fioff', 'foseg', 'fooff', 'fop']
    .map((name, n) => `<reg name="${name}" bitsize="32" type="int" group="float" regnum="${108 + n}"/>`)
    .join('');
  return (
    '<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target version="1.0"><architecture>i386:x86-64</architecture>' +
    `<feature name="org.gnu.gdb.i386.core">${lines('core')}${st}${control}</feature>` +
    `<feature name="org.gnu.gdb.i386.segments">${lines('segments')}</feature>` +
    `<feature name="org.vitrine.system">${lines('system')}</feature></target>`
  );
}

const hexBytes = (bytes: Uint8Array): string =>
  Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
const fromHex = (text: string): Uint8Array =>
  Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
const little = (value: bigint, bits: number): string => {
  let text = '';
  for (let shift = 0; shift < bits; shift += 8)
    text += ((value >> BigInt(shift)) & 0xffn).toString(16).padStart(2, '0');
  return text;
};
const fromLittle = (text: string): bigint =>
  (text.match(/../g) ?? []).reverse().reduce((value, pair) => (value << 8n) | BigInt(parseInt(pair, 16)), 0n);

const reply = (data: string): GdbAction => ({ kind: 'reply', data });
const OK = reply('OK');
const NOTHING = reply('');
const ERROR = reply('E01');

export class GdbStub {
  readonly #target: GdbTarget;
  #thread = 0;
  #stop = 'S05';
  /** True once the client asked for no acknowledgements. */
  noAck = false;

  constructor(target: GdbTarget) {
    this.#target = target;
  }

  /** The report of a stop, which is also what `?` answers from now on. */
  stopped(why: { readonly signal: number; readonly watch?: bigint }): string {
    this.#thread = this.#target.current();
    const thread = (this.#thread + 1).toString(16);
    const watch = why.watch === undefined ? '' : `watch:${why.watch.toString(16)};`;
    this.#stop = `T${why.signal.toString(16).padStart(2, '0')}${watch}thread:${thread};`;
    return this.#stop;
  }

  handle(packet: string): GdbAction {
    const target = this.#target;
    const command = packet.charAt(0);
    const rest = packet.slice(1);
    switch (command) {
      case '?':
        return reply(this.#stop);
      case 'g':
        return reply(
          REGISTERS.map(({ name, bits }) => little(target.register(this.#thread, name), bits)).join(''),
        );
      case 'G': {
        let at = 0;
        for (const { name, bits } of REGISTERS) {
          const text = rest.slice(at, at + bits / 4);
          if (text.length === bits / 4) target.setRegister(this.#thread, name, fromLittle(text));
          at += bits / 4;
        }
        return OK;
      }
      case 'p': {
        const register = REGISTERS[parseInt(rest, 16)];
        const number = parseInt(rest, 16);
        if (register === undefined)
          return number >= 100 && number < 116 ? reply('x'.repeat(number < 108 ? 20 : 8)) : ERROR;
        return reply(little(target.register(this.#thread, register.name), register.bits));
      }
      case 'P': {
        const [number, value] = rest.split('=');
        const register = REGISTERS[parseInt(number ?? '', 16)];
        if (register === undefined || value === undefined) return ERROR;
        target.setRegister(this.#thread, register.name, fromLittle(value));
        return OK;
      }
      case 'm': {
        const range = /^([0-9a-f]+),([0-9a-f]+)$/.exec(rest);
        if (range === null) return ERROR;
        const length = Math.min(parseInt(range[2] as string, 16), 0x4000);
        const bytes = target.read(this.#thread, BigInt(`0x${range[1] as string}`), length);
        return bytes === undefined ? ERROR : reply(hexBytes(bytes));
      }
      case 'M': {
        const range = /^([0-9a-f]+),([0-9a-f]+):([0-9a-f]*)$/.exec(rest);
        if (range === null) return ERROR;
        return target.write(this.#thread, BigInt(`0x${range[1] as string}`), fromHex(range[3] as string))
          ? OK
          : ERROR;
      }
      case 'Z':
      case 'z':
        return this.#point(command === 'Z', rest);
      case 'H': {
        const id = parseInt(rest.slice(1), 16);
        if (id > target.vcpus) return ERROR;
        if (rest.charAt(0) === 'g' && id > 0) this.#thread = id - 1;
        return OK;
      }
      case 'T':
        return parseInt(rest, 16) >= 1 && parseInt(rest, 16) <= target.vcpus ? OK : ERROR;
      case 'c':
        return { kind: 'continue' };
      case 's':
        return { kind: 'step', vp: this.#thread };
      case 'D':
        return { kind: 'detach', data: 'OK' };
      case 'k':
        return { kind: 'kill' };
      case 'v':
        return this.#verbose(packet);
      case 'q':
      case 'Q':
        return this.#query(packet);
      default:
        return NOTHING;
    }
  }

  #point(on: boolean, text: string): GdbAction {
    const match = /^([0-4]),([0-9a-f]+),([0-9a-f]+)/.exec(text);
    if (match === null) return ERROR;
    const address = BigInt(`0x${match[2] as string}`);
    const length = parseInt(match[3] as string, 16);
    switch (match[1]) {
      case '0':
      case '1':
        this.#target.setBreakpoint(address, on);
        return OK;
      default: {
        const kind = match[1] === '2' ? 'write' : match[1] === '3' ? 'read' : 'access';
        return this.#target.setWatch(this.#thread, address, length, kind, on) ? OK : ERROR;
      }
    }
  }

  #verbose(packet: string): GdbAction {
    if (packet === 'vCont?') return reply('vCont;c;C;s;S');
    if (packet.startsWith('vCont;')) {
      const step = /^[sS][0-9a-f]*(?::([0-9a-f-]+))?/.exec(packet.slice(6));
      if (step === null) return { kind: 'continue' };
      const id = parseInt(step[1] ?? '', 16);
      return { kind: 'step', vp: id >= 1 ? id - 1 : this.#thread };
    }
    if (packet.startsWith('vKill')) return { kind: 'kill' };
    return NOTHING;
  }

  #query(packet: string): GdbAction {
    if (packet.startsWith('qSupported'))
      return reply('PacketSize=8000;QStartNoAckMode+;qXfer:features:read+;vContSupported+;hwbreak+;swbreak+');
    if (packet === 'QStartNoAckMode') {
      this.noAck = true;
      return OK;
    }
    if (packet === 'qAttached') return reply('1');
    if (packet === 'qC') return reply(`QC${(this.#thread + 1).toString(16)}`);
    if (packet === 'qfThreadInfo')
      return reply(
        `m${Array.from({ length: this.#target.vcpus }, (_, n) => (n + 1).toString(16)).join(',')}`,
      );
    if (packet === 'qsThreadInfo') return reply('l');
    if (packet.startsWith('qThreadExtraInfo,'))
      return reply(hexBytes(new TextEncoder().encode(`vCPU ${parseInt(packet.slice(17), 16) - 1}`)));
    const xfer = /^qXfer:features:read:target\.xml:([0-9a-f]+),([0-9a-f]+)$/.exec(packet);
    if (xfer !== null) {
      const text = description();
      const from = parseInt(xfer[1] as string, 16);
      const piece = text.slice(from, from + parseInt(xfer[2] as string, 16));
      return reply(`${from + piece.length >= text.length ? 'l' : 'm'}${piece}`);
    }
    return NOTHING;
  }
}
