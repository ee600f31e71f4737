/**
 * What a paravisor takes off its guest, as an ordered list of named parts: each moves one responsibility from the guest, or from
 * the untrusted host, into the paravisor. Isolation leaf, feature bits and behaviour follow from the parts that are on.
 */

export interface Part {
  readonly name: string;
  /** What the guest has without it. */
  readonly without: string;
  /** A part that this one cannot do without. */
  readonly needs?: string;
}

/**
 * In the order of the spectrum, from "fully enlightened" to "knows nothing". The first three are what makes a guest of a
 * paravisor run at all; they are on always, so they have no entry.
 */
export const PARTS = [
  {
    name: 'irq.filtered',
    without: 'every vector that the host sends reaches the guest’s local APIC',
    needs: 'irq.apic',
  },
  { name: 'mem.preaccepted', without: 'memory that was not loaded at launch is not accepted' },
  { name: 'exc.reflect', without: '#VC (SNP) and #VE (TDX) are delivered to the guest' },
  { name: 'cpuid.trusted', without: 'the host answers CPUID' },
  { name: 'mem.visibility-call', without: 'HvCallModifySparseGpaPageHostVisibility is not served' },
  { name: 'irq.apic', without: 'the host owns the local APICs' },
  { name: 'ap.start', without: 'INIT, SIPI and HvCallStartVirtualProcessor start nobody' },
  {
    name: 'time.trusted',
    without: 'reference time and synthetic timers are the host’s',
    needs: 'irq.apic',
  },
  { name: 'dev.ioapic', without: 'the host owns the IO-APIC', needs: 'irq.apic' },
  {
    name: 'dev.legacy',
    without: 'the host owns UARTs, clock chip and power management',
    needs: 'dev.ioapic',
  },
] as const satisfies readonly Part[];

export type PartName = (typeof PARTS)[number]['name'];

export const partBit = (name: PartName): number => 1 << PARTS.findIndex((part) => part.name === name);

export const ALL_PARTS = (1 << PARTS.length) - 1;

export const hasPart = (parts: number, name: PartName): boolean => (parts & partBit(name)) !== 0;

/** All parts but these and those that need them, directly or not: a part comes after what it needs, but for the filter. */
export function partsWithout(names: readonly string[]): number {
  const without = new Set(names);
  for (const part of PARTS) if ('needs' in part && without.has(part.needs)) without.add(part.name);
  return PARTS.reduce((bits, { name }) => (without.has(name) ? bits & ~partBit(name) : bits), ALL_PARTS);
}

/** A comma-separated list as bits; the name that is none otherwise. */
export function parseParts(
  list: string,
): { readonly ok: true; readonly parts: number } | { readonly ok: false; readonly unknown: string } {
  let parts = 0;
  for (const word of list.split(',')) {
    const name = word.trim();
    const index = PARTS.findIndex((part) => part.name === name);
    if (index < 0) return { ok: false, unknown: name };
    parts |= 1 << index;
  }
  return { ok: true, parts };
}
