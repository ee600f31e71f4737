/** Moves, stack, exchange, conditional moves and sets, LEA, flag instructions. */
import { CPU, FLAG, FS, GS, RAX, RBP, RBX, RCX, RDX, RSP, SHADOW, VEC } from '../layout.ts';
import { CR0, CR4 } from '../registers.ts';
import type { Sem, Size } from '../sem.ts';
import { i32, select, type Val } from '../wasm/value.ts';
import type { Def } from './def.ts';

const hex = (n: number): string => n.toString(16).toUpperCase().padStart(2, '0');

const conditional: Def[] = [];
for (let cc = 0; cc < 16; cc++) {
  const suffix = ['o', 'no', 'b', 'ae', 'e', 'ne', 'be', 'a', 's', 'ns', 'p', 'np', 'l', 'ge', 'le', 'g'][
    cc
  ] as string;
  conditional.push({
    name: `set${suffix}`,
    enc: [`0F${hex(0x90 + cc)} /r Eb=`],
    sem: (e) => e.set(0, e.condition(cc)),
  });
  conditional.push({
    name: `cmov${suffix}`,
    feature: 'cmov',
    enc: [`0F${hex(0x40 + cc)} /r Gv!,Ev`],
    // The source is read, and a 32-bit destination's upper half cleared, also when the condition is false.
    sem: (e) => {
      const source = e.get(1);
      const old = e.get(0);
      e.set(0, e.f.let(select(e.condition(cc), source, old)));
    },
  });
}

/** PUSH and POP of registers share the stack's size rules. */
export const moveDefs: readonly Def[] = [
  ...conditional,
  {
    name: 'mov',
    enc: [
      '88 /r Eb=,Gb',
      '89 /r Ev=,Gv',
      '8A /r Gb=,Eb',
      '8B /r Gv=,Ev',
      'A0 AL=,Ob',
      'A1 rAX=,Ov',
      'A2 Ob=,AL',
      'A3 Ov=,rAX',
      'B0+ Zb=,Ib',
      'B8+ Zv=,Iv',
      'C6 /0 Eb=,Ib',
      'C7 /0 Ev=,Iz',
    ],
    sem: (e) => e.set(0, e.get(1)),
  },
  {
    name: 'movzx',
    enc: ['0FB6 /r Gv=,Eb', '0FB7 /r Gv=,Ew'],
    sem: (e) => e.set(0, e.f.let(e.trunc(e.get(1)))),
  },
  {
    name: 'movsx',
    enc: ['0FBE /r Gv=,Eb', '0FBF /r Gv=,Ew'],
    sem: (e) => e.set(0, e.f.let(e.trunc(e.sign64(e.get(1), e.sizeOf(1) as Size)))),
  },
  {
    name: 'movsxd',
    enc: ['63 /r o64 Gv=,Ed'],
    sem: (e) => e.set(0, e.f.let(e.trunc(e.get(1).sext()))),
  },
  { name: 'lea', enc: ['8D /r Gv=,M'], sem: (e) => e.set(0, e.f.let(e.trunc(e.effective()))) },
  {
    name: 'xchg',
    enc: ['86 /r lock Eb!,Gb!', '87 /r lock Ev!,Gv!', '90+ Zv!,rAX!'],
    sem: (e) => {
      const a = e.get(0);
      const b = e.get(1);
      e.set(0, b);
      e.set(1, a);
    },
  },
  {
    name: 'xadd',
    enc: ['0FC0 /r lock Eb!,Gb!', '0FC1 /r lock Ev!,Gv!'],
    sem: (e) => {
      const a = e.get(0);
      const b = e.get(1);
      const r = e.f.let(e.trunc(a.add(b)));
      if (e.mem) {
        e.set(0, r);
        e.set(1, a);
      } else {
        // The same register twice ends with the sum.
        e.set(1, a);
        e.set(0, r);
      }
      e.flagsAdd(a, b, r);
    },
  },
  {
    name: 'cmpxchg',
    enc: ['0FB0 /r lock Eb!,Gb', '0FB1 /r lock Ev!,Gv'],
    sem: (e) => {
      const a = e.gpr(RAX, e.size);
      const old = e.get(0);
      const source = e.get(1);
      const equal = e.f.let(a.eq(old));
      // The destination is written in any case; rax only when they differ.
      if (e.mem) {
        e.set(0, e.f.let(select(equal, source, old)));
        e.f.if(equal.eqz(), () => e.setGpr(RAX, old, e.size));
      } else
        e.f.if(
          equal,
          () => e.set(0, source),
          () => e.setGpr(RAX, old, e.size),
        );
      e.flagsSub(a, old, e.f.let(e.trunc(a.sub(old))));
    },
  },
  {
    name: 'cmpxchg8b',
    feature: 'cx8',
    enc: ['0FC7 /1:m lock v M'],
    sem: (e) => {
      const { f } = e;
      if (e.size === 8) {
        const address = e.address(0, 16, true);
        e.raiseIf(address.wrap().and(15), VEC.GP, 0);
        e.call('probe_write', e.cpu, address, i32(16));
        const low = e.load(address, 8);
        const high = e.load(f.let(address.add(8)), 8);
        const equal = f.let(low.eq(e.gpr(RAX)).and(high.eq(e.gpr(RDX))));
        e.store(address, 8, f.let(select(equal, e.gpr(RBX), low)));
        e.store(f.let(address.add(8)), 8, f.let(select(equal, e.gpr(RCX), high)));
        f.if(equal.eqz(), () => {
          e.setGpr(RAX, low);
          e.setGpr(RDX, high);
        });
        e.mergeStatus(FLAG.ZF, equal.shl(6));
        return;
      }
      const address = e.address(0, 8, true);
      e.call('probe_write', e.cpu, address, i32(8));
      const value = e.load(address, 8);
      const expected = f.let(e.gpr(RDX, 4).zext().shl(32).or(e.gpr(RAX, 4).zext()));
      const replacement = f.let(e.gpr(RCX, 4).zext().shl(32).or(e.gpr(RBX, 4).zext()));
      const equal = f.let(value.eq(expected));
      e.store(address, 8, f.let(select(equal, replacement, value)));
      f.if(equal.eqz(), () => {
        e.setGpr(RAX, value.wrap(), 4);
        e.setGpr(RDX, value.shrU(32).wrap(), 4);
      });
      e.mergeStatus(FLAG.ZF, equal.shl(6));
    },
  },
  {
    name: 'push',
    enc: ['50+ d64 Zv', 'FF /6 d64 Ev', '68 d64 Iz', '6A d64 Ibs'],
    sem: (e) => {
      const value = e.get(0);
      e.push(e.size, value);
    },
  },
  {
    name: 'pop',
    enc: ['58+ d64 Zv='],
    sem: (e) => e.set(0, e.pop(e.size)),
  },
  {
    name: 'pop',
    enc: ['8F /0 d64 Ev='],
    sem: (e) => {
      const { f } = e;
      // The address is computed with rsp already incremented; a fault of the store leaves rsp as it was.
      const old = e.gpr(RSP);
      const value = e.pop(e.size);
      if (!e.mem) {
        e.set(0, value);
        return;
      }
      const raised = e.gpr(RSP);
      const offset = e.effective();
      e.setGpr(RSP, old);
      const address = e.linear(offset, e.size, true);
      e.store(address, e.size, value);
      e.setGpr(RSP, raised);
      void f;
    },
  },
  {
    name: 'pusha',
    enc: ['60 i64 v -'],
    sem: (e) => {
      // All eight or none: the first push decides whether the lowest address can be written.
      const { f } = e;
      const size = e.size;
      const old = e.gpr(RSP);
      for (let n = 0; n < 8; n++) {
        const value = n === RSP ? (size === 2 ? old.wrap().and(0xffff) : old.wrap()) : e.gpr(n, size);
        const at = e.callValue('stack_pointer', e.cpu, f.let(old.sub((n + 1) * size)));
        const address = e.callValue('stack_linear', e.cpu, at, i32(size), i32(1));
        e.store(address, size, value);
      }
      e.setGpr(RSP, e.callValue('stack_pointer', e.cpu, f.let(old.sub(8 * size))));
    },
  },
  {
    name: 'popa',
    enc: ['61 i64 v -'],
    sem: (e) => {
      const { f } = e;
      const size = e.size;
      const old = e.gpr(RSP);
      const values: Val[] = [];
      for (let n = 0; n < 8; n++) {
        const at = f.let(old.add(n * size));
        const address = e.callValue('stack_linear', e.cpu, at, i32(size), i32(0));
        values.push(e.load(address, size));
      }
      for (const [n, value] of values.entries()) if (7 - n !== RSP) e.setGpr(7 - n, value, size);
      e.setGpr(RSP, e.callValue('stack_pointer', e.cpu, f.let(old.add(8 * size))));
    },
  },
  {
    name: 'enter',
    enc: ['C8 d64 v Iw,Ib'],
    sem: (e) => e.call('enter', e.cpu, e.get(0), e.imm2(), i32(e.size)),
  },
  {
    name: 'leave',
    enc: ['C9 d64 v -'],
    sem: (e) => {
      const { f } = e;
      const old = e.gpr(RSP);
      const frame = e.callValue('stack_pointer', e.cpu, e.gpr(RBP));
      const address = e.callValue('stack_linear', e.cpu, frame, i32(e.size), i32(0));
      const value = e.load(address, e.size);
      e.setGpr(RSP, e.callValue('stack_pointer', e.cpu, f.let(frame.add(e.size))));
      e.setGpr(RBP, value, e.size);
      void old;
    },
  },
  {
    name: 'xlat',
    enc: ['D7 -'],
    sem: (e) => {
      const { f } = e;
      const size = e.addressSize();
      const sum = f.let(e.gpr(RBX).add(e.gpr(RAX, 1).zext()));
      const offset = e.callValue('cut_address', sum, size);
      const address = e.callValue('string_linear', e.cpu, e.record(), offset, i32(1), i32(0));
      e.setGpr(RAX, e.load(address, 1), 1);
    },
  },
  {
    name: 'nop',
    enc: [
      '90 -',
      '0F1F /r Ev',
      '0F19 /r Ev',
      '0F1A /r Ev',
      '0F1B /r Ev',
      '0F1C /r Ev',
      '0F1D /r Ev',
      '0F1E /r Ev',
    ],
    sem: () => undefined,
  },
  { name: 'nop', enc: ['0F18 /r Ev'], sem: () => undefined },
  { name: 'prefetchw', enc: ['0F0D /r:m M'], sem: () => undefined },
  {
    // With a register AMD raises #UD (APM vol. 3, PREFETCH), Intel has a NOP (SDM vol. 2, table A-3); both measured.
    name: 'nop',
    enc: ['0F0D /r:r Ev'],
    sem: (e) => e.raiseIf(e.field32(CPU.vendor).eqz(), VEC.UD),
  },
  { name: 'lahf', enc: ['9F -'], sem: (e) => e.setAh(e.f.let(e.status().and(0xd5).or(2))) },
  {
    name: 'sahf',
    enc: ['9E -'],
    sem: (e) => e.mergeStatus(FLAG.SF | FLAG.ZF | FLAG.AF | FLAG.PF | FLAG.CF, e.ah()),
  },
  { name: 'clc', enc: ['F8 -'], sem: (e) => e.mergeStatus(FLAG.CF, i32(0)) },
  { name: 'stc', enc: ['F9 -'], sem: (e) => e.mergeStatus(FLAG.CF, i32(1)) },
  { name: 'cmc', enc: ['F5 -'], sem: (e) => e.setStatus(e.f.let(e.status().xor(1))) },
  { name: 'cld', enc: ['FC -'], sem: (e) => e.setField32(CPU.eflags, e.field32(CPU.eflags).and(~FLAG.DF)) },
  { name: 'std', enc: ['FD -'], sem: (e) => e.setField32(CPU.eflags, e.field32(CPU.eflags).or(FLAG.DF)) },
  {
    name: 'cli',
    enc: ['FA -'],
    sem: (e) => e.call('clear_interrupts', e.cpu),
  },
  {
    name: 'sti',
    enc: ['FB -'],
    ends: 'sync',
    sem: (e) => e.call('set_interrupts', e.cpu),
  },
  { name: 'salc', enc: ['D6 i64 -'], sem: (e) => e.setGpr(RAX, e.f.let(e.carry().neg()), 1) },
  {
    name: 'pushf',
    enc: ['9C d64 v -'],
    sem: (e) => {
      e.call('check_flags_access', e.cpu, i32(e.size));
      const flags = e.f.let(e.eflags().and(~(FLAG.RF | FLAG.VM)));
      const shown = e.callValue('flags_image', e.cpu, flags, i32(e.size));
      e.push(e.size, e.size === 8 ? shown.zext() : e.trunc(shown));
    },
  },
  {
    name: 'popf',
    enc: ['9D d64 v -'],
    ends: 'sync',
    sem: (e) => {
      e.call('check_flags_access', e.cpu, i32(e.size));
      const value = e.pop(e.size);
      e.call('load_flags', e.cpu, value.wrap(), i32(e.size));
    },
  },
  {
    name: 'rdfsbase',
    feature: 'fsgsbase',
    enc: ['F3 0FAE /0:r o64 Ry='],
    sem: (e) => fsGsBase(e, () => e.set(0, e.f.let(e.trunc(e.segBase(FS))))),
  },
  {
    name: 'rdgsbase',
    feature: 'fsgsbase',
    enc: ['F3 0FAE /1:r o64 Ry='],
    sem: (e) => fsGsBase(e, () => e.set(0, e.f.let(e.trunc(e.segBase(GS))))),
  },
  {
    name: 'wrfsbase',
    feature: 'fsgsbase',
    enc: ['F3 0FAE /2:r o64 Ry'],
    sem: (e) => fsGsBase(e, () => writeBase(e, FS)),
  },
  {
    name: 'wrgsbase',
    feature: 'fsgsbase',
    enc: ['F3 0FAE /3:r o64 Ry'],
    sem: (e) => fsGsBase(e, () => writeBase(e, GS)),
  },
];

function fsGsBase(e: Sem, body: () => void): void {
  e.raiseIf(e.field32(CPU.cr4).and(CR4.FSGSBASE).eqz(), VEC.UD);
  body();
}

function writeBase(e: Sem, segment: number): void {
  const value = e.f.let(e.get(0).zext());
  e.raiseIf(e.callValue('canonical', e.cpu, value).eqz(), VEC.GP, 0);
  e.setField64(0x100 + segment * 32, value);
}
void CR0;
void SHADOW;
