/** A guest for the host's tests: memory with overlay pages, registers, and a sink that listens to everything. */

import type { RegisterValue } from '../abi/hyperv/registers.ts';
import type { EventSink } from '../seats/events.ts';
import type { HostView, ReadOutcome, WriteOutcome } from '../seats/host-view.ts';

const PAGE = 4096;

export class TestWorld {
  readonly ram = new Uint8Array(0x2_0000);
  readonly registers = new Map<string, RegisterValue>();
  readonly events: number[][] = [];
  overlaysSupported = true;
  now = 0;
  private readonly hidden = new Map<number, Uint8Array>();
  private readonly shown = new Map<number, number>();

  readonly sink: EventSink = {
    mask: 0xffff_ffff,
    emit: (...record) => void this.events.push(record),
  };

  readonly view: HostView = {
    read: (gpa, length) => this.read(gpa, length),
    write: (gpa, bytes) => this.write(gpa, bytes),
    overlay: (slot, gpa) => this.overlay(slot, gpa),
    getRegister: (vp, name) => this.registers.get(`${vp}:${name}`),
    setRegister: (vp, name, value) => {
      this.registers.set(`${vp}:${name}`, value);
      return true;
    },
  };

  /** What the guest sees; throws outside memory. */
  memory(gpa: number, length: number): Uint8Array {
    const outcome = this.read(gpa, length);
    if (!outcome.ok) throw new RangeError(`no guest memory at ${gpa}`);
    return outcome.bytes;
  }

  read(gpa: number, length: number): ReadOutcome {
    if (gpa + length > this.ram.length) return { ok: false, reason: 'unmapped' };
    return {
      ok: true,
      bytes: Uint8Array.from({ length }, (_, i) => this.page(gpa + i)[(gpa + i) % PAGE] ?? 0),
    };
  }

  write(gpa: number, bytes: Uint8Array): WriteOutcome {
    if (gpa + bytes.length > this.ram.length) return { ok: false, reason: 'unmapped' };
    bytes.forEach((byte, i) => (this.page(gpa + i)[(gpa + i) % PAGE] = byte));
    return { ok: true };
  }

  private page(gpa: number): Uint8Array {
    const base = gpa - (gpa % PAGE);
    for (const [slot, at] of this.shown) {
      const page = this.hidden.get(slot);
      if (at === base && page !== undefined) return page;
    }
    return this.ram.subarray(base, base + PAGE);
  }

  private overlay(slot: number, gpa: number | undefined): WriteOutcome {
    if (!this.overlaysSupported) return { ok: false, reason: 'unsupported' };
    if (gpa === undefined) {
      this.shown.delete(slot);
      return { ok: true };
    }
    if (gpa + PAGE > this.ram.length) return { ok: false, reason: 'unmapped' };
    if (!this.hidden.has(slot)) this.hidden.set(slot, new Uint8Array(PAGE));
    this.shown.set(slot, gpa);
    return { ok: true };
  }
}
