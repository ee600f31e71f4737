/**
 * What a launch consists of: an ordered list of directives, the form that an IGVM file has. A loader makes it, a
 * measurement hashes it, the host carries it out.
 */

/** What stands behind a range of guest-physical addresses. */
export interface MemoryRange {
  readonly gpa: number;
  readonly length: number;
}

export interface RegionDirective {
  readonly kind: 'region';
  readonly gpa: number;
  readonly length: number;
  /** `rom`: contents come from page directives, the guest's writes are dropped. */
  readonly backing: 'ram' | 'rom';
}

/** Page types of the SNP launch and of IGVM: what the hardware makes of the page, and how it is measured. */
export type PageType = 'normal' | 'zero' | 'vmsa' | 'secrets' | 'cpuid' | 'shared';

/**
 * A run of whole pages, imported in ascending order. `data` may be shorter than the run: the rest is zero. It is a
 * view of the file where that is possible, so nobody may write to it.
 */
export interface PagesDirective {
  readonly kind: 'pages';
  readonly gpa: number;
  readonly length: number;
  readonly type: PageType;
  /** Whether the contents enter the launch digest. */
  readonly measured: boolean;
  /** What it is, for reports: `kernel`, `initrd`. */
  readonly name: string;
  readonly data: Uint8Array;
}

/** The registers that a VP starts with. `gpa` is the place of the context page where there is one (VMSA). */
export interface ContextDirective {
  readonly kind: 'context';
  readonly vp: number;
  /** An application processor waits for INIT and SIPI, which leave MTRRs and the like as they are here. */
  readonly activity: 'running' | 'wait-for-sipi';
  readonly gpa?: number;
  readonly registers: InitialRegisters;
}

/** What a host can be asked to tell a guest at launch, in the words of the IGVM format. */
export type ParameterName =
  | 'vp-count'
  | 'srat'
  | 'madt'
  | 'mmio-ranges'
  | 'memory-map'
  | 'command-line'
  | 'slit'
  | 'pptt'
  | 'device-tree'
  | 'environment';

/** Room for data that the host chooses at launch. Never measured: its reader trusts nothing in it. */
export interface ParameterDirective {
  readonly kind: 'parameter';
  readonly gpa: number;
  readonly length: number;
  readonly contents: readonly { readonly parameter: ParameterName; readonly offset: number }[];
}

export type Directive = RegionDirective | PagesDirective | ContextDirective | ParameterDirective;

/**
 * A segment register with its hidden part. Attributes as in a VMCB or VMSA (AMD APM vol. 2, 15.5.1): descriptor
 * bits 40-47 in bits 0-7 and bits 52-55 (AVL, L, D/B, G) in bits 8-11. The limit is in bytes.
 */
export interface SegmentRegister {
  readonly selector: number;
  readonly base: bigint;
  readonly limit: number;
  readonly attributes: number;
}

export interface TableRegister {
  readonly base: bigint;
  readonly limit: number;
}

/** Everything that a VP's first instruction can observe; values of the manuals' register names. */
export interface InitialRegisters {
  /** RAX RCX RDX RBX RSP RBP RSI RDI R8-R15, in encoding order. */
  readonly gprs: readonly bigint[];
  readonly rip: bigint;
  readonly rflags: bigint;
  readonly es: SegmentRegister;
  readonly cs: SegmentRegister;
  readonly ss: SegmentRegister;
  readonly ds: SegmentRegister;
  readonly fs: SegmentRegister;
  readonly gs: SegmentRegister;
  readonly ldtr: SegmentRegister;
  readonly tr: SegmentRegister;
  readonly gdtr: TableRegister;
  readonly idtr: TableRegister;
  readonly cr0: bigint;
  readonly cr2: bigint;
  readonly cr3: bigint;
  readonly cr4: bigint;
  readonly efer: bigint;
  readonly xcr0: bigint;
  readonly pat: bigint;
  readonly dr6: bigint;
  readonly dr7: bigint;
  readonly mxcsr: number;
  readonly fcw: number;
  readonly mtrrDefType: bigint;
  /** MTRRfix64K_00000, fix16K_80000, fix16K_A0000, fix4K_C0000 to fix4K_F8000. */
  readonly mtrrFixed: readonly bigint[];
}
