/** What the host of a TD is given. */
import { EVENT, EVENT_CLASS, HOST_ACCESS } from '../../abi/events.ts';
import type { ReadOutcome, WriteOutcome } from '../../seats/host-view.ts';
import type { SharedMapping, TdxHostView } from '../../seats/tdx.ts';
import { nativeCpuid } from '../../x86/cpuid.ts';
import type { TdxModule } from './module.ts';
import { seamcall } from './seamcall.ts';
import { PAGE, PAMT, SHARED } from './tables.ts';

const PRIVATE = { ok: false, reason: 'private' } as const;
const UNMAPPED = { ok: false, reason: 'unmapped' } as const;

export function createTdxView(module: TdxModule): TdxHostView {
  const { tables, engine } = module;
  /** A guest names its shared pages with and without the shared bit. */
  const plain = (gpa: number): number => gpa % 2 ** (module.td.gpaw - 1);
  const refusal = (gpa: number): typeof PRIVATE | typeof UNMAPPED =>
    tables.covers(gpa) && tables.entry(gpa).state !== 0 ? PRIVATE : UNMAPPED;
  /** Calls `visit` for every piece of a shared range; false where the host has mapped no page. */
  const pieces = (
    gpa: number,
    length: number,
    visit: (spa: number, offset: number, bytes: number) => void,
  ): boolean => {
    for (let at = 0; at < length;) {
      const here = gpa + at;
      if (!tables.covers(here)) return false;
      const { flags, spa } = tables.sharedEntry(here);
      if ((flags & SHARED.present) === 0) return false;
      const bytes = Math.min(length - at, PAGE - (here % PAGE));
      visit(spa + (here % PAGE), at, bytes);
      at += bytes;
    }
    return true;
  };
  const tell = (address: number, bytes: number, write: boolean, outcome: number): void => {
    if (module.sink.mask & EVENT_CLASS.page)
      module.sink.emit(EVENT.hostAccess, module.now(), 0, address, bytes, write ? 1 : 0, outcome);
  };
  /** The host's own accesses use no TD's key. */
  const readSystem = (spa: number, length: number): ReadOutcome => {
    if (!tables.isSystem(spa, length)) return UNMAPPED;
    const bytes = new Uint8Array(length);
    let zeros = false;
    for (let at = 0; at < length;) {
      const here = spa + at;
      const count = Math.min(length - at, PAGE - (here % PAGE));
      if (tables.pageType(here - (here % PAGE)) === PAMT.none) {
        const host = tables.hostOf(here);
        bytes.set(engine.u8.subarray(host, host + count), at);
      } else zeros = true;
      at += count;
    }
    tell(spa, length, false, zeros ? HOST_ACCESS.zeros : HOST_ACCESS.clear);
    return { ok: true, bytes };
  };
  const writeSystem = (spa: number, bytes: Uint8Array): WriteOutcome => {
    if (!tables.isSystem(spa, bytes.length)) return UNMAPPED;
    let poisoned = false;
    for (let at = 0; at < bytes.length;) {
      const here = spa + at;
      const page = here - (here % PAGE);
      const count = Math.min(bytes.length - at, PAGE - (here % PAGE));
      if (tables.pageType(page) === PAMT.none) {
        const host = tables.hostOf(here);
        engine.blocks.codeChanged(host, count);
        engine.u8.set(bytes.subarray(at, at + count), host);
        tables.markUsed(page);
      } else {
        // The line has lost its integrity: nobody gets it back, and who reads it next is told by a machine check.
        tables.setPamt(page, tables.pamt(page) | PAMT.poisoned);
        poisoned = true;
      }
      at += count;
    }
    if (poisoned) module.flushAllTlbs();
    tell(spa, bytes.length, true, poisoned ? HOST_ACCESS.poisoned : HOST_ACCESS.clear);
    return { ok: true };
  };
  return {
    systemBytes: tables.plan.frameBytes,
    gpaEnd: tables.plan.gpaPages * PAGE,
    cpuid: (leaf, subleaf, xcr0, xss) => nativeCpuid(module.model, { cr4: 0, xcr0, xss }, leaf, subleaf),
    seamcall: (leaf, input) => seamcall(module, leaf, input),
    mapShared(gpa, mapping) {
      const at = plain(gpa);
      if (!tables.covers(at)) return;
      const before = tables.sharedEntry(at).flags;
      if (mapping.kind === 'page' && tables.isSystem(mapping.spa, PAGE)) {
        tables.setShared(at, SHARED.present | (mapping.writable ? SHARED.writable : 0), mapping.spa);
        // From now on the guest writes there without anybody noticing.
        tables.markUsed(mapping.spa - (mapping.spa % PAGE));
      } else tables.setShared(at, mapping.kind === 'absent' && mapping.suppressVe ? SHARED.suppressVe : 0);
      // A host that changes a translation makes the processors forget the old one; it has no way not to matter.
      if (before & SHARED.present) module.flushAllTlbs();
    },
    shared(gpa): SharedMapping {
      const at = plain(gpa);
      const { flags, spa } = tables.covers(at) ? tables.sharedEntry(at) : { flags: 0, spa: 0 };
      return flags & SHARED.present
        ? { kind: 'page', spa, writable: (flags & SHARED.writable) !== 0 }
        : { kind: 'absent', suppressVe: (flags & SHARED.suppressVe) !== 0 };
    },
    readSystem,
    writeSystem,
    quote: (report) => module.attestation.quote(report),
    read(gpa, length) {
      const at = plain(gpa);
      const bytes = new Uint8Array(length);
      let refused = false;
      const reached = pieces(at, length, (spa, offset, count) => {
        if (tables.pageType(spa - (spa % PAGE)) !== PAMT.none) refused = true;
        const host = tables.hostOf(spa);
        bytes.set(engine.u8.subarray(host, host + count), offset);
      });
      if (!reached || refused) {
        tell(at, length, false, HOST_ACCESS.refused);
        return refusal(at);
      }
      return { ok: true, bytes };
    },
    write(gpa, bytes) {
      const at = plain(gpa);
      let refused = false;
      // No bytes: the question whether there could be some.
      const reached = pieces(at, Math.max(1, bytes.length), (spa) => {
        if (tables.pageType(spa - (spa % PAGE)) !== PAMT.none) refused = true;
      });
      if (!reached || refused) {
        tell(at, bytes.length, true, HOST_ACCESS.refused);
        return refusal(at);
      }
      pieces(at, bytes.length, (spa, offset, count) => {
        const host = tables.hostOf(spa);
        engine.blocks.codeChanged(host, count);
        engine.u8.set(bytes.subarray(offset, offset + count), host);
        tables.markUsed(spa - (spa % PAGE));
      });
      return { ok: true };
    },
    overlay: () => ({ ok: false, reason: 'unsupported' }),
    getRegister: () => undefined,
    setRegister: () => false,
  };
}
