/**
 * Once a guest has ended, its host asks for what it must not get: another kind, another mode, the paravisor's pages, malformed
 * requests. A refusal is kept as text; what was not refused is `undefined`.
 */
import { TDH } from '../../abi/tdx/leaves.ts';
import { isError } from '../../abi/tdx/status.ts';
import type { TdxHostState } from '../../host/tdx/state.ts';
import type { HostState } from '../../host/state.ts';
import type { Machine } from '../../machine/machine.ts';
import type { Exit } from '../../seats/exits.ts';
import type { SnpHostView } from '../../seats/snp.ts';
import type { TdxHostView } from '../../seats/tdx.ts';
import type { ConfigurationFacts } from './configurations.ts';
import type { Refusals } from './refusals.ts';

const PAGE = 4096;
const MALFORMED = 2000;

export function attemptsOn(machine: Machine, facts: ConfigurationFacts): Refusals {
  const { name, technology } = facts;
  const refusals: Refusals = {};
  if (technology === 'none') {
    const isolating = ['launchStart', 'rmpupdate', 'seamcall'].filter((call) => call in machine.view);
    refusals[`kind ${name}`] =
      isolating.length === 0 ? 'the host of an ordinary VM has no call that would isolate it' : undefined;
    return refusals;
  }
  const hidden = hiddenPages(machine);
  refusals[`kind ${name}`] = technology === 'snp' ? relaunchSnp(machine) : relaunchTd(machine);
  refusals[`mode ${name}`] = technology === 'snp' ? changeFeatures(machine) : changeAttributes(machine);
  if (facts.paravisor) {
    refusals[`host into paravisor ${name}`] = hostInto(machine, hidden);
    refusals[`guest into paravisor ${name}`] =
      technology === 'snp' ? guestIntoVmpl0(machine, hidden, facts) : guestIntoL1(machine, hidden);
  }
  // Last: it leaves the host's books in disorder.
  refusals[`malformed requests ${name}`] = malformed(machine, technology);
  return refusals;
}

const snpVp = (machine: Machine) => {
  const vp = (machine.platform.state as HostState).snp?.vps[0];
  if (vp === undefined) throw new Error('the host keeps no VMCB');
  return vp;
};
const tdr = (machine: Machine): bigint => BigInt((machine.platform.state as TdxHostState).td.tdr);

/** SNP_LAUNCH_START and _FINISH for a guest that runs: INVALID_GUEST_STATE (56860, table 5). */
function relaunchSnp(machine: Machine): string | undefined {
  const view = machine.view as SnpHostView;
  const status = [view.launchStart({ lo: 0x30000, hi: 0 }), view.launchFinish({})];
  return status.every((code) => code !== 0)
    ? `SNP_LAUNCH_START and SNP_LAUNCH_FINISH again: firmware status ${status.join(', ')}`
    : undefined;
}

function relaunchTd(machine: Machine): string | undefined {
  const { rax } = (machine.view as TdxHostView).seamcall(TDH.mngInit, { rcx: tdr(machine), rdx: 0n });
  return isError(rax) ? `TDH.MNG.INIT again: status 0x${rax.toString(16)}` : undefined;
}

/** SEV_FEATURES and VMPL lie in the VMSA, which is the guest's page. */
function changeFeatures(machine: Machine): string | undefined {
  const view = machine.view as SnpHostView;
  const { vmsa } = snpVp(machine).vmcb;
  const outcome = view.writeSystem(vmsa, new Uint8Array(PAGE));
  return outcome.ok
    ? undefined
    : `host write to the VMSA at 0x${vmsa.toString(16)}: refused (${outcome.reason})`;
}

/** ATTRIBUTES and NUM_L2_VMS of a TD that is not a debug TD can only be read (Module ABI, TDCS field table). */
function changeAttributes(machine: Machine): string | undefined {
  const view = machine.view as TdxHostView;
  const all = 0xffff_ffff_ffff_ffffn;
  const attributes = 0x1110000300000000n;
  const { rax } = view.seamcall(TDH.mngWr, { rcx: tdr(machine), rdx: attributes, r8: 1n, r9: all });
  return isError(rax) ? `TDH.MNG.WR of ATTRIBUTES: status 0x${rax.toString(16)}` : undefined;
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

function hostInto(machine: Machine, hidden: readonly Hidden[]): string | undefined {
  for (const { gpa } of hidden) {
    const real = machine.truth.read(gpa, PAGE);
    const seen = machine.view.read(gpa, PAGE);
    const clear =
      real !== undefined &&
      seen.ok &&
      real.some((byte) => byte !== 0) &&
      Buffer.compare(real, seen.bytes) === 0;
    if (clear || machine.view.write(gpa, new Uint8Array(16)).ok) return undefined;
  }
  return hidden.length === 0
    ? undefined
    : `${hidden.length} pages of the paravisor: no read shows them, no write reaches them`;
}

/** Permissions of the guest's VMPL in the RMP entries of those pages (APM vol. 2, 15.36.5). */
function guestIntoVmpl0(
  machine: Machine,
  hidden: readonly Hidden[],
  { guestContext }: ConfigurationFacts,
): string | undefined {
  const { system } = machine.silicon.save() as { readonly system: { readonly rmp: Float64Array } };
  const permissions = new Map<number, number>();
  for (let k = 0; k + 3 < system.rmp.length; k += 4)
    permissions.set(
      system.rmp[k + 3] as number,
      ((system.rmp[k + 2] as number) >>> (8 * guestContext)) & 0xff,
    );
  const open = hidden.filter(({ gpa }) => permissions.get(gpa) !== 0);
  return hidden.length > 0 && open.length === 0
    ? `${hidden.length} pages of the paravisor: no permission for VMPL${guestContext} in their RMP entries`
    : undefined;
}

/** Aliases in the secure EPT of an L2 VM for those pages: none (Module ABI, TD partitioning). */
function guestIntoL1(machine: Machine, hidden: readonly Hidden[]): string | undefined {
  const { module } = machine.silicon.save() as { readonly module: { readonly sept: Float64Array } };
  const { sept } = module;
  const aliases = new Map<number, number>();
  for (let k = 0; k + 4 < sept.length; k += 5) aliases.set(sept[k] as number, sept[k + 4] as number);
  const open = hidden.filter(({ gpa }) => (aliases.get(gpa) ?? 0) !== 0);
  return hidden.length > 0 && open.length === 0
    ? `${hidden.length} pages of the paravisor: no L2 VM has an alias of them`
    : undefined;
}

/** Requests that a hostile guest or paravisor could make: each must get an answer. */
function malformed(machine: Machine, technology: 'snp' | 'tdx'): string | undefined {
  let state = 0x9e3779b9;
  const random = (): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
  const world = { view: machine.view, sink: machine.config.sink, now: machine.now };
  const answers = new Map<string, number>();
  for (let k = 0; k < MALFORMED; k++) {
    let exit: Exit;
    if (technology === 'snp') {
      snpVp(machine).vmcb.ghcb = { lo: random(), hi: random() & 0xfffff };
      exit = { kind: 'vmgexit' };
    } else {
      const registers = Array.from({ length: 16 }, () => (BigInt(random()) << 32n) | BigInt(random()));
      // TDG.VP.VMCALL: EXIT_REASON 77; a sub-function of the GHCI every other time.
      registers[0] = 77n;
      if (k % 2 === 0) Object.assign(registers, { 10: 0n, 11: BigInt(0x10000 + (random() % 8)) });
      exit = { kind: 'td-exit', registers };
    }
    const { completion } = machine.platform.exit(0, exit, world);
    answers.set(completion.kind, (answers.get(completion.kind) ?? 0) + 1);
  }
  return `${MALFORMED} random requests, each answered: ${[...answers].map(([kind, count]) => `${kind} ${count}`).join(', ')}`;
}
