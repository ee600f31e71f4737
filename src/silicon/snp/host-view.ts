/** What the host of an SNP guest is given: its own memory in clear, the guest's as ciphertext, and the hardware's commands. */
import { PAGE_TYPE, STATUS } from '../../abi/snp/firmware.ts';
import type { AccessRefusal, ReadOutcome, WriteOutcome } from '../../seats/host-view.ts';
import type { LaunchFinish, SnpHostView } from '../../seats/snp.ts';
import { RMP } from './layout.ts';
import type { SecureProcessor } from './secure-processor.ts';
import type { SnpSystem } from './system.ts';
import type { SnpCpuid } from './cpuid.ts';

const PAGE = 4096;
const ZEROS = new Uint8Array(PAGE);
const refuse = (reason: AccessRefusal): { readonly ok: false; readonly reason: AccessRefusal } => ({
  ok: false,
  reason,
});

export function createSnpHostView(
  system: SnpSystem,
  processor: SecureProcessor,
  cpuid: SnpCpuid,
  told: (spa: number, length: number, write: boolean, refused: boolean) => void,
): SnpHostView {
  const { rmp } = system;
  const readSystem = (spa: number, length: number): ReadOutcome => {
    if (!system.isInside(spa, length)) return refuse('unmapped');
    told(spa, length, false, false);
    return { ok: true, bytes: system.peek(spa, length, 0) };
  };
  const writeSystem = (spa: number, bytes: Uint8Array): WriteOutcome => {
    if (!system.isInside(spa, bytes.length)) return refuse('unmapped');
    // #PF with the RMP bit (APM vol. 2, table 15-39).
    const allowed = system.isHypervisorOwned(spa, bytes.length);
    told(spa, bytes.length, true, !allowed);
    if (!allowed) return refuse('private');
    system.poke(spa, bytes, 0);
    return { ok: true };
  };
  /** Pieces of a guest-physical range as the nested tables have it. */
  const pieces = (
    gpa: number,
    length: number,
  ): { spa: number; offset: number; bytes: number }[] | undefined => {
    const list: { spa: number; offset: number; bytes: number }[] = [];
    for (let at = 0; at < length;) {
      const bytes = Math.min(length - at, PAGE - ((gpa + at) % PAGE));
      const mapping = system.mapping(gpa + at);
      if (mapping.kind !== 'page') return undefined;
      list.push({ spa: mapping.spa + ((gpa + at) % PAGE), offset: at, bytes });
      at += bytes;
    }
    return list;
  };
  return {
    systemBytes: system.bytes,
    cpuid: (leaf, subleaf, xcr0, xss) => cpuid(leaf, subleaf, { cr4: 0, xcr0, xss }),
    map: (gpa, mapping) => system.map(gpa, mapping),
    mapping: (gpa) => system.mapping(gpa),
    rmpupdate: (spa, entry) => system.rmpupdate(spa, entry),
    psmash: (spa) => system.psmash(spa),
    readSystem,
    writeSystem,
    launchStart: ({ lo, hi }) => processor.launchStart((BigInt(hi) << 32n) | BigInt(lo)),
    launchUpdate(spa, type, permissions) {
      const page = spa / PAGE;
      if (!Number.isInteger(page) || !system.isInside(spa, PAGE)) return { status: STATUS.invalidAddress };
      const bits = rmp.bits(page);
      // A pre-guest page (56860, chapter 5): the host made it the guest's and may not touch it any more.
      if (
        (bits & (RMP.assigned | RMP.immutable | RMP.validated | RMP.large)) !==
        (RMP.assigned | RMP.immutable)
      )
        return { status: STATUS.invalidPageState };
      const asid = bits >>> RMP.asidShift;
      if (asid === 0) return { status: STATUS.invalidPageOwner };
      const result = processor.launchUpdate({
        type,
        gpa: rmp.gpa(page),
        contents: type === PAGE_TYPE.zero ? ZEROS : system.peek(spa, PAGE, 0),
        ...(permissions && { permissions }),
      });
      if (result.status !== STATUS.success) {
        // What the firmware would accept stands in the page then, in clear.
        if (result.contents !== undefined) system.fill(page, 0, result.contents);
        return result;
      }
      if (type === PAGE_TYPE.zero) system.clear(page, 1, asid);
      else system.fill(page, asid, result.contents as Uint8Array);
      rmp.setBits(page, RMP.validated | (type === PAGE_TYPE.vmsa ? RMP.vmsa : 0), RMP.immutable);
      permissions?.forEach((mask, k) => rmp.setPermissions(page, k + 1, mask));
      return { status: STATUS.success };
    },
    launchFinish: (finish: LaunchFinish) => processor.launchFinish(finish),
    unsmash(spa) {
      if (!system.isInside(spa, 512 * PAGE) || spa % (512 * PAGE) !== 0) return STATUS.invalidAddress;
      if (!rmp.unsmash(spa)) return STATUS.invalidPageState;
      system.flush();
      return STATUS.success;
    },
    guestRequest(requestSpa, responseSpa) {
      if (!system.isInside(requestSpa, PAGE) || !system.isInside(responseSpa, PAGE))
        return STATUS.invalidAddress;
      if (requestSpa % PAGE !== 0 || responseSpa % PAGE !== 0) return STATUS.invalidAddress;
      if (!system.isHypervisorOwned(responseSpa, PAGE)) return STATUS.invalidPageState;
      const { status, response } = processor.guestRequest(system.peek(requestSpa, PAGE, 0));
      if (response !== undefined) {
        const page = new Uint8Array(PAGE);
        page.set(response);
        system.poke(responseSpa, page, 0);
      }
      return status;
    },
    certificates: () => processor.certificates(),
    read(gpa, length) {
      const list = pieces(gpa, length);
      if (list === undefined) return refuse('unmapped');
      const out = new Uint8Array(length);
      for (const { spa, offset, bytes } of list) {
        const piece = readSystem(spa, bytes);
        if (!piece.ok) return piece;
        out.set(piece.bytes, offset);
      }
      return { ok: true, bytes: out };
    },
    write(gpa, bytes) {
      // No bytes: the question whether there could be some.
      const list = pieces(gpa, Math.max(1, bytes.length));
      if (list === undefined) return refuse('unmapped');
      for (const piece of list)
        if (!system.isHypervisorOwned(piece.spa, piece.bytes))
          return writeSystem(piece.spa, new Uint8Array(piece.bytes));
      for (const piece of list)
        writeSystem(piece.spa, bytes.subarray(piece.offset, piece.offset + piece.bytes));
      return { ok: true };
    },
    // A hidden page would have to replace memory that the guest knows: the host copies instead.
    overlay: () => refuse('unsupported'),
    getRegister: () => undefined,
    setRegister: () => false,
  };
}
