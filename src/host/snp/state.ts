/** What a host remembers of an SNP guest: VMCBs, registered GHCBs, which pages it gave away. Plain data. */
import { SVM_INTERCEPT, type Halves, type SnpHostView, type Vmcb } from '../../seats/snp.ts';
import type { HostView } from '../../seats/host-view.ts';

/** The one guest's. */
export const ASID = 1;
export const VMPLS = 4;
export const PAGE = 4096;
export const BLOCK = 2 << 20;

export interface SnpVp {
  readonly vmcb: Vmcb;
  /** Guest-physical address of the GHCB that each VMPL has registered; -1: none. */
  readonly ghcbs: number[];
  /** GHCB MSR of each VMPL; that of the one in the VMCB lies there. */
  readonly ghcbMsrs: Halves[];
  /** System-physical address of the VMSA for each VMPL; -1: none. */
  readonly vmsas: number[];
  vmpl: number;
  /** MSRs that are the processor's own elsewhere and this host's here: MTRRs, machine check... */
  readonly msrs: Record<number, Halves>;
  /** #HV doorbell page; -1: none. */
  doorbell: number;
}

/** What the host has made of a page of guest-physical memory. */
export const PAGE_KIND = { none: 0, shared: 1, private: 2, privateLarge: 3 } as const;

export interface SnpHost {
  readonly vps: SnpVp[];
  /** PAGE_KIND by guest-physical page. */
  pages: Uint8Array;
  /** Addresses with this bit are the shared aliases of those without; 0: there are none. */
  readonly aliasBit: number;
}

const INTERCEPTS =
  SVM_INTERCEPT.vmmcall |
  SVM_INTERCEPT.hlt |
  SVM_INTERCEPT.rdpmc |
  SVM_INTERCEPT.cache |
  SVM_INTERCEPT.monitor;

const none = (): Halves => ({ lo: 0, hi: 0 });

export function createSnpHost(vpCount: number, aliasBit: number): SnpHost {
  return {
    vps: Array.from({ length: vpCount }, () => ({
      vmcb: {
        vmsa: 0,
        asid: ASID,
        intercepts: INTERCEPTS,
        ghcb: none(),
        eventInj: none(),
        allowedFeatures: undefined,
        exitCode: 0,
        exitInfo1: none(),
        exitInfo2: none(),
        exitIntInfo: none(),
        virtualTpr: 0,
      },
      ghcbs: [-1, -1, -1, -1],
      ghcbMsrs: [none(), none(), none(), none()],
      vmsas: [-1, -1, -1, -1],
      vmpl: 0,
      msrs: {},
      doorbell: -1,
    })),
    pages: new Uint8Array(0),
    aliasBit,
  };
}

/** The view of an SNP host; a host of another kind has another. */
export function snpView(view: HostView): SnpHostView {
  if (!('rmpupdate' in view))
    throw new Error('the host of an SNP guest was given the view of another silicon');
  return view as SnpHostView;
}

/** System address of a guest page as the nested table has it; undefined where there is none. */
export function spaOf(view: SnpHostView, gpa: number): number | undefined {
  const mapping = view.mapping(gpa);
  return mapping.kind === 'page' ? mapping.spa + (gpa % PAGE) : undefined;
}
