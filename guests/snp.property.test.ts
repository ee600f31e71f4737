/**
 * Random requests of a guest to its host, and random deeds of a host: every request ends in a defined answer, and no private
 * page changes under the guest without a fault. The number of cases is for everyday tests; SNP_CASES asks for more.
 */
import { describe, expect, it } from 'vitest';
import { ghcb, GHCB_MSR, GHCB_USAGE, isValid, setValid } from '../src/abi/snp/ghcb.ts';
import { GHCB_ROWS } from '../src/host/snp/ghcb-page.ts';
import type { HostState } from '../src/host/state.ts';
import type { SnpHostView } from '../src/seats/snp.ts';
import type { Machine } from '../src/machine/machine.ts';
import { RUN } from '../src/x86/layout.ts';
import { rax, rcx } from './asm.ts';
import { random } from './random.ts';
import { AT, snpMachine, type HostHand } from './snp.ts';

const CASES = Number(process.env['SNP_CASES'] ?? 2000);

const RESPONSES: readonly number[] = [
  GHCB_MSR.sevInfoResponse,
  GHCB_MSR.cpuidResponse,
  GHCB_MSR.apResetHoldResponse,
  GHCB_MSR.preferredGpaResponse,
  GHCB_MSR.registerGpaResponse,
  GHCB_MSR.pageStateResponse,
  GHCB_MSR.runVmplResponse,
  GHCB_MSR.featuresResponse,
];
const REQUESTS: readonly number[] = [
  GHCB_MSR.sevInfoRequest,
  GHCB_MSR.cpuidRequest,
  GHCB_MSR.apResetHoldRequest,
  GHCB_MSR.preferredGpaRequest,
  GHCB_MSR.registerGpaRequest,
  GHCB_MSR.pageStateRequest,
  GHCB_MSR.runVmplRequest,
  GHCB_MSR.featuresRequest,
  GHCB_MSR.terminate,
];

/** A machine that has started, its host at hand. */
function started(write: Parameters<typeof snpMachine>[0]): ReturnType<typeof snpMachine> {
  const made = snpMachine(write, { onExit: () => false });
  made.machine.run(50);
  return made;
}

const step = ({ platform, view }: HostHand): ReturnType<HostHand['platform']['exit']> =>
  platform.exit(0, { kind: 'vmgexit' }, { view, sink: { mask: 0, emit: () => undefined }, now: 1_000_000 });

describe('random requests', () => {
  it(`${CASES} random values of the GHCB MSR have a defined answer each`, () => {
    const { hand } = started((guest) => guest.a.db(0xeb, 0xfe));
    const next = random(1);
    const host = hand();
    for (let k = 0; k < CASES; k++) {
      const code = next() % 4 === 0 ? (next() & 0xfff) | 1 : (REQUESTS[next() % REQUESTS.length] as number);
      const hi = next() % 3 === 0 ? next() : next() & 0x00f0_0001;
      const lo = (((next() % 2 === 0 ? next() : next() & 0x00ff_f000) & ~0xfff) | code) >>> 0;
      host.vmcb.ghcb = { lo, hi };
      const { completion, actions } = step(host);
      expect(completion.kind).toBe('done');
      if (code === GHCB_MSR.terminate) expect(actions.at(-1)?.kind).toBe('terminate');
      else if (REQUESTS.includes(code)) expect(RESPONSES).toContain(host.vmcb.ghcb.lo & 0xfff);
      else expect(host.vmcb.ghcb).toEqual({ lo, hi });
    }
  });

  it(`${CASES} random GHCB pages have a defined answer each`, () => {
    const { hand, machine } = started((guest) => guest.a.db(0xeb, 0xfe));
    const host = hand();
    const state = host.platform.state as HostState;
    const next = random(2);
    const codes = GHCB_ROWS.map(({ code }) => code >>> 0);
    const addresses = [
      AT.shared,
      AT.shared + 0x1000,
      AT.scratch,
      AT.blocks,
      0xfec0_0000,
      0xfee0_0000,
      0x1_0000_0000,
    ];
    const value = (): readonly [number, number] => {
      switch (next() % 5) {
        case 0:
          return [next() % 16, 0];
        case 1:
          return [(addresses[next() % addresses.length] as number) >>> 0, 0];
        case 2:
          return [next(), next()];
        case 3:
          return [(AT.shared + 0x800 + (next() % 0x900)) >>> 0, 0];
        default:
          return [next(), 0];
      }
    };
    let served = 0;
    for (let k = 0; k < CASES; k++) {
      const page = new Uint8Array(4096);
      if (next() % 8 === 0) for (let at = 0; at < 4096; at++) page[at] = next() & 0xff;
      for (const field of [
        'rax',
        'rbx',
        'rcx',
        'rdx',
        'r8',
        'xcr0',
        'scratch',
        'exitInfo1',
        'exitInfo2',
      ] as const) {
        ghcb.setHalves(page, field, ...value());
        if (next() % 8 !== 0) setValid(page, field);
      }
      const code = next() % 16 === 0 ? next() : (codes[next() % codes.length] as number);
      ghcb.setHalves(page, 'exitCode', code, next() % 32 === 0 ? 1 : 0);
      setValid(page, 'exitCode');
      setValid(page, 'cpl');
      page[0xffa] = next() % 16 === 0 ? 9 : 2;
      page[0xffb] = 0;
      page.set([next() % 16 === 0 ? next() & 3 : 0, 0, 0, 0], 0xffc);
      // Descriptors of page state changes.
      for (let at = 0x800; at < 0x840; at++) page[at] = next() % 3 === 0 ? next() & 0xff : 0;
      const vp = state.snp?.vps[0];
      if (vp !== undefined) vp.ghcbs[vp.vmpl] = next() % 16 === 0 ? -1 : AT.shared;
      host.view.write(AT.shared, page);
      host.vmcb.ghcb = { lo: AT.shared, hi: 0 };
      const { completion } = step(host);
      expect(completion.kind).toBe('done');
      const answered = host.view.read(AT.shared, 4096);
      // The guest may have asked to take the page itself back.
      if (!answered.ok || state.snp?.pages[AT.shared / 4096] !== 1) {
        state.snp?.pages.fill(1, AT.shared / 4096, AT.shared / 4096 + 512);
        for (let at = 0; at < 0x20_0000; at += 4096) {
          const mapping = host.view.mapping(AT.shared + at);
          if (mapping.kind === 'page')
            host.view.rmpupdate(mapping.spa, {
              assigned: false,
              large: false,
              immutable: false,
              gpa: 0,
              asid: 0,
            });
        }
        continue;
      }
      if (ghcb.low(page, 'usage') === GHCB_USAGE.hypercall && vp?.ghcbs[vp.vmpl] === AT.shared) continue;
      expect([0, 1, 2]).toContain(ghcb.low(answered.bytes, 'exitInfo1'));
      if (ghcb.low(answered.bytes, 'exitInfo1') === 0) served++;
      if (ghcb.low(answered.bytes, 'exitInfo1') === 1)
        expect([6, 13]).toContain(ghcb.low(answered.bytes, 'exitInfo2') & 0xff);
      if (ghcb.low(answered.bytes, 'exitInfo1') === 0 && code === 0x72)
        for (const field of ['rax', 'rbx', 'rcx', 'rdx'] as const)
          expect(isValid(answered.bytes, field)).toBe(true);
    }
    expect(served).toBeGreaterThan(CASES / 20);
    expect(machine.view).toBeDefined();
  });
});

/** 300 instructions of the guest by its host's VMRUN; false when it left before them: an exit, or an event for itself. */
function runs({ engine, silicon }: Machine, { vmcb }: HostHand): boolean {
  const entered = silicon.enter(0, { kind: 'vmrun', vmcb });
  if (entered.kind !== 'code') return false;
  const cpu = silicon.cpu(0);
  for (let left = 300; left > 0;) {
    const reason = engine.run(cpu, left, 0);
    left -= engine.executed(cpu);
    if (reason !== RUN.exit) break;
    const { route } = silicon.route(0);
    if (route === 'silicon') continue;
    if (route === 'guest') silicon.leave(0);
    return false;
  }
  silicon.leave(0);
  return true;
}

describe('a hostile host', () => {
  it(`${CASES} random sequences of RMPUPDATE, PSMASH, mappings, writes and VMRUN never change a private page silently`, () => {
    const PAGES = [AT.scratch, AT.otherVmsa, AT.blocks, AT.blocks + 0x1000, AT.blocks + 0x20_0000];
    const expected = (k: number): bigint => 0x1111_1111n * BigInt(k + 1);
    const { machine, hand } = snpMachine((guest) => {
      PAGES.forEach((gpa, k) => guest.store(BigInt(gpa) + 64n * BigInt(k), expected(k)));
      guest.a.label('again');
      PAGES.forEach((gpa, k) => {
        guest.a.mov(rax, 0);
        guest.load(BigInt(gpa) + 64n * BigInt(k));
        guest.a.movabs(rcx, expected(k));
        guest.a.alu('cmp', rax, rcx);
        guest.a.jcc('ne', 'changed');
      });
      // TLB entries go, so that what the host did is found.
      guest.a.movFromControl(rax, 3);
      guest.a.movToControl(3, rax);
      guest.a.jmp('again');
      guest.a.label('changed');
      guest.result(0, 1n);
      guest.end();
    }, {});
    machine.run(2000);
    const host = hand();
    const { engine, silicon, truth } = machine;
    const { plan } = engine;
    const view: SnpHostView = host.view;
    const savedSilicon = silicon.save();
    const savedStack = engine.u8.slice(plan.cpuBase, plan.cpuBase + 4 * 0x1000);
    const frames = engine.u8.slice(plan.frames, plan.framesEnd);
    const vmsa = host.vmcb.vmsa;
    const targets = PAGES.map((gpa) => {
      const mapping = view.mapping(gpa);
      if (mapping.kind !== 'page') throw new Error('no page');
      return { gpa, spa: mapping.spa };
    });
    const old = targets.map(({ spa }) => view.readSystem(spa, 4096));
    const next = random(3);
    const pick = <T>(list: readonly T[]): T => list[next() % list.length] as T;
    let faults = 0;
    let quiet = 0;
    for (let k = 0; k < CASES; k++) {
      for (let n = 1 + (next() % 5); n > 0; n--) {
        const { gpa, spa } = pick(targets);
        const place = next() % 4 === 0 ? pick(targets).spa : spa;
        switch (next() % 8) {
          case 0:
          case 1:
            view.rmpupdate(place, {
              assigned: next() % 2 === 0,
              large: next() % 4 === 0,
              immutable: next() % 16 === 0,
              gpa: next() % 4 === 0 ? pick(targets).gpa : gpa,
              asid: next() % 4 === 0 ? next() % 3 : 1,
            });
            break;
          case 2:
            view.rmpupdate(place, { assigned: false, large: false, immutable: false, gpa: 0, asid: 0 });
            break;
          case 3:
            view.psmash(place - (place % 0x20_0000));
            break;
          case 4:
            view.map(gpa, {
              kind: 'page',
              spa: pick(targets).spa,
              large: next() % 4 === 0,
              writable: next() % 4 !== 0,
            });
            break;
          case 5: {
            const bytes = pick(old);
            const content = bytes.ok && next() % 2 === 0 ? bytes.bytes : new Uint8Array(4096).fill(next());
            view.writeSystem(place, content);
            break;
          }
          case 6:
            host.vmcb.vmsa = next() % 2 === 0 ? vmsa : place;
            break;
          default:
            view.map(gpa, next() % 2 === 0 ? { kind: 'mmio' } : { kind: 'absent' });
        }
      }
      if (runs(machine, host)) quiet++;
      else faults++;
      const word = truth.read(AT.results, 8);
      expect(word?.every((byte) => byte === 0)).toBe(true);
      // As it was.
      silicon.load(savedSilicon);
      engine.u8.set(savedStack, plan.cpuBase);
      host.vmcb.vmsa = vmsa;
      host.vmcb.eventInj = { lo: 0, hi: 0 };
      host.vmcb.exitIntInfo = { lo: 0, hi: 0 };
      for (const { spa } of targets) engine.u8.set(frames.subarray(spa, spa + 4096), plan.frames + spa);
      for (const page of [AT.vmsa, AT.notes, AT.results, AT.stack - 0x1000]) {
        const mapping = view.mapping(page);
        if (mapping.kind === 'page')
          engine.u8.set(frames.subarray(mapping.spa, mapping.spa + 4096), plan.frames + mapping.spa);
      }
      silicon.flushTlb(0);
    }
    expect(faults).toBeGreaterThan(CASES / 10);
    expect(quiet).toBeGreaterThan(0);
  });
});
