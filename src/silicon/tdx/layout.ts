/** The module's part of a CPU structure, and its exit codes. */
import { CPU, EXIT } from '../../x86/layout.ts';

/** u32 each, for the second stage. */
export const PLATFORM = {
  /** 0: L1; 1 to 3: an L2 VM. */
  vm: CPU.platform,
  /** L2_CTLS.ENABLE_SHARED_EPTP. */
  sharedEpt: CPU.platform + 4,
  /** Mode-based execute control for EPT. */
  modeBasedExecute: CPU.platform + 8,
} as const;

/** Exit codes beside those of x86. */
export const EXIT_TDX = {
  tdcall: EXIT.platform,
  /** By `stage_exit`: the address has bits above the shared bit; nothing or too little is mapped; poison. */
  reservedAddress: EXIT.platform + 1,
  eptViolation: EXIT.platform + 2,
  integrity: EXIT.platform + 3,
} as const;
