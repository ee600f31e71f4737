/**
 * The code at a TD's reset vector. It is part of MRTD, and what it does nobody does for it: 32-bit mode to 64-bit mode, then
 * the bootstrap processor accepts the memory that the launch did not add and enters the kernel, while the others wait at the
 * wakeup mailbox (ACPI 6.5, 5.2.12.19).
 *
 * State at the reset vector: TDX Module Base Architecture, "Initial state of guest VCPU": flat 32-bit segments, EFER.LME and NXE
 * set, ESI the index of the virtual processor.
 */
import { TDVMCALL } from '../../abi/tdx/ghci.ts';
import { TDG } from '../../abi/tdx/leaves.ts';
import {
  Assembler,
  at,
  eax,
  ecx,
  edi,
  edx,
  esi,
  r10,
  r11,
  r12,
  r13,
  r8,
  rax,
  rbx,
  rcx,
  rdi,
  rdx,
  rsi,
} from '../assembler.ts';
import { PAGE } from '../directives.ts';
import { BOOT_CS, BOOT_DS, gdt, GDT_LIMIT } from '../page-tables.ts';
import { MAILBOX, RESET_PAGE, RESET_VECTOR, START_DATA, START_TABLES } from './layout.ts';

const CR4_PAE = 0x20;
const CR0_PG = 0x8000_0000 | 0;
const BLOCK = 2 << 20;
/** Segment register numbers. */
const DATA_SEGMENTS = [0, 2, 3, 4, 5];

export interface AcceptRange {
  readonly gpa: number;
  readonly length: number;
}

/** Table at START_DATA: start and end of each range, then zeros. */
export function acceptTable(ranges: readonly AcceptRange[]): Uint8Array {
  const bytes = new Uint8Array((ranges.length + 1) * 16);
  const view = new DataView(bytes.buffer);
  for (const [k, { gpa, length }] of ranges.entries()) {
    view.setBigUint64(k * 16, BigInt(gpa), true);
    view.setBigUint64(k * 16 + 8, BigInt(gpa + length), true);
  }
  return bytes;
}

/** HvCallNotifyLongSpinWait with its input in a register (fast). */
const SPIN_WAIT = 0x1_0008;
/** RDX, R8, R10, R11. */
const HYPERCALL_MASK = 0x0d04;
/** R10 to R13. */
const MSR_MASK = 0x3c00;
const MSR_GUEST_OS_ID = 0x4000_0000;
/** TLFS 2.6: an open-source system (bit 63) whose type Linux, FreeBSD and others do not use. */
const GUEST_OS_ID = 0xff00_0000_0000_0001n;

/** The page at RESET_PAGE. `entry` is entered in 64-bit mode with RSI = `bootParams`. */
export function startCode(entry: number, bootParams: number): Uint8Array {
  const a = new Assembler(RESET_PAGE);
  const tdcall = (): void => a.db(0x66, 0x0f, 0x01, 0xcc);
  a.bits(32);
  a.label('start32');
  a.lgdt(at({ disp: 'gdtr' }));
  a.movFromControl(eax, 4);
  a.alu('or', eax, CR4_PAE);
  a.movToControl(4, eax);
  a.mov(eax, START_TABLES);
  a.movToControl(3, eax);
  a.movFromControl(eax, 0);
  a.alu('or', eax, CR0_PG);
  a.movToControl(0, eax);
  a.jmpFar(BOOT_CS, 'start64');

  a.bits(64);
  a.label('start64');
  a.mov(eax, BOOT_DS);
  for (const segment of DATA_SEGMENTS) a.movToSegment(segment, eax);
  a.test(esi, esi);
  a.jcc('ne', 'park');

  // The bootstrap processor accepts every range of the table.
  a.mov(rdi, START_DATA);
  a.label('range');
  a.mov(rbx, at({ base: rdi }));
  a.mov(rsi, at({ base: rdi, disp: 8 }));
  a.test(rsi, rsi);
  a.jcc('e', 'accepted');
  a.alu('add', rdi, 16);
  a.label('page');
  a.alu('cmp', rbx, rsi);
  a.jcc('ae', 'range');
  // 2 MiB where the address and what is left allow it.
  a.mov(rax, rbx);
  a.alu('and', eax, BLOCK - 1);
  a.jcc('ne', 'small');
  a.lea(rax, at({ base: rbx, disp: BLOCK }));
  a.alu('cmp', rax, rsi);
  a.jcc('a', 'small');
  a.mov(eax, TDG.memPageAccept);
  a.lea(rcx, at({ base: rbx, disp: 1 }));
  tdcall();
  a.test(rax, rax);
  a.jcc('ne', 'small');
  a.alu('add', rbx, BLOCK);
  a.jmp('page');
  // 4 KiB: also when the host has split the block. Any other answer than success means that somebody cheats.
  a.label('small');
  a.mov(eax, TDG.memPageAccept);
  a.mov(rcx, rbx);
  tdcall();
  a.test(rax, rax);
  a.jcc('ne', 'fatal');
  a.alu('add', rbx, PAGE);
  a.jmp('page');

  a.label('accepted');
  a.movabs(rsi, BigInt(bootParams));
  a.movabs(rax, BigInt(entry));
  a.jmp(rax);

  // Application processors: the host learns that they only wait, so that it lets others run.
  a.label('park');
  a.mov(edi, esi);
  a.mov(eax, TDG.vpVmcall);
  a.mov(ecx, MSR_MASK);
  a.alu('xor', eax, eax);
  a.movabs(r10, 0n);
  a.movabs(r11, BigInt(TDVMCALL.wrmsr));
  a.movabs(r12, BigInt(MSR_GUEST_OS_ID));
  a.movabs(r13, GUEST_OS_ID);
  tdcall();
  a.label('wait');
  a.mov(eax, TDG.vpVmcall);
  a.mov(ecx, HYPERCALL_MASK);
  a.movabs(r10, BigInt(SPIN_WAIT));
  a.movabs(rdx, 0xffff_ffffn);
  a.movabs(r8, 0n);
  tdcall();
  a.mov(rbx, MAILBOX);
  a.movzx(eax, at({ base: rbx }), 2);
  a.alu('cmp', eax, 1);
  a.jcc('ne', 'wait');
  a.alu('cmp', at({ base: rbx, disp: 4 }), edi);
  a.jcc('ne', 'wait');
  a.mov(rax, at({ base: rbx, disp: 8 }));
  // Clearing the command hands the mailbox back.
  a.movMem(2, at({ base: rbx }), 0);
  a.jmp(rax);

  // ReportFatalError with the status that TDG.MEM.PAGE.ACCEPT gave, for ever.
  a.label('fatal');
  a.mov(r13, rax);
  a.label('report');
  a.mov(eax, TDG.vpVmcall);
  a.mov(ecx, MSR_MASK);
  a.movabs(r10, 0n);
  a.movabs(r11, BigInt(TDVMCALL.reportFatalError));
  a.movabs(r12, 1n);
  tdcall();
  a.jmp('report');
  void edx;

  a.align(16);
  a.label('gdt');
  a.db(...gdt());
  a.label('gdtr');
  a.dw(GDT_LIMIT);
  a.dd('gdt');
  if (a.here > RESET_VECTOR) throw new RangeError('the start code does not fit into its page');
  a.zeros(RESET_VECTOR - a.here);
  a.bits(32);
  a.jmp('start32');
  a.zeros(RESET_PAGE + PAGE - a.here);
  return a.finish();
}
