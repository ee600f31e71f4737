/**
 * Looks at a guest that stands still, as nobody inside the machine could: whether the host can find a secret of the guest,
 * whether it can read the instruction at an exit, and what is mapped while pages change hands. A finding is a line of text; a
 * probe without findings found nothing wrong, one that never looked is absent.
 */
import type { SnpHostView } from '../../seats/snp.ts';
import type { TdxHostView } from '../../seats/tdx.ts';
import { EVENT, PAGE_STATE, PAGE_USE } from '../../abi/events.ts';
import { CALL } from '../../abi/hyperv/hypercall.ts';
import { postMessageInput } from '../../abi/hyperv/inputs.ts';
import type { Machine } from '../../machine/machine.ts';
import { CPU } from '../../x86/layout.ts';
import type { ConfigurationFacts } from '../../machine/facts.ts';
import { PageTables } from './page-tables.ts';
import { ShareSites } from './share-sites.ts';

const MARK = 'vitrine-secret:';
const SECRET_BYTES = 32;
const PAGE_BYTES = 4096;
const MOST_FINDINGS = 8;
/** Exits between two looks. */
const CODE_EVERY = 64;
const SECRET_EVERY = 16384;
/** Of the pages that neither hold the secret nor are the host's, one in so many is read all the same. */
const SAMPLE = 256;

/** Makes a secret that is never printed. The mark is put together in the guest, so that it stands nowhere but before a secret. */
export const SECRET_SCRIPT = `{ printf '%s%s' vitrine- secret:; head -c ${SECRET_BYTES} /dev/urandom; } > /run/secret`;

export class Probes {
  readonly sites = new ShareSites();
  readonly #facts: ConfigurationFacts;
  readonly #findings: Record<string, string[]> = {};
  readonly #looked: Record<string, number> = {};
  #machine: Machine | undefined;
  #tables: PageTables | undefined;
  /** Pages of messages, as the host has read them last. */
  readonly #messages = new Map<number, Uint8Array>();
  /** Pages that the guest gave the host and has nothing to write into: no channel is open. */
  readonly #unwritten = new Set<number>();
  #exits = 0;
  #secret: Buffer | undefined;
  #looking = false;

  constructor(facts: ConfigurationFacts) {
    this.#facts = facts;
  }

  attach(machine: Machine): void {
    this.#machine = machine;
    this.#tables = new PageTables(machine, this.#facts.guestContext);
  }

  /** True while this looks: what the host's view says meanwhile is not of the host's doing. */
  get looking(): boolean {
    return this.#looking;
  }

  #look(at: (machine: Machine, tables: PageTables) => void): void {
    if (this.#facts.technology === 'none' || this.#looking) return;
    if (this.#machine === undefined || this.#tables === undefined) return;
    this.#looking = true;
    at(this.#machine, this.#tables);
    this.#looking = false;
  }

  event(time: number, type: number, a: number, b: number, c: number, d: number): void {
    switch (type) {
      case EVENT.exit:
        if (d === -1) this.#look((machine, tables) => this.#exit(machine, tables, time, c));
        return;
      case EVENT.visibility:
        this.#look((machine, tables) => {
          this.#transition(tables, time, a, b);
          if (c === 1) this.sites.record(machine, tables, a, b);
        });
        return;
      case EVENT.pageUse:
        if (b === PAGE_USE.monitor) this.#unwritten.add(a);
        if (b === PAGE_USE.hypercallInput && c === CALL.postMessage)
          this.#look((machine, tables) => this.#message(machine, tables, time, a));
        return;
      case EVENT.pageState:
        // With a paravisor that is its own request, for what the guest has asked of it.
        if (c === PAGE_STATE.shared && !this.#facts.paravisor)
          this.#look((machine, tables) => this.sites.record(machine, tables, a, b));
    }
  }

  /** The guest has made its secret. */
  secretMade(): void {
    this.#look((machine) => this.#findSecret(machine));
  }

  /** The last look, over all of memory; `shared`: runs of pages that the guest shares at the end. */
  finish(booted: boolean, shared: readonly { readonly gpa: number; readonly pages: number }[]): void {
    this.#look((machine, tables) => {
      if (!booted) return;
      if (this.#secret === undefined)
        this.#note('secret', 'the secret that the guest made was not found in its memory');
      else this.#search(machine, 'at the end');
      if (this.#facts.paravisor) this.#restored(tables, shared);
      for (const gpa of this.#unwritten) this.#blank(machine, gpa);
    });
  }

  findings(): Readonly<Record<string, readonly string[]>> {
    return this.#findings;
  }
  /** How often each probe looked. */
  looked(): Readonly<Record<string, number>> {
    return this.#looked;
  }

  #started(name: string, times = 1): string[] {
    this.#looked[name] = (this.#looked[name] ?? 0) + times;
    return (this.#findings[name] ??= []);
  }
  #note(name: string, text: string): void {
    const list = (this.#findings[name] ??= []);
    if (list.length < MOST_FINDINGS) list.push(text);
  }

  #exit(machine: Machine, tables: PageTables, time: number, from: number): void {
    this.#exits++;
    if (this.#exits % CODE_EVERY === 0 && from === this.#facts.guestContext)
      this.#code(machine, tables, time);
    if (this.#exits % SECRET_EVERY === 0 && this.#secret !== undefined)
      this.#search(machine, `at ${time} ns`);
  }

  /** The bytes of the instruction that the guest stands at, as the host's view shows them. */
  #code(machine: Machine, tables: PageTables, time: number): void {
    const { engine, truth, view, current } = machine;
    const rip = engine.view.getBigUint64(tables.cpu(current) + CPU.rip, true);
    const gpa = tables.translate(current, rip);
    if (gpa === undefined) return;
    this.#started('code-visible');
    const bytes = Math.min(16, PAGE_BYTES - (gpa % PAGE_BYTES));
    const real = truth.read(gpa, bytes);
    const seen = view.read(gpa, bytes);
    if (real !== undefined && seen.ok && Buffer.compare(real, seen.bytes) === 0)
      this.#note(
        'code-visible',
        `at ${time} ns the host could read the instruction at 0x${rip.toString(16)}`,
      );
  }

  /** A message for the host as it lies in its shared page: behind what it says it is, nothing. */
  #message(machine: Machine, tables: PageTables, time: number, address: number): void {
    const gpa = tables.plain(address);
    const seen = machine.view.read(gpa - (gpa % PAGE_BYTES), PAGE_BYTES);
    if (!seen.ok) return;
    this.#started('padding');
    const at = gpa % PAGE_BYTES;
    const end = at + postMessageInput.offsetOf('payload') + postMessageInput.read(seen.bytes, at).payloadSize;
    const reserved = postMessageInput.read(seen.bytes, at).reserved;
    // What the host got in an earlier message is no news to it.
    const before = this.#messages.get(gpa - at);
    const stray = seen.bytes.findIndex(
      (byte, k) => byte !== 0 && (k < at || k >= end) && byte !== before?.[k],
    );
    this.#messages.set(gpa - at, seen.bytes.slice());
    if (stray >= 0 || reserved !== 0)
      this.#note(
        'padding',
        `at ${time} ns byte 0x${(stray < 0 ? at + 4 : stray).toString(16)} of the page at 0x${gpa.toString(16)} was not zero beside a message`,
      );
  }

  #transition(tables: PageTables, time: number, gpa: number, pages: number): void {
    this.#started('transition-mapped', pages);
    for (const { va, gpa: page } of tables.mapped(gpa, pages))
      this.#note(
        'transition-mapped',
        `at ${time} ns page 0x${page.toString(16)} in transition is mapped at 0x${va.toString(16)}`,
      );
  }

  /** When a transition is over its pages are mapped again: the look at them meanwhile would see them. */
  #restored(tables: PageTables, shared: readonly { readonly gpa: number; readonly pages: number }[]): void {
    this.#started('transition-restored', 0);
    for (const { gpa, pages } of shared) {
      const mapped = new Set<number>();
      for (const mapping of tables.mapped(gpa, pages))
        for (let page = 0; page < mapping.pages; page++) mapped.add(mapping.gpa + page * PAGE_BYTES);
      this.#started('transition-restored', mapped.size);
    }
  }

  #blank(machine: Machine, gpa: number): void {
    const seen = machine.view.read(gpa, PAGE_BYTES);
    if (!seen.ok) return;
    this.#started('padding');
    if (seen.bytes.some((byte) => byte !== 0))
      this.#note('padding', `the monitor page at 0x${gpa.toString(16)} was not blank at the end`);
  }

  #findSecret(machine: Machine): void {
    machine.truth.eachPage((_page, host) => {
      if (this.#secret !== undefined) return;
      const page = pageAt(machine, host);
      const at = page.indexOf(MARK, 0, 'latin1') + MARK.length;
      if (at >= MARK.length && at + SECRET_BYTES <= PAGE_BYTES)
        this.#secret = Buffer.from(page.subarray(at, at + SECRET_BYTES));
    });
  }

  /**
   * Reads as the host would, wherever the secret could come to light: pages that hold it, pages that the host may write, and
   * some of the rest, of which it must not see what the guest has there.
   */
  #search(machine: Machine, when: string): void {
    const secret = this.#secret as Buffer;
    const { view, truth } = machine;
    const end = (this.#tables as PageTables).end;
    let holding = 0;
    const look = (seen: { readonly ok: boolean; readonly bytes?: Uint8Array }, place: string): void => {
      this.#started('secret');
      if (seen.ok && Buffer.from(seen.bytes ?? []).includes(secret))
        this.#note('secret', `${when} the host could read the secret in ${place}`);
    };
    for (let gpa = 0; gpa < end; gpa += PAGE_BYTES) {
      const host = truth.host(gpa);
      const real = host === undefined ? undefined : pageAt(machine, host);
      const holds = real?.includes(secret) === true;
      const may = view.write(gpa, new Uint8Array(0)).ok;
      if (holds) holding++;
      const sampled = (gpa / PAGE_BYTES) % SAMPLE === 0;
      if (!holds && !may && !sampled) continue;
      const seen = view.read(gpa, PAGE_BYTES);
      look(seen, `page 0x${gpa.toString(16)}`);
      if (!may && seen.ok && real?.some((byte) => byte !== 0) === true && real.equals(seen.bytes))
        this.#note('secret', `${when} the host could read the private page 0x${gpa.toString(16)}`);
    }
    if (holding === 0) this.#note('secret', `${when} the secret was nowhere in the guest's memory`);
    // A host with confidential guests has its own way to all of system memory, past their tables.
    const { systemBytes = 0, readSystem } = view as Partial<SnpHostView & TdxHostView>;
    if (readSystem === undefined) return;
    const place = truth.reverse();
    const system = new Set<number>();
    truth.eachPage((_page, host) => {
      const spa = place(host);
      const sampled = (spa / PAGE_BYTES) % SAMPLE === 0;
      if (spa >= 0 && spa < systemBytes && (sampled || pageAt(machine, host).includes(secret)))
        system.add(spa);
    });
    for (const spa of system) look(readSystem(spa, PAGE_BYTES), `system memory at 0x${spa.toString(16)}`);
  }
}

function pageAt({ engine }: Machine, host: number): Buffer {
  return Buffer.from(engine.u8.buffer as ArrayBuffer, host, PAGE_BYTES);
}
