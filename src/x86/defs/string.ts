/** String instructions. Each iteration is one instruction of virtual time; interrupts are taken between iterations. */
import { CPU, RAX, RCX, RDI, RDX, RSI, ES } from '../layout.ts';
import { EXIT } from '../layout.ts';
import type { Sem, Size } from '../sem.ts';
import { i32, i64, type Val } from '../wasm/value.ts';
import type { Def } from './def.ts';

interface Pointers {
  readonly size: Val;
  /** Offset in rSI or rDI, cut to the address size. */
  offset(register: number): Val;
  /** rSI or rDI moves on by an element. */
  advance(register: number, bytes: Size): void;
}

function pointers(e: Sem): Pointers {
  const size = e.addressSize();
  return {
    size,
    offset: (register) => e.callValue('cut_address', e.gpr(register), size),
    advance: (register, bytes) => {
      const old = e.gpr(register);
      e.setGpr(register, e.callValue('merge_address', old, e.f.let(old.add(e.direction(bytes))), size));
    },
  };
}

const sourceAddress = (e: Sem, p: Pointers, bytes: number): Val =>
  e.callValue('string_linear', e.cpu, e.record(), p.offset(RSI), i32(bytes), i32(0));
const destinationAddress = (e: Sem, p: Pointers, bytes: number, write: boolean): Val =>
  e.callValue('es_linear', e.cpu, p.offset(RDI), i32(bytes), i32(write ? 1 : 0));

/**
 * One iteration and, under a repeat prefix, the bookkeeping around it: rCX counts, rip stays at the instruction until it is
 * done. `more`: condition beside the count (REPE, REPNE).
 */
function repeat(e: Sem, iteration: () => void, more?: () => Val): void {
  const { f } = e;
  if (e.rep === 'none') {
    iteration();
    return;
  }
  const size = e.addressSize();
  const count = e.callValue('cut_address', e.gpr(RCX), size);
  f.if(count.ne(0), () => {
    iteration();
    const left = e.callValue('cut_address', f.let(count.sub(1)), size);
    e.setGpr(RCX, e.callValue('merge_address', e.gpr(RCX), left, size));
    const again = more ? f.let(left.ne(0).and(more())) : f.let(left.ne(0));
    f.if(again, () => {
      const length = f.let(f.load('8u', e.record(), 17, 'i64'));
      e.setField64(CPU.rip, e.nextRip().sub(length));
    });
  });
}

/** Byte and operand-size form of a string instruction. */
function string(name: string, opcode: number, body: (e: Sem, bytes: Size) => void): readonly Def[] {
  const hex = (n: number): string => n.toString(16).toUpperCase().padStart(2, '0');
  return [
    { name: `${name}b`, enc: [`${hex(opcode)} rep -`], ends: 'jump', sem: (e) => body(e, 1) },
    { name, enc: [`${hex(opcode + 1)} v rep -`], ends: 'jump', sem: (e) => body(e, e.size) },
  ];
}

/** Runs as many iterations at once as one page of source and destination, the budget and the count allow. */
function bulk(e: Sem, routine: string, bytes: Size, single: () => void): void {
  const { f } = e;
  if (e.rep === 'none') {
    single();
    return;
  }
  // The routine does what it can and returns the iterations done; 0 leaves them to the exact path.
  const done = e.callValue(routine, e.cpu, e.record(), i32(bytes));
  f.if(done.eqz(), () => repeat(e, single));
}

export const stringDefs: readonly Def[] = [
  ...string('movs', 0xa4, (e, bytes) => {
    const p = pointers(e);
    bulk(e, 'bulk_movs', bytes, () => {
      const from = sourceAddress(e, p, bytes);
      const value = e.load(from, bytes);
      const to = destinationAddress(e, p, bytes, true);
      e.store(to, bytes, value);
      p.advance(RSI, bytes);
      p.advance(RDI, bytes);
    });
  }),
  ...string('stos', 0xaa, (e, bytes) => {
    const p = pointers(e);
    bulk(e, 'bulk_stos', bytes, () => {
      const to = destinationAddress(e, p, bytes, true);
      e.store(to, bytes, e.gpr(RAX, bytes));
      p.advance(RDI, bytes);
    });
  }),
  ...string('lods', 0xac, (e, bytes) => {
    const p = pointers(e);
    repeat(e, () => {
      const value = e.load(sourceAddress(e, p, bytes), bytes);
      e.setGpr(RAX, value, bytes);
      p.advance(RSI, bytes);
    });
  }),
  ...string('cmps', 0xa6, (e, bytes) => {
    const p = pointers(e);
    repeat(
      e,
      () => {
        const a = e.load(sourceAddress(e, p, bytes), bytes);
        const b = e.load(destinationAddress(e, p, bytes, false), bytes);
        e.flagsSub(a, b, e.f.let(e.trunc(a.sub(b), bytes)), bytes);
        p.advance(RSI, bytes);
        p.advance(RDI, bytes);
      },
      () => e.condition(e.rep === 'repne' ? 5 : 4),
    );
  }),
  ...string('scas', 0xae, (e, bytes) => {
    const p = pointers(e);
    repeat(
      e,
      () => {
        const a = e.gpr(RAX, bytes);
        const b = e.load(destinationAddress(e, p, bytes, false), bytes);
        e.flagsSub(a, b, e.f.let(e.trunc(a.sub(b), bytes)), bytes);
        p.advance(RDI, bytes);
      },
      () => e.condition(e.rep === 'repne' ? 5 : 4),
    );
  }),
  ...inOut(),
];

/** INS, OUTS: memory first checked, then the port asked (SDM vol. 1, 19.5). */
function inOut(): readonly Def[] {
  const width = (e: Sem, bytes: Size): Size => (bytes === 8 ? 4 : bytes) as Size;
  return [
    ...string('ins', 0x6c, (e, wide) => {
      const bytes = width(e, wide);
      const p = pointers(e);
      // The port's privilege is checked also when nothing is transferred.
      const port = e.gpr(RDX, 2);
      e.call('check_port', e.cpu, port, i32(bytes));
      repeat(e, () => {
        const to = destinationAddress(e, p, bytes, true);
        e.call('probe_write', e.cpu, to, i32(bytes));
        const answer = e.ask(
          EXIT.io,
          port.zext(),
          i64(bytes | 0x200 | (e.rep === 'none' ? 0 : 0x400)),
          i64(0),
        );
        const value = e.f.let(e.f.load('32', answer));
        e.store(to, bytes, value);
        p.advance(RDI, bytes);
      });
    }),
    ...string('outs', 0x6e, (e, wide) => {
      const bytes = width(e, wide);
      const p = pointers(e);
      const port = e.gpr(RDX, 2);
      e.call('check_port', e.cpu, port, i32(bytes));
      repeat(e, () => {
        const value = e.load(sourceAddress(e, p, bytes), bytes);
        e.ask(EXIT.io, port.zext(), i64(bytes | 0x300 | (e.rep === 'none' ? 0 : 0x400)), value.zext());
        p.advance(RSI, bytes);
      });
    }),
  ];
}
void ES;
