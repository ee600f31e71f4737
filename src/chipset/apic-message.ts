/** What local APICs and IO-APICs send each other (Intel SDM vol. 3, 11.6 and 11.11; AMD APM vol. 2, 16.6). */

/** Delivery modes, as encoded in ICR, LVT, redirection entries and MSIs. */
export const DELIVERY = {
  fixed: 0,
  lowestPriority: 1,
  smi: 2,
  remoteRead: 3,
  nmi: 4,
  init: 5,
  startup: 6,
  extInt: 7,
} as const;

export interface ApicMessage {
  /** One of DELIVERY. */
  readonly delivery: number;
  readonly vector: number;
  /** Level-triggered: the receiver sets TMR and its EOI is broadcast. */
  readonly level: boolean;
  readonly target: 'destination' | 'self' | 'all' | 'others';
  /** The rest matters for target `destination` only. */
  readonly logical: boolean;
  readonly destination: number;
  /** A 32-bit destination, from an APIC in x2APIC mode: broadcast is 0xFFFFFFFF then, otherwise 0xFF. */
  readonly wide: boolean;
}

/**
 * The message that a write to the MSI window makes (SDM vol. 3, 11.11). Bits 11:5 of the address carry destination
 * bits 14:8 where the platform says so (extended destination ID); otherwise they are 0.
 */
export function messageOfMsi(address: number, data: number, extendedDestination = false): ApicMessage {
  return {
    delivery: (data >>> 8) & 7,
    vector: data & 0xff,
    level: (data & 0x8000) !== 0,
    target: 'destination',
    logical: (address & 4) !== 0,
    destination: ((address >>> 12) & 0xff) | (extendedDestination ? ((address >>> 5) & 0x7f) << 8 : 0),
    wide: false,
  };
}
