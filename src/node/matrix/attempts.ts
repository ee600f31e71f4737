/**
 * Once a guest has ended, its host asks for what it must not get: another kind, another mode, the paravisor's pages, malformed
 * requests. The answers are kept.
 */
import { paravisorPage } from '../../abi/paravisor-page.ts';
import { TDH } from '../../abi/tdx/leaves.ts';
import { isError } from '../../abi/tdx/status.ts';
import type { TdxHostState } from '../../host/tdx/state.ts';
import type { HostState } from '../../host/state.ts';
import type { Machine } from '../../machine/machine.ts';
import { measureDirectives } from '../../machine/measure/measurement.ts';
import { hasPart, PARTS } from '../../paravisor/parts.ts';
import type { Directive } from '../../launch/directives.ts';
import { restoreSnapshot, takeSnapshot } from '../../machine/snapshot.ts';
import { stateHash } from '../../machine/state-hash.ts';
import { STATUS as FIRMWARE_STATUS } from '../../abi/snp/firmware.ts';
import type { SnpHostView } from '../../seats/snp.ts';
import type { TdxHostView } from '../../seats/tdx.ts';
import type { ConfigurationFacts } from '../../machine/facts.ts';
import { malformedRequests } from './malformed.ts';
import type { Refusal, Refusals } from './refusals.ts';

const PAGE = 4096;

export function attemptsOn(machine: Machine, facts: ConfigurationFacts): Refusals {
  const { name, technology } = facts;
  const kept = afterSnapshot(machine, technology);
  const refusals: Refusals = {};
  if (technology === 'none') {
    const isolating = ['launchStart', 'rmpupdate', 'seamcall'].filter((call) => call in machine.view);
    refusals[`kind ${name}`] = all(kept, {
      ok: isolating.length === 0,
      answer:
        isolating.length === 0
          ? 'the host of an ordinary VM has no call that would isolate it'
          : `the host has ${isolating.join(', ')}`,
    });
    return refusals;
  }
  const hidden = hiddenPages(machine);
  refusals[`kind ${name}`] = all(kept, technology === 'snp' ? relaunchSnp(machine) : relaunchTd(machine));
  refusals[`mode ${name}`] = all(
    kept,
    technology === 'snp' ? changeFeatures(machine) : changeAttributes(machine),
  );
  if (facts.paravisor) {
    refusals[`host into paravisor ${name}`] = hostInto(machine, hidden);
    refusals[`guest into paravisor ${name}`] =
      technology === 'snp' ? guestIntoVmpl0(machine, hidden, facts) : guestIntoL1(machine, hidden);
    refusals[`parts ${name}`] = enumeratedParts(machine, technology);
  }
  // Last: it leaves the host's books in disorder.
  refusals[`malformed requests ${name}`] = malformedRequests(machine, technology);
  return refusals;
}

const all = (...refusals: readonly Refusal[]): Refusal => ({
  ok: refusals.every(({ ok }) => ok),
  answer: (refusals.every(({ ok }) => ok) ? refusals : refusals.filter(({ ok }) => !ok))
    .map(({ answer }) => answer)
    .join('; '),
});

/** The machine goes into a snapshot and comes out of it the same, and as closed as it was. */
function afterSnapshot(machine: Machine, technology: ConfigurationFacts['technology']): Refusal {
  const outcome = restoreSnapshot(takeSnapshot(machine), { sink: { mask: 0, emit: () => undefined } });
  if (!outcome.ok) return { ok: false, answer: `a snapshot could not be restored: ${outcome.reason}` };
  const { machine: restored } = outcome;
  if (restored.silicon.kind !== machine.silicon.kind || restored.platform.kind !== machine.platform.kind)
    return {
      ok: false,
      answer: `a snapshot of ${machine.silicon.kind} came back as ${restored.silicon.kind}`,
    };
  if (stateHash(restored) !== stateHash(machine))
    return { ok: false, answer: 'a restored snapshot has another state' };
  const open = technology === 'none' ? undefined : firstOpen(restored);
  return open === undefined
    ? { ok: true, answer: `a snapshot keeps '${machine.silicon.kind}' and its state` }
    : {
        ok: false,
        answer: `after a snapshot the host can write the private page 0x${open.toString(16)}`,
      };
}

/** A page that the launch gave the guest alone and that the host may write. */
function firstOpen(machine: Machine): number | undefined {
  for (const row of machine.config.directives)
    if (row.kind === 'pages' && row.type !== 'shared' && machine.view.write(row.gpa, new Uint8Array(0)).ok)
      return row.gpa;
  return undefined;
}

const snpVp = (machine: Machine) => {
  const vp = (machine.platform.state as HostState).snp?.vps[0];
  if (vp === undefined) throw new Error('the host keeps no VMCB');
  return vp;
};
const tdr = (machine: Machine): bigint => BigInt((machine.platform.state as TdxHostState).td.tdr);

/** SNP_LAUNCH_START and _FINISH for a guest that runs: INVALID_GUEST_STATE (56860, table 5). */
function relaunchSnp(machine: Machine): Refusal {
  const view = machine.view as SnpHostView;
  const status = [view.launchStart({ lo: 0x30000, hi: 0 }), view.launchFinish({})];
  return {
    ok: status.every((code) => code === FIRMWARE_STATUS.invalidGuestState),
    answer: `SNP_LAUNCH_START and SNP_LAUNCH_FINISH again: firmware status ${status.join(', ')}`,
  };
}

function relaunchTd(machine: Machine): Refusal {
  const { rax } = (machine.view as TdxHostView).seamcall(TDH.mngInit, { rcx: tdr(machine), rdx: 0n });
  return { ok: isError(rax), answer: `TDH.MNG.INIT again: status 0x${rax.toString(16)}` };
}

/** SEV_FEATURES and VMPL lie in the VMSA, which is the guest's page. */
function changeFeatures(machine: Machine): Refusal {
  const view = machine.view as SnpHostView;
  const { vmsa } = snpVp(machine).vmcb;
  const outcome = view.writeSystem(vmsa, new Uint8Array(PAGE));
  return {
    ok: !outcome.ok && outcome.reason === 'private',
    answer: `host write to the VMSA at 0x${vmsa.toString(16)}: ${outcome.ok ? 'done' : `refused (${outcome.reason})`}`,
  };
}

/** ATTRIBUTES and NUM_L2_VMS of a TD that is not a debug TD can only be read (Module ABI, TDCS field table). */
function changeAttributes(machine: Machine): Refusal {
  const view = machine.view as TdxHostView;
  const all = 0xffff_ffff_ffff_ffffn;
  const attributes = 0x1110000300000000n;
  const { rax } = view.seamcall(TDH.mngWr, { rcx: tdr(machine), rdx: attributes, r8: 1n, r9: all });
  return { ok: isError(rax), answer: `TDH.MNG.WR of ATTRIBUTES: status 0x${rax.toString(16)}` };
}

/** The measured page names the parts, and a launch with one of them left out is measured as something else. */
function enumeratedParts(machine: Machine, technology: 'snp' | 'tdx'): Refusal {
  const { directives, program } = machine.config;
  const at = directives.findIndex((row) => row.kind === 'pages' && row.gpa === program?.page);
  const row = directives[at];
  if (row?.kind !== 'pages') return { ok: false, answer: 'the launch has no page of the paravisor' };
  const { parts } = paravisorPage.read(row.data);
  const names = PARTS.filter(({ name }) => hasPart(parts, name)).map(({ name }) => name);
  const attested = attestedDigest(machine, technology);
  const digest = (list: readonly Directive[]): string =>
    Buffer.from(measureDirectives(technology, list).value).toString('hex');
  const without = Uint8Array.from(row.data);
  paravisorPage.set(without, 'parts', parts ^ 1);
  const [same, other] = [digest(directives), digest(directives.with(at, { ...row, data: without }))];
  const digestName = technology === 'snp' ? 'launch digest' : 'MRTD';
  return same === attested && other !== attested
    ? { ok: true, answer: `${names.join(', ')}: the ${digestName} ${attested.slice(0, 16)}... attests them` }
    : { ok: false, answer: `the ${digestName} ${attested.slice(0, 16)}... is not of these parts` };
}

/** What a report or quote of this guest says. */
function attestedDigest(machine: Machine, technology: 'snp' | 'tdx'): string {
  const state = machine.silicon.save() as {
    readonly processor?: { readonly measurement: Uint8Array };
    readonly module?: { readonly td: { readonly mrtd: Uint8Array } };
  };
  const value = technology === 'snp' ? state.processor?.measurement : state.module?.td.mrtd;
  return Buffer.from(value ?? []).toString('hex');
}

interface Hidden {
  readonly name: string;
  readonly gpa: number;
}

/** Pages that the launch gave the paravisor and nobody else. */
function hiddenPages(machine: Machine): readonly Hidden[] {
  return machine.config.directives.flatMap((row) =>
    row.kind === 'pages' && row.type !== 'shared' && /^(paravisor|guest contexts|secrets)/.test(row.name)
      ? Array.from({ length: row.length / PAGE }, (_, k) => ({ name: row.name, gpa: row.gpa + k * PAGE }))
      : [],
  );
}

const NO_PAGES: Refusal = { ok: false, answer: 'the launch gave the paravisor no page of its own' };

function hostInto(machine: Machine, hidden: readonly Hidden[]): Refusal {
  if (hidden.length === 0) return NO_PAGES;
  for (const { gpa } of hidden) {
    const real = machine.truth.read(gpa, PAGE);
    const seen = machine.view.read(gpa, PAGE);
    const clear =
      real !== undefined &&
      seen.ok &&
      real.some((byte) => byte !== 0) &&
      Buffer.compare(real, seen.bytes) === 0;
    if (clear)
      return { ok: false, answer: `the host could read page 0x${gpa.toString(16)} of the paravisor` };
    if (machine.view.write(gpa, new Uint8Array(16)).ok)
      return { ok: false, answer: `the host could write page 0x${gpa.toString(16)} of the paravisor` };
  }
  return {
    ok: true,
    answer: `${hidden.length} pages of the paravisor: no read shows them, no write reaches them`,
  };
}

function open(pages: readonly Hidden[], hidden: readonly Hidden[], closed: string): Refusal {
  const [first] = pages;
  if (hidden.length === 0) return NO_PAGES;
  return first === undefined
    ? { ok: true, answer: `${hidden.length} pages of the paravisor: ${closed}` }
    : { ok: false, answer: `page 0x${first.gpa.toString(16)} of the paravisor is open to its guest` };
}

/** Permissions of the guest's VMPL in the RMP entries of those pages (APM vol. 2, 15.36.5). */
function guestIntoVmpl0(
  machine: Machine,
  hidden: readonly Hidden[],
  { guestContext }: ConfigurationFacts,
): Refusal {
  const { system } = machine.silicon.save() as { readonly system: { readonly rmp: Float64Array } };
  const permissions = new Map<number, number>();
  for (let k = 0; k + 3 < system.rmp.length; k += 4)
    permissions.set(
      system.rmp[k + 3] as number,
      ((system.rmp[k + 2] as number) >>> (8 * guestContext)) & 0xff,
    );
  const reachable = hidden.filter(({ gpa }) => permissions.get(gpa) !== 0);
  return open(reachable, hidden, `no permission for VMPL${guestContext} in their RMP entries`);
}

/** Aliases in the secure EPT of an L2 VM for those pages: none (Module ABI, TD partitioning). */
function guestIntoL1(machine: Machine, hidden: readonly Hidden[]): Refusal {
  const { module } = machine.silicon.save() as { readonly module: { readonly sept: Float64Array } };
  const { sept } = module;
  const aliases = new Map<number, number>();
  for (let k = 0; k + 4 < sept.length; k += 5) aliases.set(sept[k] as number, sept[k + 4] as number);
  const reachable = hidden.filter(({ gpa }) => (aliases.get(gpa) ?? 0) !== 0);
  return open(reachable, hidden, 'no L2 VM has an alias of them');
}
