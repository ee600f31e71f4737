/** System instructions (Intel SDM vol. 2 and 3; AMD APM vol. 3 ch. 4). */
import {
  CONTROL_EXIT,
  CPU,
  CS,
  DS,
  ES,
  EXIT,
  FLAG,
  FS,
  GDTR,
  GS,
  IDTR,
  INTERCEPT,
  LDTR,
  RAISE,
  RAX,
  RBX,
  RCX,
  RDX,
  SEG,
  SHADOW,
  SS,
  TR,
  VEC,
  segField,
} from '../layout.ts';
import { CR0, CR4 } from '../registers.ts';
import type { Sem, Size } from '../sem.ts';
import { i32, i64, select, type Val } from '../wasm/value.ts';
import type { Def } from './def.ts';

/** #UD in real and virtual-8086 mode. */
const requireProtected = (e: Sem): void => e.raiseIf(e.callValue('in_protected_mode', e.cpu).eqz(), VEC.UD);

/** UMIP: SGDT, SIDT, SLDT, SMSW, STR are #GP above CPL 0. */
const checkUmip = (e: Sem): void =>
  e.raiseIf(e.field32(CPU.cr4).and(CR4.UMIP).bool().and(e.field32(CPU.cpl).bool()), VEC.GP, 0);

/** Virtual-8086 mode runs at CPL 3; real mode at 0. */
const cpl0 = (e: Sem): void => e.requireCpl0();

function loadTable(e: Sem, register: number): void {
  const { f } = e;
  cpl0(e);
  // 10 bytes in 64-bit mode, 6 elsewhere; a 16-bit operand size keeps 24 bits of the base.
  const long = e.callValue('in_long_mode', e.cpu);
  const address = e.address(0, 6, false);
  const limit = e.load(address, 2);
  const at = f.let(address.add(2));
  const base = f.ifValue(
    long,
    () => e.load(at, 8),
    () => f.let((e.size === 2 ? e.load(at, 4).and(0xffffff) : e.load(at, 4)).zext()),
  );
  e.raiseIf(e.callValue('canonical', e.cpu, base).eqz(), VEC.GP, 0);
  e.setField64(segField(register, SEG.base), base);
  e.setField32(segField(register, SEG.limit), limit);
}

function storeTable(e: Sem, register: number): void {
  const { f } = e;
  checkUmip(e);
  const long = e.callValue('in_long_mode', e.cpu);
  const address = e.address(0, 6, true);
  e.call('probe_write', e.cpu, address, f.let(select(long, i32(10), i32(6))));
  e.store(address, 2, e.field32(segField(register, SEG.limit)));
  const at = f.let(address.add(2));
  const base = e.segBase(register);
  f.if(
    long,
    () => e.store(at, 8, base),
    () => e.store(at, 4, base.wrap()),
  );
}

/** LLDT, LTR. */
function loadSystem(e: Sem, register: number): void {
  const { f } = e;
  requireProtected(e);
  cpl0(e);
  const selector = e.get(0);
  if (register === LDTR) {
    f.if(
      selector.and(0xfffc).eqz(),
      () => e.call('null_segment', e.cpu, i32(LDTR), selector),
      () => loadSystemDescriptor(e, register, selector),
    );
    return;
  }
  e.raiseIf(selector.and(0xfffc).eqz(), VEC.GP, 0);
  loadSystemDescriptor(e, register, selector);
}

function loadSystemDescriptor(e: Sem, register: number, selector: Val): void {
  const { f } = e;
  f.if(selector.and(4), () => e.call('raise_selector', e.cpu, i32(VEC.GP), selector));
  const raw = e.callValue('read_descriptor', e.cpu, selector, i32(VEC.GP));
  const long = f.let(e.field32(CPU.efer).shrU(10).and(1));
  const type = f.let(raw.shrU(40).wrap().and(0x1f));
  const good = register === LDTR ? type.eq(2) : select(long, type.eq(9), type.eq(9).or(type.eq(1)));
  f.if(good.eqz(), () => e.call('raise_selector', e.cpu, i32(VEC.GP), selector));
  f.if(raw.and(1n << 47n).eqz(), () => e.call('raise_selector', e.cpu, i32(VEC.NP), selector));
  const high = f.local('i64', 0);
  f.if(long, () => {
    const upper = e.callValue('descriptor_upper', e.cpu, selector);
    f.if(upper.shrU(40).and(0x1f).ne(0), () => e.call('raise_selector', e.cpu, i32(VEC.GP), selector));
    high.set(upper.shl(32));
    const base = raw.shrU(16).and(0xffffffn).or(raw.shrU(56).shl(24)).or(high.get);
    f.if(e.callValue('canonical', e.cpu, f.let(base)).eqz(), () =>
      e.call('raise_selector', e.cpu, i32(VEC.GP), selector),
    );
  });
  if (register === TR) {
    const address = e.callValue('descriptor_address', e.cpu, selector, i32(VEC.GP));
    e.call('st8_sys', e.cpu, address.add(5), raw.shrU(40).wrap().and(0xff).or(2));
  }
  e.call('set_segment', e.cpu, i32(register), selector, register === TR ? raw.or(1n << 41n) : raw);
  e.setField64(segField(register, SEG.base), e.segBase(register).or(high.get));
}

/** SLDT, STR, SMSW: 16 bits to memory, the operand size to a register. */
function storeSelector(e: Sem, value: Val): void {
  e.set(0, e.mem ? value.wrap().and(0xffff) : e.f.let(e.trunc(e.size === 8 ? value.zext() : value)));
}

/** LAR, LSL: ZF and the destination. */
function probe(e: Sem, what: 'lar' | 'lsl'): void {
  const { f } = e;
  requireProtected(e);
  const selector = f.let(e.get(1).wrap().and(0xffff));
  const old = e.get(0);
  const raw = e.callValue('probe_descriptor', e.cpu, selector);
  const visible = f.local('i32', e.field32(CPU.scratch));
  const long = f.let(e.field32(CPU.efer).shrU(10).and(1));
  const attr = f.let(raw.shrU(40).wrap().and(0xff));
  const type = f.let(attr.and(15));
  f.if(attr.and(0x10).eqz(), () => {
    // System types: LAR 1-5, 9, 11, 12 (long mode: 2, 9, 11, 12); LSL only segments with limits.
    const legacy = what === 'lar' ? 0b0001_1010_0011_1110 : 0b0000_1010_0000_1110;
    const wide = what === 'lar' ? 0b0001_1010_0000_0100 : 0b0000_1010_0000_0100;
    visible.set(visible.get.and(select(long, i32(wide), i32(legacy)).shrU(type)).and(1));
  });
  const dpl = f.let(attr.shrU(5).and(3));
  const conforming = f.let(attr.and(0x1c).eq(0x1c));
  const cpl = e.field32(CPU.cpl);
  f.if(conforming.eqz().and(cpl.gtU(dpl).or(selector.and(3).gtU(dpl))), () => visible.set(0));
  f.if(visible.get, () => {
    let result: Val;
    if (what === 'lar') result = raw.shrU(32).wrap().and(0x00ffff00);
    else {
      const low = f.let(raw.wrap().and(0xffff).or(raw.shrU(32).wrap().and(0xf0000)));
      result = select(raw.and(1n << 55n).ne(0), low.shl(12).or(0xfff), low);
    }
    e.set(0, f.let(e.size === 8 ? result.zext() : e.trunc(result)));
  });
  void old;
  e.mergeStatus(FLAG.ZF, f.let(visible.get.shl(6)));
}

function verify(e: Sem, write: boolean): void {
  const { f } = e;
  requireProtected(e);
  const selector = e.get(0);
  const raw = e.callValue('probe_descriptor', e.cpu, selector);
  const visible = e.field32(CPU.scratch);
  const attr = f.let(raw.shrU(40).wrap().and(0xff));
  const dpl = f.let(attr.shrU(5).and(3));
  const cpl = e.field32(CPU.cpl);
  const privilege = f.let(
    attr
      .and(0x1c)
      .eq(0x1c)
      .or(cpl.leU(dpl).and(selector.and(3).leU(dpl))),
  );
  // Writable data; or data, or readable code.
  const kind = write ? attr.and(0x1a).eq(0x12) : attr.and(0x10).bool().and(attr.and(0xa).ne(8));
  e.mergeStatus(FLAG.ZF, f.let(visible.and(privilege).and(kind).shl(6)));
}

function farPointer(e: Sem, segment: number): void {
  const { f } = e;
  const address = e.address(1, e.size + 2, false);
  const offset = e.load(address, e.size);
  const selector = e.load(f.let(address.add(e.size)), 2);
  e.call('load_segment', e.cpu, i32(segment), selector);
  e.set(0, offset);
}

/** IN and OUT ask the outside. */
function portIn(e: Sem, port: Val, bytes: Size): void {
  e.call('check_port', e.cpu, port, i32(bytes));
  const answer = e.ask(EXIT.io, port.zext(), i64(bytes), 0);
  e.setGpr(RAX, e.f.let(e.f.load('32', answer)), bytes);
}
function portOut(e: Sem, port: Val, bytes: Size): void {
  e.call('check_port', e.cpu, port, i32(bytes));
  e.ask(EXIT.io, port.zext(), i64(bytes | 0x100), e.gpr(RAX, bytes).zext());
}
const ioSize = (e: Sem): Size => (e.size === 8 ? 4 : e.size);

/** A software interrupt: delivered after the instruction, through a gate that its privilege must reach. */
function software(e: Sem, vector: Val): void {
  e.call('raise_trap', e.cpu, vector, i32(RAISE.software));
}

function rdtsc(e: Sem, intercept: number): void {
  e.call('check_tsc', e.cpu);
  e.call('check_intercept', e.cpu, i32(intercept), i32(0));
  const tsc = e.callValue('tsc', e.cpu, e.now());
  e.setGpr(RAX, tsc.and(0xffffffffn));
  e.setGpr(RDX, tsc.shrU(32));
}

export const systemDefs: readonly Def[] = [
  // Descriptor tables and segment registers.
  { name: 'lgdt', enc: ['0F01 /2:m v M'], ends: 'sync', sem: (e) => loadTable(e, GDTR) },
  { name: 'lidt', enc: ['0F01 /3:m v M'], ends: 'sync', sem: (e) => loadTable(e, IDTR) },
  { name: 'sgdt', enc: ['0F01 /0:m M'], sem: (e) => storeTable(e, GDTR) },
  { name: 'sidt', enc: ['0F01 /1:m M'], sem: (e) => storeTable(e, IDTR) },
  { name: 'lldt', enc: ['0F00 /2 Ew'], sem: (e) => loadSystem(e, LDTR) },
  { name: 'ltr', enc: ['0F00 /3 Ew'], sem: (e) => loadSystem(e, TR) },
  {
    name: 'sldt',
    enc: ['0F00 /0 Edw='],
    sem: (e) => {
      requireProtected(e);
      checkUmip(e);
      storeSelector(e, e.field32(segField(LDTR, SEG.selector)));
    },
  },
  {
    name: 'str',
    enc: ['0F00 /1 Edw='],
    sem: (e) => {
      requireProtected(e);
      checkUmip(e);
      storeSelector(e, e.field32(segField(TR, SEG.selector)));
    },
  },
  { name: 'verr', enc: ['0F00 /4 Ew'], sem: (e) => verify(e, false) },
  { name: 'verw', enc: ['0F00 /5 Ew'], sem: (e) => verify(e, true) },
  { name: 'lar', enc: ['0F02 /r Gv!,Edw'], sem: (e) => probe(e, 'lar') },
  { name: 'lsl', enc: ['0F03 /r Gv!,Edw'], sem: (e) => probe(e, 'lsl') },
  {
    name: 'arpl',
    // Writes only when it changes something: a read-only segment is no fault otherwise (measured).
    enc: ['63 /r i64 Ew,Gw'],
    sem: (e) => {
      const { f } = e;
      requireProtected(e);
      const a = e.get(0);
      const rpl = f.let(e.get(1).and(3));
      const less = f.let(a.and(3).ltU(rpl));
      f.if(less, () => {
        const value = f.let(a.and(~3).or(rpl));
        if (e.mem) e.store(e.linear(e.effective(), 2, true), 2, value);
        else e.set(0, value);
      });
      e.mergeStatus(FLAG.ZF, less.shl(6));
    },
  },
  {
    name: 'mov',
    enc: ['8C /r Edw=,Sw'],
    sem: (e) => {
      const { f } = e;
      const n = e.registerNumber(1);
      e.raiseIf(n.gtU(5), VEC.UD);
      storeSelector(e, f.let(f.load('32', e.cpu.add(n.shl(5)), segField(ES, SEG.selector))));
    },
  },
  {
    name: 'mov',
    enc: ['8E /r Sw=,Ew'],
    ends: 'sync',
    sem: (e) => {
      const { f } = e;
      const n = e.registerNumber(0);
      e.raiseIf(n.gtU(5).or(n.eq(CS)), VEC.UD);
      e.call('load_segment', e.cpu, n, e.get(1));
      f.if(n.eq(SS), () => e.setField32(CPU.shadow, e.field32(CPU.shadow).or(SHADOW.movSs)));
    },
  },
  ...(
    [
      [ES, '06 i64 v -', '07 i64 v -'],
      [CS, '0E i64 v -', ''],
      [SS, '16 i64 v -', '17 i64 v -'],
      [DS, '1E i64 v -', '1F i64 v -'],
      [FS, '0FA0 d64 v -', '0FA1 d64 v -'],
      [GS, '0FA8 d64 v -', '0FA9 d64 v -'],
    ] as const
  ).flatMap(([index, push, pop]): Def[] => [
    {
      name: 'push',
      enc: [push],
      // A 32-bit push of a segment register writes only its 16 bits (SDM vol. 2, PUSH); the slot is 4 bytes.
      sem: (e) => e.call('push_segment', e.cpu, e.field32(segField(index, SEG.selector)), i32(e.size)),
    },
    ...(pop === ''
      ? []
      : [
          {
            name: 'pop',
            enc: [pop],
            ends: 'sync' as const,
            sem: (e: Sem) => {
              const old = e.gpr(4);
              const selector = e.pop(e.size);
              const after = e.gpr(4);
              e.setGpr(4, old);
              e.call('load_segment', e.cpu, i32(index), selector.wrap());
              e.setGpr(4, after);
              if (index === SS) e.setField32(CPU.shadow, e.field32(CPU.shadow).or(SHADOW.movSs));
            },
          },
        ]),
  ]),
  { name: 'les', enc: ['C4 /r:m i64 Gv=,Mp'], ends: 'sync', sem: (e) => farPointer(e, ES) },
  { name: 'lds', enc: ['C5 /r:m i64 Gv=,Mp'], ends: 'sync', sem: (e) => farPointer(e, DS) },
  { name: 'lss', enc: ['0FB2 /r:m Gv=,Mp'], ends: 'sync', sem: (e) => farPointer(e, SS) },
  { name: 'lfs', enc: ['0FB4 /r:m Gv=,Mp'], ends: 'sync', sem: (e) => farPointer(e, FS) },
  { name: 'lgs', enc: ['0FB5 /r:m Gv=,Mp'], ends: 'sync', sem: (e) => farPointer(e, GS) },

  // Far transfers and interrupts.
  {
    name: 'jmpf',
    enc: ['EA i64 Ap'],
    ends: 'sync',
    sem: (e) => e.call('far_transfer', e.cpu, e.imm2(), e.f.let(e.get(0).zext()), i32(e.size), i32(0)),
  },
  {
    name: 'callf',
    enc: ['9A i64 Ap'],
    ends: 'sync',
    sem: (e) => e.call('far_transfer', e.cpu, e.imm2(), e.f.let(e.get(0).zext()), i32(e.size), i32(1)),
  },
  ...(
    [
      ['callf', 3, 1],
      ['jmpf', 5, 0],
    ] as const
  ).map(([name, n, call]): Def => ({
    name,
    enc: [`FF /${n}:m Mp`],
    ends: 'sync',
    sem: (e) => {
      const { f } = e;
      const address = e.address(0, e.size + 2, false);
      const offset = f.let(e.load(address, e.size).zext());
      const selector = e.load(f.let(address.add(e.size)), 2);
      e.call('far_transfer', e.cpu, selector, offset, i32(e.size), i32(call));
    },
  })),
  {
    name: 'retf',
    enc: ['CB v -'],
    ends: 'sync',
    sem: (e) => e.call('far_return', e.cpu, i32(e.size), i32(0)),
  },
  {
    name: 'retf',
    enc: ['CA v Iw'],
    ends: 'sync',
    sem: (e) => e.call('far_return', e.cpu, i32(e.size), e.get(0)),
  },
  { name: 'iret', enc: ['CF v -'], ends: 'sync', sem: (e) => e.call('iret', e.cpu, i32(e.size)) },
  {
    name: 'int',
    enc: ['CD Ib'],
    ends: 'sync',
    sem: (e) => e.call('software_interrupt', e.cpu, e.get(0)),
  },
  { name: 'int3', enc: ['CC -'], ends: 'sync', sem: (e) => software(e, i32(VEC.BP)) },
  {
    name: 'int1',
    enc: ['F1 -'],
    ends: 'sync',
    sem: (e) => {
      e.setField64(CPU.raiseInfo, 0);
      e.call('raise_trap', e.cpu, i32(VEC.DB), i32(RAISE.trap));
    },
  },
  {
    name: 'into',
    enc: ['CE i64 -'],
    ends: 'sync',
    sem: (e) => e.f.if(e.condition(0), () => software(e, i32(VEC.OF))),
  },
  {
    name: 'bound',
    enc: ['62 /r:m i64 Gv,M'],
    sem: (e) => {
      const { f } = e;
      const index = e.sign64(e.get(0));
      const address = e.address(1, e.size * 2, false);
      const low = e.sign64(e.load(address, e.size));
      const high = e.sign64(e.load(f.let(address.add(e.size)), e.size));
      const at = f.let(index);
      e.raiseIf(at.ltS(low).or(at.gtS(high)), VEC.BR);
    },
  },
  {
    name: 'syscall',
    feature: 'syscall',
    enc: ['0F05 -'],
    ends: 'sync',
    sem: (e) => e.call('syscall', e.cpu, e.nextRip()),
  },
  {
    name: 'sysret',
    feature: 'syscall',
    enc: ['0F07 v -'],
    ends: 'sync',
    sem: (e) => e.call('sysret', e.cpu, i32(e.size)),
  },
  { name: 'sysenter', feature: 'sep', enc: ['0F34 -'], ends: 'sync', sem: (e) => e.call('sysenter', e.cpu) },
  {
    name: 'sysexit',
    feature: 'sep',
    enc: ['0F35 v -'],
    ends: 'sync',
    sem: (e) => e.call('sysexit', e.cpu, i32(e.size)),
  },
  {
    name: 'swapgs',
    enc: ['0F01 =F8 o64 -'],
    sem: (e) => {
      cpl0(e);
      const gs = e.segBase(GS);
      const kernel = e.field64(CPU.kernelGsBase);
      e.setField64(segField(GS, SEG.base), kernel);
      e.setField64(CPU.kernelGsBase, gs);
    },
  },

  // Control and debug registers, MSRs.
  {
    name: 'mov',
    enc: ['0F20 /r:r anymod v Rv=,Cy'],
    sem: (e) => {
      const { f } = e;
      const n = e.registerNumber(1);
      requireControlRegister(e, n);
      cpl0(e);
      const value = f.local('i64', 0);
      f.switch(
        n,
        [
          () => value.set(control(e, CPU.cr0, CPU.cr0Mask, CPU.cr0Shadow)),
          undefined,
          () => value.set(e.field64(CPU.cr2)),
          () => value.set(e.field64(CPU.cr3)),
          () => value.set(control(e, CPU.cr4, CPU.cr4Mask, CPU.cr4Shadow)),
          undefined,
          undefined,
          undefined,
          () => {
            value.set(f.load('64', e.ask(EXIT.readCr8)));
          },
        ],
        () => e.raise(VEC.UD),
      );
      writeWide(e, f.let(value.get));
    },
  },
  {
    name: 'mov',
    enc: ['0F22 /r:r anymod v Cy=,Rv'],
    ends: 'sync',
    sem: (e) => {
      const { f } = e;
      const n = e.registerNumber(0);
      requireControlRegister(e, n);
      cpl0(e);
      const value = readWide(e, 1);
      f.switch(
        n,
        [
          () => e.call('write_cr0', e.cpu, value, i32(CONTROL_EXIT.mov)),
          undefined,
          () => e.setField64(CPU.cr2, value),
          () => e.call('write_cr3', e.cpu, value),
          () => e.call('write_cr4', e.cpu, value),
          undefined,
          undefined,
          undefined,
          () => {
            e.raiseIf(value.and(-16n).ne(0), VEC.GP, 0);
            e.ask(EXIT.writeCr8, value);
          },
        ],
        () => e.raise(VEC.UD),
      );
    },
  },
  {
    name: 'mov',
    enc: ['0F21 /r:r anymod v Rv=,Dy'],
    sem: (e) => writeWide(e, e.callValue('read_dr', e.cpu, e.registerNumber(1))),
  },
  {
    name: 'mov',
    enc: ['0F23 /r:r anymod v Dy=,Rv'],
    ends: 'sync',
    sem: (e) => e.call('write_dr', e.cpu, e.registerNumber(0), readWide(e, 1)),
  },
  {
    name: 'clts',
    enc: ['0F06 -'],
    ends: 'sync',
    sem: (e) => {
      const { f } = e;
      cpl0(e);
      // A hypervisor that owns TS sees it where its shadow is set, and otherwise there is nothing to clear.
      f.if(
        e.field64(CPU.cr0Mask).and(BigInt(CR0.TS)).ne(0),
        () =>
          f.if(e.field64(CPU.cr0Shadow).and(BigInt(CR0.TS)).ne(0), () => {
            const value = f.let(e.field64(CPU.cr0).and(~BigInt(CR0.TS)));
            e.ask(EXIT.intercept, CONTROL_EXIT.clts, value, e.field64(CPU.cr0));
          }),
        () => e.setField64(CPU.cr0, e.field64(CPU.cr0).and(~BigInt(CR0.TS))),
      );
    },
  },
  {
    name: 'smsw',
    enc: ['0F01 /4 Edw='],
    sem: (e) => {
      checkUmip(e);
      storeSelector(e, e.f.let(control(e, CPU.cr0, CPU.cr0Mask, CPU.cr0Shadow).wrap()));
    },
  },
  {
    name: 'lmsw',
    enc: ['0F01 /6 Ew'],
    ends: 'sync',
    sem: (e) => {
      cpl0(e);
      // PE can be set but not cleared.
      const old = control(e, CPU.cr0, CPU.cr0Mask, CPU.cr0Shadow);
      const value = e.f.let(e.get(0).and(15).zext());
      e.call('write_cr0', e.cpu, e.f.let(old.and(-15n).or(value).or(old.and(1))), i32(CONTROL_EXIT.lmsw));
    },
  },
  {
    name: 'rdmsr',
    feature: 'msr',
    enc: ['0F32 -'],
    sem: (e) => {
      cpl0(e);
      const value = e.callValue('read_msr', e.cpu, e.gpr(RCX, 4), e.now());
      e.setGpr(RAX, value.and(0xffffffffn));
      e.setGpr(RDX, value.shrU(32));
    },
  },
  {
    name: 'wrmsr',
    feature: 'msr',
    enc: ['0F30 -'],
    ends: 'sync',
    sem: (e) => {
      cpl0(e);
      const value = e.f.let(e.gpr(RDX, 4).zext().shl(32).or(e.gpr(RAX, 4).zext()));
      e.call('write_msr', e.cpu, e.gpr(RCX, 4), value, e.now());
    },
  },
  { name: 'rdtsc', feature: 'tsc', enc: ['0F31 -'], sem: (e) => rdtsc(e, INTERCEPT.rdtsc) },
  {
    name: 'rdtscp',
    feature: 'rdtscp',
    enc: ['0F01 =F9 -'],
    sem: (e) => {
      rdtsc(e, INTERCEPT.rdtscp);
      e.setGpr(RCX, e.field64(CPU.tscAux).and(0xffffffffn));
    },
  },
  {
    name: 'rdpid',
    feature: 'rdpid',
    enc: ['F3 0FC7 /7:r v Rv='],
    sem: (e) => writeWide(e, e.field64(CPU.tscAux)),
  },
  {
    name: 'rdpmc',
    enc: ['0F33 -'],
    sem: (e) => {
      e.raiseIf(e.field32(CPU.cr4).and(CR4.PCE).eqz().and(e.field32(CPU.cpl).bool()), VEC.GP, 0);
      e.call('check_intercept', e.cpu, i32(INTERCEPT.rdpmc), i32(0));
      // No performance counters are offered: every index is invalid.
      e.raise(VEC.GP, 0);
    },
  },

  // TLB and caches.
  {
    name: 'invlpg',
    enc: ['0F01 /7:m M'],
    ends: 'sync',
    sem: (e) => {
      cpl0(e);
      const base = e.f.load('64', e.cpu.add(e.f.load('16u', e.record(), 14)));
      e.call('tlb_flush_page', e.cpu, e.f.let(e.effective().add(base)));
    },
  },
  {
    name: 'invpcid',
    feature: 'invpcid',
    enc: ['66 0F3882 /r:m Gy,Mx'],
    ends: 'sync',
    sem: (e) => invpcid(e),
  },
  { name: 'invd', enc: ['0F08 -'], ends: 'sync', sem: (e) => cacheControl(e, 0) },
  { name: 'wbinvd', enc: ['0F09 -'], ends: 'sync', sem: (e) => cacheControl(e, 1) },
  { name: 'wbnoinvd', feature: 'wbnoinvd', enc: ['F3 0F09 -'], ends: 'sync', sem: (e) => cacheControl(e, 2) },

  // Waiting, identification, ports.
  {
    name: 'hlt',
    enc: ['F4 -'],
    ends: 'sync',
    sem: (e) => {
      cpl0(e);
      e.ask(EXIT.hlt);
    },
  },
  { name: 'pause', enc: ['F3 90 -'], sem: () => undefined },
  {
    name: 'monitor',
    feature: 'monitor',
    enc: ['0F01 =C8 -'],
    ends: 'sync',
    sem: (e) => {
      cpl0(e);
      e.raiseIf(e.gpr(RCX).ne(0), VEC.GP, 0);
      e.ask(EXIT.monitor);
    },
  },
  {
    name: 'mwait',
    feature: 'monitor',
    enc: ['0F01 =C9 -'],
    ends: 'sync',
    sem: (e) => {
      cpl0(e);
      e.raiseIf(e.gpr(RCX).gtU(1), VEC.GP, 0);
      e.ask(EXIT.mwait);
    },
  },
  {
    name: 'cpuid',
    enc: ['0FA2 -'],
    ends: 'sync',
    sem: (e) => {
      const { f } = e;
      const answer = e.ask(EXIT.cpuid, e.gpr(RAX, 4).zext(), e.gpr(RCX, 4).zext());
      for (const [k, register] of [RAX, RBX, RCX, RDX].entries())
        e.setGpr(register, f.let(f.load('32u', answer, k * 4, 'i64')));
    },
  },
  { name: 'in', enc: ['E4 Ib'], ends: 'sync', sem: (e) => portIn(e, e.get(0), 1) },
  { name: 'in', enc: ['E5 v Ib'], ends: 'sync', sem: (e) => portIn(e, e.get(0), ioSize(e)) },
  { name: 'in', enc: ['EC -'], ends: 'sync', sem: (e) => portIn(e, e.gpr(RDX, 2), 1) },
  { name: 'in', enc: ['ED v -'], ends: 'sync', sem: (e) => portIn(e, e.gpr(RDX, 2), ioSize(e)) },
  { name: 'out', enc: ['E6 Ib'], ends: 'sync', sem: (e) => portOut(e, e.get(0), 1) },
  { name: 'out', enc: ['E7 v Ib'], ends: 'sync', sem: (e) => portOut(e, e.get(0), ioSize(e)) },
  { name: 'out', enc: ['EE -'], ends: 'sync', sem: (e) => portOut(e, e.gpr(RDX, 2), 1) },
  { name: 'out', enc: ['EF v -'], ends: 'sync', sem: (e) => portOut(e, e.gpr(RDX, 2), ioSize(e)) },
  { name: 'vmcall', feature: 'vmx', enc: ['0F01 =C1 -'], ends: 'sync', sem: (e) => void e.ask(EXIT.vmcall) },
  {
    name: 'vmmcall',
    feature: 'svm',
    enc: ['0F01 =D9 -'],
    ends: 'sync',
    sem: (e) => void e.ask(EXIT.vmmcall),
  },

  // Small extensions.
  { name: 'clac', feature: 'smap', enc: ['NP 0F01 =CA -'], ends: 'sync', sem: (e) => setAc(e, false) },
  { name: 'stac', feature: 'smap', enc: ['NP 0F01 =CB -'], ends: 'sync', sem: (e) => setAc(e, true) },
  {
    name: 'rdpkru',
    feature: 'pku',
    enc: ['NP 0F01 =EE -'],
    sem: (e) => {
      e.raiseIf(e.field32(CPU.cr4).and(CR4.PKE).eqz(), VEC.UD);
      e.raiseIf(e.gpr(RCX, 4).bool(), VEC.GP, 0);
      e.setGpr(RAX, e.field32(CPU.pkru), 4);
      e.setGpr(RDX, i64(0));
    },
  },
  {
    name: 'wrpkru',
    feature: 'pku',
    enc: ['NP 0F01 =EF -'],
    ends: 'sync',
    sem: (e) => {
      e.raiseIf(e.field32(CPU.cr4).and(CR4.PKE).eqz(), VEC.UD);
      e.raiseIf(e.gpr(RCX, 4).or(e.gpr(RDX, 4)).bool(), VEC.GP, 0);
      e.setField32(CPU.pkru, e.gpr(RAX, 4));
      // Rights were folded into TLB entries when they were filled.
      e.call('tlb_flush', e.cpu);
    },
  },
  { name: 'rdrand', feature: 'rdrand', enc: ['NR 0FC7 /6:r Rv='], sem: random },
  { name: 'rdseed', feature: 'rdseed', enc: ['NR 0FC7 /7:r Rv='], sem: random },
  { name: 'serialize', feature: 'serialize', enc: ['NP 0F01 =E8 -'], ends: 'sync', sem: () => undefined },
];

/** CR0 or CR4 as the guest reads it: bits that a hypervisor owns come from its read shadow. */
function control(e: Sem, register: number, mask: number, shadow: number): Val {
  const owned = e.field64(mask);
  return e.f.let(e.field64(register).and(owned.not()).or(e.field64(shadow).and(owned)));
}

/** CR0, CR2, CR3, CR4, CR8 exist; another number is #UD at every privilege. */
function requireControlRegister(e: Sem, n: Val): void {
  e.raiseIf(n.gtU(8).or(i32(0x11d).shrU(n).and(1).eqz()), VEC.UD);
}

function setAc(e: Sem, on: boolean): void {
  e.raiseIf(e.field32(CPU.cpl).bool(), VEC.UD);
  const old = e.field32(CPU.eflags);
  e.setField32(CPU.eflags, on ? old.or(FLAG.AC) : old.and(~FLAG.AC));
}

function random(e: Sem): void {
  e.set(0, e.f.let(e.trunc(e.callValue('entropy', e.cpu))));
  e.setStatus(i32(FLAG.CF));
}

function cacheControl(e: Sem, which: number): void {
  cpl0(e);
  e.ask(EXIT.wbinvd, which);
}

/** Control and debug registers move as 64 bits in 64-bit mode and as 32 bits elsewhere, whatever the prefixes say. */
function writeWide(e: Sem, value: Val): void {
  const { f } = e;
  const at = f.let(e.cpu.add(f.load('16u', e.record(), 6)));
  f.store('64', at, select(e.callValue('in_long_mode', e.cpu), value, value.and(0xffffffffn)));
}
function readWide(e: Sem, i: number): Val {
  const { f } = e;
  void i;
  const value = f.let(f.load('64', e.cpu.add(f.load('16u', e.record(), 6))));
  return f.let(select(e.callValue('in_long_mode', e.cpu), value, value.and(0xffffffffn)));
}

function invpcid(e: Sem): void {
  const { f } = e;
  cpl0(e);
  const type = f.let(e.get(0).zext());
  const address = e.address(1, 16, false);
  const pcid = e.load(address, 8);
  const linear = e.load(f.let(address.add(8)), 8);
  e.raiseIf(type.gtU(3), VEC.GP, 0);
  e.raiseIf(pcid.shrU(12).ne(0).and(type.ltU(2)), VEC.GP, 0);
  e.raiseIf(type.eqz().and(e.callValue('canonical', e.cpu, linear).eqz()), VEC.GP, 0);
  e.raiseIf(type.ltU(2).and(pcid.ne(0)).and(e.field32(CPU.cr4).and(CR4.PCIDE).eqz()), VEC.GP, 0);
  f.if(
    type.eqz(),
    () => e.call('tlb_flush_page', e.cpu, linear),
    () => e.call('tlb_flush', e.cpu),
  );
}
