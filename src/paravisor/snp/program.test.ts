import { beforeEach, describe, expect, test } from 'vitest';
import { EVENT } from '../../abi/events.ts';
import { CALL } from '../../abi/hyperv/hypercall.ts';
import { hostVisibilityInput, PARTITION_SELF } from '../../abi/hyperv/inputs.ts';
import { MSR } from '../../abi/hyperv/msr.ts';
import {
  LOADED_OFFSET,
  PARAVISOR_FLAG,
  PARAVISOR_MAGIC,
  paravisorPage,
  paravisorRange,
  RANGES_OFFSET,
} from '../../abi/paravisor-page.ts';
import { setU32 } from '../../abi/record.ts';
import { DOORBELL_FLAG } from '../../abi/snp/doorbell.ts';
import { GHCB_EXIT, SVM_EXIT } from '../../abi/snp/exit-codes.ts';
import { EVENT_INJECTION, vmsa } from '../../abi/snp/vmsa.ts';
import type { Vmpl0Program } from '../../seats/program.ts';
import { x86Defs } from '../../x86/all.ts';
import { buildOpcodeTable } from '../../x86/encoding.ts';
import { ALL_PARTS, partBit, partsWithout } from '../parts.ts';
import { OWN_VECTOR } from '../turn.ts';
import { FAILURE } from '../requests.ts';
import { snpParavisor } from './program.ts';
import { TestMachine } from './test-machine.ts';

const PAGE = 4096;
const MIB = 0x10_0000;
const OWN = 2 * MIB;
const AT = {
  page: OWN,
  cpuid: OWN + PAGE,
  context: OWN + 2 * PAGE,
  communication: OWN + 4 * PAGE,
  doorbell: OWN + 6 * PAGE,
  ownEnd: OWN + 8 * PAGE,
  guest: OWN + 8 * PAGE,
  end: 4 * MIB,
};
const TOP = 8 * MIB;
const KERNEL = 4 * MIB;
const BUILD = new Uint8Array(48).fill(7);
const opcodes = buildOpcodeTable(x86Defs);
const CONTEXT = AT.context;

let machine: TestMachine;
let program: Vmpl0Program;

function start(parts = ALL_PARTS, build = BUILD): void {
  machine = new TestMachine(TOP);
  const page = paravisorPage.write({
    magic: PARAVISOR_MAGIC,
    build,
    parts,
    flags: PARAVISOR_FLAG.x2apic | PARAVISOR_FLAG.tscDeadline,
    vpCount: 2,
    boundaryBits: 46,
    uarts: 1,
    physicalAddressBits: 48,
    tscHz: 2_000_000_000n,
    apicHz: 200_000_000n,
    communication: BigInt(AT.communication),
    doorbell: BigInt(AT.doorbell),
    context: BigInt(AT.context),
    guestCommunication: BigInt(AT.guest),
    guestMessages: BigInt(AT.guest + 2 * PAGE),
    guestEventFlags: BigInt(AT.guest + 4 * PAGE),
    cpuid: BigInt(AT.cpuid),
    ownStart: BigInt(OWN),
    ownEnd: BigInt(AT.ownEnd),
    rangeCount: 2,
    loadedCount: 1,
  });
  const range = (at: number, gpa: number, length: number): void =>
    void paravisorRange.write({ gpa: BigInt(gpa), length: BigInt(length) }, page, at);
  range(RANGES_OFFSET, 0, OWN);
  range(RANGES_OFFSET + 16, AT.end, TOP - AT.end);
  range(LOADED_OFFSET, KERNEL, PAGE);
  machine.load(AT.page, page);
  machine.load(
    AT.cpuid,
    cpuidPage([
      [0x8000_001f, 0, [0x1a, 51, 0, 0]],
      [1, 0, [0x00a0_0f11, 0, 0, 0]],
    ]),
  );
  const context = new Uint8Array(PAGE);
  vmsa.write(
    {
      vmpl: 2,
      rip: BigInt(KERNEL),
      efer: 0x1500n,
      cr0: 0x8000_0011n,
      csAttributes: 0xa9b,
      rflags: 2n,
      xcr0: 1n,
    },
    context,
  );
  machine.load(CONTEXT, context, 2 * PAGE);
  machine.load(KERNEL, new Uint8Array(PAGE).fill(0x90));
  program = snpParavisor({ page: AT.page, build: BUILD, opcodes });
}

function cpuidPage(entries: readonly (readonly [number, number, readonly number[]])[]): Uint8Array {
  const page = new Uint8Array(PAGE);
  setU32(page, 0, entries.length);
  for (const [i, [leaf, subleaf, out]] of entries.entries()) {
    const at = 16 + 48 * i;
    setU32(page, at, leaf);
    setU32(page, at + 4, subleaf);
    for (const [k, word] of out.entries()) setU32(page, at + 24 + 4 * k, word);
  }
  return page;
}

const context = (vp = 0): Uint8Array =>
  machine.memory.subarray(CONTEXT + vp * PAGE, CONTEXT + (vp + 1) * PAGE);
const field = (name: Parameters<typeof vmsa.get>[1], vp = 0): bigint =>
  BigInt(vmsa.get(context(vp), name) as bigint);
const exits = (code: number): number =>
  machine.requests.filter((request) => request.kind === 'exit' && request.code === code).length;

/** The guest stops with this exit and goes on. */
function exit(code: number, fields: Readonly<Record<string, bigint>> = {}): void {
  machine.stop(CONTEXT, code, fields);
  expect(machine.run(program, 0)).toEqual({ kind: 'enter' });
}

/** The guest stands at these instructions, in 64-bit mode without tables. */
function at(...bytes: readonly number[]): void {
  machine.memory.set(bytes, KERNEL);
  vmsa.set(context(), 'rip', BigInt(KERNEL));
  vmsa.set(context(), 'cr0', 0x11n);
}

beforeEach(() => start());

describe('start', () => {
  test('every page of RAM is accepted and given to the guest, and nothing else', () => {
    expect(machine.run(program, 0)).toEqual({ kind: 'enter' });
    for (const [i, { validated, guestRights }] of machine.pages.entries()) {
      const gpa = i * PAGE;
      const ram = gpa < OWN || gpa >= AT.end;
      const own = gpa >= OWN && gpa < AT.communication;
      expect([gpa, validated, guestRights]).toEqual([gpa, ram || own, ram ? 0xf : 0]);
    }
  });

  test('contexts are VMSAs at VMPL2 with vTOM, #VC reflected and injection its own', () => {
    machine.run(program, 0);
    expect(machine.page(CONTEXT).isVmsa && machine.page(CONTEXT + PAGE).isVmsa).toBe(true);
    expect(field('sevFeatures')).toBe(0x37n);
    expect(field('sevFeatures', 1)).toBe(0x37n);
    expect(field('virtualTom')).toBe(1n << 46n);
    expect(field('rip')).toBe(BigInt(KERNEL));
    expect(field('vmpl', 1)).toBe(2n);
  });

  test('a measured page for another build ends the VM before anything else', () => {
    start(ALL_PARTS, new Uint8Array(48).fill(8));
    expect(machine.run(program, 0)).toEqual({ kind: 'terminate', set: 7, reason: FAILURE.configuration });
  });

  test('a page that is validated already is not accepted again', () => {
    Object.assign(machine.page(TOP - PAGE), { assigned: true, validated: true });
    machine.refusePages = false;
    const seat = machine.seat(0);
    seat.write(TOP - PAGE, Uint8Array.of(1), false);
    // The host claims to have changed its state, and has not.
    const change = machine as unknown as { changePages: (page: Uint8Array) => void };
    const real = change.changePages.bind(machine);
    change.changePages = (page) => {
      real(page);
      Object.assign(machine.page(TOP - PAGE), { assigned: true, validated: true });
    };
    expect(machine.run(program, 0)).toEqual({ kind: 'terminate', set: 7, reason: FAILURE.memory });
  });

  test('another processor sets itself up and waits', () => {
    expect(machine.run(program, 1)).toEqual({ kind: 'hlt' });
  });
});

describe('exits', () => {
  beforeEach(() => void machine.run(program, 0));

  test('CPUID comes from the checked page, without the leaf that tells of SEV', () => {
    exit(SVM_EXIT.cpuid, { rax: 0x8000_001fn, rcx: 0n });
    expect([field('rax'), field('rbx')]).toEqual([0n, 0n]);
    expect(field('rip')).toBe(BigInt(KERNEL) + 2n);
    exit(SVM_EXIT.cpuid, { rax: 0x4000_000cn });
    expect([field('rax'), field('rbx')]).toEqual([1n, 0xba2n]);
    exit(SVM_EXIT.cpuid, { rax: 1n, rcx: 0n });
    expect(field('rax')).toBe(0x00a0_0f11n);
  });

  test('MSRs that nobody has: those of a processor read 0, others fault', () => {
    exit(SVM_EXIT.msr, { rcx: 0xc001_0010n, rax: 5n });
    expect(field('rax')).toBe(0n);
    exit(SVM_EXIT.msr, { rcx: 0x5000_0000n });
    expect(field('eventInj') & 0xffff_ffffn).toBe(
      BigInt(
        (13 | (EVENT_INJECTION.exception << 8) | EVENT_INJECTION.hasError | EVENT_INJECTION.valid) >>> 0,
      ),
    );
  });

  test('an event whose delivery was broken off is delivered again', () => {
    exit(SVM_EXIT.interrupt, {});
    machine.stop(CONTEXT, SVM_EXIT.nestedPageFault, {
      exitIntInfo: 0x8000_0e23n,
      exitInfo2: 0xfec0_0000n,
    });
    // MOV EAX, [RBX] at RIP.
    machine.memory.set([0x8b, 0x03], KERNEL);
    vmsa.set(context(), 'rip', BigInt(KERNEL));
    vmsa.set(context(), 'cr0', 0x11n);
    machine.run(program, 0);
    expect(field('eventInj')).toBe(0x8000_0e23n);
  });

  const IO_STRING_OUT = (0x3f8n << 16n) | 0x1cn;

  test('REP OUTS goes out byte by byte, and RIP moves at its end', () => {
    at(0xf3, 0x6e);
    machine.memory.set([0x41, 0x42], 0x3000);
    const io = exits(SVM_EXIT.io);
    exit(SVM_EXIT.io, { exitInfo1: IO_STRING_OUT, rsi: 0x3000n, rcx: 2n, rdx: 0x3f8n });
    expect([field('rsi'), field('rcx'), field('rip')]).toEqual([0x3001n, 1n, BigInt(KERNEL)]);
    exit(SVM_EXIT.io, { exitInfo1: IO_STRING_OUT });
    expect([field('rsi'), field('rcx'), field('rip')]).toEqual([0x3002n, 0n, BigInt(KERNEL) + 2n]);
    // The console is the host's to show.
    expect(exits(SVM_EXIT.io) - io).toBe(2);
    expect(machine.ports.get(0x3f8)).toBe(0x42);
  });

  test('without its part, the host answers INS', () => {
    start(ALL_PARTS & ~partBit('dev.legacy'));
    machine.run(program, 0);
    at(0x6c);
    machine.ports.set(0x1234, 0x77);
    exit(SVM_EXIT.io, { exitInfo1: (0x1234n << 16n) | 0x15n, rdi: 0x3000n, rdx: 0x1234n });
    expect([machine.memory[0x3000], field('rdi'), field('rip')]).toEqual([
      0x77,
      0x3001n,
      BigInt(KERNEL) + 1n,
    ]);
  });

  test('an instruction that reads and writes a device of the host makes two requests of it', () => {
    // AND DWORD [RBX], 0xf0
    at(0x81, 0x23, 0xf0, 0, 0, 0);
    machine.device = 0x3c;
    exit(SVM_EXIT.nestedPageFault, { exitInfo1: 2n, exitInfo2: (1n << 46n) | 0xd000_0000n });
    expect(machine.device).toBe(0x30);
    expect(field('rip')).toBe(BigInt(KERNEL) + 6n);
    // Neither zero nor negative, and two ones in its low byte.
    expect(field('rflags')).toBe(2n | 4n);
  });

  test('the page state a guest asks for is changed, with its rights and its acceptance', () => {
    const GPA = 0x1_0000;
    const page = machine.page(GPA);
    const ask = (visibility: number): bigint => {
      exit(SVM_EXIT.msr, { rcx: BigInt(MSR.guestOsId), rax: 1n, rdx: 0n, exitInfo1: 1n });
      const input = machine.memory.subarray(0x2000, 0x3000);
      hostVisibilityInput.write({ partitionId: PARTITION_SELF, visibility }, input);
      setU32(input, 16, GPA / PAGE);
      exit(SVM_EXIT.vmmcall, {
        rcx: BigInt(CALL.modifySparseGpaPageHostVisibility) | (1n << 32n),
        rdx: 0x2000n,
        r8: 0n,
      });
      return field('rax');
    };
    machine.memory.fill(0x5a, GPA, GPA + PAGE);
    const before = exits(GHCB_EXIT.pageStateChange);
    expect(ask(3)).toBe(1n << 32n);
    expect(page).toMatchObject({ assigned: false, validated: false });
    expect(ask(3)).toBe(1n << 32n);
    machine.memory.fill(0xa5, GPA, GPA + PAGE);
    expect(ask(0)).toBe(1n << 32n);
    expect(page).toMatchObject({ assigned: true, validated: true, guestRights: 0xf });
    // What the host left there is gone.
    expect(machine.memory.subarray(GPA, GPA + PAGE).every((byte) => byte === 0)).toBe(true);
    // One splits the large page that it lay in.
    expect(exits(GHCB_EXIT.pageStateChange) - before).toBe(3);
    expect(ask(1) & 0xffffn).toBe(5n);
  });

  test('a host that refuses a page state ends the VM', () => {
    exit(SVM_EXIT.msr, { rcx: BigInt(MSR.guestOsId), rax: 1n, rdx: 0n, exitInfo1: 1n });
    const input = machine.memory.subarray(0x2000, 0x3000);
    hostVisibilityInput.write({ partitionId: PARTITION_SELF, visibility: 3 }, input);
    setU32(input, 16, 0x10);
    machine.refusePages = true;
    machine.stop(CONTEXT, SVM_EXIT.vmmcall, {
      rcx: BigInt(CALL.modifySparseGpaPageHostVisibility) | (1n << 32n),
      rdx: 0x2000n,
    });
    expect(machine.run(program, 0)).toEqual({ kind: 'terminate', set: 7, reason: FAILURE.pageState });
  });

  test('without its part the call for visibility is unknown', () => {
    start(ALL_PARTS & ~partBit('mem.visibility-call'));
    machine.run(program, 0);
    exit(SVM_EXIT.msr, { rcx: BigInt(MSR.guestOsId), rax: 1n, rdx: 0n, exitInfo1: 1n });
    exit(SVM_EXIT.vmmcall, {
      rcx: BigInt(CALL.modifySparseGpaPageHostVisibility) | (1n << 32n),
      rdx: 0x2000n,
    });
    expect(field('rax') & 0xffffn).toBe(2n);
  });

  test('a page that the host has taken away ends the VM', () => {
    machine.stop(CONTEXT, SVM_EXIT.notValidated, { exitInfo2: 0x5000n });
    expect(machine.run(program, 0)).toEqual({ kind: 'terminate', set: 7, reason: FAILURE.notValidated });
  });

  test('INIT and SIPI start another processor in real mode', () => {
    machine.run(program, 1);
    const icr = (lo: number): void =>
      exit(SVM_EXIT.msr, { rcx: 0x830n, rax: BigInt(lo), rdx: 1n, exitInfo1: 1n });
    exit(SVM_EXIT.msr, { rcx: 0x1bn, rax: 0xfee0_0d00n, rdx: 0n, exitInfo1: 1n });
    exit(SVM_EXIT.msr, { rcx: 0x80fn, rax: 0x1ffn, rdx: 0n, exitInfo1: 1n });
    icr(0x4500);
    icr(0x4608);
    expect(exits(GHCB_EXIT.hvIpi)).toBe(1);
    expect(machine.run(program, 1)).toEqual({ kind: 'enter' });
    expect([field('csSelector', 1), field('csBase', 1), field('rip', 1)]).toEqual([0x800n, 0x8000n, 0n]);
  });
});

describe('interrupts of the host', () => {
  const VECTOR = 0xf3;
  const post = (vector: number): void => {
    const at = AT.doorbell + 128;
    setU32(machine.memory, at, 0x4000);
    setU32(machine.memory, at + 4 * (vector >> 5), 1 << (vector & 31));
    exit(SVM_EXIT.interrupt);
  };
  /** The host's local APIC of this VP has a vector. */
  const ring = (vector: number): void => {
    machine.memory.set([vector, DOORBELL_FLAG.noFurtherSignal, 0, 0], AT.doorbell);
    exit(SVM_EXIT.interrupt);
  };
  const enableApic = (): void => exit(SVM_EXIT.msr, { rcx: 0x80fn, rax: 0x1ffn, rdx: 0n, exitInfo1: 1n });
  beforeEach(() => {
    machine.run(program, 0);
    exit(SVM_EXIT.msr, { rcx: 0x1bn, rax: 0xfee0_0d00n, rdx: 0n, exitInfo1: 1n });
    enableApic();
  });

  test('one that the guest has announced is offered to the processor', () => {
    exit(SVM_EXIT.msr, {
      rcx: BigInt(MSR.sint0 + 2),
      rax: BigInt(VECTOR | (1 << 20)),
      rdx: 0n,
      exitInfo1: 1n,
    });
    post(VECTOR);
    expect(field('vintrControl') & (1n << 8n)).toBe(1n << 8n);
    expect(field('vintrControl') >> 32n).toBe(BigInt(VECTOR));
  });

  test('one that it has not announced is dropped, and said so', () => {
    post(0x80);
    expect(field('vintrControl') & (1n << 8n)).toBe(0n);
    expect(
      machine.events.some(
        ([type, , , vector, , outcome]) => type === EVENT.injection && vector === 0x80 && outcome === 3,
      ),
    ).toBe(true);
  });

  test("what comes beside the paravisor's own vectors is ended and goes through the filter", () => {
    const msrs = exits(SVM_EXIT.msr);
    ring(0x31);
    expect(exits(SVM_EXIT.msr)).toBe(msrs + 1);
    expect(field('vintrControl') & (1n << 8n)).toBe(0n);
    expect(
      machine.events.some(
        ([type, , , vector, , outcome]) => type === EVENT.injection && vector === 0x31 && outcome === 3,
      ),
    ).toBe(true);
    exit(SVM_EXIT.msr, { rcx: BigInt(MSR.sint0 + 2), rax: BigInt(0x31 | (1 << 20)), rdx: 0n, exitInfo1: 1n });
    ring(0x31);
    expect(field('vintrControl') >> 32n).toBe(0x31n);
  });

  test("the line of a host's UART is a pin of the guest's IO-APIC", () => {
    start(partsWithout(['dev.legacy']));
    machine.run(program, 0);
    exit(SVM_EXIT.msr, { rcx: 0x1bn, rax: 0xfee0_0d00n, rdx: 0n, exitInfo1: 1n });
    enableApic();
    const write = (offset: number, value: number): void => {
      // MOV [RBX], EAX
      at(0x89, 0x03);
      const exitInfo2 = 0xfec0_0000n + BigInt(offset);
      exit(SVM_EXIT.nestedPageFault, { exitInfo1: 2n, exitInfo2, rax: BigInt(value) });
    };
    const PIN = 4;
    write(0, 0x10 + 2 * PIN);
    write(0x10, 0x35);
    ring(OWN_VECTOR.console);
    expect(field('vintrControl') >> 32n).toBe(0x35n);
    expect(exits(SVM_EXIT.io)).toBe(0);
  });

  test('where the host owns the local APIC, its vectors reach the guest, which ends them itself', () => {
    start(partsWithout(['irq.apic']));
    machine.run(program, 0);
    const msrs = exits(SVM_EXIT.msr);
    enableApic();
    expect(exits(SVM_EXIT.msr)).toBe(msrs + 1);
    ring(0xec);
    expect(field('vintrControl') >> 32n).toBe(0xecn);
    expect(machine.memory[AT.doorbell]).toBe(0);
    // The end of it is a write of the guest, and goes to the host.
    expect(exits(SVM_EXIT.msr)).toBe(msrs + 1);
    exit(SVM_EXIT.msr, { rcx: 0x80bn, rax: 0n, rdx: 0n, exitInfo1: 1n });
    expect(exits(SVM_EXIT.msr)).toBe(msrs + 2);
    // INIT and SIPI stay here.
    for (const word of [0x4500n, 0x4608n])
      exit(SVM_EXIT.msr, { rcx: 0x830n, rax: word, rdx: 1n, exitInfo1: 1n });
    expect(exits(SVM_EXIT.msr)).toBe(msrs + 2);
    expect(machine.run(program, 1)).toEqual({ kind: 'enter' });
    expect(field('csBase', 1)).toBe(0x8000n);
  });

  test('without its part every vector passes', () => {
    start(ALL_PARTS & ~partBit('irq.filtered'));
    machine.run(program, 0);
    exit(SVM_EXIT.msr, { rcx: 0x1bn, rax: 0xfee0_0d00n, rdx: 0n, exitInfo1: 1n });
    enableApic();
    post(0x80);
    expect(field('vintrControl') >> 32n).toBe(0x80n);
  });
});
