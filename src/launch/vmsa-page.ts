/** Initial registers as the VMSA page of a context (AMD APM vol. 2, table B-4). */
import { PAGE_SIZE } from '../abi/hyperv/pages.ts';
import { GENERAL_REGISTERS } from '../abi/general-registers.ts';
import { vmsa } from '../abi/snp/vmsa.ts';
import type { InitialRegisters } from './directives.ts';

export interface VmsaOptions {
  readonly vmpl: number;
  /** SEV_FEATURES. */
  readonly features: number;
  /** 0 without vTOM. */
  readonly virtualTom: bigint;
}
/** Every context of an SNP guest has it (APM vol. 2, 15.36.12). */
const EFER_SVME = 1n << 12n;

export function vmsaPage(r: InitialRegisters, { vmpl, features, virtualTom }: VmsaOptions): Uint8Array {
  const page = new Uint8Array(PAGE_SIZE);
  for (const name of ['es', 'cs', 'ss', 'ds', 'fs', 'gs', 'ldtr', 'tr'] as const) {
    const { selector, attributes, limit, base } = r[name];
    vmsa.write(
      {
        [`${name}Selector`]: selector,
        [`${name}Attributes`]: attributes,
        [`${name}Limit`]: limit >>> 0,
        [`${name}Base`]: base,
      },
      page,
    );
  }
  for (const name of ['gdtr', 'idtr'] as const)
    vmsa.write({ [`${name}Limit`]: r[name].limit, [`${name}Base`]: r[name].base }, page);
  for (const [n, name] of GENERAL_REGISTERS.entries()) vmsa.set(page, name, r.gprs[n] ?? 0n);
  vmsa.write(
    {
      vmpl,
      efer: r.efer | EFER_SVME,
      cr0: r.cr0,
      cr2: r.cr2,
      cr3: r.cr3,
      cr4: r.cr4,
      dr6: r.dr6,
      dr7: r.dr7,
      rflags: r.rflags,
      rip: r.rip,
      pat: r.pat,
      xcr0: r.xcr0,
      sevFeatures: BigInt(features >>> 0),
      virtualTom,
      mxcsr: r.mxcsr,
      // As after FNINIT: with X87_FTW zero all registers are empty.
      fcw: r.fcw,
    },
    page,
  );
  return page;
}
