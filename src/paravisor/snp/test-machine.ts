/** An SNP guest for tests of the program at VMPL0: pages with RMP states, a host that answers GHCB requests, a guest that is a VMSA. */

import { ghcbCall } from '../../abi/hyperv/ghcb-call.ts';
import { setU16, setU32, u16, u32 } from '../../abi/record.ts';
import { GHCB_EXIT, SVM_EXIT } from '../../abi/snp/exit-codes.ts';
import { ghcb, GHCB_MSR, GHCB_USAGE, PAGE_OPERATION, SHARED_BUFFER } from '../../abi/snp/ghcb.ts';
import { vmsa } from '../../abi/snp/vmsa.ts';
import type { EventSink } from '../../seats/events.ts';
import type { RmpOutcome, Vmpl0Exit, Vmpl0Program, Vmpl0Seat } from '../../seats/program.ts';

const PAGE = 4096;
const LARGE = 0x20_0000;

interface PageState {
  assigned: boolean;
  validated: boolean;
  guestRights: number;
  isVmsa: boolean;
}

export type Request =
  | { readonly kind: 'exit'; readonly code: number; readonly page: Uint8Array }
  | { readonly kind: 'hypercall'; readonly code: number; readonly page: Uint8Array }
  | { readonly kind: 'enter' }
  | { readonly kind: 'register' }
  | { readonly kind: 'terminate'; readonly set: number; readonly reason: number }
  | { readonly kind: 'hlt' };

export class TestMachine {
  readonly memory: Uint8Array;
  readonly pages: PageState[];
  readonly ghcbs: [number, number][] = [];
  readonly events: number[][] = [];
  readonly requests: Request[] = [];
  now = 1000;
  /** Refuses page-state changes. */
  refusePages = false;
  /** Registers of devices of the host, by port; what was written is kept. */
  readonly ports = new Map<number, number>();
  /** What a device of the host holds, at every address. */
  device = 0;

  readonly sink: EventSink = { mask: 0xffff_ffff, emit: (...record) => void this.events.push(record) };

  constructor(bytes: number) {
    this.memory = new Uint8Array(bytes);
    this.pages = Array.from({ length: bytes / PAGE }, () => ({
      assigned: false,
      validated: false,
      guestRights: 0,
      isVmsa: false,
    }));
  }

  page(gpa: number): PageState {
    const page = this.pages[Math.floor(gpa / PAGE)];
    if (page === undefined) throw new RangeError(`no page at ${gpa}`);
    return page;
  }

  /** As the launch does it. */
  load(gpa: number, bytes: Uint8Array, length = bytes.length): void {
    this.memory.set(bytes, gpa);
    for (let at = gpa; at < gpa + length; at += PAGE)
      Object.assign(this.page(at), { assigned: true, validated: true });
  }

  seat(vp: number): Vmpl0Seat {
    const machine = this;
    const inside = (gpa: number, length: number): boolean =>
      gpa >= 0 && gpa + length <= machine.memory.length;
    const reachable = (gpa: number, length: number, shared: boolean): boolean => {
      for (let at = gpa - (gpa % PAGE); at < gpa + length; at += PAGE) {
        const { assigned, validated } = machine.page(at);
        if (shared ? assigned : !(assigned && validated)) return false;
      }
      return true;
    };
    return {
      vp,
      now: this.now,
      sink: this.sink,
      read: (gpa, length, shared) =>
        !inside(gpa, length)
          ? { ok: false, reason: 'unmapped' }
          : reachable(gpa, length, shared)
            ? { ok: true, bytes: machine.memory.slice(gpa, gpa + length) }
            : { ok: false, reason: 'not-validated' },
      write: (gpa, bytes, shared) => {
        if (!inside(gpa, bytes.length)) return { ok: false, reason: 'unmapped' };
        if (!reachable(gpa, bytes.length, shared)) return { ok: false, reason: 'not-validated' };
        machine.memory.set(bytes, gpa);
        return { ok: true };
      },
      clear(gpa, length) {
        return this.write(gpa, new Uint8Array(length), false);
      },
      random: () => [1, 2],
      getGhcb: () => this.ghcbs[vp] ?? [0, 0],
      setGhcb: (lo, hi) => void (this.ghcbs[vp] = [lo, hi]),
      pvalidate: (gpa, large, validate) =>
        this.eachPage(gpa, large, (page) => {
          if (!page.assigned) return 'nested-fault';
          const same = page.validated === validate;
          page.validated = validate;
          return same ? 'same' : 'done';
        }),
      rmpadjust: (gpa, large, rdx) =>
        this.eachPage(gpa, large, (page) => {
          if (!page.assigned || !page.validated) return 'nested-fault';
          page.guestRights = (rdx >>> 8) & 0xff;
          page.isVmsa = (rdx & 0x1_0000) !== 0;
          return 'done';
        }),
      rmpquery: () => ({ kind: 'done', eax: 0, carry: false, rdx: 0 }),
    };
  }

  private eachPage(
    gpa: number,
    large: boolean,
    change: (page: PageState) => 'done' | 'same' | 'nested-fault',
  ): RmpOutcome {
    let carry = false;
    for (let at = gpa; at < gpa + (large ? LARGE : PAGE); at += PAGE) {
      const outcome = change(this.page(at));
      if (outcome === 'nested-fault') return { kind: 'nested-fault' };
      carry ||= outcome === 'same';
    }
    return { kind: 'done', eax: 0, carry };
  }

  /** Runs the program on VP `vp`, answering its requests, until it lets the guest run, waits or ends the VM. */
  run(program: Vmpl0Program, vp: number): Request {
    for (let turns = 0; turns < 10_000; turns++) {
      const { exit } = program.run(this.seat(vp));
      const request = this.answer(vp, exit);
      this.requests.push(request);
      if (request.kind === 'enter' || request.kind === 'hlt' || request.kind === 'terminate') return request;
    }
    throw new Error('the program asks for ever');
  }

  private answer(vp: number, exit: Vmpl0Exit): Request {
    if (exit.kind === 'hlt') return { kind: 'hlt' };
    const [lo, hi] = this.ghcbs[vp] ?? [0, 0];
    switch (lo & GHCB_MSR_MASK) {
      case GHCB_MSR.registerGpaRequest:
        this.ghcbs[vp] = [(lo & ~GHCB_MSR_MASK) | GHCB_MSR.registerGpaResponse, hi];
        return { kind: 'register' };
      case GHCB_MSR.terminate:
        return { kind: 'terminate', set: (lo >>> 12) & 15, reason: (lo >>> 16) & 0xff };
      default:
        break;
    }
    const page = this.memory.subarray(lo, lo + PAGE);
    const kept = page.slice();
    switch (ghcb.low(page, 'usage')) {
      case GHCB_USAGE.vtlReturn:
        return { kind: 'enter' };
      case GHCB_USAGE.hypercall: {
        const control = ghcbCall.offsetOf('control');
        const code = u16(page, control);
        setU32(page, control, 0);
        setU32(page, control + 4, 0);
        return { kind: 'hypercall', code, page: kept };
      }
      default:
        break;
    }
    const code = ghcb.low(page, 'exitCode');
    ghcb.setHalves(page, 'exitInfo1', 0, 0);
    ghcb.setHalves(page, 'exitInfo2', 0, 0);
    if (code === GHCB_EXIT.pageStateChange) this.changePages(page);
    if (code === SVM_EXIT.io) this.port(kept, page);
    if (code === GHCB_EXIT.mmioRead) setU32(page, SHARED_BUFFER.offset, this.device);
    if (code === GHCB_EXIT.mmioWrite) this.device = u32(kept, SHARED_BUFFER.offset);
    return { kind: 'exit', code, page: kept };
  }

  private port(asked: Uint8Array, page: Uint8Array): void {
    const word = ghcb.low(asked, 'exitInfo1');
    if ((word & 1) !== 0) ghcb.setHalves(page, 'rax', this.ports.get(word >>> 16) ?? 0xff, 0);
    else this.ports.set(word >>> 16, ghcb.low(asked, 'rax'));
  }

  private changePages(page: Uint8Array): void {
    const buffer = page.subarray(SHARED_BUFFER.offset);
    if (this.refusePages) {
      ghcb.setHalves(page, 'exitInfo2', 0, 0x100);
      return;
    }
    const end = u16(buffer, 2);
    for (let i = 0; i <= end; i++) {
      const lo = u32(buffer, 8 + 8 * i);
      const hi = u32(buffer, 12 + 8 * i);
      const gpa = (lo & ~0xfff) >>> 0;
      const operation = (hi >>> 20) & 15;
      if (operation === PAGE_OPERATION.psmash) continue;
      const assigned = operation === PAGE_OPERATION.private;
      for (let at = gpa; at < gpa + ((hi & 0x100_0000) !== 0 ? LARGE : PAGE); at += PAGE)
        Object.assign(this.page(at), { assigned, validated: false, guestRights: 0 });
    }
    setU16(buffer, 0, end + 1);
  }

  /** The guest's VMSA at `gpa` as it stops with `code`. */
  stop(gpa: number, code: number, fields: Readonly<Record<string, bigint>> = {}): void {
    const page = this.memory.subarray(gpa, gpa + PAGE);
    vmsa.set(page, 'nextRip', vmsa.get(page, 'rip') + 2n);
    vmsa.set(page, 'exitCode', BigInt(code));
    for (const [name, value] of Object.entries(fields)) vmsa.set(page, name as 'rip', value);
  }
}

const GHCB_MSR_MASK = 0xfff;
