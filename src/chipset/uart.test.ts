import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  createUart,
  UART,
  uartAdvance,
  uartInput,
  uartInterrupt,
  uartNextEvent,
  uartRead,
  uartReceive,
  uartSetModemLines,
  uartTakeOutput,
  uartWrite,
  type UartOptions,
  type UartState,
} from './uart.ts';

const NO_INTERRUPT = 1;
const FIFO = 0xc0;

function read(state: UartState, register: number, now = 0): number {
  return uartRead(state, now, register);
}

function write(state: UartState, register: number, value: number, now = 0): void {
  uartWrite(state, now, register, value);
}

function input(state: UartState, text: string, now = 0): number {
  return uartInput(
    state,
    now,
    Uint8Array.from(text, (character) => character.charCodeAt(0)),
  );
}

function output(state: UartState, now = 0): string {
  return String.fromCharCode(...uartTakeOutput(state, now));
}

/** 8N1, DTR, RTS and OUT2 on, FIFOs on with trigger level 8. */
function ready(options: UartOptions = {}): UartState {
  const state = createUart(options);
  write(state, UART.lcr, 3);
  write(state, UART.mcr, 0x0b);
  write(state, UART.iir, 0x81);
  return state;
}

describe('registers', () => {
  test('after reset', () => {
    const state = createUart();
    expect([1, 2, 3, 4, 5, 6, 7].map((register) => read(state, register))).toEqual([
      0, 1, 0, 0, 0x60, 0xb0, 0,
    ]);
    expect(uartInterrupt(state)).toBe(false);
  });

  test('writable bits', () => {
    const state = createUart();
    for (const [register, kept] of [
      [UART.ier, 0x0f],
      [UART.lcr, 0x7f],
      [UART.mcr, 0x1f],
      [UART.scratch, 0xff],
    ] as const) {
      write(state, register, register === UART.lcr ? 0x7f : 0xff);
      expect(read(state, register)).toBe(kept);
    }
    write(state, UART.lsr, 0);
    expect(read(state, UART.lsr)).toBe(0x60);
  });

  test('DLAB puts the divisor in the place of data and IER', () => {
    const state = createUart();
    write(state, UART.ier, 5);
    write(state, UART.lcr, 0x83);
    write(state, UART.data, 0x0c);
    write(state, UART.ier, 0x01);
    expect([read(state, UART.data), read(state, UART.ier)]).toEqual([0x0c, 0x01]);
    write(state, UART.lcr, 3);
    expect(read(state, UART.ier)).toBe(5);
    expect(output(state)).toBe('');
  });
});

describe('as the probe of Linux 8250 sees it', () => {
  test('IER test: four bits, cleared and set', () => {
    const state = createUart();
    write(state, UART.ier, 0);
    expect(read(state, UART.ier)).toBe(0);
    write(state, UART.ier, 0x0f);
    expect(read(state, UART.ier)).toBe(0x0f);
    write(state, UART.ier, 0x40);
    expect(read(state, UART.ier)).toBe(0);
  });

  test('loopback: MSR shows RTS and OUT2 as CTS and DCD', () => {
    const state = createUart();
    write(state, UART.mcr, 0x1a);
    expect(read(state, UART.msr) & 0xf0).toBe(0x90);
    write(state, UART.mcr, 0x15);
    expect(read(state, UART.msr) & 0xf0).toBe(0x60);
  });

  test('a 16550A: FIFO bits 11, no EFR, no 64-byte FIFO, no bank switch', () => {
    const state = createUart();
    write(state, UART.lcr, 0xbf);
    write(state, UART.iir, 0);
    write(state, UART.lcr, 0);
    write(state, UART.iir, 1);
    expect(read(state, UART.iir) >>> 6).toBe(3);
    write(state, UART.lcr, 0x80);
    write(state, UART.iir, 0x27);
    expect(read(state, UART.iir) >>> 5).toBe(6);
    write(state, UART.lcr, 0xe0);
    expect(read(state, UART.iir)).not.toBe(0);
    expect(read(state, UART.iir) & 0x10).toBe(0);
  });

  test('THRE: enabling raises it, reading IIR takes it, enabling again raises it again', () => {
    const state = ready();
    write(state, UART.ier, 2);
    expect(read(state, UART.iir)).toBe(FIFO | 2);
    expect(read(state, UART.iir)).toBe(FIFO | NO_INTERRUPT);
    write(state, UART.ier, 0);
    write(state, UART.ier, 2);
    expect(read(state, UART.iir)).toBe(FIFO | 2);
  });
});

describe('interrupts', () => {
  test('pass only with OUT2', () => {
    const state = ready();
    write(state, UART.ier, 2);
    expect(uartInterrupt(state)).toBe(true);
    write(state, UART.mcr, 3);
    expect(uartInterrupt(state)).toBe(false);
  });

  test('in the order line, data, transmitter, modem', () => {
    const state = ready();
    write(state, UART.ier, 0x0f);
    uartSetModemLines(state, 0xa0);
    uartReceive(state, 0, 0x41, 4);
    expect(read(state, UART.iir)).toBe(FIFO | 6);
    expect(read(state, UART.lsr)).toBe(0x65);
    expect(read(state, UART.iir)).toBe(FIFO | 12);
    expect(read(state, UART.data)).toBe(0x41);
    expect(read(state, UART.iir)).toBe(FIFO | 2);
    expect(read(state, UART.iir)).toBe(FIFO | 0);
    expect(read(state, UART.msr)).toBe(0xa1);
    expect(read(state, UART.iir)).toBe(FIFO | NO_INTERRUPT);
    expect(uartInterrupt(state)).toBe(false);
  });

  test('a sent character raises the transmitter interrupt', () => {
    const state = ready();
    write(state, UART.ier, 2);
    read(state, UART.iir);
    expect(uartInterrupt(state)).toBe(false);
    write(state, UART.data, 0x41);
    expect(uartInterrupt(state)).toBe(true);
    expect(read(state, UART.lsr)).toBe(0x60);
    expect(output(state)).toBe('A');
  });
});

describe('receiver', () => {
  test('data at the trigger level, timeout below it, until it is empty', () => {
    const state = ready();
    write(state, UART.ier, 1);
    input(state, '1234567');
    expect(read(state, UART.iir)).toBe(FIFO | 12);
    input(state, '8');
    expect(read(state, UART.iir)).toBe(FIFO | 4);
    expect(read(state, UART.data)).toBe(0x31);
    expect(read(state, UART.iir)).toBe(FIFO | 12);
    for (let index = 0; index < 7; index++) read(state, UART.data);
    expect(read(state, UART.iir)).toBe(FIFO | NO_INTERRUPT);
    expect(read(state, UART.lsr)).toBe(0x60);
    expect(read(state, UART.data)).toBe(0);
  });

  test('input waits for room and nothing is lost', () => {
    const state = ready();
    const text = 'The quick brown fox jumps over the lazy dog';
    expect(input(state, text)).toBe(text.length);
    let got = '';
    while ((read(state, UART.lsr) & 1) !== 0) got += String.fromCharCode(read(state, UART.data));
    expect(got).toBe(text);
    expect(read(state, UART.lsr) & 2).toBe(0);
  });

  test('input waits for RTS, also when FIFOs are cleared before', () => {
    const state = createUart();
    input(state, 'hello');
    expect(read(state, UART.lsr) & 1).toBe(0);
    write(state, UART.iir, 7);
    write(state, UART.mcr, 0x0b);
    expect(read(state, UART.data)).toBe(0x68);
    const loose = createUart({ flow: false });
    input(loose, 'h');
    expect(read(loose, UART.lsr) & 1).toBe(1);
  });

  test('the queue is bounded and says what it took', () => {
    const state = ready({ inputLimit: 10 });
    expect(input(state, '0123456789abcdef')).toBe(10);
    expect(input(state, '0123456789abcdef')).toBe(10);
    // 16 are in the FIFO now, 4 wait.
    expect(input(state, '0123456789abcdef')).toBe(6);
  });

  test('overrun: a FIFO keeps the old, a single register the new character', () => {
    const state = ready();
    for (let byte = 0; byte < 17; byte++) uartReceive(state, 0, byte);
    expect(read(state, UART.lsr) & 2).toBe(2);
    expect(read(state, UART.lsr) & 2).toBe(0);
    expect(read(state, UART.data)).toBe(0);
    const single = createUart();
    uartReceive(single, 0, 1);
    uartReceive(single, 0, 2);
    expect(read(single, UART.lsr) & 3).toBe(3);
    expect(read(single, UART.data)).toBe(2);
    expect(read(single, UART.lsr) & 1).toBe(0);
  });

  test('without a FIFO one character is enough', () => {
    const state = createUart();
    write(state, UART.ier, 1);
    uartReceive(state, 0, 0x41);
    expect(read(state, UART.iir)).toBe(4);
  });

  test('writing FCR without its clear bits keeps what is there', () => {
    const state = ready();
    input(state, 'x');
    write(state, UART.iir, 0x41);
    expect(read(state, UART.data)).toBe(0x78);
  });

  test('an error shows when its character is next; bit 7 while one is inside', () => {
    const state = ready();
    uartReceive(state, 0, 0x41);
    uartReceive(state, 0, 0, 16 | 8);
    expect(read(state, UART.lsr)).toBe(0xe1);
    read(state, UART.data);
    expect(read(state, UART.lsr)).toBe(0x79);
    expect(read(state, UART.lsr)).toBe(0x61);
  });

  test('clearing or switching the FIFO empties it', () => {
    for (const fcr of [0x03, 0x00]) {
      const state = ready();
      input(state, 'x');
      write(state, UART.iir, fcr);
      expect(read(state, UART.lsr) & 1).toBe(0);
      write(state, UART.ier, 1);
      expect(read(state, UART.iir) & 0xf).toBe(NO_INTERRUPT);
    }
  });
});

describe('transmitter', () => {
  test('stops when nobody takes the output, and goes on when somebody does', () => {
    const state = ready({ outputLimit: 2 });
    write(state, UART.ier, 2);
    for (const byte of [1, 2]) write(state, UART.data, byte);
    expect(read(state, UART.lsr)).toBe(0x60);
    for (let byte = 3; byte < 3 + 16; byte++) write(state, UART.data, byte);
    expect(read(state, UART.lsr)).toBe(0);
    expect(uartInterrupt(state)).toBe(false);
    expect([...uartTakeOutput(state, 0)]).toEqual([1, 2]);
    expect(read(state, UART.lsr)).toBe(0);
    let rest: number[] = [];
    for (let turn = 0; turn < 8; turn++) rest = [...rest, ...uartTakeOutput(state, 0)];
    expect(rest).toEqual([3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]);
    expect(uartInterrupt(state)).toBe(true);
  });

  test('loopback gives its own characters back and sends nothing', () => {
    const state = ready();
    write(state, UART.mcr, 0x1b);
    input(state, 'outside');
    for (const byte of [0x61, 0x62]) write(state, UART.data, byte);
    expect([read(state, UART.data), read(state, UART.data)]).toEqual([0x61, 0x62]);
    expect(read(state, UART.lsr)).toBe(0x60);
    expect(output(state)).toBe('');
    write(state, UART.mcr, 0x0b);
    expect(read(state, UART.data)).toBe(0x6f);
  });
});

describe('modem lines', () => {
  test('changes set their bit once; of RI only the trailing edge', () => {
    const state = createUart();
    uartSetModemLines(state, 0x40);
    expect(read(state, UART.msr)).toBe(0x4b);
    expect(read(state, UART.msr)).toBe(0x40);
    uartSetModemLines(state, 0x00);
    expect(read(state, UART.msr)).toBe(0x04);
  });
});

describe('timed', () => {
  /** 10 bits at 115200 baud. */
  const CHARACTER = Math.ceil((10 * 1e9) / 115_200);

  test('a character leaves after its time; THRE when it is in the shift register, TEMT when it has left', () => {
    const state = ready({ timed: true });
    write(state, UART.ier, 2);
    read(state, UART.iir);
    write(state, UART.data, 0x41);
    expect(read(state, UART.lsr)).toBe(0x20);
    write(state, UART.data, 0x42);
    expect(read(state, UART.lsr)).toBe(0);
    read(state, UART.iir);
    const due = uartNextEvent(state);
    expect(Math.abs(due - CHARACTER)).toBeLessThanOrEqual(1);
    uartAdvance(state, due - 1);
    expect(output(state, due - 1)).toBe('');
    uartAdvance(state, due);
    expect(output(state, due)).toBe('A');
    expect(uartInterrupt(state)).toBe(true);
    expect(read(state, UART.lsr, due)).toBe(0x20);
    expect(read(state, UART.lsr, 2 * due + 1)).toBe(0x60);
    expect(output(state, 2 * due + 1)).toBe('B');
    expect(uartNextEvent(state)).toBe(Infinity);
  });

  test('a zero is a character', () => {
    const state = ready({ timed: true });
    write(state, UART.data, 0);
    expect(output(state, 2 * CHARACTER)).toBe('\0');
  });

  test('the divisor and the format make the time', () => {
    const state = ready({ timed: true });
    write(state, UART.lcr, 0x9f);
    write(state, UART.data, 12);
    write(state, UART.lcr, 0x1f);
    write(state, UART.data, 0x41);
    expect(Math.abs(uartNextEvent(state) - (12 * 1e9) / 9600)).toBeLessThan(2);
  });

  test('input arrives one by one; the timeout comes four characters after the last', () => {
    const state = ready({ timed: true });
    write(state, UART.ier, 1);
    input(state, 'abc');
    expect(uartInterrupt(state)).toBe(false);
    uartAdvance(state, 2 * CHARACTER);
    expect(state.rx).toHaveLength(3);
    expect(uartInterrupt(state)).toBe(false);
    const due = uartNextEvent(state);
    expect(Math.abs(due - 6 * CHARACTER)).toBeLessThanOrEqual(8);
    uartAdvance(state, due);
    expect(read(state, UART.iir, due)).toBe(FIFO | 12);
  });
});

test('random traffic: registers stay in range, no byte is invented, copies go on alike', () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant('read' as const), register: fc.nat(8) }),
    fc.record({ kind: fc.constant('write' as const), register: fc.nat(8), value: fc.nat(255) }),
    fc.record({ kind: fc.constant('input' as const), bytes: fc.uint8Array({ maxLength: 20 }) }),
    fc.record({ kind: fc.constant('take' as const) }),
    fc.record({ kind: fc.constant('modem' as const), value: fc.nat(255) }),
    fc.record({ kind: fc.constant('receive' as const), value: fc.nat(255), errors: fc.nat(255) }),
  );
  fc.assert(
    fc.property(
      fc.boolean(),
      fc.array(fc.tuple(step, fc.nat(300_000)), { maxLength: 150 }),
      fc.nat(150),
      (timed, steps, cut) => {
        let a = createUart({ timed, outputLimit: 8 });
        const b = createUart({ timed, outputLimit: 8 });
        let now = 0;
        steps.forEach(([item, wait], index) => {
          now += wait;
          if (index === cut) a = JSON.parse(JSON.stringify(structuredClone(a))) as UartState;
          const results = [a, b].map((state) => {
            switch (item.kind) {
              case 'read':
                return uartRead(state, now, item.register);
              case 'write':
                return uartWrite(state, now, item.register, item.value);
              case 'input':
                return uartInput(state, now, item.bytes);
              case 'take':
                return [...uartTakeOutput(state, now)];
              case 'modem':
                return uartSetModemLines(state, item.value);
              case 'receive':
                return uartReceive(state, now, item.value, item.errors);
              default:
                return item satisfies never;
            }
          });
          expect(results[0]).toEqual(results[1]);
          if (item.kind === 'read') expect(results[0]).toSatisfy((v: number) => v >= 0 && v <= 255);
          for (const state of [a, b]) uartAdvance(state, now);
          expect(uartNextEvent(a)).toBeGreaterThan(now);
          expect(a.rx.length).toBeLessThanOrEqual(16);
          expect(a.tx.length).toBeLessThanOrEqual(16);
          expect(a.output.length).toBeLessThanOrEqual(9);
        });
        expect(a).toEqual(b);
      },
    ),
  );
});
