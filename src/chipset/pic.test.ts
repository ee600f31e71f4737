import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createPic, picAcknowledge, picOutput, picRead, picSetLine, picWrite, type PicState } from './pic.ts';

const MASTER = 0x20;
const SLAVE = 0xa0;
const EOI = 0x20;

/** As a PC sets them up: vectors 0x20 and 0x28, edge-triggered, nothing masked. */
function ready(masterIcw4 = 1, slaveIcw4 = 1): PicState {
  const state = createPic();
  for (const [port, base, wiring, icw4] of [
    [MASTER, 0x20, 4, masterIcw4],
    [SLAVE, 0x28, 2, slaveIcw4],
  ] as const) {
    picWrite(state, port, 0x11);
    picWrite(state, port + 1, base);
    picWrite(state, port + 1, wiring);
    picWrite(state, port + 1, icw4);
  }
  return state;
}

function raise(state: PicState, ...irqs: number[]): void {
  for (const irq of irqs) picSetLine(state, irq, true);
}

function lower(state: PicState, ...irqs: number[]): void {
  for (const irq of irqs) picSetLine(state, irq, false);
}

function isr(state: PicState, port = MASTER): number {
  picWrite(state, port, 0x0b);
  return picRead(state, port);
}

function irr(state: PicState, port = MASTER): number {
  picWrite(state, port, 0x0a);
  return picRead(state, port);
}

describe('initialisation', () => {
  test('nothing is asked for until the words are complete', () => {
    const state = createPic();
    picWrite(state, MASTER, 0x11);
    raise(state, 0);
    expect(picOutput(state)).toBe(false);
    picWrite(state, MASTER + 1, 0x47);
    picWrite(state, MASTER + 1, 4);
    expect(picOutput(state)).toBe(false);
    picWrite(state, MASTER + 1, 1);
    expect(picOutput(state)).toBe(true);
    expect(picAcknowledge(state)).toBe(0x40);
  });

  test('clears mask, service, priority; single mode skips ICW3, no ICW4 clears it', () => {
    const state = ready(3);
    raise(state, 4);
    picWrite(state, MASTER + 1, 0xff);
    picWrite(state, MASTER, 0x12);
    picWrite(state, MASTER + 1, 0x60);
    expect(picRead(state, MASTER + 1)).toBe(0);
    picWrite(state, MASTER + 1, 0x55);
    expect(picRead(state, MASTER + 1)).toBe(0x55);
    expect(state.master.icw4).toBe(0);
    expect(irr(state)).toBe(0);
  });
});

test('before any initialisation: vector 0, fixed priorities, everything served', () => {
  const state = createPic();
  raise(state, 1, 0);
  expect(picAcknowledge(state)).toBe(0);
  expect(picOutput(state)).toBe(false);
  picWrite(state, MASTER + 1, 0x01);
  expect(picOutput(state)).toBe(false);
  picWrite(state, MASTER, EOI);
  expect(picAcknowledge(state)).toBe(1);
});

describe('priorities', () => {
  test('the lowest number first; others wait for EOI, lower numbers do not', () => {
    const state = ready();
    raise(state, 3, 5);
    expect(irr(state)).toBe(0x28);
    expect(picAcknowledge(state)).toBe(0x23);
    expect([irr(state), isr(state)]).toEqual([0x20, 0x08]);
    expect(picOutput(state)).toBe(false);
    raise(state, 1);
    expect(picAcknowledge(state)).toBe(0x21);
    picWrite(state, MASTER, EOI);
    expect(isr(state)).toBe(0x08);
    expect(picOutput(state)).toBe(false);
    picWrite(state, MASTER, EOI);
    expect(picAcknowledge(state)).toBe(0x25);
  });

  test('masked inputs wait', () => {
    const state = ready();
    picWrite(state, MASTER + 1, 0x02);
    raise(state, 1);
    expect(picOutput(state)).toBe(false);
    picWrite(state, MASTER + 1, 0);
    expect(picOutput(state)).toBe(true);
  });

  test('EOI with nothing in service changes nothing', () => {
    const state = ready();
    picWrite(state, MASTER, 0xa0);
    raise(state, 0, 7);
    expect(picAcknowledge(state)).toBe(0x20);
  });

  test('specific EOI', () => {
    const state = ready();
    raise(state, 6);
    picAcknowledge(state);
    raise(state, 1);
    picAcknowledge(state);
    picWrite(state, MASTER, 0x66);
    expect(isr(state)).toBe(0x02);
  });

  test('rotation: on EOI, on specific EOI, by command', () => {
    const state = ready();
    raise(state, 0, 1);
    picAcknowledge(state);
    picWrite(state, MASTER, 0xa0);
    expect(picAcknowledge(state)).toBe(0x21);
    lower(state, 0);
    raise(state, 0);
    picWrite(state, MASTER, 0xe3);
    expect(isr(state)).toBe(0x02);
    picWrite(state, MASTER, 0xe1);
    raise(state, 3);
    expect(picAcknowledge(state)).toBe(0x23);
    picWrite(state, MASTER, EOI);
    picWrite(state, MASTER, 0xc7);
    expect(picAcknowledge(state)).toBe(0x20);
  });

  test('special mask mode lets lower priorities in while a masked one is in service', () => {
    const state = ready();
    raise(state, 1);
    picAcknowledge(state);
    raise(state, 4);
    expect(picOutput(state)).toBe(false);
    picWrite(state, MASTER + 1, 0x02);
    expect(picOutput(state)).toBe(false);
    picWrite(state, MASTER, 0x68);
    expect(picAcknowledge(state)).toBe(0x24);
    picWrite(state, MASTER, EOI);
    expect(isr(state)).toBe(0x02);
    picWrite(state, MASTER, 0x48);
    picWrite(state, MASTER, EOI);
    expect(isr(state)).toBe(0);
  });
});

describe('triggering', () => {
  test('an edge asks once; the request goes with the line', () => {
    const state = ready();
    raise(state, 5);
    picAcknowledge(state);
    picWrite(state, MASTER, EOI);
    expect(picOutput(state)).toBe(false);
    lower(state, 5);
    raise(state, 5);
    expect(picOutput(state)).toBe(true);
    lower(state, 5);
    expect(picOutput(state)).toBe(false);
    expect(irr(state)).toBe(0);
  });

  test('a request that has gone at INTA is input 7, and not in service', () => {
    const state = ready();
    raise(state, 3);
    lower(state, 3);
    expect(picAcknowledge(state)).toBe(0x27);
    expect(isr(state)).toBe(0);
  });

  test('level, by ELCR: asks again while the line is high', () => {
    const state = ready();
    picWrite(state, 0x4d0, 0xff);
    expect(picRead(state, 0x4d0)).toBe(0xf8);
    picWrite(state, 0x4d1, 0xff);
    expect(picRead(state, 0x4d1)).toBe(0xde);
    raise(state, 5);
    expect(picAcknowledge(state)).toBe(0x25);
    picWrite(state, MASTER, EOI);
    expect(picAcknowledge(state)).toBe(0x25);
    lower(state, 5);
    picWrite(state, MASTER, EOI);
    expect(picOutput(state)).toBe(false);
  });

  test('level, by ICW1', () => {
    const state = createPic();
    for (const [port, value] of [
      [MASTER, 0x19],
      [MASTER + 1, 0x20],
      [MASTER + 1, 4],
      [MASTER + 1, 1],
    ] as const) {
      picWrite(state, port, value);
    }
    raise(state, 0);
    picAcknowledge(state);
    picWrite(state, MASTER, EOI);
    expect(picOutput(state)).toBe(true);
  });
});

describe('cascade', () => {
  test('slave inputs come through input 2 of the master', () => {
    const state = ready();
    raise(state, 12);
    expect(irr(state)).toBe(0x04);
    expect(picAcknowledge(state)).toBe(0x2c);
    expect([isr(state), isr(state, SLAVE)]).toEqual([0x04, 0x10]);
    raise(state, 9);
    expect(picOutput(state)).toBe(false);
    picWrite(state, SLAVE, EOI);
    picWrite(state, MASTER, EOI);
    expect(picAcknowledge(state)).toBe(0x29);
  });

  test('what waits in the slave comes after both EOIs', () => {
    const state = ready();
    raise(state, 8, 15);
    expect(picAcknowledge(state)).toBe(0x28);
    picWrite(state, MASTER, EOI);
    expect(picOutput(state)).toBe(false);
    picWrite(state, SLAVE, EOI);
    expect(picAcknowledge(state)).toBe(0x2f);
  });

  test('IRQ 2 is no pin', () => {
    const state = ready();
    raise(state, 2);
    expect(picOutput(state)).toBe(false);
  });

  test('special fully nested mode: a more urgent slave input interrupts', () => {
    for (const nested of [true, false]) {
      const state = ready(nested ? 0x11 : 1);
      raise(state, 12);
      picAcknowledge(state);
      raise(state, 9);
      expect(picOutput(state)).toBe(nested);
      if (nested) expect(picAcknowledge(state)).toBe(0x29);
    }
  });

  test('the special fully nested mode of a slave means nothing', () => {
    const state = ready(1, 0x11);
    raise(state, 10);
    picAcknowledge(state);
    lower(state, 10);
    picWrite(state, MASTER, EOI);
    raise(state, 10);
    expect(picOutput(state)).toBe(false);
  });

  test('a slave request that has gone: vector 7 of the slave, the master in service', () => {
    const state = ready();
    raise(state, 12);
    // The master has latched its input; only the slave is asked in vain.
    state.slave.imr = 0x10;
    expect(picAcknowledge(state)).toBe(0x2f);
    expect([isr(state), isr(state, SLAVE)]).toEqual([0x04, 0]);
  });
});

describe('automatic EOI', () => {
  test('leaves nothing in service, and rotates when told to', () => {
    const state = ready(3);
    raise(state, 0, 1);
    expect(picAcknowledge(state)).toBe(0x20);
    expect(isr(state)).toBe(0);
    expect(picAcknowledge(state)).toBe(0x21);
    picWrite(state, MASTER, 0x80);
    lower(state, 0, 1);
    raise(state, 0);
    picAcknowledge(state);
    lower(state, 0);
    raise(state, 0, 1);
    expect(picAcknowledge(state)).toBe(0x21);
    picWrite(state, MASTER, 0x00);
    expect(state.master.rotateOnAutoEoi).toBe(false);
  });
});

describe('poll', () => {
  test('the next read is the acknowledgement', () => {
    const state = ready();
    raise(state, 6);
    picWrite(state, MASTER, 0x0c);
    expect(picRead(state, MASTER)).toBe(0x86);
    expect(isr(state)).toBe(0x40);
    picWrite(state, MASTER, 0x0c);
    expect(picRead(state, MASTER + 1)).toBe(0);
    expect(picRead(state, MASTER + 1)).toBe(0);
  });

  test('of input 0', () => {
    const state = ready();
    raise(state, 0);
    picWrite(state, MASTER, 0x0c);
    expect(picRead(state, MASTER)).toBe(0x80);
  });

  test('of the slave', () => {
    const state = ready();
    raise(state, 11);
    picWrite(state, SLAVE, 0x0c);
    expect(picRead(state, SLAVE)).toBe(0x83);
    expect(picOutput(state)).toBe(false);
  });
});

test('random traffic: bytes stay bytes, INTA always gives a vector of its chip, copies go on alike', () => {
  const step = fc.oneof(
    fc.record({
      kind: fc.constant('write' as const),
      port: fc.constantFrom(0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1),
      value: fc.nat(255),
    }),
    fc.record({
      kind: fc.constant('read' as const),
      port: fc.constantFrom(0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1),
    }),
    fc.record({
      kind: fc.constant('line' as const),
      irq: fc.integer({ min: -1, max: 16 }),
      high: fc.boolean(),
    }),
    fc.record({ kind: fc.constant('inta' as const) }),
  );
  fc.assert(
    fc.property(fc.boolean(), fc.array(step, { maxLength: 150 }), fc.nat(150), (started, steps, cut) => {
      let a = started ? ready() : createPic();
      const b = structuredClone(a);
      steps.forEach((item, index) => {
        if (index === cut) a = JSON.parse(JSON.stringify(a)) as PicState;
        const [first, second] = [a, b].map((state) => {
          switch (item.kind) {
            case 'write':
              return picWrite(state, item.port, item.value);
            case 'read':
              return picRead(state, item.port);
            case 'line':
              return picSetLine(state, item.irq, item.high);
            case 'inta':
              return picAcknowledge(state);
            default:
              return item satisfies never;
          }
        });
        expect(first).toBe(second);
        if (item.kind === 'inta') expect([a.master.base, a.slave.base]).toContain(Number(first) & 0xf8);
        for (const chip of [a.master, a.slave]) {
          for (const value of [chip.lines, chip.edges, chip.imr, chip.isr, chip.elcr, chip.base]) {
            expect(value).toSatisfy((byte: number) => byte >= 0 && byte <= 255);
          }
          expect(chip.edges & ~chip.lines).toBe(0);
        }
      });
      expect(a).toEqual(b);
    }),
  );
});
