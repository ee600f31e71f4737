/**
 * Requests that a hostile guest or paravisor could make once it has nothing to lose, each beside the answer that the specification
 * gives it: GHCB (AMD 56421), GHCI (Intel 348552), hypercalls (TLFS). Another answer, or none, is a finding.
 */
import { STATUS } from '../../abi/hyperv/hypercall.ts';
import { GHCB_EXIT, SVM_EXIT } from '../../abi/snp/exit-codes.ts';
import {
  ghcb,
  GHCB_ERROR,
  GHCB_MSR,
  GHCB_RESULT,
  GHCB_USAGE,
  PAGE_OPERATION,
  setValid,
} from '../../abi/snp/ghcb.ts';
import { TDVMCALL, TDVMCALL_STATUS } from '../../abi/tdx/ghci.ts';
import type { HostState } from '../../host/state.ts';
import { TDVMCALL_ROWS } from '../../host/tdx/tdvmcall.ts';
import type { Machine } from '../../machine/machine.ts';
import type { Completion, Exit } from '../../seats/exits.ts';
import type { Refusal } from './refusals.ts';

const PAGE = 4096;
/** Random variants of each row. */
const VARIANTS = 24;
const hex = (value: bigint | number): string => `0x${value.toString(16)}`;

type Random = () => number;

/** xorshift: the same requests in every run. */
function generator(): Random {
  let state = 0x9e3779b9;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

interface Row {
  readonly name: string;
  /** What is wrong with the answer to one such request; undefined: it is the specified one. */
  readonly ask: (random: Random) => string | undefined;
}

/** Carries out every row; the first wrong answer is the finding. */
export function malformedRequests(machine: Machine, technology: 'snp' | 'tdx'): Refusal {
  const rows = technology === 'snp' ? snpRows(machine) : tdxRows(machine);
  const random = generator();
  for (const { name, ask } of rows)
    for (let k = 0; k < VARIANTS; k++) {
      let wrong: string | undefined;
      try {
        wrong = ask(random);
      } catch (error) {
        wrong = `no answer, the host broke: ${(error as Error).message}`;
      }
      if (wrong !== undefined) return { ok: false, answer: `${name}: ${wrong}` };
    }
  return {
    ok: true,
    answer: `${rows.length * VARIANTS} malformed requests of ${rows.length} kinds, each answered as specified: ${rows.map(({ name }) => name).join(', ')}`,
  };
}

const differs = (what: string, got: bigint | number, wanted: bigint | number): string | undefined =>
  got === wanted ? undefined : `${what} is ${hex(got)}, not ${hex(wanted)}`;

function exitOf(machine: Machine, exit: Exit): Completion {
  const world = { view: machine.view, sink: { mask: 0, emit: () => undefined }, now: machine.now };
  return machine.platform.exit(0, exit, world).completion;
}

function snpRows(machine: Machine): readonly Row[] {
  const vp = (machine.platform.state as HostState).snp?.vps[0];
  if (vp === undefined) throw new Error('the host keeps no VMCB');
  // Whoever is at VMPL0 may ask for anything.
  vp.vmpl = 0;
  const page = vp.ghcbs[0] ?? -1;
  const top = Math.max(
    ...machine.config.directives.map((row) => (row.kind === 'region' ? row.gpa + row.length : 0)),
  );
  const msr = (lo: number, hi: number): { readonly lo: number; readonly hi: number } => {
    vp.vmcb.ghcb = { lo: lo >>> 0, hi: hi >>> 0 };
    exitOf(machine, { kind: 'vmgexit' });
    return vp.vmcb.ghcb;
  };
  const known = new Set<number>(Object.values(GHCB_MSR));
  const outside = (random: Random): { readonly lo: number; readonly hi: number } => {
    const gpa = top + (random() % 0x10000) * PAGE;
    return { lo: gpa >>> 0, hi: Math.floor(gpa / 2 ** 32) };
  };
  const ask = (fill: (bytes: Uint8Array, random: Random) => void, reason: number): Row['ask'] => {
    return (random) => {
      const bytes = new Uint8Array(PAGE);
      ghcb.set(bytes, 'protocolVersion', 2);
      for (const field of ['exitCode', 'exitInfo1', 'exitInfo2'] as const) setValid(bytes, field);
      fill(bytes, random);
      if (!machine.view.write(page, bytes).ok) return 'there is no registered GHCB';
      vp.vmcb.ghcb = { lo: page >>> 0, hi: Math.floor(page / 2 ** 32) };
      exitOf(machine, { kind: 'vmgexit' });
      const seen = machine.view.read(page, PAGE);
      if (!seen.ok) return 'the GHCB is no longer shared';
      return (
        differs('SW_EXITINFO1', ghcb.low(seen.bytes, 'exitInfo1'), GHCB_RESULT.malformed) ??
        differs('SW_EXITINFO2', ghcb.low(seen.bytes, 'exitInfo2'), reason)
      );
    };
  };
  const code = (bytes: Uint8Array, value: number): void => ghcb.setHalves(bytes, 'exitCode', value >>> 0, 0);
  const events = new Set<number>(
    [...Object.values(SVM_EXIT), ...Object.values(GHCB_EXIT)].map((n) => n >>> 0),
  );
  return [
    {
      // 2.3.1: a request without a response stays what it is, so that nobody takes it for one.
      name: 'unknown MSR request',
      ask: (random) => {
        let request = random();
        while (known.has(request & 0xfff)) request = random();
        return differs('the GHCB MSR', msr(request, random()).lo, request);
      },
    },
    {
      name: 'registering a page that is not shared',
      ask: (random) => {
        const { lo, hi } = outside(random);
        const answer = msr(lo | GHCB_MSR.registerGpaRequest, hi);
        if ((answer.lo & ~0xfff) >>> 0 === lo && answer.hi === hi) return 'the host took it';
        return differs('the response', answer.lo & 0xfff, GHCB_MSR.registerGpaResponse);
      },
    },
    {
      name: 'page state change outside of memory',
      ask: (random) => {
        const { lo, hi } = outside(random);
        const operation = random() % 2 === 0 ? PAGE_OPERATION.private : PAGE_OPERATION.shared;
        const answer = msr(lo | GHCB_MSR.pageStateRequest, (hi & 0xfffff) | (operation << 20));
        if (answer.hi === 0) return 'the host said that it was done';
        return differs('the response', answer.lo & 0xfff, GHCB_MSR.pageStateResponse);
      },
    },
    {
      name: 'unknown page operation',
      ask: (random) => {
        const operation = 5 + (random() % 11);
        const answer = msr(GHCB_MSR.pageStateRequest | 0x1000, operation << 20);
        if (answer.hi === 0) return 'the host said that it was done';
        return differs('the response', answer.lo & 0xfff, GHCB_MSR.pageStateResponse);
      },
    },
    {
      name: 'running a VMPL that there is not',
      ask: (random) => {
        const answer = msr(GHCB_MSR.runVmplRequest, 4 + (random() % 252));
        if (answer.hi === 0) return 'the host said that it runs';
        return differs('the response', answer.lo & 0xfff, GHCB_MSR.runVmplResponse);
      },
    },
    {
      name: 'unknown usage of a GHCB',
      ask: ask((bytes, random) => {
        code(bytes, SVM_EXIT.cpuid);
        let usage = random();
        while (usage <= GHCB_USAGE.vtlReturn) usage = random();
        ghcb.set(bytes, 'usage', usage);
      }, GHCB_ERROR.invalidUsage),
    },
    {
      name: 'unknown protocol version',
      ask: ask((bytes, random) => {
        code(bytes, SVM_EXIT.cpuid);
        ghcb.set(bytes, 'protocolVersion', 3 + (random() % 0xfffc));
      }, GHCB_ERROR.invalidUsage),
    },
    {
      name: 'input that is not marked valid',
      ask: ask((bytes) => code(bytes, SVM_EXIT.cpuid), GHCB_ERROR.missingInput),
    },
    {
      name: 'unknown exit code',
      ask: ask((bytes, random) => {
        let value = random();
        while (events.has(value)) value = random();
        code(bytes, value);
      }, GHCB_ERROR.invalidEvent),
    },
    {
      name: 'guest request in a private page',
      ask: ask((bytes, random) => {
        code(bytes, GHCB_EXIT.guestRequest);
        const { lo, hi } = outside(random);
        ghcb.setHalves(bytes, 'exitInfo1', lo, hi);
        ghcb.setHalves(bytes, 'exitInfo2', lo, hi);
      }, GHCB_ERROR.invalidInput),
    },
  ];
}

const R = { rcx: 1, r10: 10, r11: 11, r12: 12, r13: 13, r14: 14 } as const;
/** EXIT_REASON of TDG.VP.VMCALL in RAX (Module ABI, TDH.VP.ENTER output). */
const VMCALL_REASON = 77n;

function tdxRows(machine: Machine): readonly Row[] {
  const shared = 1n << 47n;
  const call = (registers: Readonly<Record<number, bigint>>): readonly bigint[] | string => {
    const all = Array.from({ length: 16 }, (_, n) => registers[n] ?? 0n);
    all[0] = VMCALL_REASON;
    const completion = exitOf(machine, { kind: 'td-exit', registers: all });
    return completion.kind === 'td-enter' ? completion.registers : `completion '${completion.kind}'`;
  };
  const leaf =
    (
      code: number,
      wanted: bigint,
      operands: (random: Random) => Readonly<Record<number, bigint>>,
    ): Row['ask'] =>
    (random) => {
      const answer = call({ [R.r11]: BigInt(code), ...operands(random) });
      return typeof answer === 'string' ? answer : differs('R10', answer[R.r10] ?? 0n, wanted);
    };
  const wide = (random: Random): bigint => (BigInt(random()) << 32n) | BigInt(random()) | (1n << 63n);
  const { invalidOperand, alignmentError, subfunctionUnsupported } = TDVMCALL_STATUS;
  const pages = (random: Random): bigint => BigInt(1 + (random() % 0xffff)) * BigInt(PAGE);
  return [
    {
      name: 'unknown sub-function',
      ask: (random) => {
        let code = random();
        while (TDVMCALL_ROWS.has(code)) code = random();
        const answer = call({ [R.r11]: BigInt(code) });
        return typeof answer === 'string'
          ? answer
          : differs('R10', answer[R.r10] ?? 0n, subfunctionUnsupported);
      },
    },
    {
      name: 'CPUID of more than 32 bits',
      ask: leaf(TDVMCALL.cpuid, invalidOperand, (r) => ({ [R.r12]: wide(r) })),
    },
    {
      name: 'port I/O of 3 bytes',
      ask: leaf(TDVMCALL.io, invalidOperand, (r) => ({ [R.r12]: 3n, [R.r14]: BigInt(r() & 0xffff) })),
    },
    {
      name: 'port above 0xFFFF',
      ask: leaf(TDVMCALL.io, invalidOperand, (r) => ({
        [R.r12]: 1n,
        [R.r14]: BigInt(0x10000 + (r() >>> 1)),
      })),
    },
    {
      name: 'MSR of more than 32 bits',
      ask: leaf(TDVMCALL.rdmsr, invalidOperand, (r) => ({ [R.r12]: wide(r) })),
    },
    {
      name: 'MMIO of an odd size',
      ask: leaf(TDVMCALL.mmio, invalidOperand, (r) => ({
        [R.r12]: 3n,
        [R.r14]: 0xfec00000n + BigInt(r() & 0xff0),
      })),
    },
    {
      name: 'MMIO in RAM',
      ask: leaf(TDVMCALL.mmio, invalidOperand, (r) => ({ [R.r12]: 4n, [R.r14]: pages(r) & 0xfffffn })),
    },
    {
      name: 'HLT in an unknown state',
      ask: leaf(TDVMCALL.hlt, invalidOperand, (r) => ({ [R.r12]: BigInt(2 + (r() >>> 1)) })),
    },
    {
      name: 'GetTdVmCallInfo of an unknown leaf',
      ask: leaf(TDVMCALL.getTdVmCallInfo, invalidOperand, (r) => ({ [R.r12]: BigInt(2 + (r() >>> 1)) })),
    },
    {
      name: 'MapGPA of half a page',
      ask: leaf(TDVMCALL.mapGpa, alignmentError, (r) => ({
        [R.r12]: shared | pages(r),
        [R.r13]: BigInt(1 + (r() % 4095)),
      })),
    },
    {
      name: 'MapGPA of nothing',
      ask: leaf(TDVMCALL.mapGpa, invalidOperand, (r) => ({ [R.r12]: shared | pages(r) })),
    },
    {
      name: 'MapGPA outside of memory',
      ask: leaf(TDVMCALL.mapGpa, invalidOperand, (r) => ({
        [R.r12]: (1n << 46n) | pages(r),
        [R.r13]: pages(r),
      })),
    },
    {
      name: 'GetQuote in private memory',
      ask: leaf(TDVMCALL.getQuote, invalidOperand, (r) => ({ [R.r12]: pages(r), [R.r13]: BigInt(PAGE) })),
    },
    {
      name: 'GetQuote of half a page',
      ask: leaf(TDVMCALL.getQuote, alignmentError, (r) => ({
        [R.r12]: shared | pages(r),
        [R.r13]: BigInt(1 + (r() % 4095)),
      })),
    },
    {
      name: 'notification by an exception vector',
      ask: leaf(TDVMCALL.setupEventNotifyInterrupt, invalidOperand, (r) => ({ [R.r12]: BigInt(r() % 32) })),
    },
    {
      // R10 is the hypercall's control word, R11 its result (TLFS 3.8).
      name: 'unknown hypercall',
      ask: (random) => {
        const answer = call({ [R.r10]: BigInt(0x4000 + (random() % 0x4000)) });
        return typeof answer === 'string'
          ? answer
          : differs('R11', (answer[R.r11] ?? 0n) & 0xffffn, BigInt(STATUS.invalidHypercallCode));
      },
    },
  ];
}
