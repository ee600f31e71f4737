/**
 * Looks at a guest that stands still, as nobody inside the machine could: whether the host can find a secret of the guest,
 * whether it can read the instruction at an exit, and what is mapped while pages change hands. A finding is a line of text; a
 * probe without findings found nothing wrong, one that never looked is absent.
 */
import type { SnpHostView } from '../../seats/snp.ts';
import type { TdxHostView } from '../../seats/tdx.ts';
import { EVENT, PAGE_STATE } from '../../abi/events.ts';
import type { Machine } from '../../machine/machine.ts';
import { CPU } from '../../x86/layout.ts';
import type { ConfigurationFacts } from './configurations.ts';
import type { ShareSites } from './share-sites.ts';
import { mappedPages, memoryEnd, translate } from './page-tables.ts';

const MARK = 'vitrine-secret:';
const SECRET_BYTES = 32;
const PAGE_BYTES = 4096;
const MOST_FINDINGS = 8;
/** Exits between two looks. */
const CODE_EVERY = 64;
const SECRET_EVERY = 4096;

/** Makes a secret that is never printed. The mark is put together in the guest, so that it stands nowhere but before a secret. */
export const SECRET_SCRIPT = `{ printf '%s%s' vitrine- secret:; head -c ${SECRET_BYTES} /dev/urandom; } > /run/secret`;

export class Probes {
  machine: Machine | undefined;
  sites: ShareSites | undefined;
  readonly #confidential: boolean;
  readonly #paravisor: boolean;
  readonly #guestContext: number;
  readonly #findings: Record<string, string[]> = {};
  #exits = 0;
  #secret: Uint8Array | undefined;
  #looking = false;

  constructor({ technology, guestContext, paravisor }: ConfigurationFacts) {
    this.#confidential = technology !== 'none';
    this.#paravisor = paravisor;
    this.#guestContext = guestContext;
  }

  event(time: number, type: number, a: number, b: number, c: number, d: number): void {
    // A look can itself cause events of the host's view.
    if (!this.#confidential || this.machine === undefined || this.#looking) return;
    this.#looking = true;
    if (type === EVENT.exit && d === -1) this.#exit(time);
    else if (type === EVENT.visibility) {
      this.#transition(time, a, b);
      if (c === 1) this.#shared(a, b);
    } else if (type === EVENT.pageState && c === PAGE_STATE.shared && !this.#paravisor) {
      // With a paravisor that is its own request, for what the guest has asked of it before.
      this.#shared(a, b);
    }
    this.#looking = false;
  }

  #shared(gpa: number, pages: number): void {
    this.sites?.record(this.machine as Machine, this.#guestContext, gpa, pages);
  }

  /** The last look, over all of memory. */
  finish(booted: boolean): void {
    if (!this.#confidential || !booted || this.machine === undefined) return;
    this.#looking = true;
    this.#findSecret(this.machine);
    if (this.#secret === undefined)
      this.#note('secret', 'the secret that the guest made was not found in its memory');
    else this.#searchAll(this.machine, 'at the end');
    this.#looking = false;
  }

  findings(): Readonly<Record<string, readonly string[]>> {
    return this.#findings;
  }

  #list(name: string): string[] {
    return (this.#findings[name] ??= []);
  }
  #note(name: string, text: string): void {
    const list = this.#list(name);
    if (list.length < MOST_FINDINGS) list.push(text);
  }

  #exit(time: number): void {
    this.#exits++;
    const machine = this.machine as Machine;
    if (this.#exits % CODE_EVERY === 0) this.#code(machine, time);
    if (this.#exits % SECRET_EVERY === 0 && this.#secret !== undefined)
      this.#searchAll(machine, `at ${time} ns`);
  }

  /** The bytes of the instruction that the guest stands at, as the host's view shows them. */
  #code(machine: Machine, time: number): void {
    const { engine, silicon, truth, view } = machine;
    const cpu = silicon.cpu(machine.current);
    const rip = machine.engine.view.getBigUint64(cpu + CPU.rip, true);
    const gpa = translate(machine, cpu, rip);
    if (gpa === undefined) return;
    this.#list('code-visible');
    const bytes = Math.min(16, PAGE_BYTES - (gpa % PAGE_BYTES));
    const real = truth.read(gpa, bytes);
    const seen = view.read(gpa, bytes);
    if (real !== undefined && seen.ok && equal(real, seen.bytes))
      this.#note(
        'code-visible',
        `at ${time} ns the host could read the instruction at 0x${rip.toString(16)}`,
      );
  }

  #transition(time: number, gpa: number, pages: number): void {
    this.#list('transition-mapped');
    for (const { va, gpa: page } of mappedPages(this.machine as Machine, gpa, pages))
      this.#note(
        'transition-mapped',
        `at ${time} ns page 0x${page.toString(16)} in transition is mapped at 0x${va.toString(16)}`,
      );
  }

  #findSecret(machine: Machine): void {
    machine.truth.eachPage((_page, host) => {
      if (this.#secret !== undefined) return;
      const at = indexOf(machine.engine.u8.subarray(host, host + PAGE_BYTES), MARK);
      if (at >= 0 && at + MARK.length + SECRET_BYTES <= PAGE_BYTES)
        this.#secret = machine.engine.u8.slice(
          host + at + MARK.length,
          host + at + MARK.length + SECRET_BYTES,
        );
    });
  }

  /** Everything that the host can read, for the secret. */
  #searchAll(machine: Machine, when: string): void {
    this.#list('secret');
    const secret = String.fromCharCode(...(this.#secret as Uint8Array));
    const end = memoryEnd(machine);
    for (let gpa = 0; gpa < end; gpa += PAGE_BYTES) {
      const seen = machine.view.read(gpa, PAGE_BYTES);
      if (seen.ok && indexOf(seen.bytes, secret) >= 0)
        this.#note('secret', `${when} the host could read the secret in page 0x${gpa.toString(16)}`);
    }
    // A host with confidential guests has its own way to all of system memory, past their tables.
    const { systemBytes = 0, readSystem } = machine.view as Partial<SnpHostView & TdxHostView>;
    for (let spa = 0; spa < systemBytes; spa += PAGE_BYTES) {
      const seen = readSystem?.(spa, PAGE_BYTES);
      if (seen?.ok === true && indexOf(seen.bytes, secret) >= 0)
        this.#note(
          'secret',
          `${when} the host could read the secret in system memory at 0x${spa.toString(16)}`,
        );
    }
  }
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((value, k) => value === b[k]);
}

function indexOf(bytes: Uint8Array, text: string): number {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).indexOf(text, 0, 'latin1');
}
