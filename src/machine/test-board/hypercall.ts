/**
 * VMCALL and VMMCALL on the test board. Its programs know KVM's calls (Linux, Documentation/virt/kvm/x86/hypercalls.rst):
 * the one that sends interrupts works, the others are answered as unknown.
 */
import { REGISTER } from '../../abi/hyperv/registers.ts';
import { DELIVERY } from '../../chipset/apic-message.ts';
import { lapicDeliver } from '../../chipset/lapic.ts';
import type { Completion, HypercallExit } from '../../seats/exits.ts';
import { settle } from './interrupts.ts';
import type { BoardCall, BoardVp } from './state.ts';

const SEND_IPI = 10;
const ENOSYS = -1000;
const EINVAL = -22;
const EPERM = -1;

const result = (code: number): Completion => ({
  kind: 'value',
  lo: code >>> 0,
  hi: code < 0 ? 0xffffffff : 0,
});

export function answerHypercall(call: BoardCall, vp: BoardVp, exit: HypercallExit): Completion {
  const read = (name: number): number => call.view.getRegister(vp.index, name)?.[0] ?? 0;
  if (exit.cpl !== 0) return result(EPERM);
  if (read(REGISTER.rax) !== SEND_IPI) return result(ENOSYS);
  const high = (name: number): number => (exit.long ? (call.view.getRegister(vp.index, name)?.[1] ?? 0) : 0);
  // Two bitmaps of a machine word each, from the APIC ID in the third argument on.
  const words = exit.long
    ? [read(REGISTER.rbx), high(REGISTER.rbx), read(REGISTER.rcx), high(REGISTER.rcx)]
    : [read(REGISTER.rbx), read(REGISTER.rcx)];
  const first = read(REGISTER.rdx);
  const command = read(REGISTER.rsi);
  const delivery = (command >>> 8) & 7;
  if (delivery !== DELIVERY.fixed && delivery !== DELIVERY.nmi) return result(EINVAL);
  let sent = 0;
  for (const [i, word] of words.entries()) {
    for (let bit = 0; bit < 32; bit++) {
      const target = call.board.vps[first + i * 32 + bit];
      if (((word >>> bit) & 1) === 0 || target === undefined) continue;
      settle(call, target, lapicDeliver(target.apic, delivery, command & 0xff, false));
      sent++;
    }
  }
  return result(sent);
}
