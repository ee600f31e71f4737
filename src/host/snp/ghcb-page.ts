/**
 * Requests in a GHCB page (AMD 56421, 2.4 and 4.1). The page is copied once and checked; nothing is read from the guest's page
 * again while the request is served. What an exit code needs must be marked valid, what it answers is.
 */
import { EVENT, EVENT_CLASS, PAGE_USE, PRIVILEGED_OPERATION } from '../../abi/events.ts';
import { REGISTER, type RegisterValue } from '../../abi/hyperv/registers.ts';
import { STATUS } from '../../abi/hyperv/hypercall.ts';
import { setU32, u16, u32 } from '../../abi/record.ts';
import { GHCB_EXIT, IOIO, SVM_EXIT } from '../../abi/snp/exit-codes.ts';
import {
  ghcb,
  GHCB_ERROR,
  GHCB_RESULT,
  GHCB_USAGE,
  GHCB_VERSION,
  isValid,
  MOST_PAGE_STATE_ENTRIES,
  PAGE_OPERATION,
  setValid,
  SHARED_BUFFER,
  type GhcbField,
} from '../../abi/snp/ghcb.ts';
import { EVENT_INJECTION } from '../../abi/snp/vmsa.ts';
import { answerHypercall, answerIo, answerMmio, answerMsr, UD } from '../../chipset/partition/exits.ts';
import type { VpState } from '../../chipset/partition/state.ts';
import type { Completion } from '../../seats/exits.ts';
import type { HostView } from '../../seats/host-view.ts';
import { HYPERCALLS } from '../hypercalls.ts';
import type { HostCall } from '../state.ts';
import { apicWriteIcr } from '../../chipset/partition/interrupts.ts';
import { ghcbHypercall, guestMayReach, PARAVISOR_VMPL, vtlReturn } from './vtl.ts';
import { runVmpl, setVmsa, startContext } from './contexts.ts';
import { cpuidForGuest } from './cpuid.ts';
import { FEATURES, tracePageStateRequest, withoutAlias } from './ghcb-msr.ts';
import { readProcessorMsr, writeProcessorMsr } from './msrs.ts';
import { changePageState, isShared, pageWorld, smashPage } from './pages.ts';
import { BLOCK, PAGE, snpView, spaOf, type SnpVp } from './state.ts';
import { terminate } from './terminate.ts';

/** A request under way: the copy, and who asks. */
interface Request {
  readonly call: HostCall;
  readonly vp: VpState;
  readonly target: SnpVp;
  readonly gpa: number;
  readonly page: Uint8Array;
}

type Answer =
  /** Served; `info2` for the guest. */
  | { readonly kind: 'done'; readonly lo?: number; readonly hi?: number }
  /** The guest is to take this exception. */
  | { readonly kind: 'inject'; readonly vector: number; readonly errorCode: number | undefined }
  | { readonly kind: 'malformed'; readonly reason: number }
  /** The page is left as it is, or was answered in another form. */
  | { readonly kind: 'silent' };

const DONE: Answer = { kind: 'done' };
const malformed = (reason: number): Answer => ({ kind: 'malformed', reason });

interface Row {
  readonly code: number;
  readonly name: string;
  /** Fields that must be valid. */
  readonly needs: readonly GhcbField[];
  readonly serve: (request: Request) => Answer;
}

/** Everything that a guest can ask of this host. */
export const GHCB_ROWS: readonly Row[] = [
  { code: SVM_EXIT.writeDr7, name: 'WRITE_DR7', needs: ['rax'], serve: () => DONE },
  { code: SVM_EXIT.readDr7, name: 'READ_DR7', needs: [], serve: (request) => give(request, ['rax', 0x400]) },
  { code: SVM_EXIT.readTsc, name: 'RDTSC', needs: [], serve: tsc },
  { code: SVM_EXIT.readTscp, name: 'RDTSCP', needs: [], serve: tsc },
  {
    code: SVM_EXIT.readPmc,
    name: 'RDPMC',
    needs: ['rcx'],
    serve: (request) => give(request, ['rax', 0], ['rdx', 0]),
  },
  { code: SVM_EXIT.cpuid, name: 'CPUID', needs: ['rax', 'rcx'], serve: cpuid },
  { code: SVM_EXIT.invd, name: 'INVD', needs: [], serve: () => DONE },
  { code: SVM_EXIT.io, name: 'IOIO', needs: [], serve: io },
  { code: SVM_EXIT.msr, name: 'MSR', needs: ['rcx'], serve: msr },
  { code: SVM_EXIT.vmmcall, name: 'VMMCALL', needs: ['rax', 'cpl'], serve: vmmcall },
  { code: SVM_EXIT.wbinvd, name: 'WBINVD', needs: [], serve: () => DONE },
  { code: SVM_EXIT.monitor, name: 'MONITOR', needs: ['rax', 'rcx', 'rdx'], serve: () => DONE },
  { code: SVM_EXIT.mwait, name: 'MWAIT', needs: ['rax', 'rcx'], serve: () => DONE },
  {
    code: GHCB_EXIT.mmioRead,
    name: 'MMIO_READ',
    needs: ['scratch'],
    serve: (request) => mmio(request, false),
  },
  {
    code: GHCB_EXIT.mmioWrite,
    name: 'MMIO_WRITE',
    needs: ['scratch'],
    serve: (request) => mmio(request, true),
  },
  // This host lets NMIs follow the guest's own mask.
  { code: GHCB_EXIT.nmiComplete, name: 'NMI_COMPLETE', needs: [], serve: () => DONE },
  { code: GHCB_EXIT.apResetHold, name: 'AP_RESET_HOLD', needs: [], serve: hold },
  { code: GHCB_EXIT.pageStateChange, name: 'PAGE_STATE_CHANGE', needs: ['scratch'], serve: pageStates },
  {
    code: GHCB_EXIT.guestRequest,
    name: 'SNP_GUEST_REQUEST',
    needs: [],
    serve: (request) => guestRequest(request, false),
  },
  {
    code: GHCB_EXIT.extendedGuestRequest,
    name: 'SNP_EXTENDED_GUEST_REQUEST',
    needs: ['rax', 'rbx'],
    serve: (request) => guestRequest(request, true),
  },
  { code: GHCB_EXIT.apCreation, name: 'SNP_AP_CREATION', needs: [], serve: apCreation },
  { code: GHCB_EXIT.hvDoorbell, name: 'HV_DOORBELL_PAGE', needs: [], serve: doorbell },
  { code: GHCB_EXIT.hvIpi, name: 'HV_IPI', needs: [], serve: ipi },
  { code: GHCB_EXIT.runVmpl, name: 'SNP_RUN_VMPL', needs: [], serve: (request) => vmpl(request) },
  {
    code: GHCB_EXIT.features,
    name: 'HYPERVISOR_FEATURES',
    needs: [],
    serve: () => ({ kind: 'done', lo: FEATURES, hi: 0 }),
  },
  { code: GHCB_EXIT.terminate, name: 'TERMINATION_REQUEST', needs: [], serve: terminationRequest },
];
const rowOf = new Map(GHCB_ROWS.map((row) => [row.code >>> 0, row]));

/** Serves the request in the page at `address`, which the GHCB MSR names. */
export function answerGhcbPage(call: HostCall, vp: VpState, target: SnpVp, address: number): void {
  const gpa = withoutAlias(call, address);
  const { snp } = call.state;
  if (snp === undefined || !isShared(snp, gpa, PAGE)) {
    // Nobody can be told: there is no page to answer in.
    refused(call, vp, GHCB_ERROR.notRegistered, 0);
    return;
  }
  const copy = call.view.read(gpa, PAGE);
  if (!copy.ok) {
    refused(call, vp, GHCB_ERROR.notRegistered, 0);
    return;
  }
  const request: Request = { call, vp, target, gpa, page: copy.bytes };
  const answer = serve(request);
  if (answer.kind !== 'silent') finish(request, answer);
}

function serve(request: Request): Answer {
  const { page, target, gpa, call, vp } = request;
  if (target.ghcbs[target.vmpl] !== gpa) return malformed(GHCB_ERROR.notRegistered);
  const usage = ghcb.low(page, 'usage');
  if (usage === GHCB_USAGE.hypercall) {
    ghcbHypercall(call, vp, target, page);
    call.view.write(gpa, page);
    return { kind: 'silent' };
  }
  if (usage === GHCB_USAGE.vtlReturn)
    return vtlReturn(call, target, page) ? { kind: 'silent' } : malformed(GHCB_ERROR.invalidUsage);
  // A guest below a paravisor leaves its page as it was after it has agreed on a version (Linux 6.12 ivm.c).
  if (target.vmpl !== PARAVISOR_VMPL && ghcb.low(page, 'exitCode') === 0) return { kind: 'silent' };
  const version = ghcb.get(page, 'protocolVersion');
  if (usage !== GHCB_USAGE.standard || version < GHCB_VERSION.least || version > GHCB_VERSION.most)
    return malformed(GHCB_ERROR.invalidUsage);
  for (const field of ['exitCode', 'exitInfo1', 'exitInfo2'] as const)
    if (!isValid(page, field)) return malformed(GHCB_ERROR.missingInput);
  const code = ghcb.low(page, 'exitCode');
  const row = ghcb.high(page, 'exitCode') === 0 ? rowOf.get(code) : undefined;
  if (row === undefined) return malformed(GHCB_ERROR.invalidEvent);
  if (row.needs.some((field) => !isValid(page, field))) return malformed(GHCB_ERROR.missingInput);
  // What a guest below a paravisor has no business with, its paravisor does.
  if (target.vmpl !== PARAVISOR_VMPL && code !== SVM_EXIT.msr) return malformed(GHCB_ERROR.invalidEvent);
  if (call.sink.mask & EVENT_CLASS.exit)
    call.sink.emit(
      EVENT.ghcb,
      call.now,
      vp.index,
      code,
      ghcb.low(page, 'exitInfo1'),
      ghcb.low(page, 'exitInfo2'),
      0,
    );
  return row.serve(request);
}

function finish(request: Request, answer: Answer): void {
  const { call, vp, page, gpa } = request;
  switch (answer.kind) {
    case 'done':
      ghcb.setHalves(page, 'exitInfo1', GHCB_RESULT.success, 0);
      ghcb.setHalves(page, 'exitInfo2', answer.lo ?? 0, answer.hi ?? 0);
      break;
    case 'inject':
      ghcb.setHalves(page, 'exitInfo1', GHCB_RESULT.inject, 0);
      ghcb.setHalves(
        page,
        'exitInfo2',
        (answer.vector |
          (EVENT_INJECTION.exception << EVENT_INJECTION.typeShift) |
          (answer.errorCode === undefined ? 0 : EVENT_INJECTION.hasError) |
          EVENT_INJECTION.valid) >>>
          0,
        answer.errorCode ?? 0,
      );
      break;
    case 'malformed':
      refused(call, vp, answer.reason, ghcb.low(page, 'exitCode'));
      ghcb.setHalves(page, 'exitInfo1', GHCB_RESULT.malformed, 0);
      ghcb.setHalves(page, 'exitInfo2', answer.reason, 0);
      break;
  }
  call.view.write(gpa, page);
}

function refused(call: HostCall, vp: VpState, reason: number, code: number): void {
  if (call.sink.mask & EVENT_CLASS.exit)
    call.sink.emit(EVENT.ghcbRefused, call.now, vp.index, code, reason, 0, 0);
}

function give({ page }: Request, ...fields: readonly (readonly [GhcbField, number, number?])[]): Answer {
  for (const [field, lo, hi] of fields) {
    ghcb.setHalves(page, field as 'rax', lo >>> 0, (hi ?? 0) >>> 0);
    setValid(page, field);
  }
  return DONE;
}

/** A completion of the partition's own exits, as the GHCB says it. */
function completed(request: Request, completion: Completion, field?: GhcbField): Answer {
  switch (completion.kind) {
    case 'fault':
      return { kind: 'inject', vector: completion.vector, errorCode: completion.errorCode };
    case 'value':
      return field === undefined ? DONE : give(request, [field, completion.lo, completion.hi]);
    default:
      return DONE;
  }
}

function tsc({ page, call }: Request): Answer {
  const ticks =
    BigInt(Math.floor(call.now)) * BigInt(Math.round(call.state.config.tscHz / 1e9)) +
    call.state.config.tscAtZero;
  ghcb.set(page, 'rax', ticks & 0xffffffffn);
  ghcb.set(page, 'rdx', (ticks >> 32n) & 0xffffffffn);
  ghcb.set(page, 'rcx', 0n);
  for (const field of ['rax', 'rdx', 'rcx'] as const) setValid(page, field);
  return DONE;
}

function cpuid(request: Request): Answer {
  const { page, call, vp } = request;
  const xcr0 = isValid(page, 'xcr0') ? ghcb.low(page, 'xcr0') : 1;
  const xss = isValid(page, 'xss') ? ghcb.low(page, 'xss') : 0;
  const r = cpuidForGuest(call, vp, ghcb.low(page, 'rax'), ghcb.low(page, 'rcx'), xcr0, xss);
  return give(request, ['rax', r.eax], ['rbx', r.ebx], ['rcx', r.ecx], ['rdx', r.edx]);
}

/** Where the scratch area lies in the copied page: only inside the shared buffer. Undefined: somewhere else. */
function buffer({ page, call, gpa }: Request, length: number): number | undefined {
  const high = ghcb.high(page, 'scratch');
  if (high >= 0x20_0000) return undefined;
  const scratch = withoutAlias(call, high * 0x1_0000_0000 + ghcb.low(page, 'scratch'));
  const at = scratch - gpa;
  const ok = at >= SHARED_BUFFER.offset && at + length <= SHARED_BUFFER.offset + SHARED_BUFFER.size;
  return ok ? at : undefined;
}

function io(request: Request): Answer {
  const { page, call, vp } = request;
  const word = ghcb.low(page, 'exitInfo1');
  const port = word >>> 16;
  const size = word & IOIO.size8 ? 1 : word & IOIO.size16 ? 2 : word & IOIO.size32 ? 4 : 0;
  if (size === 0) return malformed(GHCB_ERROR.invalidInput);
  const write = (word & IOIO.in) === 0;
  if ((word & IOIO.string) === 0) {
    if (write && !isValid(page, 'rax')) return malformed(GHCB_ERROR.missingInput);
    const mask = size === 4 ? 0xffff_ffff : (1 << (8 * size)) - 1;
    const value = write ? (ghcb.low(page, 'rax') & mask) >>> 0 : 0;
    return completed(request, answerIo(call, vp, { kind: 'io', port, size, write, value }), 'rax');
  }
  if (!isValid(page, 'scratch')) return malformed(GHCB_ERROR.missingInput);
  const count = ghcb.low(page, 'exitInfo2');
  if (ghcb.high(page, 'exitInfo2') !== 0 || count > SHARED_BUFFER.size)
    return malformed(GHCB_ERROR.invalidScratch);
  const start = buffer(request, count * size);
  if (start === undefined) return malformed(GHCB_ERROR.invalidScratch);
  for (let k = 0; k < count; k++) {
    const at = start + k * size;
    let value = 0;
    if (write) for (let b = size - 1; b >= 0; b--) value = (value * 256 + (page[at + b] as number)) >>> 0;
    const completion = answerIo(call, vp, { kind: 'io', port, size, write, value });
    if (completion.kind === 'fault') return completed(request, completion);
    if (completion.kind === 'value')
      for (let b = 0; b < size; b++) page[at + b] = (completion.lo >>> (8 * b)) & 0xff;
  }
  return DONE;
}

function msr(request: Request): Answer {
  const { page, call, vp, target } = request;
  const index = ghcb.low(page, 'rcx');
  const direction = ghcb.low(page, 'exitInfo1');
  if (direction > 1) return malformed(GHCB_ERROR.invalidInput);
  const write = direction === 1;
  if (write && (!isValid(page, 'rax') || !isValid(page, 'rdx'))) return malformed(GHCB_ERROR.missingInput);
  const lo = write ? ghcb.low(page, 'rax') : 0;
  const hi = write ? ghcb.low(page, 'rdx') : 0;
  if (target.vmpl !== PARAVISOR_VMPL && !guestMayReach(index))
    return { kind: 'inject', vector: 13, errorCode: 0 };
  const own = write ? writeProcessorMsr(target, index, { lo, hi }) : readProcessorMsr(target, index);
  if (own === false) return { kind: 'inject', vector: 13, errorCode: 0 };
  if (own === true) return DONE;
  if (own !== undefined) return give(request, ['rax', own.lo], ['rdx', own.hi]);
  const completion = answerMsr(call, vp, { kind: 'msr', index, write, lo, hi });
  if (completion.kind === 'value') return give(request, ['rax', completion.lo], ['rdx', completion.hi]);
  return completed(request, completion);
}

/** Registers of a hypercall, by Hyper-V name. */
type HypercallRegisters = Map<number, readonly [lo: number, hi: number]>;

/** The host's view with these registers, and with the copied page in place of the guest's. */
function withRegisters({ page, gpa }: Request, view: HostView, registers: HypercallRegisters): HostView {
  return {
    ...view,
    read(at, length) {
      const isCopy = at >= gpa && at + length <= gpa + PAGE;
      return isCopy ? { ok: true, bytes: page.slice(at - gpa, at - gpa + length) } : view.read(at, length);
    },
    getRegister(_vp, name): RegisterValue | undefined {
      const found = registers.get(name);
      return found === undefined ? undefined : [found[0], found[1], 0, 0];
    },
    setRegister(_vp, name, [lo, hi]) {
      registers.set(name, [lo, hi]);
      return true;
    },
  };
}

/** A hypercall whose continuation the guest cannot be asked for: it is carried on until it is done. */
function runHypercall(request: Request, cpl: number, registers: HypercallRegisters): Completion {
  const { call, vp, target } = request;
  if (call.sink.mask & EVENT_CLASS.hypercall) {
    const code = (registers.get(REGISTER.rcx)?.[0] ?? 0) & 0xffff;
    call.sink.emit(EVENT.hypercallRoute, call.now, vp.index, code, target.vmpl, -1, 0);
  }
  const inner: HostCall = { ...call, view: withRegisters(request, call.view, registers) };
  for (;;) {
    const completion =
      answerHypercall(inner, vp, { kind: 'hypercall', long: true, cpl }, HYPERCALLS, { call: inner, vp }) ??
      UD;
    if (completion.kind !== 'again') return completion;
  }
}

/** VMMCALL with Hyper-V's registers: control in RCX, input in RDX, output in R8. */
function vmmcall(request: Request): Answer {
  const { page } = request;
  const registers: HypercallRegisters = new Map();
  for (const [name, field] of [
    [REGISTER.rax, 'rax'],
    [REGISTER.rcx, 'rcx'],
    [REGISTER.rdx, 'rdx'],
    [REGISTER.r8, 'r8'],
  ] as const)
    if (isValid(page, field)) registers.set(name, [ghcb.low(page, field), ghcb.high(page, field)]);
  return completed(request, runHypercall(request, ghcb.get(page, 'cpl'), registers), 'rax');
}

function mmio(request: Request, write: boolean): Answer {
  const { page, call, vp } = request;
  const size = ghcb.low(page, 'exitInfo2');
  if (size !== 1 && size !== 2 && size !== 4 && size !== 8) return malformed(GHCB_ERROR.invalidInput);
  const at = buffer(request, size);
  if (at === undefined) return malformed(GHCB_ERROR.invalidScratch);
  const high = ghcb.high(page, 'exitInfo1');
  if (high >= 0x20_0000) return malformed(GHCB_ERROR.invalidInput);
  const gpa = withoutAlias(call, high * 0x1_0000_0000 + ghcb.low(page, 'exitInfo1'));
  const value = new Uint8Array(8);
  if (write) value.set(page.subarray(at, at + size));
  const completion = answerMmio(call, vp, {
    kind: 'mmio',
    gpa,
    size,
    write,
    lo: u32(value, 0),
    hi: u32(value, 4),
  });
  if (completion.kind === 'value') {
    const view = new DataView(value.buffer);
    view.setUint32(0, completion.lo, true);
    view.setUint32(4, completion.hi, true);
    page.set(value.subarray(0, size), at);
  }
  return completed(request, completion);
}

/** Until an interrupt or a start: the answer that is not zero says that it was woken. */
function hold({ vp }: Request): Answer {
  vp.activity = 'halted';
  vp.haltedWithInterrupts = true;
  return { kind: 'done', lo: 1 };
}

const PSC_HEADER = 8;
const PSC_ENTRY = 8;
/** Errors of a page state change: high word of info 2 (56421, table 10). */
const PSC_GENERIC = 0x100;
const PSC_INVALID = 1;

function pageStates(request: Request): Answer {
  const { page, call } = request;
  const start = buffer(request, PSC_HEADER);
  if (start === undefined) return malformed(GHCB_ERROR.invalidScratch);
  const current = u16(page, start);
  const end = u16(page, start + 2);
  if (current > end || end >= MOST_PAGE_STATE_ENTRIES || u32(page, start + 4) !== 0)
    return { kind: 'done', lo: 1, hi: PSC_INVALID };
  if (buffer(request, PSC_HEADER + (end + 1) * PSC_ENTRY) === undefined)
    return malformed(GHCB_ERROR.invalidScratch);
  const world = pageWorld(call);
  for (let index = current; index <= end; index++) {
    const at = start + PSC_HEADER + index * PSC_ENTRY;
    const low = u32(page, at);
    const high = u32(page, at + 4);
    const operation = (high >>> 20) & 0xf;
    const large = ((high >>> 24) & 1) !== 0;
    const done = low & 0xfff;
    const gpa = (high & 0xf_ffff) * 0x1_0000_0000 + ((low & ~0xfff) >>> 0);
    const isBad =
      high >>> 25 !== 0 || gpa % (large ? BLOCK : PAGE) !== 0 || done > (large ? BLOCK / PAGE : 1);
    if (isBad) return { kind: 'done', lo: 2, hi: PSC_INVALID };
    let ok = false;
    if (operation === PAGE_OPERATION.private || operation === PAGE_OPERATION.shared) {
      ok = changePageState(world, gpa, large, operation === PAGE_OPERATION.private);
      tracePageStateRequest(request.call, request.vp, request.target, gpa, ok);
    } else if (operation === PAGE_OPERATION.psmash && large) ok = smashPage(world, gpa);
    // Joining again is an optimisation that the specification lets a host leave out.
    else if (operation === PAGE_OPERATION.unsmash && large) ok = true;
    else return { kind: 'done', lo: 2, hi: PSC_INVALID };
    if (!ok) return { kind: 'done', lo: 0, hi: PSC_GENERIC };
    // As many pages as the entry has are done, and it is behind us.
    page[at] = (large ? BLOCK / PAGE : 1) & 0xff;
    page[at + 1] = ((page[at + 1] as number) & 0xf0) | ((large ? BLOCK / PAGE : 1) >>> 8);
    page[start] = (index + 1) & 0xff;
    page[start + 1] = (index + 1) >>> 8;
  }
  return DONE;
}

/** VMM errors in the high word of info 2. */
const VMM_INVALID_LENGTH = 1;
/** Pages for certificates that an event tells of, whatever a guest asks for. */
const MOST_OFFERED = 16;

function guestRequest(request: Request, extended: boolean): Answer {
  const { page, call } = request;
  const { snp } = call.state;
  const view = snpView(call.view);
  const address = (field: 'exitInfo1' | 'exitInfo2' | 'rax'): number | undefined => {
    const high = ghcb.high(page, field);
    if (high >= 0x20_0000) return undefined;
    const gpa = withoutAlias(call, high * 0x1_0000_0000 + ghcb.low(page, field));
    return gpa % PAGE === 0 && snp !== undefined && isShared(snp, gpa, PAGE) ? gpa : undefined;
  };
  const from = address('exitInfo1');
  const to = address('exitInfo2');
  if (from === undefined || to === undefined || from === to) return malformed(GHCB_ERROR.invalidInput);
  if (extended) {
    const table = view.certificates();
    const pages = ghcb.low(page, 'rbx');
    const needed = Math.ceil(table.length / PAGE);
    if (pages < needed || ghcb.high(page, 'rbx') !== 0) {
      give(request, ['rbx', needed]);
      return { kind: 'done', lo: 0, hi: VMM_INVALID_LENGTH };
    }
    const data = address('rax');
    if (data === undefined || snp === undefined || !isShared(snp, data, needed * PAGE))
      return malformed(GHCB_ERROR.invalidInput);
    const padded = new Uint8Array(needed * PAGE);
    padded.set(table);
    call.view.write(data, padded);
    // All that the guest offered for it, within reason.
    for (let at = 0; at < Math.min(pages, MOST_OFFERED); at++) pageUse(request, data + at * PAGE);
  }
  for (const gpa of [from, to]) pageUse(request, gpa);
  const fromSpa = spaOf(view, from);
  const toSpa = spaOf(view, to);
  if (fromSpa === undefined || toSpa === undefined) return malformed(GHCB_ERROR.invalidInput);
  return { kind: 'done', lo: view.guestRequest(fromSpa, toSpa), hi: 0 };
}

function pageUse({ call, vp }: Request, gpa: number): void {
  if (call.sink.mask & EVENT_CLASS.page)
    call.sink.emit(EVENT.pageUse, call.now, vp.index, gpa, PAGE_USE.guestMessage, 0, 0);
}

function apCreation({ page, call }: Request): Answer {
  const word = ghcb.low(page, 'exitInfo1');
  const apicId = ghcb.high(page, 'exitInfo1');
  const operation = word & 0xffff;
  const level = (word >>> 16) & 0xf;
  const high = ghcb.high(page, 'exitInfo2');
  const vp = call.state.vps[apicId];
  const target = call.state.snp?.vps[apicId];
  if (vp === undefined || target === undefined || operation > 2 || high >= 0x20_0000)
    return malformed(GHCB_ERROR.invalidInput);
  if (operation === 2) {
    target.vmsas[level] = -1;
    if (target.vmpl === level) vp.activity = 'waiting';
    return DONE;
  }
  if (!isValid(page, 'rax')) return malformed(GHCB_ERROR.missingInput);
  if (!setVmsa(call, target, level, high * 0x1_0000_0000 + ghcb.low(page, 'exitInfo2')))
    return malformed(GHCB_ERROR.invalidInput);
  // 0: at the next INIT, which nobody sends; 1: now.
  if (operation === 1) startContext(call, vp, target, level);
  return DONE;
}

/** Subfunctions: 0 preferred address, 1 set, 2 query, 3 clear. */
function doorbell({ page, call, target }: Request): Answer {
  const { snp } = call.state;
  const high = ghcb.high(page, 'exitInfo2');
  const gpa = high < 0x20_0000 ? withoutAlias(call, high * 0x1_0000_0000 + ghcb.low(page, 'exitInfo2')) : -1;
  switch (ghcb.low(page, 'exitInfo1')) {
    case 0:
      return { kind: 'done', lo: 0xffff_ffff, hi: 0xffff_ffff };
    case 1:
      if (gpa < 0 || gpa % PAGE !== 0 || snp === undefined || !isShared(snp, gpa, PAGE))
        return malformed(GHCB_ERROR.invalidInput);
      target.doorbell = gpa;
      return DONE;
    case 2:
      return {
        kind: 'done',
        lo: target.doorbell >>> 0,
        hi: Math.max(0, Math.floor(target.doorbell / 0x1_0000_0000)),
      };
    case 3:
      target.doorbell = -1;
      return DONE;
    default:
      return malformed(GHCB_ERROR.invalidInput);
  }
}

/** The ICR of the caller's local APIC, as x2APIC has it. */
function ipi({ page, call, vp }: Request): Answer {
  apicWriteIcr(call, vp, ghcb.low(page, 'exitInfo1'), ghcb.high(page, 'exitInfo1'));
  return DONE;
}

function vmpl({ page, call, target }: Request): Answer {
  return runVmpl(call, target, ghcb.low(page, 'exitInfo1') & 0xff)
    ? DONE
    : malformed(GHCB_ERROR.invalidInput);
}

function terminationRequest({ page, call, vp }: Request): Answer {
  const word = ghcb.low(page, 'exitInfo1');
  terminate(call, vp, word & 0xf, (word >>> 4) & 0xff, ghcb.get(page, 'exitInfo2'));
  return DONE;
}
