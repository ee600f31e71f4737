/**
 * Who in the guest shares a page: at the moment of the request the guest's own stack says so. Return addresses are looked for
 * from the top; the first one behind the kernel's common entry points is the site.
 */
import type { Machine } from '../../machine/machine.ts';
import { CPU } from '../../x86/layout.ts';
import { Symbols } from '../symbols.ts';
import { translate } from './page-tables.ts';

/** Through one of these goes every request of Linux to share memory (arch/x86/mm/pat/set_memory.c, coco/sev). */
const ENTRY_POINTS =
  /^(set_memory_decrypted|set_memory_encrypted|early_set_memory_decrypted|early_set_mem_enc_dec_hypercall|early_snp_set_memory_shared|vmgexit_psc|snp_register_ghcb_early)\+/;
const STACK_WORDS = 768;

export interface ShareSite {
  readonly gpa: number;
  readonly pages: number;
  /** A kernel function, or the address of one in a module. */
  readonly site: string;
}

export class ShareSites {
  readonly #symbols: Symbols | undefined;
  readonly sites: ShareSite[] = [];

  constructor(systemMap: string | undefined) {
    this.#symbols = systemMap === undefined ? undefined : new Symbols(systemMap, 'System.map');
  }

  /** `context`: of the guest, which may not be the one that runs now. */
  record(machine: Machine, context: number, gpa: number, pages: number): void {
    const site = this.#site(machine, machine.engine.cpu(machine.current, context));
    const last = this.sites.at(-1);
    if (last !== undefined && last.site === site && last.gpa + last.pages * 4096 === gpa)
      this.sites[this.sites.length - 1] = { ...last, pages: last.pages + pages };
    else this.sites.push({ gpa, pages, site });
  }

  #site(machine: Machine, cpu: number): string {
    const { view } = machine.engine;
    this.#symbols?.place('entry_SYSCALL_64', view.getBigUint64(cpu + CPU.lstar, true));
    const rsp = view.getBigUint64(cpu + CPU.gpr + 4 * 8, true);
    // Without symbols only modules can be told from the rest.
    let inside = this.#symbols === undefined;
    for (let word = 0; word < STACK_WORDS; word++) {
      const at = translate(machine, cpu, rsp + BigInt(word * 8));
      const bytes = at === undefined ? undefined : machine.truth.read(at, 8);
      if (bytes === undefined) break;
      const value = new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true);
      const name = this.#symbols?.name(value);
      if (name !== undefined && ENTRY_POINTS.test(name)) inside = true;
      else if (inside && name !== undefined) return name.replace(/\+.*/, '');
      else if (inside && value >= MODULES_START && value < MODULES_END) return `0x${value.toString(16)}`;
    }
    return this.#symbols === undefined ? KERNEL : 'unknown';
  }
}

/** A site in the kernel proper, when it came without a System.map. */
export const KERNEL = 'the kernel';

/** Where Linux with a randomised base puts modules on x86-64 (arch/x86/include/asm/pgtable_64_types.h). */
const MODULES_START = 0xffffffffc0000000n;
const MODULES_END = 0xffffffffff000000n;

/** Name of the module that an address of `ShareSite.site` lies in, by the guest's /proc/modules. */
export function moduleOf(site: string, modules: readonly string[]): string {
  if (!site.startsWith('0x')) return site;
  const address = BigInt(site);
  for (const line of modules) {
    const [name, size, , , , start] = line.split(' ');
    if (name === undefined || size === undefined || start === undefined) continue;
    const from = BigInt(start);
    if (address >= from && address < from + BigInt(size)) return `module ${name}`;
  }
  return site;
}
