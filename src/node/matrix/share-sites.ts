/**
 * Who in the guest shares a page: at the moment of the request the guest's own stack says so. Return addresses are kept from the
 * top on; when the guest has ended, its own symbol table names them, and the first one behind the kernel's common entry points
 * is the site.
 */
import type { Machine } from '../../machine/machine.ts';
import { CPU } from '../../x86/layout.ts';
import type { Symbols } from '../symbols.ts';
import type { PageTables } from './page-tables.ts';

/** Through one of these goes every request of Linux to share memory (arch/x86/mm/pat/set_memory.c, coco/sev). */
const ENTRY_POINTS =
  /^(set_memory_decrypted|set_memory_encrypted|early_set_memory_decrypted|early_set_mem_enc_dec_hypercall|early_snp_set_memory_shared|vmgexit_psc|snp_register_ghcb_early)\+/;
const STACK_WORDS = 768;
/** Number of the stack pointer among the general registers. */
const RSP = 4;

export interface ShareSite {
  readonly gpa: number;
  readonly pages: number;
  /** A kernel function, or a module. */
  readonly site: string;
}

interface Request {
  readonly gpa: number;
  pages: number;
  readonly addresses: readonly bigint[];
}

/** Where Linux puts itself and its modules on x86-64 (arch/x86/include/asm/pgtable_64_types.h). */
const KERNEL_START = 0xffffffff80000000n;
const MODULES_START = 0xffffffffc0000000n;
const MODULES_END = 0xffffffffff000000n;

export class ShareSites {
  readonly #requests: Request[] = [];
  #stood = '';
  #addresses: readonly bigint[] = [];

  record(machine: Machine, tables: PageTables, gpa: number, pages: number): void {
    const vp = machine.current;
    const stands = `${vp} ${machine.instructions}`;
    // Many pages of one request: the guest has not moved.
    if (this.#stood !== stands) this.#addresses = returnAddresses(machine, tables, vp);
    this.#stood = stands;
    const last = this.#requests.at(-1);
    if (last !== undefined && last.addresses === this.#addresses && last.gpa + last.pages * 4096 === gpa)
      last.pages += pages;
    else this.#requests.push({ gpa, pages, addresses: this.#addresses });
  }

  /** `modules`: the guest's /proc/modules. */
  sites(symbols: Symbols | undefined, modules: readonly string[]): readonly ShareSite[] {
    return this.#requests.map(({ gpa, pages, addresses }) => ({
      gpa,
      pages,
      site: symbols === undefined ? 'the kernel' : siteOf(addresses, symbols, modules),
    }));
  }
}

function returnAddresses(machine: Machine, tables: PageTables, vp: number): readonly bigint[] {
  const { view, u8 } = machine.engine;
  const found: bigint[] = [];
  const rsp = view.getBigUint64(tables.cpu(vp) + CPU.gpr + RSP * 8, true);
  let page = -1n;
  let host: number | undefined;
  for (let word = 0; word < STACK_WORDS; word++) {
    const va = BigInt.asUintN(64, rsp + BigInt(word * 8)) & ~7n;
    if (va >> 12n !== page) {
      page = va >> 12n;
      const gpa = tables.translate(vp, page << 12n);
      host = gpa === undefined ? undefined : machine.truth.host(gpa);
      if (host === undefined) break;
    }
    const value = new DataView(u8.buffer, (host as number) + Number(va & 0xfffn)).getBigUint64(0, true);
    if (value >= KERNEL_START && value < MODULES_END) found.push(value);
  }
  return found;
}

function siteOf(addresses: readonly bigint[], symbols: Symbols, modules: readonly string[]): string {
  let inside = false;
  for (const address of addresses) {
    const name = address < MODULES_START ? symbols.name(address) : undefined;
    if (name !== undefined && ENTRY_POINTS.test(name)) inside = true;
    else if (inside && name !== undefined) return name.replace(/\+.*/, '');
    else if (inside && address >= MODULES_START) return moduleOf(address, modules);
  }
  return 'unknown';
}

/** Code that a module runs once is gone when the guest lists its modules. */
function moduleOf(address: bigint, modules: readonly string[]): string {
  for (const line of modules) {
    const [name, size, , , , start] = line.split(' ');
    if (name === undefined || size === undefined || start === undefined) continue;
    const from = BigInt(start);
    if (address >= from && address < from + BigInt(size)) return `module ${name}`;
  }
  return 'a module as it starts';
}
