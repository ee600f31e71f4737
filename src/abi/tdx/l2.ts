/** What L1 and the module exchange about an L2 VM (TDX Module 1.5 TD Partitioning, 354807). */
import { record } from '../record.ts';

/** Registers in encoding order, then RFLAGS, RIP, SSP and the interrupt status. */
export const L2_ENTER_GUEST_STATE = record(
  'L2_ENTER_GUEST_STATE',
  'TDX Module 1.5 ABI, L2_ENTER_GUEST_STATE',
  160,
  [
    { name: 'gprs', offset: 0, width: 128, bytes: true },
    { name: 'rflags', offset: 128, width: 8 },
    { name: 'rip', offset: 136, width: 8 },
    { name: 'ssp', offset: 144, width: 8 },
    { name: 'rvi', offset: 152, width: 1 },
    { name: 'svi', offset: 153, width: 1 },
  ],
);
export const L2_ENTER_STATE_ALIGNMENT = 256;

/** L2_CTLS. */
export const L2_CTL = {
  enableSharedEptp: 1n,
  enableTdvmcall: 2n,
  enableExtendedVe: 4n,
  writable: 7n,
} as const;

/** An attribute word of TDG.MEM.PAGE.ATTR.RD and WR; in the flags word bit 15 asks for INVEPT. */
export const PAGE_ATTRIBUTE = {
  read: 1,
  write: 2,
  executeSupervisor: 4,
  executeUser: 8,
  verifyGuestPaging: 16,
  pagingWrite: 32,
  supervisorShadowStack: 64,
  suppressVe: 128,
  valid: 0x8000,
} as const;

/** TDG.VP.ENTER, RCX[1:0]: translations that go before the entry. */
export const ENTER_INVALIDATE = { none: 0, ept: 1, all: 2, nonGlobal: 3 } as const;
