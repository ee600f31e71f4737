/**
 * Where everything goes in a Debian boot below a paravisor at L1, from the event stream and from what the host was asked: no #VE in
 * the guest, the leaf that names a TD hidden, devices of the paravisor by private references, calls and SynIC registers by their
 * routes. The pages that are shared, and those in transition, are the matrix's part.
 */
import { expect, test } from 'vitest';
import { EVENT, EVENT_CLASS } from '../../src/abi/events.ts';
import { EXIT_KINDS, EXIT_ROUTES } from '../../src/abi/exit-kinds.ts';
import { CALL } from '../../src/abi/hyperv/hypercall.ts';
import { MSR } from '../../src/abi/hyperv/msr.ts';
import { TDVMCALL } from '../../src/abi/tdx/ghci.ts';
import { whyNoKernel } from '../e2e/vitrine.ts';
import { makeLinux } from './linux.ts';

const missing = whyNoKernel();
const reason = missing === undefined ? '' : ` (skipped: no kernel: ${missing})`;

const HOST = -1;
const L1 = 0;
const L2 = 1;
const IO_APIC = 0xfec0_0000;
const TDX_LEAF = 0x21;
/** "Inte" of "IntelTDX    ". */
const SIGNATURE = 0x6574_6e49;

const count = (map: Map<string, number>, key: string): void => void map.set(key, (map.get(key) ?? 0) + 1);
const isSynic = (index: bigint): boolean => index >= BigInt(MSR.scontrol) && index <= BigInt(MSR.sint0 + 15);

test.skipIf(missing !== undefined)(`tdx-paravisor: everything goes its way${reason}`, async () => {
  const exceptions = new Map<string, number>();
  const leaves = new Map<number, readonly [eax: number, ebx: number]>();
  const mmio = new Map<string, number>();
  const hypercalls = new Map<string, number>();
  const exits = new Map<string, number>();
  const guest = await makeLinux({
    configuration: 'tdx-paravisor',
    command: 'grep -q hv_vmbus /proc/modules && grep -c tdx /proc/cpuinfo',
    sink: {
      mask:
        EVENT_CLASS.exception | EVENT_CLASS.cpuid | EVENT_CLASS.io | EVENT_CLASS.hypercall | EVENT_CLASS.exit,
      emit: (type, _time, _vp, a, b, c, d) => {
        if (type === EVENT.confidentialException) count(exceptions, `${a} in ${c}`);
        else if (type === EVENT.cpuid) leaves.set(a >>> 0, [c >>> 0, d >>> 0]);
        else if (type === EVENT.mmioRoute && a - (a % 4096) === IO_APIC) count(mmio, `${b} to ${d}`);
        else if (type === EVENT.hypercallRoute) count(hypercalls, `${a} from ${b} to ${c}`);
        else if (type === EVENT.exit)
          count(exits, `${EXIT_KINDS[a] ?? a} ${EXIT_ROUTES[b] ?? b} from ${c} to ${d}`);
      },
    },
  });
  const { machine } = guest;
  const inner = machine.platform;
  const asked = new Map<string, number>();
  machine.attach({
    ...inner,
    get state() {
      return inner.state;
    },
    exit(vp, exit, world) {
      if (exit.kind === 'td-exit') {
        const [rax = 0n, rcx = 0n] = exit.registers;
        const fromL2 = ((rcx >> 52n) & 3n) === BigInt(L2);
        if (fromL2 && (rax & 0xffffn) === 77n) {
          const [r10 = 0n, r11 = 0n, r12 = 0n] = exit.registers.slice(10);
          const isMsr = r10 === 0n && (r11 === BigInt(TDVMCALL.rdmsr) || r11 === BigInt(TDVMCALL.wrmsr));
          count(
            asked,
            r10 !== 0n
              ? `call 0x${(r10 & 0xffffn).toString(16)}`
              : isMsr && isSynic(r12)
                ? 'SynIC register'
                : isMsr && r12 === BigInt(MSR.guestOsId)
                  ? 'identity'
                  : `function ${r11}, ${r12.toString(16)}`,
          );
        }
      }
      return inner.exit(vp, exit, world);
    },
  });
  for (;;) {
    const stop = machine.run(2 ** 30);
    if (stop.kind === 'budget') continue;
    expect(stop).toEqual({ kind: 'end', reason: 'power-off' });
    break;
  }
  console.info(
    JSON.stringify({ asked: [...asked], hypercalls: [...hypercalls], mmio: [...mmio], exits: [...exits] }),
  );

  // No #VE in L2; L1 is a program and has none either.
  expect([...exceptions]).toEqual([]);
  expect(leaves.get(TDX_LEAF)?.[1] ?? 0).not.toBe(SIGNATURE);
  expect(leaves.has(0x4000_000c)).toBe(true);
  expect([...mmio.keys()]).toEqual([`1 to ${L1}`]);

  // Straight to the host: two calls, registers of the SynIC, and the identity without which the host would not serve them.
  expect([...asked.keys()].sort()).toEqual([
    'SynIC register',
    `call 0x${CALL.postMessage.toString(16)}`,
    'identity',
  ]);
  const direct = [...hypercalls.keys()].filter((key) => key.endsWith(`from ${L2} to ${HOST}`));
  expect(direct).toEqual([`${CALL.postMessage} from ${L2} to ${HOST}`]);
  const trapped = [...hypercalls.keys()].filter((key) => key.endsWith(`from ${L2} to ${L1}`));
  expect(trapped).toContain(`${CALL.modifySparseGpaPageHostVisibility} from ${L2} to ${L1}`);

  // Nothing of L2 but such a call reaches the host.
  const toHost = [...exits.keys()].filter((key) => key.endsWith(`from ${L2} to ${HOST}`));
  expect(toHost.every((key) => key.startsWith('tdvmcall ') || key.startsWith('nested-fault '))).toBe(true);
});
