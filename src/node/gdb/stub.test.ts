import { expect, test } from 'vitest';
import { checksum, escapeBinary, frame, PacketReader } from './packet.ts';
import { GdbStub, REGISTERS, type GdbTarget } from './stub.ts';

function fake(): {
  target: GdbTarget;
  breakpoints: Set<bigint>;
  registers: Map<string, bigint>;
  watches: string[];
} {
  const breakpoints = new Set<bigint>();
  const registers = new Map<string, bigint>([
    ['rip', 0xffffffff81000000n],
    ['rax', 0x1122334455667788n],
  ]);
  const watches: string[] = [];
  const memory = new Uint8Array([0x90, 0xcc, 0x00, 0xff]);
  const target: GdbTarget = {
    vcpus: 2,
    current: () => 1,
    register: (_vp, name) => registers.get(name) ?? 0n,
    setRegister: (_vp, name, value) => void registers.set(name, value),
    read: (_vp, address, length) =>
      address >= 0x1000n && address + BigInt(length) <= 0x1004n
        ? memory.slice(Number(address - 0x1000n), Number(address - 0x1000n) + length)
        : undefined,
    write: (_vp, address, bytes) => {
      if (address !== 0x1000n) return false;
      memory.set(bytes);
      return true;
    },
    setBreakpoint: (address, on) => void (on ? breakpoints.add(address) : breakpoints.delete(address)),
    setWatch: (_vp, address, length, kind, on) => {
      watches.push(`${on ? '+' : '-'}${kind} ${address.toString(16)} ${length}`);
      return address !== 0n;
    },
  };
  return { target, breakpoints, registers, watches };
}

const answer = (stub: GdbStub, packet: string): string => {
  const action = stub.handle(packet);
  return action.kind === 'reply' ? action.data : action.kind;
};

test('PacketReader gives whole packets from any pieces and rejects a wrong checksum', () => {
  const reader = new PacketReader();
  expect(reader.push('+$m10')).toEqual([]);
  expect(reader.push('00,4#' + checksum('m1000,4') + '\x03$?#00')).toEqual([
    { kind: 'packet', data: 'm1000,4' },
    { kind: 'interrupt' },
    { kind: 'bad' },
  ]);
});

test('frame and escapeBinary follow the protocol', () => {
  expect(frame('OK')).toBe('$OK#9a');
  expect(escapeBinary('a#b}c')).toBe('a}\u0003b}]c');
});

test('registers are little-endian in GDB order', () => {
  const stub = new GdbStub(fake().target);
  const all = answer(stub, 'g');
  expect(all.slice(0, 16)).toBe('8877665544332211');
  expect(all.length).toBe(REGISTERS.reduce((sum, { bits }) => sum + bits / 4, 0));
  expect(answer(stub, 'p10')).toBe('00000081ffffffff');
});

test('a register write reaches the target', () => {
  const { target, registers } = fake();
  const stub = new GdbStub(target);
  expect(answer(stub, 'P1=0100000000000000')).toBe('OK');
  expect(registers.get('rbx')).toBe(1n);
});

test('memory is read and written as hex, unmapped memory is an error', () => {
  const stub = new GdbStub(fake().target);
  expect(answer(stub, 'm1000,4')).toBe('90cc00ff');
  expect(answer(stub, 'm2000,4')).toBe('E01');
  expect(answer(stub, 'M1000,2:abcd')).toBe('OK');
  expect(answer(stub, 'm1000,2')).toBe('abcd');
});

test('breakpoints and watchpoints are set and cleared', () => {
  const { target, breakpoints, watches } = fake();
  const stub = new GdbStub(target);
  expect(answer(stub, 'Z0,ffffffff81000000,1')).toBe('OK');
  expect(breakpoints.has(0xffffffff81000000n)).toBe(true);
  expect(answer(stub, 'z0,ffffffff81000000,1')).toBe('OK');
  expect(breakpoints.size).toBe(0);
  expect(answer(stub, 'Z2,1000,8')).toBe('OK');
  expect(answer(stub, 'Z3,0,8')).toBe('E01');
  expect(watches).toEqual(['+write 1000 8', '+read 0 8']);
});

test('vCPUs are threads', () => {
  const stub = new GdbStub(fake().target);
  expect(answer(stub, 'qfThreadInfo')).toBe('m1,2');
  expect(answer(stub, 'qsThreadInfo')).toBe('l');
  expect(answer(stub, 'Hg2')).toBe('OK');
  expect(answer(stub, 'qC')).toBe('QC2');
  expect(answer(stub, 'Hg9')).toBe('E01');
});

test('a stop names the thread and the watched address', () => {
  const stub = new GdbStub(fake().target);
  expect(stub.stopped({ signal: 5 })).toBe('T05thread:2;');
  expect(stub.stopped({ signal: 5, watch: 0x1000n })).toBe('T05watch:1000;thread:2;');
  expect(answer(stub, '?')).toBe('T05watch:1000;thread:2;');
});

test('continue and step are left to the transport', () => {
  const stub = new GdbStub(fake().target);
  expect(stub.handle('vCont;c')).toEqual({ kind: 'continue' });
  expect(stub.handle('vCont;s:2;c')).toEqual({ kind: 'step', vp: 1 });
  expect(stub.handle('k')).toEqual({ kind: 'kill' });
});

test('the target description is given in pieces', () => {
  const stub = new GdbStub(fake().target);
  const first = answer(stub, 'qXfer:features:read:target.xml:0,40');
  expect(first.startsWith('m<?xml')).toBe(true);
  expect(answer(stub, 'qXfer:features:read:target.xml:fff0,40')).toBe('l');
});

test('an unknown packet gets the empty answer', () => {
  expect(answer(new GdbStub(fake().target), 'X1000,0:')).toBe('');
});
