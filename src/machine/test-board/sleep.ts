/**
 * Suspend to memory (ACPI 6.5, 16.1.1): every processor stops, memory stays; an alarm of the RTC that is enabled to
 * wake the board starts the first processor at the address in the FACS.
 */
import { PM_STATUS, pmRaise } from '../../chipset/pm.ts';
import { initRegisters } from '../../chipset/lapic.ts';
import type { BoardCall } from './state.ts';
import { WAKING_VECTOR } from './tables.ts';

const PAGE = 0x1000;
const MIB = 0x100000;

export function suspend(call: BoardCall): void {
  const { board, actions } = call;
  board.asleep = true;
  for (const vp of board.vps) {
    initRegisters(vp.apic);
    vp.apic.waitsForStartup = vp.index !== 0;
    vp.nmis = 0;
    vp.activity = 'waiting';
    actions.push({ kind: 'init', vp: vp.index });
  }
}

/** The RTC's interrupt has risen. */
export function rtcAlarm(call: BoardCall): void {
  const { board } = call;
  pmRaise(board.pm, PM_STATUS.rtc);
  if (!board.asleep || (board.pm.enable & PM_STATUS.rtc) === 0) return;
  pmRaise(board.pm, PM_STATUS.wake);
  board.asleep = false;
  const vp = board.vps[0];
  const vector = wakingVector(call);
  // ACPI 5.2.10: real mode at the vector's segment. What starts a processor in real mode here starts it on a page.
  if (vp === undefined || vector === 0 || vector % PAGE !== 0 || vector >= MIB) {
    call.actions.push({ kind: 'end', reason: 'reset' });
    return;
  }
  vp.activity = 'running';
  call.actions.push({ kind: 'startup', vp: 0, vector: vector / PAGE });
}

function wakingVector({ view }: BoardCall): number {
  const read = view.read(WAKING_VECTOR, 4);
  if (!read.ok) return 0;
  return new DataView(read.bytes.buffer, read.bytes.byteOffset, 4).getUint32(0, true);
}
