/** Copies a context's registers to and from its VMSA page, in generated code: both happen at each entry and exit. */
import { vmsa, X87_EXPONENTS, X87_SIGNIFICANDS, XMM } from '../../abi/snp/vmsa.ts';
import {
  CPU,
  CS,
  DS,
  ES,
  FS,
  GDTR,
  GS,
  IDTR,
  LDTR,
  SEG,
  SS,
  STATUS_FLAGS,
  TR,
  segField,
} from '../../x86/layout.ts';
import { routine, type Routine } from '../../x86/runtime/library.ts';
import { i32, select } from '../../x86/wasm/value.ts';

type Name = Parameters<typeof vmsa.offsetOf>[0];

const GPRS: readonly Name[] = [
  ...(['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi'] as const),
  ...(['r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15'] as const),
];
/** Fields that are the same on both sides: name, offset in the CPU structure, bits. */
const FIELDS: readonly (readonly [Name, number, '64' | '32'])[] = [
  ...GPRS.map((name, n): [Name, number, '64'] => [name, CPU.gpr + n * 8, '64']),
  ['rip', CPU.rip, '64'],
  ['efer', CPU.efer, '64'],
  ['xss', CPU.xss, '64'],
  ['cr0', CPU.cr0, '64'],
  ['cr2', CPU.cr2, '64'],
  ['cr3', CPU.cr3, '64'],
  ['cr4', CPU.cr4, '64'],
  ['dr6', CPU.dr + 32, '64'],
  ['dr7', CPU.dr + 40, '64'],
  ['star', CPU.star, '64'],
  ['lstar', CPU.lstar, '64'],
  ['cstar', CPU.cstar, '64'],
  ['sfmask', CPU.sfmask, '64'],
  ['kernelGsBase', CPU.kernelGsBase, '64'],
  ['sysenterCs', CPU.sysenterCs, '64'],
  ['sysenterEsp', CPU.sysenterEsp, '64'],
  ['sysenterEip', CPU.sysenterEip, '64'],
  ['pat', CPU.pat, '64'],
  ['specCtrl', CPU.specCtrl, '64'],
  ['pkru', CPU.pkru, '32'],
  ['tscAux', CPU.tscAux, '32'],
  ['xcr0', CPU.xcr0, '64'],
  ['mxcsr', CPU.mxcsr, '32'],
  ['x87Dp', CPU.fdp, '64'],
  ['x87Rip', CPU.fip, '64'],
];
const X87_WORDS: readonly (readonly [Name, number])[] = [
  ['ftw', CPU.ftw],
  ['fcw', CPU.fcw],
  ['fop', CPU.fop],
  ['x87Ds', CPU.fds],
  ['x87Cs', CPU.fcs],
];
/** DR0-3 belong to the VMSA only with DebugSwap (APM vol. 2, 15.35.5). */
const DEBUG: readonly (readonly [Name, number])[] = [0, 1, 2, 3].map((n) => [
  `dr${n}` as Name,
  CPU.dr + n * 8,
]);
const SEGMENTS: readonly (readonly [string, number])[] = [
  ['es', ES],
  ['cs', CS],
  ['ss', SS],
  ['ds', DS],
  ['fs', FS],
  ['gs', GS],
  ['gdtr', GDTR],
  ['ldtr', LDTR],
  ['idtr', IDTR],
  ['tr', TR],
];
const at = (name: string): number => vmsa.offsetOf(name as Name);
const UNUSABLE = 0x10000;
const PRESENT = 0x80;

/** Parameters: CPU structure, host address of the page, 1 when DebugSwap is on. */
export const vmsaRoutines: readonly Routine[] = [
  routine('vmsa_save', ['i32', 'i32', 'i32'], [], (f, lib) => {
    const cpu = f.p(0);
    const page = f.p(1);
    for (const [name, offset, bits] of FIELDS) f.store(bits, page, f.load(bits, cpu, offset), at(name));
    f.if(f.p(2), () => {
      for (const [name, offset] of DEBUG) f.store('64', page, f.load('64', cpu, offset), at(name));
    });
    for (const [name, index] of SEGMENTS) {
      f.store('16', page, f.load('32', cpu, segField(index, SEG.selector)), at(`${name}Selector`));
      f.store('16', page, f.load('32', cpu, segField(index, SEG.attr)).and(0xfff), at(`${name}Attributes`));
      f.store('32', page, f.load('32', cpu, segField(index, SEG.limit)), at(`${name}Limit`));
      f.store('64', page, f.load('64', cpu, segField(index, SEG.base)), at(`${name}Base`));
    }
    f.store('8', page, f.load('32', cpu, CPU.cpl), at('cpl'));
    const flags = f.let(f.load('32', cpu, CPU.eflags).or(f.callValue(lib('status_flags'), cpu)));
    f.store('64', page, flags.zext(), at('rflags'));
    for (const [name, offset] of X87_WORDS) f.store('16', page, f.load('32', cpu, offset), at(name));
    const top = f.let(f.load('32', cpu, CPU.ftop));
    f.store('16', page, f.load('32', cpu, CPU.fsw).and(~0x3800).or(top.shl(11)), at('fsw'));
    for (let n = 0; n < 8; n++) {
      const st = f.let(cpu.add(top.add(n).and(7).shl(4)));
      f.store('64', page, f.load('64', st, CPU.st), X87_SIGNIFICANDS + n * 8);
      f.store('16', page, f.load('16u', st, CPU.st + 8), X87_EXPONENTS + n * 2);
    }
    for (let n = 0; n < 16; n++) f.store('v128', page, f.load('v128', cpu, CPU.xmm + n * 32), XMM + n * 16);
  }),
  routine('vmsa_load', ['i32', 'i32', 'i32'], [], (f) => {
    const cpu = f.p(0);
    const page = f.p(1);
    for (const [name, offset, bits] of FIELDS) f.store(bits, cpu, f.load(bits, page, at(name)), offset);
    f.if(f.p(2), () => {
      for (const [name, offset] of DEBUG) f.store('64', cpu, f.load('64', page, at(name)), offset);
    });
    for (const [name, index] of SEGMENTS) {
      f.store('32', cpu, f.load('16u', page, at(`${name}Selector`)), segField(index, SEG.selector));
      const attributes = f.let(f.load('16u', page, at(`${name}Attributes`)).and(0xfff));
      f.store(
        '32',
        cpu,
        attributes.or(select(attributes.and(PRESENT), i32(0), i32(UNUSABLE))),
        segField(index, SEG.attr),
      );
      f.store('32', cpu, f.load('32', page, at(`${name}Limit`)), segField(index, SEG.limit));
      f.store('64', cpu, f.load('64', page, at(`${name}Base`)), segField(index, SEG.base));
    }
    f.store('32', cpu, f.load('8u', page, at('cpl')), CPU.cpl);
    const flags = f.let(f.load('32', page, at('rflags')));
    f.store('32', cpu, flags.and(~STATUS_FLAGS).or(2), CPU.eflags);
    f.store('32', cpu, i32(0), CPU.flagKind);
    f.store('64', cpu, flags.and(STATUS_FLAGS).zext(), CPU.flagR);
    for (const [name, offset] of X87_WORDS) f.store('32', cpu, f.load('16u', page, at(name)), offset);
    f.store('32', cpu, f.load('16u', page, at('ftw')).and(0xff), CPU.ftw);
    const status = f.let(f.load('16u', page, at('fsw')));
    const top = f.let(status.shrU(11).and(7));
    f.store('32', cpu, status.and(~0x3800), CPU.fsw);
    f.store('32', cpu, top, CPU.ftop);
    for (let n = 0; n < 8; n++) {
      const st = f.let(cpu.add(top.add(n).and(7).shl(4)));
      f.store('64', st, f.load('64', page, X87_SIGNIFICANDS + n * 8), CPU.st);
      f.store('16', st, f.load('16u', page, X87_EXPONENTS + n * 2), CPU.st + 8);
    }
    for (let n = 0; n < 16; n++) f.store('v128', cpu, f.load('v128', page, XMM + n * 16), CPU.xmm + n * 32);
  }),
];
