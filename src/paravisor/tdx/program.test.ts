import { beforeEach, describe, expect, test } from 'vitest';
import { EVENT, INJECTION_OUTCOME } from '../../abi/events.ts';
import { CALL } from '../../abi/hyperv/hypercall.ts';
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
import { vmsa } from '../../abi/snp/vmsa.ts';
import { EXIT_REASON } from '../../abi/tdx/exit-reasons.ts';
import { TDVMCALL, TDVMCALL_STATUS } from '../../abi/tdx/ghci.ts';
import { L2_ENTER_GUEST_STATE } from '../../abi/tdx/l2.ts';
import { STATUS } from '../../abi/tdx/status.ts';
import type { L1Exit, L1Program } from '../../seats/program.ts';
import { x86Defs } from '../../x86/all.ts';
import { buildOpcodeTable } from '../../x86/encoding.ts';
import { ALL_PARTS, partsWithout } from '../parts.ts';
import { FAILURE } from '../requests.ts';
import { FIELD, vmcsId } from './fields.ts';
import { tdxParavisor } from './program.ts';
import { TestTd } from './test-seat.ts';

const PAGE = 4096;
const MIB = 1 << 20;
const OWN = 2 * MIB;
const AT = {
  page: OWN,
  context: OWN + PAGE,
  communication: OWN + 2 * PAGE,
  doorbell: OWN + 3 * PAGE,
  messages: OWN + 4 * PAGE,
  eventFlags: OWN + 5 * PAGE,
  ownEnd: OWN + 6 * PAGE,
  kernel: 4 * MIB,
  hypercallInput: 5 * MIB,
} as const;
const TOP = 8 * MIB;
const BUILD = new Uint8Array(48).fill(7);
const SHARED = 1n << 47n;
const opcodes = buildOpcodeTable(x86Defs);

let td: TestTd;
let program: L1Program;

function start(parts = ALL_PARTS, build = BUILD): void {
  td = new TestTd(TOP);
  const page = paravisorPage.write({
    magic: PARAVISOR_MAGIC,
    vendor: 1,
    build,
    parts,
    flags: PARAVISOR_FLAG.x2apic | PARAVISOR_FLAG.tscDeadline,
    vpCount: 1,
    boundaryBits: 47,
    uarts: 0,
    physicalAddressBits: 52,
    tscHz: 2_000_000_000n,
    apicHz: 200_000_000n,
    communication: BigInt(AT.communication),
    doorbell: BigInt(AT.doorbell),
    context: BigInt(AT.context),
    guestMessages: BigInt(AT.messages),
    guestEventFlags: BigInt(AT.eventFlags),
    ownStart: BigInt(OWN),
    ownEnd: BigInt(AT.ownEnd),
    rangeCount: 2,
    loadedCount: 1,
  });
  const range = (at: number, gpa: number, length: number): void =>
    void paravisorRange.write({ gpa: BigInt(gpa), length: BigInt(length) }, page, at);
  range(RANGES_OFFSET, 0, OWN);
  range(RANGES_OFFSET + 16, AT.ownEnd, TOP - AT.ownEnd);
  range(LOADED_OFFSET, AT.kernel, PAGE);
  td.load(AT.page, page);
  const context = new Uint8Array(PAGE);
  vmsa.write(
    { rip: BigInt(AT.kernel), efer: 0x500n, cr0: 0x8000_0011n, cr4: 0x20n, csAttributes: 0xa9b, rflags: 2n },
    context,
  );
  td.load(AT.context, context);
  td.load(AT.kernel, new Uint8Array(PAGE).fill(0x90));
  program = tdxParavisor({ page: AT.page, build: BUILD, opcodes });
}

const run = (): L1Exit => program.run(td.seat()).exit;
/** The host's answer to a TDG.VP.VMCALL. */
function answer(r10: bigint = TDVMCALL_STATUS.success, r11 = 0n): L1Exit {
  td.registers[0] = 0n;
  td.registers[10] = r10;
  td.registers[11] = r11;
  return run();
}
/** The guest has left by `reason`. */
function exitOfGuest(
  reason: number,
  more: { readonly qualification?: bigint; readonly length?: bigint } = {},
): L1Exit {
  td.registers = Array.from({ length: 16 }, () => 0n);
  td.registers[0] = (BigInt(STATUS.success) << 32n) | BigInt(reason);
  td.registers[1] = more.qualification ?? 0n;
  td.registers[6] = 0xa09bn << 16n;
  td.registers[11] = (more.length ?? 2n) << 32n;
  return run();
}
const general = (n: number): bigint =>
  new DataView(td.memory.buffer).getBigUint64(AT.communication + 8 * n, true);
function setState(offset: number, value: bigint): void {
  new DataView(td.memory.buffer).setBigUint64(AT.communication + offset, value, true);
}
const setGeneral = (n: number, value: bigint): void => setState(8 * n, value);
const rip = (): bigint =>
  new DataView(td.memory.buffer).getBigUint64(AT.communication + L2_ENTER_GUEST_STATE.offsetOf('rip'), true);
const field = (encoding: number): bigint => td.fields.get(vmcsId(encoding)) ?? 0n;
const call = (exit: L1Exit): bigint => {
  expect(exit.kind).toBe('tdvmcall');
  return exit.registers[11] ?? 0n;
};
/** Answers everything until the guest has its turn. */
function begin(): L1Exit {
  let exit = run();
  for (let k = 0; k < 32 && exit.kind === 'tdvmcall'; k++) exit = answer();
  expect(exit.kind).toBe('vp-enter');
  return exit;
}
const injected = (): readonly (readonly number[])[] =>
  td.events.filter(([type]) => type === EVENT.injection).map((record) => record.slice(3, 7));

beforeEach(() => start());

describe('start', () => {
  test('a page that names other code ends it before it asks for anything', () => {
    start(ALL_PARTS, new Uint8Array(48).fill(8));
    const exit = run();
    expect(call(exit)).toBe(BigInt(TDVMCALL.reportFatalError));
    expect(exit.registers[12]).toBe(BigInt(FAILURE.configuration));
  });

  test('the pages of the guest at the host come first, then its own local APIC', () => {
    const msrs: bigint[] = [];
    for (let exit = run(); exit.kind === 'tdvmcall'; exit = answer()) {
      expect(call(exit)).toBe(BigInt(TDVMCALL.wrmsr));
      msrs.push(exit.registers[12] ?? 0n);
      if (msrs.length > 32) throw new Error('it never ends');
    }
    expect(msrs.slice(0, 4)).toEqual([MSR.simp, MSR.siefp, 0x80f, 0x832].map(BigInt));
  });

  test('a host that refuses what every host serves is left', () => {
    run();
    const exit = answer(TDVMCALL_STATUS.invalidOperand);
    expect([call(exit), exit.registers[12]]).toEqual([
      BigInt(TDVMCALL.reportFatalError),
      BigInt(FAILURE.host),
    ]);
  });

  test("all memory is accepted and the guest has rights on it, but for the paravisor's own", () => {
    begin();
    for (let gpa = 0; gpa < TOP; gpa += PAGE) {
      const own = gpa >= OWN && gpa < AT.ownEnd;
      if (!own) expect(td.accepted.has(gpa), `page ${gpa}`).toBe(true);
      expect(td.rights.get(gpa) ?? 0, `page ${gpa}`).toBe(own ? 0 : 0xf);
    }
  });

  test("without pre-accepted memory only what was loaded is the guest's", () => {
    start(partsWithout(['mem.preaccepted']));
    begin();
    expect([...td.rights.keys()]).toEqual([AT.kernel]);
  });

  test('memory that was accepted before, by nobody it knows, ends it', () => {
    td.accepted.add(0x5000);
    let exit = run();
    for (let k = 0; k < 32 && call(exit) === BigInt(TDVMCALL.wrmsr); k++) exit = answer();
    expect([call(exit), exit.registers[12]]).toEqual([
      BigInt(TDVMCALL.reportFatalError),
      BigInt(FAILURE.memory),
    ]);
  });
});

describe("the guest's exits", () => {
  test('CPUID 0x21 shows nothing of a TD', () => {
    begin();
    setGeneral(0, 0x21n);
    setGeneral(1, 0n);
    expect(exitOfGuest(EXIT_REASON.cpuid).kind).toBe('vp-enter');
    expect([0, 3, 1, 2].map(general)).toEqual([0n, 0n, 0n, 0n]);
    expect(rip()).toBe(BigInt(AT.kernel + 2));
  });

  test('a TDCALL that was not allowed is #UD', () => {
    begin();
    exitOfGuest(EXIT_REASON.tdcall);
    expect(field(FIELD.entryInterruption)).toBe(0x8000_0306n);
    expect(rip()).toBe(BigInt(AT.kernel));
  });

  test("a page becomes the host's by MapGPA, and comes back accepted and clear", () => {
    begin();
    setGeneral(1, BigInt(MSR.guestOsId));
    setGeneral(0, 0x8100_0000n);
    exitOfGuest(EXIT_REASON.wrmsr);
    const visibility = (value: number): L1Exit => {
      const input = new Uint8Array(24);
      input.fill(0xff, 0, 8);
      setU32(input, 8, value);
      setU32(input, 16, 0x600);
      td.load(AT.hypercallInput, input);
      setGeneral(1, BigInt(CALL.modifySparseGpaPageHostVisibility) | (1n << 32n));
      setGeneral(2, BigInt(AT.hypercallInput));
      setGeneral(8, 0n);
      return exitOfGuest(EXIT_REASON.vmcall, { length: 3n });
    };
    const shared = visibility(3);
    expect([call(shared), shared.registers[12], shared.registers[13]]).toEqual([
      BigInt(TDVMCALL.mapGpa),
      0x60_0000n | SHARED,
      0x1000n,
    ]);
    expect(answer().kind).toBe('vp-enter');
    expect(general(0)).toBe(1n << 32n);
    // The host takes the page out of the secure EPT.
    td.accepted.delete(0x60_0000);
    td.rights.delete(0x60_0000);
    const back = visibility(0);
    expect(back.registers[12]).toBe(0x60_0000n);
    expect(answer().kind).toBe('vp-enter');
    expect([td.accepted.has(0x60_0000), td.rights.get(0x60_0000)]).toEqual([true, 0xf]);
  });
});

describe('interrupts of the host', () => {
  const VECTOR = 0xf3;
  const PROXY = 1 << 20;
  const wrmsr = (index: number, value: number): void => {
    setGeneral(1, BigInt(index));
    setGeneral(0, BigInt(value));
    setGeneral(2, 0n);
    exitOfGuest(EXIT_REASON.wrmsr);
    expect(field(FIELD.entryInterruption)).toBe(0n);
  };
  /** The local APIC in x2APIC mode and on, and the SINT of VMBus. */
  const announce = (): void => {
    wrmsr(0x1b, 0xfee0_0d00);
    wrmsr(0x80f, 0x1ff);
    wrmsr(MSR.sint0 + 2, VECTOR | PROXY);
  };

  test('one that the guest has not announced is dropped, and an NMI always', () => {
    begin();
    td.interrupts.push(0x80);
    td.nmi = true;
    exitOfGuest(EXIT_REASON.externalInterrupt);
    expect(injected()).toEqual([
      [2, 2, INJECTION_OUTCOME.filtered, 1],
      [0x80, 0, INJECTION_OUTCOME.filtered, 1],
    ]);
    expect(field(FIELD.entryInterruption)).toBe(0n);
  });

  test('one that it has announced is injected, and waits for a window while IF is clear', () => {
    begin();
    announce();
    setState(L2_ENTER_GUEST_STATE.offsetOf('rflags'), 2n);
    td.interrupts.push(VECTOR);
    exitOfGuest(EXIT_REASON.externalInterrupt);
    expect(field(FIELD.entryInterruption)).toBe(0n);
    expect(field(FIELD.procControls) & 4n).toBe(4n);
    setState(L2_ENTER_GUEST_STATE.offsetOf('rflags'), 0x202n);
    exitOfGuest(EXIT_REASON.interruptWindow);
    expect(field(FIELD.entryInterruption)).toBe(0x8000_0000n | BigInt(VECTOR));
    expect(field(FIELD.procControls) & 4n).toBe(0n);
  });
});

test('its state is plain data: a copy of it goes on in its place', () => {
  begin();
  const saved = structuredClone(program.state);
  program = tdxParavisor({ page: AT.page, build: BUILD, opcodes });
  program.load(saved);
  setGeneral(0, 1n);
  expect(exitOfGuest(EXIT_REASON.cpuid).kind).toBe('vp-enter');
  expect(general(0)).toBe(0x806f8n);
});
