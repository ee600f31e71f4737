/**
 * While the guest changes the visibility of pages, nothing maps them. Linux may still read across the end of the page before
 * (load_unaligned_zeropad): this test makes it do so at the call itself, and it gets zeros in place of what is not there.
 */
import { Decoder, DecoderOptions, Instruction, OpKind, Register, RegisterExt } from 'iced-x86';
import { expect, test } from 'vitest';
import { CALL } from '../../src/abi/hyperv/hypercall.ts';
import { hostVisibilityInput } from '../../src/abi/hyperv/inputs.ts';
import { SVM_EXIT } from '../../src/abi/snp/exit-codes.ts';
import { GENERAL_REGISTERS } from '../../src/abi/general-registers.ts';
import { vmsa } from '../../src/abi/snp/vmsa.ts';
import type { HostState } from '../../src/host/state.ts';
import type { Exit } from '../../src/seats/exits.ts';
import type { Machine, Platform, World } from '../../src/machine/machine.ts';
import { whyNoKernel } from '../e2e/vitrine.ts';
import { makeLinux } from './linux.ts';

const missing = whyNoKernel();
const reason = missing === undefined ? '' : ` (skipped: no kernel: ${missing})`;

const PAGE = 4096;
/** Without KASLR (Linux Documentation/arch/x86/x86_64/mm.rst). */
const DIRECT_MAP = 0xffff_8880_0000_0000n;
const KERNEL_MAP = 0xffff_ffff_8000_0000n;
/** Linux arch/x86/include/asm/extable_fixup_types.h. */
const EX_TYPE_ZEROPAD = 20;
const ENTRY = 12;
/** The load begins so many bytes before the page. */
const BEFORE = 3;

const SYMBOLS =
  "grep -E '__(start|stop)___ex_table' /proc/kallsyms > /dev/console; echo ready > /dev/console";

interface Load {
  readonly address: bigint;
  readonly length: number;
  readonly base: (typeof GENERAL_REGISTERS)[number];
  readonly displacement: bigint;
  readonly target: (typeof GENERAL_REGISTERS)[number];
}

const general = (register: Register): (typeof GENERAL_REGISTERS)[number] =>
  GENERAL_REGISTERS[RegisterExt.number(register)] as (typeof GENERAL_REGISTERS)[number];

/** A load of 8 bytes through one register, from the exception table of the kernel. */
function findLoad(machine: Machine, start: bigint, stop: bigint): Load {
  const table = machine.truth.read(Number(start - KERNEL_MAP), Number(stop - start)) as Uint8Array;
  const view = new DataView(table.buffer, table.byteOffset);
  for (let at = 0; at < table.length; at += ENTRY) {
    if (view.getUint8(at + 8) !== EX_TYPE_ZEROPAD) continue;
    const address = start + BigInt(at) + BigInt(view.getInt32(at, true));
    const code = machine.truth.read(Number(address - KERNEL_MAP), 15) as Uint8Array;
    const decoder = new Decoder(64, code, DecoderOptions.None);
    const instruction = new Instruction();
    decoder.decodeOut(instruction);
    const { memoryBase, memoryIndex, op0Kind, op0Register, length, memoryDisplacement } = instruction;
    const fits =
      op0Kind === OpKind.Register &&
      RegisterExt.isGPR64(op0Register) &&
      RegisterExt.isGPR64(memoryBase) &&
      memoryBase !== Register.RSP &&
      memoryIndex === Register.None;
    const load = fits && {
      address,
      length,
      base: general(memoryBase),
      displacement: memoryDisplacement,
      target: general(op0Register),
    };
    instruction.free();
    decoder.free();
    if (load !== false) return load;
  }
  throw new Error('no such load');
}

/** Guest pages that the call at hand names. */
function pagesOf(machine: Machine, context: Uint8Array): readonly bigint[] {
  const count = (vmsa.high(context, 'rcx') & 0xfff) as number;
  const input = machine.truth.read(Number(vmsa.get(context, 'rdx')), hostVisibilityInput.size + 8 * count);
  if (input === undefined) return [];
  const view = new DataView(input.buffer, input.byteOffset);
  return Array.from({ length: count }, (_, k) => view.getBigUint64(hostVisibilityInput.size + 8 * k, true));
}

const PRESENT = 1n;
const LARGE = 0x80n;

/** Whether the guest's page tables map `address`. */
function isMapped(machine: Machine, cr3: bigint, address: bigint): boolean {
  let table = cr3;
  for (const shift of [39n, 30n, 21n, 12n]) {
    const at = (table & 0xf_ffff_ffff_f000n) + 8n * ((address >> shift) & 511n);
    const bytes = machine.truth.read(Number(at), 8) as Uint8Array;
    table = new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true);
    if ((table & PRESENT) === 0n) return false;
    if ((table & LARGE) !== 0n) break;
  }
  return true;
}

interface Window {
  readonly page: bigint;
  readonly exit: Exit;
  readonly world: World;
  readonly saved: Uint8Array;
}

test.skipIf(missing !== undefined)(
  `snp-paravisor: a load across the end of the page before a page whose visibility changes is fixed up${reason}`,
  async () => {
    // Without KASLR the second boot has everything where the first one had it.
    const configuration = 'snp-paravisor';
    const first = await makeLinux({ configuration, command: SYMBOLS, append: 'nokaslr' });
    expect(first.runUntil('ready')).toBe(true);
    const symbol = (name: string): bigint =>
      BigInt(`0x${new RegExp(`([0-9a-f]{16}) . ${name}`).exec(first.console())?.[1] ?? '0'}`);
    const load = findLoad(first.machine, symbol('__start___ex_table'), symbol('__stop___ex_table'));

    const guest = await makeLinux({
      configuration,
      command: 'echo unharmed > /dev/console',
      append: 'nokaslr',
    });
    const { machine } = guest;
    const inner = machine.platform;
    const vmcb = (): number => (inner.state as HostState).snp?.vps[0]?.vmcb.vmsa ?? -1;
    const context = (): Uint8Array => {
      const { frames } = machine.engine.plan;
      return machine.engine.u8.subarray(frames + vmcb(), frames + vmcb() + PAGE);
    };
    const open: { window?: Window } = {};
    let calls = 0;
    let changed = 0;
    const alone: string[] = [];
    let last = -1n;
    let page = -1n;
    /** The guest stands behind the load: what it has is looked at, and it is put back to its call. */
    const close = ({ page, exit, world, saved }: Window): void => {
      const bytes = context();
      if (vmsa.get(bytes, 'vmpl') !== 2 || vmsa.get(bytes, 'rip') !== load.address + BigInt(load.length))
        return;
      const byte = Number(page) * PAGE;
      // It faulted at the first byte of the page, and has what lies before it.
      expect(vmsa.get(bytes, 'cr2')).toBe(DIRECT_MAP + BigInt(byte));
      const word = machine.truth.read(byte - 8, 8) as Uint8Array;
      const before = new DataView(word.buffer, word.byteOffset).getBigUint64(0, true);
      expect(vmsa.get(bytes, load.target)).toBe(before >> BigInt(8 * (8 - BEFORE)));
      const control = vmsa.get(bytes, 'vintrControl');
      bytes.set(saved);
      vmsa.set(bytes, 'vintrControl', control);
      delete open.window;
      inner.exit(0, exit, world);
    };
    const platform: Platform = {
      ...inner,
      get state() {
        return inner.state;
      },
      turn(now) {
        if (open.window !== undefined) close(open.window);
        const turn = inner.turn(now);
        return turn.kind === 'run' && open.window !== undefined ? { ...turn, instructions: 1 } : turn;
      },
      exit(vp, exit, world) {
        const bytes = context();
        const isCall =
          exit.kind === 'reflected' &&
          vmsa.low(bytes, 'exitCode') === SVM_EXIT.vmmcall &&
          (vmsa.low(bytes, 'rcx') & 0xffff) === CALL.modifySparseGpaPageHostVisibility;
        const pages = isCall ? pagesOf(machine, bytes) : [];
        const [begin] = pages;
        if (begin === undefined) return inner.exit(vp, exit, world);
        calls++;
        changed += pages.length;
        // Linux hides a range at once and changes its visibility in several calls: no page of it is mapped before the last one is
        // over, and a load that is to be fixed up begins before all of it.
        const edge = (at: bigint): bigint => DIRECT_MAP + at * BigInt(PAGE) - BigInt(BEFORE);
        const begins = (at: bigint): boolean => isMapped(machine, vmsa.get(bytes, 'cr3'), edge(at));
        if (begin !== last + 1n || begins(begin)) page = begin;
        last = pages.at(-1) ?? begin;
        // Nothing can be loaded where nothing is mapped: behind the paravisor's own pages there is no page before.
        if (!begins(page)) {
          alone.push(`0x${(page * BigInt(PAGE)).toString(16)}`);
          return inner.exit(vp, exit, world);
        }
        // The call waits, and the guest does something else first.
        open.window = { page, exit, world, saved: bytes.slice() };
        vmsa.setHalves(bytes, 'exitCode', SVM_EXIT.interrupt, 0);
        vmsa.set(bytes, 'rip', load.address);
        vmsa.set(bytes, load.base, edge(page) - load.displacement);
        return { completion: { kind: 'done' }, actions: [] };
      },
    };
    machine.attach(platform);

    expect(guest.runUntil('unharmed', 3_000_000_000), guest.console()).toBe(true);
    expect(open.window).toBeUndefined();
    console.log(
      `${calls} visibility calls, ${changed} pages: a load into each window, but for ${alone.join()}`,
    );
    // Bounce buffers first, 64 MiB in calls of 510 pages; then the pools of atomic DMA; then VMBus.
    expect(calls).toBeGreaterThan(33);
    expect(changed).toBeGreaterThan(0x4000);
    expect(alone).toEqual(['0x400000']);
  },
);
