import { beforeEach, describe, expect, test } from 'vitest';
import fc from 'fast-check';
import { FEATURE, LEAF, PRIVILEGE, PRIVILEGE_HIGH } from '../abi/hyperv/cpuid.ts';
import { CALL, STATUS, writeControl, type Control } from '../abi/hyperv/hypercall.ts';
import * as inputs from '../abi/hyperv/inputs.ts';
import { MSR } from '../abi/hyperv/msr.ts';
import { referenceTscPage } from '../abi/hyperv/pages.ts';
import { REGISTER } from '../abi/hyperv/registers.ts';
import { MESSAGE, messageHeader, SINT, SLOT_SIZE, TIMER } from '../abi/hyperv/synic.ts';
import { CHANNEL_MESSAGE, initiateContact, VMBUS_VERSION, versionResponse } from '../abi/vmbus/messages.ts';
import { setU32 } from '../abi/record.ts';
import type { HostAction } from '../seats/actions.ts';
import type { Completion, Exit } from '../seats/exits.ts';
import { DEFAULT_CONFIG, type HostConfig } from './config.ts';
import {
  createHost,
  hostAcknowledge,
  hostAdvance,
  hostExit,
  hostInterrupt,
  hostNextEvent,
  hostOverlays,
  hostPowerButton,
  hostSerialInput,
  hostSetLine,
  hostSetLocalPin,
  hostTakeExternal,
  hostTakeNmi,
  hostTurn,
  type HostState,
} from './host.ts';
import { HYPERCALL_ROWS } from './hypercalls.ts';
import { hypercallPage, MSR_ROWS } from '../chipset/partition/msr.ts';
import { TEST_COMMAND, TEST_DEVICE_PORT } from './test-device.ts';
import { TestWorld } from './test-world.ts';

let world: TestWorld;
let host: HostState;
let actions: HostAction[];

function make(config: Partial<HostConfig> = {}): void {
  world = new TestWorld();
  host = createHost({ ...DEFAULT_CONFIG, ...config });
  actions = [];
}

function exit(vp: number, value: Exit): Completion {
  const step = hostExit(host, vp, value, world);
  actions.push(...step.actions);
  return step.completion;
}

const rdmsr = (vp: number, index: number) => exit(vp, { kind: 'msr', index, write: false, lo: 0, hi: 0 });
const wrmsr = (vp: number, index: number, lo: number, hi = 0) =>
  exit(vp, { kind: 'msr', index, write: true, lo: lo >>> 0, hi });
const DONE = { kind: 'done' };
const GP = { kind: 'fault', vector: 13, errorCode: 0 };
const value = (lo: number, hi = 0) => ({ kind: 'value', lo, hi });

/** Software-enables the local APIC, through xAPIC page or MSR. */
function enableApic(vp: number): void {
  expect(exit(vp, { kind: 'mmio', gpa: 0xfee0_00f0, size: 4, write: true, lo: 0x1ff, hi: 0 })).toEqual(DONE);
}

/** What the VP would take: every vector that is pending, each acknowledged and ended. */
function takeAll(vp: number): number[] {
  const vectors: number[] = [];
  while (hostInterrupt(host, vp) === 'interrupt') {
    vectors.push(hostAcknowledge(host, vp, world));
    wrmsr(vp, MSR.eoi, 0);
  }
  return vectors;
}

function identify(): void {
  wrmsr(0, MSR.guestOsId, 1, 0x8100_0000);
}

function setRegister(vp: number, name: number, low: number, high = 0): void {
  world.registers.set(`${vp}:${name}`, [low >>> 0, high >>> 0, 0, 0]);
}

/** Calls with its input in a page at 0x4000 and output at 0x5000. */
function hypercall(vp: number, control: Partial<Control>, input: Uint8Array): Completion {
  world.ram.set(input, 0x4000);
  const { low, high } = writeControl(control);
  setRegister(vp, REGISTER.rcx, low, high);
  setRegister(vp, REGISTER.rdx, 0x4000);
  setRegister(vp, REGISTER.r8, 0x5000);
  return exit(vp, { kind: 'hypercall', long: true, cpl: 0 });
}

function fastHypercall(vp: number, code: number, rdx: [number, number], r8: [number, number]): Completion {
  const { low, high } = writeControl({ code, fast: true });
  setRegister(vp, REGISTER.rcx, low, high);
  setRegister(vp, REGISTER.rdx, ...rdx);
  setRegister(vp, REGISTER.r8, ...r8);
  return exit(vp, { kind: 'hypercall', long: true, cpl: 0 });
}

beforeEach(() => make({ vpCount: 4 }));

describe('CPUID', () => {
  const native = { eax: 0, ebx: 0, ecx: 0, edx: 0x100 };
  const cpuid = (leaf: number, subleaf = 0, vp = 0) => {
    const completion = exit(vp, { kind: 'cpuid', leaf, subleaf, native });
    if (completion.kind !== 'registers') throw new Error(completion.kind);
    return completion;
  };
  const text = (...words: number[]) =>
    String.fromCharCode(...words.flatMap((word) => [0, 8, 16, 24].map((shift) => (word >>> shift) & 0xff)));

  test('says that this is Hyper-V', () => {
    const { eax, ebx, ecx, edx } = cpuid(LEAF.vendor);
    expect(eax).toBe(0x4000_000c);
    expect(text(ebx, ecx, edx)).toBe('Microsoft Hv');
    expect(text(cpuid(LEAF.interface).eax)).toBe('Hv#1');
    expect(cpuid(1).ecx >>> 31).toBe(1);
  });

  test('offers what Linux needs, and nothing that makes it a root partition', () => {
    const { eax, ebx, edx } = cpuid(LEAF.features);
    expect(eax).toBe(0xaeff);
    expect(ebx & (PRIVILEGE_HIGH.accessPartitionId | PRIVILEGE_HIGH.cpuManagement)).toBe(0);
    expect(edx & FEATURE.directSyntheticTimers).not.toBe(0);
    expect(cpuid(LEAF.recommendations).eax).toBe(0xe24);
    make({ x2apic: false, invariantTsc: false });
    expect(cpuid(LEAF.features).eax & PRIVILEGE.tscInvariant).toBe(0);
    expect(cpuid(LEAF.recommendations).eax).toBe(0xc2c);
  });

  test('is bare with Hyper-V off', () => {
    make({ hyperv: false });
    expect(cpuid(LEAF.vendor)).toEqual({ kind: 'registers', ...native });
    expect(cpuid(1).ecx >>> 31).toBe(0);
    expect(rdmsr(0, MSR.vpIndex)).toEqual(GP);
    expect(exit(0, { kind: 'hypercall', long: true, cpl: 0 })).toEqual({ kind: 'fault', vector: 6 });
  });

  test('names the VP by its APIC id', () => {
    expect(cpuid(1, 0, 3).ebx >>> 24).toBe(3);
    expect(cpuid(0xb, 0, 2).edx).toBe(2);
    expect(cpuid(0xb, 1)).toMatchObject({ eax: 2, ebx: 4, ecx: 0x201 });
  });

  test('shows the local APIC and its modes as they are', () => {
    expect(cpuid(1)).toMatchObject({ edx: 0x1000_0300 });
    expect(cpuid(1).ecx & 0x0120_0000).toBe(0x0120_0000);
    wrmsr(0, 0x1b, 0xfee0_0100);
    expect(cpuid(1).edx & 0x200).toBe(0);
    make({ x2apic: false, tscDeadline: false });
    expect(cpuid(1).ecx & 0x0120_0000).toBe(0);
  });

  test('shows the invariant TSC only once the guest has asked for it, and if offered', () => {
    expect(cpuid(0x8000_0007).edx & 0x100).toBe(0);
    expect(wrmsr(0, MSR.tscInvariantControl, 1)).toEqual(DONE);
    expect(cpuid(0x8000_0007).edx & 0x100).toBe(0x100);
    make({ invariantTsc: false });
    expect(wrmsr(0, MSR.tscInvariantControl, 1)).toEqual(GP);
    expect(cpuid(0x8000_0007).edx & 0x100).toBe(0);
  });
});

describe('synthetic MSRs', () => {
  test('VP index, frequencies and reference counter', () => {
    expect(rdmsr(3, MSR.vpIndex)).toEqual(value(3));
    expect(wrmsr(3, MSR.vpIndex, 1)).toEqual(GP);
    expect(rdmsr(0, MSR.tscFrequency)).toEqual(value(2_000_000_000));
    expect(rdmsr(0, MSR.apicFrequency)).toEqual(value(200_000_000));
    world.now = 123_456;
    expect([value(1234), value(1233)]).toContainEqual(rdmsr(0, MSR.timeRefCount));
  });

  test('unknown numbers fault', () => {
    expect(rdmsr(0, 0x4000_0004)).toEqual(GP);
    expect(wrmsr(0, 0x4000_1080, 0)).toEqual(GP);
    expect(rdmsr(0, 0xc001_0015)).toEqual(GP);
  });

  test('the hypercall page appears when a guest with an identity enables it, and goes with the identity', () => {
    expect(wrmsr(0, MSR.hypercall, 0x3001)).toEqual(DONE);
    expect(rdmsr(0, MSR.hypercall)).toEqual(value(0x3000));
    identify();
    expect(wrmsr(0, MSR.hypercall, 0x3001)).toEqual(DONE);
    expect(rdmsr(0, MSR.hypercall)).toEqual(value(0x3001));
    expect(hostOverlays(host)).toEqual([{ slot: 0, gpa: 0x3000 }]);
    expect(world.memory(0x3000, 8)).toEqual(Uint8Array.of(0xf3, 0x0f, 0x1e, 0xfa, 0x0f, 0x01, 0xd9, 0xc3));
    wrmsr(0, MSR.guestOsId, 0);
    expect(rdmsr(0, MSR.hypercall)).toEqual(value(0x3000));
    expect(hostOverlays(host)).toEqual([]);
    expect(hypercallPage('intel')[6]).toBe(0xc1);
  });

  test('a locked hypercall page stays', () => {
    identify();
    wrmsr(0, MSR.hypercall, 0x3003);
    expect(wrmsr(0, MSR.hypercall, 0)).toEqual(GP);
    expect(rdmsr(0, MSR.hypercall)).toEqual(value(0x3003));
  });

  test('a page outside memory faults and shows nothing', () => {
    identify();
    for (const index of [MSR.hypercall, MSR.referenceTsc, MSR.simp, MSR.siefp, MSR.vpAssistPage]) {
      expect(wrmsr(0, index, 0x1001, 0x10)).toEqual(GP);
      expect(wrmsr(0, index, 1, 0xffff_ffff)).toEqual(GP);
    }
    expect(hostOverlays(host)).toEqual([]);
  });

  test('the reference TSC page', () => {
    expect(wrmsr(1, MSR.referenceTsc, 0x3001)).toEqual(DONE);
    expect(rdmsr(0, MSR.referenceTsc)).toEqual(value(0x3001));
    expect(referenceTscPage.read(world.memory(0x3000, 24)).scale).toBe((10_000_000n << 64n) / 2_000_000_000n);
    expect(wrmsr(1, MSR.referenceTsc, 0)).toEqual(DONE);
    expect(rdmsr(0, MSR.referenceTsc)).toEqual(value(0));
  });

  test('a hidden page keeps its contents when it moves, with overlays and without', () => {
    for (const overlays of [true, false]) {
      make();
      world.overlaysSupported = overlays;
      world.ram[0x3000] = 0x11;
      world.ram[0x6000] = 0x22;
      wrmsr(0, MSR.simp, 0x3001);
      expect(world.memory(0x3000, 1)).toEqual(Uint8Array.of(0));
      world.write(0x3000, Uint8Array.of(0x77));
      wrmsr(0, MSR.simp, 0x6001);
      expect(world.memory(0x6000, 1)).toEqual(Uint8Array.of(0x77));
      if (overlays) expect(world.memory(0x3000, 1)).toEqual(Uint8Array.of(0x11));
      wrmsr(0, MSR.simp, 0);
      wrmsr(0, MSR.simp, 0x3001);
      expect(world.memory(0x3000, 1)).toEqual(Uint8Array.of(0x77));
    }
  });

  test('a page that cannot move stays where it is', () => {
    for (const overlays of [true, false]) {
      make();
      world.overlaysSupported = overlays;
      wrmsr(0, MSR.simp, 0x3001);
      world.write(0x3000, Uint8Array.of(0x77));
      expect(wrmsr(0, MSR.simp, 0x1001, 0x10)).toEqual(GP);
      expect(rdmsr(0, MSR.simp)).toEqual(value(0x3001));
      expect(world.memory(0x3000, 1)).toEqual(Uint8Array.of(0x77));
      expect(hostOverlays(host)).toEqual([{ slot: 3, gpa: 0x3000 }]);
    }
  });

  test('a crash report carries its parameters and message', () => {
    expect(rdmsr(0, MSR.crashCtl)).toEqual(value(0, 0xc000_0000));
    world.ram.set([0x6f, 0x6f, 0x70, 0x73], 0x7000);
    [1, 2, 3, 0x7000, 4].forEach((parameter, i) => wrmsr(0, MSR.crashP0 + i, parameter));
    expect(wrmsr(0, MSR.crashCtl, 0, 0xc000_0000)).toEqual(DONE);
    expect(actions).toEqual([
      {
        kind: 'crash',
        parameters: [1n, 2n, 3n, 0x7000n, 4n],
        message: Uint8Array.of(0x6f, 0x6f, 0x70, 0x73),
      },
    ]);
  });

  test('a crash message that does not exist is no message', () => {
    wrmsr(0, MSR.crashP4 - 1, 0, 0xffff_ffff);
    wrmsr(0, MSR.crashP4, 100);
    wrmsr(0, MSR.crashCtl, 0, 0xc000_0000);
    expect(actions).toMatchObject([{ kind: 'crash', message: undefined }]);
  });

  test('RESET ends the run', () => {
    wrmsr(0, MSR.reset, 1);
    expect(actions).toEqual([{ kind: 'end', reason: 'reset' }]);
  });
});

describe('synthetic timers', () => {
  test('direct mode interrupts at the very nanosecond at which the counter shows COUNT', () => {
    enableApic(1);
    wrmsr(1, MSR.stimer0Config, TIMER.enable | TIMER.autoEnable | TIMER.direct | (0xed << 4));
    wrmsr(1, MSR.stimer0Config + 1, 1000);
    world.now = hostNextEvent(host) - 1;
    hostAdvance(host, world);
    expect(hostInterrupt(host, 1)).toBe('none');
    expect(rdmsr(1, MSR.timeRefCount)).toEqual(value(999));
    world.now++;
    hostAdvance(host, world);
    expect(rdmsr(1, MSR.timeRefCount)).toEqual(value(1000));
    expect(takeAll(1)).toEqual([0xed]);
    expect(hostNextEvent(host)).toBe(Infinity);
  });

  test('message mode waits for the slot, and resumes on EOM', () => {
    enableApic(0);
    wrmsr(0, MSR.simp, 0x3001);
    wrmsr(0, MSR.scontrol, 1);
    wrmsr(0, MSR.sint0 + 2, 0xf1);
    const slot = 0x3000 + 2 * SLOT_SIZE;
    world.write(slot, messageHeader.write({ type: MESSAGE.timerExpired }));
    wrmsr(0, MSR.stimer0Config + 1, 10);
    wrmsr(0, MSR.stimer0Config, TIMER.enable | (2 << TIMER.sintShift));
    world.now = hostNextEvent(host);
    hostAdvance(host, world);
    expect(messageHeader.read(world.memory(slot, 16)).flags).toBe(1);
    expect(takeAll(0)).toEqual([]);
    world.write(slot, new Uint8Array(4));
    wrmsr(0, MSR.eom, 0);
    expect(takeAll(0)).toEqual([0xf1]);
    expect(messageHeader.read(world.memory(slot, 16))).toMatchObject({
      type: MESSAGE.timerExpired,
      flags: 0,
    });
  });
});

describe('VMBus over hypercall and SynIC', () => {
  const connect = () => {
    identify();
    enableApic(0);
    wrmsr(0, MSR.simp, 0x3001);
    wrmsr(0, MSR.siefp, 0x6001);
    wrmsr(0, MSR.sint0 + 2, 0xf3);
    wrmsr(0, MSR.scontrol, 1);
    const contact = initiateContact.write({
      type: CHANNEL_MESSAGE.initiateContact,
      version: VMBUS_VERSION.v5_3,
      sint: 2,
    });
    return post(4, contact);
  };
  const post = (connectionId: number, payload: Uint8Array, messageType = 1) =>
    hypercall(
      0,
      { code: CALL.postMessage },
      inputs.postMessageInput.write({ connectionId, messageType, payloadSize: payload.length, payload }),
    );
  const slot = () => world.memory(0x3000 + 2 * SLOT_SIZE, 256);

  test('contact is answered in the slot of SINT 2, with an interrupt', () => {
    expect(connect()).toEqual(value(STATUS.success));
    expect(takeAll(0)).toEqual([0xf3]);
    expect(messageHeader.read(slot())).toMatchObject({ type: 1, payloadSize: 16 });
    expect(versionResponse.read(slot(), 16)).toMatchObject({ supported: 1, connectionIdOrVersion: 1 });
  });

  test('offers end, and UNLOAD is answered, one message at a time', () => {
    connect();
    takeAll(0);
    for (const type of [CHANNEL_MESSAGE.requestOffers, CHANNEL_MESSAGE.unload]) {
      const message = new Uint8Array(8);
      setU32(message, 0, type);
      expect(post(1, message)).toEqual(value(STATUS.success));
    }
    expect(slot()[5]).toBe(1);
    const received: number[] = [];
    for (let i = 0; i < 3; i++) {
      received.push(slot()[16] ?? 0);
      world.write(0x3000 + 2 * SLOT_SIZE, new Uint8Array(4));
      wrmsr(0, MSR.eom, 0);
      takeAll(0);
    }
    expect(received).toEqual([
      CHANNEL_MESSAGE.versionResponse,
      CHANNEL_MESSAGE.allOffersDelivered,
      CHANNEL_MESSAGE.unloadResponse,
    ]);
  });

  test('a port that does not exist, and types and sizes that cannot be', () => {
    identify();
    expect(post(7, new Uint8Array(8))).toEqual(value(STATUS.invalidConnectionId));
    expect(post(1, new Uint8Array(8), 2)).toEqual(value(STATUS.invalidParameter));
    expect(post(1, new Uint8Array(8), 0x8000_0010)).toEqual(value(STATUS.invalidParameter));
    const tooLong = inputs.postMessageInput.write({ connectionId: 1, messageType: 1, payloadSize: 241 });
    expect(hypercall(0, { code: CALL.postMessage }, tooLong)).toEqual(value(STATUS.invalidParameter));
    expect(fastHypercall(0, CALL.signalEvent, [0x1234, 0], [0, 0])).toEqual(
      value(STATUS.invalidConnectionId),
    );
  });
});

describe('hypercalls', () => {
  beforeEach(identify);

  test('are #UD outside CPL 0 and before the guest has an identity', () => {
    expect(exit(0, { kind: 'hypercall', long: true, cpl: 3 })).toEqual({ kind: 'fault', vector: 6 });
    wrmsr(0, MSR.guestOsId, 0);
    expect(exit(0, { kind: 'hypercall', long: true, cpl: 0 })).toEqual({ kind: 'fault', vector: 6 });
  });

  test('cluster IPI, fast: vector in RDX, mask in R8', () => {
    [0, 1, 2, 3].forEach(enableApic);
    expect(fastHypercall(0, CALL.sendSyntheticClusterIpi, [0xfb, 0], [0b1010, 0])).toEqual(value(0));
    expect([0, 1, 2, 3].map(takeAll)).toEqual([[], [0xfb], [], [0xfb]]);
    expect(fastHypercall(0, CALL.sendSyntheticClusterIpi, [0x0f, 0], [1, 0])).toEqual(
      value(STATUS.invalidParameter),
    );
  });

  test('cluster IPI Ex: sparse set with banks, and all', () => {
    [0, 1, 2, 3].forEach(enableApic);
    const input = new Uint8Array(32);
    inputs.sendIpiExInput.write({ vector: 0xfc, setFormat: 0n, validBankMask: 1n }, input);
    setU32(input, 24, 0b0101);
    const control = { code: CALL.sendSyntheticClusterIpiEx, variableHeaderQwords: 1 };
    expect(hypercall(1, control, input)).toEqual(value(0));
    expect([0, 1, 2, 3].map(takeAll)).toEqual([[0xfc], [], [0xfc], []]);
    expect(hypercall(1, { ...control, variableHeaderQwords: 0 }, input)).toEqual(
      value(STATUS.invalidHypercallInput),
    );
    inputs.sendIpiExInput.write({ setFormat: 1n, validBankMask: 0n }, input);
    expect(hypercall(1, { ...control, variableHeaderQwords: 0 }, input)).toEqual(value(0));
    expect([0, 1, 2, 3].flatMap(takeAll)).toEqual([0xfc, 0xfc, 0xfc, 0xfc]);
    inputs.sendIpiExInput.write({ setFormat: 2n }, input);
    expect(hypercall(1, control, input)).toEqual(value(STATUS.invalidParameter));
  });

  test('flush of an address space and of a list', () => {
    const input = new Uint8Array(40);
    inputs.flushInput.write({ flags: 4n, processorMask: 0b0110n }, input);
    expect(hypercall(0, { code: CALL.flushVirtualAddressSpace }, input)).toEqual(value(0));
    inputs.flushInput.write({ flags: 1n }, input);
    setU32(input, 24, 0x7000_0003);
    setU32(input, 28, 0xffff);
    setU32(input, 32, 0x1000);
    expect(hypercall(0, { code: CALL.flushVirtualAddressList, repCount: 2 }, input)).toEqual(value(0, 2));
    expect(actions).toEqual([
      { kind: 'flush-tlb', vps: [1, 2], ranges: undefined, keepGlobal: true },
      {
        kind: 'flush-tlb',
        vps: [0, 1, 2, 3],
        ranges: [
          { lo: 0x7000_0000, hi: 0xffff, pages: 4 },
          { lo: 0x1000, hi: 0, pages: 1 },
        ],
        keepGlobal: false,
      },
    ]);
    inputs.flushInput.write({ flags: 0x10n }, input);
    expect(hypercall(0, { code: CALL.flushVirtualAddressSpace }, input)).toEqual(
      value(STATUS.invalidParameter),
    );
  });

  test('flush Ex takes its list behind the banks', () => {
    const input = new Uint8Array(48);
    inputs.flushExInput.write({ validBankMask: 1n }, input);
    setU32(input, 32, 0b1000);
    setU32(input, 40, 0x5001);
    const control = { code: CALL.flushVirtualAddressListEx, variableHeaderQwords: 1, repCount: 1 };
    expect(hypercall(0, control, input)).toEqual(value(0, 1));
    expect(actions).toMatchObject([{ vps: [3], ranges: [{ lo: 0x5000, hi: 0, pages: 2 }] }]);
  });

  test("registers: the hypervisor's own are served, others are unknown", () => {
    const input = new Uint8Array(24);
    inputs.getVpRegistersInput.write({ partitionId: inputs.PARTITION_SELF, vpIndex: inputs.VP_SELF }, input);
    setU32(input, 16, REGISTER.vpIndex);
    setU32(input, 20, REGISTER.rax);
    expect(hypercall(2, { code: CALL.getVpRegisters, repCount: 2 }, input)).toEqual(
      value(STATUS.unknownRegisterName, 1),
    );
    expect(world.memory(0x5000, 16)[0]).toBe(2);
    inputs.getVpRegistersInput.write({ vpIndex: 9 }, input);
    expect(hypercall(2, { code: CALL.getVpRegisters, repCount: 2 }, input)).toEqual(
      value(STATUS.invalidVpIndex),
    );
    inputs.getVpRegistersInput.write({ partitionId: 5n }, input);
    expect(hypercall(2, { code: CALL.getVpRegisters, repCount: 2 }, input)).toEqual(
      value(STATUS.invalidPartitionId),
    );
  });

  test('setting a register is writing its MSR', () => {
    const input = new Uint8Array(48);
    inputs.getVpRegistersInput.write({ partitionId: inputs.PARTITION_SELF, vpIndex: 1 }, input);
    inputs.setVpRegistersElement.write({ name: REGISTER.sint0 + 5, value: Uint8Array.of(0x55) }, input, 16);
    expect(hypercall(0, { code: CALL.setVpRegisters, repCount: 1 }, input)).toEqual(value(0, 1));
    expect(rdmsr(1, MSR.sint0 + 5)).toEqual(value(0x55));
    inputs.setVpRegistersElement.write({ value: Uint8Array.of(3) }, input, 16);
    expect(hypercall(0, { code: CALL.setVpRegisters, repCount: 1 }, input)).toEqual(
      value(STATUS.invalidRegisterValue),
    );
  });

  test('host visibility is refused in a partition without isolation', () => {
    expect(
      hypercall(0, { code: CALL.modifySparseGpaPageHostVisibility, repCount: 1 }, new Uint8Array(24)),
    ).toEqual(value(STATUS.accessDenied));
  });

  test('a VP that waits is started with its context; one that runs is not', () => {
    const input = inputs.startVpInput.write({ partitionId: inputs.PARTITION_SELF, vpIndex: 2 });
    expect(hypercall(0, { code: CALL.startVirtualProcessor }, input)).toEqual(value(0));
    expect(actions).toMatchObject([{ kind: 'start-context', vp: 2 }]);
    expect(hypercall(0, { code: CALL.startVirtualProcessor }, input)).toEqual(value(STATUS.invalidVpState));
  });

  test('extended capabilities are none, written to the output', () => {
    world.ram.fill(0xff, 0x5000, 0x5008);
    expect(hypercall(0, { code: CALL.extQueryCapabilities }, new Uint8Array(0))).toEqual(value(0));
    expect(world.memory(0x5000, 8)).toEqual(new Uint8Array(8));
  });

  test('32-bit callers use the register pairs', () => {
    setRegister(0, REGISTER.rax, CALL.signalEvent | 0x1_0000);
    setRegister(0, REGISTER.rdx, 0);
    setRegister(0, REGISTER.rcx, 0x1234);
    expect(exit(0, { kind: 'hypercall', long: false, cpl: 0 })).toEqual(value(STATUS.invalidConnectionId));
  });

  test('the table of calls is this, and no more', () => {
    expect(HYPERCALL_ROWS.map(({ code }) => code).sort((a, b) => a - b)).toEqual([
      0x02, 0x03, 0x08, 0x0b, 0x13, 0x14, 0x15, 0x46, 0x50, 0x51, 0x5c, 0x5d, 0x99, 0x9a, 0xdb, 0x8001,
    ]);
  });
});

describe('the test device', () => {
  const command = (number: number, vp: number, sint: number, connection = 0) =>
    exit(0, {
      kind: 'io',
      port: TEST_DEVICE_PORT,
      size: 4,
      write: true,
      value: ((connection << 24) | (number << 16) | (vp << 8) | sint) >>> 0,
    });

  beforeEach(() => {
    make({ vpCount: 2, testDevice: true });
    identify();
    for (const vp of [0, 1]) {
      enableApic(vp);
      wrmsr(vp, MSR.simp, 0x8001 + vp * 0x1000);
      wrmsr(vp, MSR.siefp, 0x6001 + vp * 0x1000);
      wrmsr(vp, MSR.scontrol, 1);
    }
  });

  test('raises a SINT, with auto-EOI and without', () => {
    wrmsr(1, MSR.sint0, 0xb0);
    wrmsr(1, MSR.sint0 + 3, 0xb3 | SINT.autoEoi);
    for (const sint of [0, 3]) {
      command(TEST_COMMAND.sintRouteCreate, 1, sint);
      command(TEST_COMMAND.sintRouteSet, 1, sint);
    }
    expect(hostAcknowledge(host, 1, world)).toBe(0xb3);
    // Not in service, so the lower vector of the same class may follow.
    expect(hostInterrupt(host, 1)).toBe('interrupt');
    expect(hostAcknowledge(host, 1, world)).toBe(0xb0);
  });

  test('sends a posted message back, queues behind a busy slot, and sets event flags once', () => {
    wrmsr(1, MSR.sint0 + 8, 0xb0 | SINT.autoEoi);
    wrmsr(1, MSR.sint0 + 9, 0xb1 | SINT.autoEoi);
    command(TEST_COMMAND.messageConnectionCreate, 1, 8, 0x11);
    command(TEST_COMMAND.eventConnectionCreate, 1, 9, 0x21);
    const send = (payload: number) =>
      hypercall(
        0,
        { code: CALL.postMessage },
        inputs.postMessageInput.write({
          connectionId: 0x11,
          messageType: 0x1234_5678,
          payloadSize: 8,
          payload: Uint8Array.of(payload),
        }),
      );
    const slot = () => world.memory(0x9000 + 8 * SLOT_SIZE, 17);
    expect(send(5)).toEqual(value(0));
    expect(takeAll(1)).toEqual([0xb0]);
    expect(messageHeader.read(slot())).toMatchObject({ type: 0x1234_5678, payloadSize: 8, flags: 0 });
    expect(send(6)).toEqual(value(0));
    expect([takeAll(1), messageHeader.read(slot()).flags, slot()[16]]).toEqual([[], 1, 5]);
    world.write(0x9000 + 8 * SLOT_SIZE, new Uint8Array(4));
    wrmsr(1, MSR.eom, 0);
    expect([takeAll(1), messageHeader.read(slot()).flags, slot()[16]]).toEqual([[0xb0], 0, 6]);

    expect(fastHypercall(0, CALL.signalEvent, [0x21, 0], [0, 0])).toEqual(value(0));
    expect(takeAll(1)).toEqual([0xb1]);
    expect(world.memory(0x7000 + 9 * SLOT_SIZE + 4, 1)).toEqual(Uint8Array.of(1 << 1));
    expect(fastHypercall(0, CALL.signalEvent, [0x21, 0], [0, 0])).toEqual(value(0));
    expect(takeAll(1)).toEqual([]);
    command(TEST_COMMAND.eventConnectionDestroy, 0, 0, 0x21);
    expect(fastHypercall(0, CALL.signalEvent, [0x21, 0], [0, 0])).toEqual(value(STATUS.invalidConnectionId));
  });

  test('answers a hypercall of a guest without identity as unknown, where a real board is #UD', () => {
    wrmsr(0, MSR.guestOsId, 0);
    expect(exit(0, { kind: 'hypercall', long: true, cpl: 0 })).toEqual(value(0xffff_ffff, 0xffff_ffff));
  });
});

describe('processors', () => {
  const icr = (vp: number, destination: number, low: number) => {
    exit(vp, { kind: 'mmio', gpa: 0xfee0_0310, size: 4, write: true, lo: (destination << 24) >>> 0, hi: 0 });
    return exit(vp, { kind: 'mmio', gpa: 0xfee0_0300, size: 4, write: true, lo: low, hi: 0 });
  };

  test('INIT and SIPI start a VP that waits', () => {
    expect(host.vps.map(({ activity }) => activity)).toEqual(['running', 'waiting', 'waiting', 'waiting']);
    icr(0, 1, 0xc500);
    icr(0, 1, 0x4600 | 0x9a);
    icr(0, 1, 0x4600 | 0x9b);
    expect(actions).toEqual([
      { kind: 'init', vp: 1 },
      { kind: 'startup', vp: 1, vector: 0x9a },
    ]);
    expect(host.vps[1]?.activity).toBe('running');
  });

  test('NMI is latched until taken', () => {
    icr(0, 1, 0x4400);
    expect(hostInterrupt(host, 1)).toBe('nmi');
    hostTakeNmi(host, 1);
    expect(hostInterrupt(host, 1)).toBe('none');
  });

  test('CR8 is the task priority, and holds interrupts back', () => {
    enableApic(0);
    expect(exit(0, { kind: 'cr8', write: true, value: 15 })).toEqual(DONE);
    expect(exit(0, { kind: 'cr8', write: false, value: 0 })).toEqual(value(15));
    expect(rdmsr(0, MSR.tpr)).toEqual(value(0xf0));
    wrmsr(0, MSR.icr, 0x4_00ed | 0x4000);
    expect(hostInterrupt(host, 0)).toBe('none');
    wrmsr(0, MSR.tpr, 0);
    expect(takeAll(0)).toEqual([0xed]);
    expect(exit(0, { kind: 'cr8', write: true, value: 16 })).toEqual(GP);
  });

  test('a triple fault ends the run', () => {
    exit(0, { kind: 'triple-fault' });
    expect(actions).toEqual([{ kind: 'end', reason: 'triple-fault' }]);
  });
});

describe('ports', () => {
  const out = (port: number, byte: number, size: 1 | 2 | 4 = 1) =>
    exit(0, { kind: 'io', port, size, write: true, value: byte });
  const inp = (port: number, size: 1 | 2 | 4 = 1) =>
    exit(0, { kind: 'io', port, size, write: false, value: 0 });

  test('nobody there: all ones, of the size asked for', () => {
    for (const port of [0x20, 0x21, 0x40, 0x61, 0x64, 0xa1, 0xcf8, 0x3e8]) {
      expect([inp(port), inp(port, 2), inp(port, 4)]).toEqual(
        [0xff, 0xffff, 0xffff_ffff].map((n) => value(n)),
      );
      expect(out(port, 0)).toEqual(DONE);
    }
    expect(exit(0, { kind: 'mmio', gpa: 0xfed0_0000, size: 8, write: false, lo: 0, hi: 0 })).toEqual(
      value(0xffff_ffff, 0xffff_ffff),
    );
  });

  test('what a UART sends comes out as it is, unit by unit', () => {
    out(0x3f8, 0x41);
    out(0x2f8, 0x00);
    out(0x3f8, 0xff);
    expect(actions).toEqual([
      { kind: 'serial', unit: 0, bytes: Uint8Array.of(0x41) },
      { kind: 'serial', unit: 1, bytes: Uint8Array.of(0) },
      { kind: 'serial', unit: 0, bytes: Uint8Array.of(0xff) },
    ]);
  });

  test('what a UART receives interrupts on its pin', () => {
    enableApic(0);
    exit(0, { kind: 'mmio', gpa: 0xfec0_0000, size: 4, write: true, lo: 0x10 + 2 * 3, hi: 0 });
    exit(0, { kind: 'mmio', gpa: 0xfec0_0010, size: 4, write: true, lo: 0x53, hi: 0 });
    out(0x2fc, 0x0b);
    out(0x2f9, 0x01);
    expect(hostSerialInput(host, 1, Uint8Array.of(0x7a), world)).toEqual({ taken: 1, actions: [] });
    expect(takeAll(0)).toEqual([0x53]);
    expect(inp(0x2f8)).toEqual(value(0x7a));
    expect(() => hostSerialInput(host, 2, Uint8Array.of(1), world)).toThrow(/UART 2/);
  });
});

describe('clock chip and power', () => {
  const out = (port: number, number: number, size: 1 | 2 | 4 = 1) =>
    exit(0, { kind: 'io', port, size, write: true, value: number });
  const inp = (port: number, size: 1 | 2 | 4 = 1) =>
    exit(0, { kind: 'io', port, size, write: false, value: 0 });
  const pin = (number: number, entry: number) => {
    exit(0, { kind: 'mmio', gpa: 0xfec0_0000, size: 4, write: true, lo: 0x10 + 2 * number, hi: 0 });
    exit(0, { kind: 'mmio', gpa: 0xfec0_0010, size: 4, write: true, lo: entry, hi: 0 });
  };

  test('the clock starts at the date of the configuration', () => {
    make({ startDate: Date.UTC(2024, 1, 29, 23, 59, 58) / 1000 });
    world.now = 3_000_000_000;
    const read = (register: number) => {
      out(0x70, register);
      return inp(0x71);
    };
    expect([9, 8, 7, 4, 2, 0].map(read)).toEqual([0x24, 3, 1, 0, 0, 1].map((n) => value(n)));
  });

  test('its update interrupt comes on pin 8', () => {
    enableApic(0);
    pin(8, 0x58);
    out(0x70, 0xb);
    out(0x71, 0x12);
    world.now = hostNextEvent(host);
    hostAdvance(host, world);
    expect(takeAll(0)).toEqual([0x58]);
  });

  test('S5, S4 and the reset register end the run', () => {
    out(0x404, 0x2001, 2);
    out(0x404, 0x2401, 2);
    out(0x433, 1);
    expect(actions).toEqual(['power-off', 'hibernate', 'reset'].map((reason) => ({ kind: 'end', reason })));
  });

  test('the power button is an SCI', () => {
    enableApic(0);
    pin(9, 0x8059);
    out(0x402, 0x100, 2);
    hostPowerButton(host, world);
    expect(hostAcknowledge(host, 0, world)).toBe(0x59);
    expect(inp(0x400, 2)).toEqual(value(0x100));
    out(0x400, 0x100, 2);
    wrmsr(0, MSR.eoi, 0);
    expect(takeAll(0)).toEqual([]);
  });
});

describe('the IO-APIC', () => {
  const ioapic = (register: number, lo: number) => {
    exit(0, { kind: 'mmio', gpa: 0xfec0_0000, size: 4, write: true, lo: register, hi: 0 });
    exit(0, { kind: 'mmio', gpa: 0xfec0_0010, size: 4, write: true, lo, hi: 0 });
  };

  test('has version 0x11 and 24 pins', () => {
    exit(0, { kind: 'mmio', gpa: 0xfec0_0000, size: 4, write: true, lo: 1, hi: 0 });
    expect(exit(0, { kind: 'mmio', gpa: 0xfec0_0010, size: 4, write: false, lo: 0, hi: 0 })).toEqual(
      value(0x17_0011),
    );
  });

  test('a level-triggered line comes back after EOI until it is released', () => {
    enableApic(1);
    ioapic(0x10 + 2 * 9 + 1, 1 << 24);
    ioapic(0x10 + 2 * 9, 0x8000 | 0x51);
    hostSetLine(host, 9, true, world);
    expect(hostAcknowledge(host, 1, world)).toBe(0x51);
    expect(hostInterrupt(host, 1)).toBe('none');
    wrmsr(1, MSR.eoi, 0);
    expect(hostAcknowledge(host, 1, world)).toBe(0x51);
    hostSetLine(host, 9, false, world);
    wrmsr(1, MSR.eoi, 0);
    expect(hostInterrupt(host, 1)).toBe('none');
  });

  test('LINT0 of a board with an 8259A is an external interrupt', () => {
    exit(0, { kind: 'mmio', gpa: 0xfee0_0350, size: 4, write: true, lo: 0x700, hi: 0 });
    enableApic(0);
    exit(0, { kind: 'mmio', gpa: 0xfee0_0350, size: 4, write: true, lo: 0x700, hi: 0 });
    hostSetLocalPin(host, 0, 0, true, world);
    expect(hostInterrupt(host, 0)).toBe('external');
    hostTakeExternal(host, 0);
    hostSetLocalPin(host, 0, 0, false, world);
    expect(hostInterrupt(host, 0)).toBe('none');
  });
});

describe('turns', () => {
  test('go round among VPs that can run, in slices', () => {
    identify();
    const input = inputs.startVpInput.write({ partitionId: inputs.PARTITION_SELF, vpIndex: 2 });
    hypercall(0, { code: CALL.startVirtualProcessor }, input);
    const order: number[] = [];
    for (let i = 0; i < 4; i++) {
      const turn = hostTurn(host, world.now);
      if (turn.kind !== 'run') throw new Error('idle');
      order.push(turn.vp);
      world.now += turn.instructions;
    }
    expect(order).toEqual([0, 2, 0, 2]);
  });

  test('of a VP alone last until the host has something to do, however often they are asked for', () => {
    identify();
    const due = 3_000_000;
    wrmsr(0, MSR.stimer0Config, TIMER.enable | TIMER.autoEnable | TIMER.direct | (0xed << 4));
    wrmsr(0, MSR.stimer0Config + 1, due / 100);
    for (const now of [0, 70_000, 70_001, 2_000_000])
      expect(hostTurn(host, now)).toEqual({ kind: 'run', vp: 0, instructions: hostNextEvent(host) - now });
    const input = inputs.startVpInput.write({ partitionId: inputs.PARTITION_SELF, vpIndex: 2 });
    world.now = 2_000_000;
    hypercall(0, { code: CALL.startVirtualProcessor }, input);
    expect(hostTurn(host, 2_000_001)).toMatchObject({ kind: 'run', vp: 2 });
  });

  test('end early for an event of the host, and for a VP that says it spins', () => {
    wrmsr(0, MSR.stimer0Config, TIMER.enable | TIMER.autoEnable | TIMER.direct | (0xed << 4));
    wrmsr(0, MSR.stimer0Config + 1, 5);
    const due = hostNextEvent(host);
    expect(hostTurn(host, 0)).toEqual({ kind: 'run', vp: 0, instructions: due });
    identify();
    const input = inputs.startVpInput.write({ partitionId: inputs.PARTITION_SELF, vpIndex: 1 });
    hypercall(0, { code: CALL.startVirtualProcessor }, input);
    hypercall(0, { code: CALL.notifyLongSpinWait }, new Uint8Array(8));
    expect(hostTurn(host, 1)).toMatchObject({ kind: 'run', vp: 1 });
  });

  test('a halted VP idles until its timer, then runs', () => {
    enableApic(0);
    setRegister(0, REGISTER.rflags, 0x202);
    wrmsr(0, MSR.stimer0Config, TIMER.enable | TIMER.autoEnable | TIMER.direct | (0xed << 4));
    wrmsr(0, MSR.stimer0Config + 1, 1000);
    exit(0, { kind: 'hlt' });
    const turn = hostTurn(host, world.now);
    expect(turn).toEqual({ kind: 'idle', until: hostNextEvent(host) });
    world.now = hostNextEvent(host);
    hostAdvance(host, world);
    expect(hostTurn(host, world.now)).toMatchObject({ kind: 'run', vp: 0 });
  });

  test('a VP that halted with interrupts off sleeps through them, but not through an NMI', () => {
    enableApic(0);
    setRegister(0, REGISTER.rflags, 2);
    wrmsr(0, MSR.icr, 0x4_40ed);
    exit(0, { kind: 'hlt' });
    expect(hostTurn(host, 0)).toEqual({ kind: 'idle', until: Infinity });
    wrmsr(0, MSR.icr, 0x4400, 0);
    expect(hostTurn(host, 0)).toMatchObject({ kind: 'run' });
  });

  test('guest idle ends with any pending interrupt, also one that was there before', () => {
    enableApic(0);
    setRegister(0, REGISTER.rflags, 2);
    expect(rdmsr(0, MSR.guestIdle)).toEqual(value(0));
    expect(hostTurn(host, 0)).toMatchObject({ kind: 'idle' });
    wrmsr(0, MSR.icr, 0x4_40f7);
    expect(hostTurn(host, 0)).toMatchObject({ kind: 'run' });
    rdmsr(0, MSR.guestIdle);
    expect(hostTurn(host, 0)).toMatchObject({ kind: 'run' });
  });

  test('VP_RUNTIME counts the turns of the VP, not the time in between', () => {
    hostTurn(host, 0);
    world.now = 1000;
    exit(0, { kind: 'hlt' });
    hostTurn(host, 1000);
    world.now = 50_000;
    wrmsr(0, MSR.icr, 0x4400, 0);
    hostTurn(host, 50_000);
    world.now = 50_500;
    expect(rdmsr(0, MSR.vpRuntime)).toEqual(value(15));
  });
});

describe('any traffic', () => {
  const registers = fc.tuple(
    ...Array.from({ length: 6 }, () => fc.oneof(fc.nat(0xffff_ffff), fc.nat(0x2_0000), fc.nat(0xff))),
  );
  const knownStatus = new Set<number>([...Object.values(STATUS), 0xffff_ffff]);
  const interesting = MSR_ROWS.flatMap(({ first, last = first }) => [first, last]);

  test('of MSRs and hypercalls never throws and is always answered', () => {
    const step = fc.record({
      vp: fc.nat(1),
      index: fc.oneof(
        fc.constantFrom(...interesting),
        fc.nat(0xffff).map((n) => 0x4000_0000 + n),
      ),
      write: fc.boolean(),
      code: fc.oneof(fc.constantFrom(...HYPERCALL_ROWS.map((row) => row.code)), fc.nat(0xffff)),
      registers,
      advance: fc.nat(100_000),
      bytes: fc.uint8Array({ minLength: 64, maxLength: 64 }),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        make({ vpCount: 2, testDevice: true });
        identify();
        for (const { vp, index, write, code, registers: r, advance, bytes } of steps) {
          world.now += advance;
          hostAdvance(host, world);
          const [a, b, c, d, e, f] = r as [number, number, number, number, number, number];
          const completion = exit(vp, { kind: 'msr', index, write, lo: a, hi: b });
          expect(completion).toEqual(
            completion.kind === 'fault' ? GP : write ? DONE : value(expect.any(Number), expect.any(Number)),
          );
          world.ram.set(bytes, 0x4000);
          setRegister(vp, REGISTER.rcx, ((c & 0x7fff_0000) | code) >>> 0, d);
          setRegister(vp, REGISTER.rdx, 0x4000 + (e & 0xfff), f & 1);
          setRegister(vp, REGISTER.r8, f, a & 1);
          const called = exit(vp, { kind: 'hypercall', long: (e & 1) === 0, cpl: 0 });
          if (called.kind === 'value') expect(knownStatus).toContain(called.lo);
          else expect(called).toEqual({ kind: 'fault', vector: 6 });
          hostTurn(host, world.now);
        }
        // Plain data: a snapshot is a copy.
        expect(structuredClone(host)).toEqual(host);
      }),
      { numRuns: 300 },
    );
  });

  test('of ports and memory is answered', () => {
    const access = fc.record({
      port: fc.nat(0xffff),
      gpa: fc.oneof(
        fc.nat(0xffff_ffff),
        fc.nat(0xfff).map((n) => 0xfee0_0000 + n),
        fc.nat(0xff).map((n) => 0xfec0_0000 + n),
      ),
      size: fc.constantFrom(1, 2, 4),
      write: fc.boolean(),
      value: fc.nat(0xffff_ffff),
    });
    fc.assert(
      fc.property(fc.array(access, { maxLength: 100 }), (accesses) => {
        make({ vpCount: 2, testDevice: true });
        for (const { port, gpa, size, write, value: lo } of accesses) {
          const width = size as 1 | 2 | 4;
          expect(['done', 'value']).toContain(
            exit(0, { kind: 'io', port, size: width, write, value: lo }).kind,
          );
          expect(['done', 'value']).toContain(
            exit(0, { kind: 'mmio', gpa, size: width, write, lo, hi: 0 }).kind,
          );
          world.now += 1000;
          hostAdvance(host, world);
          takeAll(0);
        }
      }),
      { numRuns: 100 },
    );
  });
});

test('exits of a VP that does not exist are a bug of the caller', () => {
  expect(() => exit(9, { kind: 'hlt' })).toThrow(/VP 9/);
});
