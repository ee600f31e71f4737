/**
 * Address translation: the guest's page tables, the second stage behind them, and the TLB.
 * Intel SDM vol. 3 ch. 4, AMD APM vol. 2 ch. 5. All checks happen here, when an entry is filled; what is filled is
 * what may be done without asking again.
 */
import { CPU, EXIT, FLAG, PAGEFLAG, ENGINE, SECOND, TLB, TLBFLAG, TLBUSE, VEC } from '../layout.ts';
import { CR0, CR4, EFER } from '../registers.ts';
import type { FunctionBuilder, Label } from '../wasm/function.ts';
import { i32, i64, select, type Val } from '../wasm/value.ts';
import { routine, type Routine } from './library.ts';
import type { Library } from '../sem.ts';

/** Kinds of access, as `access` parameters: bit 0 write, bit 1 fetch, bit 2 of a page table (second stage only). */
export const READ = 0;
export const WRITE = 1;
export const FETCH = 2;
export const TABLE = 4;

const PTE = { P: 1, W: 2, U: 4, A: 0x20, D: 0x40, PS: 0x80, G: 0x100 } as const;
const ADDRESS_MASK = 0x000ffffffffff000n;

/** #PF: error code bits are P W U RSVD I PK. */
function pageFault(f: FunctionBuilder, lib: Library, cpu: Val, va: Val, code: Val): void {
  f.call(lib('raise_page_fault'), cpu, va, code);
}

/** One level of a walk: reads the entry at `gpa`; returns host address and value. */
function readEntry(
  f: FunctionBuilder,
  lib: Library,
  cpu: Val,
  gpa: Val,
  bytes: 4 | 8,
): { host: Val; value: Val } {
  const host = f.callValue(lib('physical'), cpu, gpa, i32(READ));
  const value = f.local('i64', 0);
  f.if(host, () => value.set(bytes === 8 ? f.load('64', host) : f.load('32u', host, 0, 'i64')));
  return { host, value: value.get };
}

/** The arrays of a TLB area, and where it stands what was filled in them. */
const ARRAYS: readonly { readonly array: number; readonly bytes: number; readonly use: number }[] = [
  ...[TLB.user, TLB.supervisor, TLB.supervisorAc].map((which) => ({
    array: which * TLB.arrayBytes,
    bytes: TLB.arrayBytes,
    use: TLBUSE.data + which * 8,
  })),
  ...[0, 1].flatMap((kind) => [
    {
      array: TLB.fetch + kind * TLB.fetchBytes,
      bytes: TLB.fetchSmall * 16,
      use: TLBUSE.fetchSmall + kind * 8,
    },
    {
      array: TLB.fetch + kind * TLB.fetchBytes + TLB.fetchSmall * 16,
      bytes: TLB.fetchLarge * 16,
      use: TLBUSE.fetchLarge + kind * 8,
    },
  ]),
];

/** Notes that the 1/64 `part` (modulo 64) of an array has an entry. */
function note(f: FunctionBuilder, cpu: Val, array: Val, use: number, part: Val): void {
  const word = f.let(f.load('32', cpu, CPU.tlbArea).add(array));
  f.store('64', word, f.load('64', word, TLB.use + use).or(i64(1).shl(part)), TLB.use + use);
}

/** Notes that a data entry is filled. */
function noteEntry(f: FunctionBuilder, cpu: Val, entry: Val): void {
  const area = f.let(f.load('32', cpu, CPU.tlbArea));
  const filled = f.let(f.load('32', area, TLB.use + TLBUSE.filled));
  f.if(filled.ltU(TLBUSE.listed), () => {
    f.store('32', area.add(filled.shl(2)), entry.sub(area), TLB.use + TLBUSE.list);
    f.store('32', area, filled.add(1), TLB.use + TLBUSE.filled);
  });
}

/** Notes that a piece of a large page is in the TLB. */
function noteLarge(f: FunctionBuilder, cpu: Val, va: Val, leaf: Val): void {
  f.if(leaf.and(TLBFLAG.large << 8), () => note(f, cpu, i32(0), TLBUSE.large, va.shrU(30)));
}

export const pagingRoutines: readonly Routine[] = [
  /** Host address of guest-physical `gpa` for a page-table access or another physical one; 0 when it is not memory. */
  routine('physical', ['i32', 'i64', 'i32'], ['i32'], (f, lib) => {
    const cpu = f.p(0);
    const page = f.callValue(lib('second_stage'), cpu, f.p(1), f.p(2).or(TABLE));
    f.return(select(page.bool(), page.add(f.p(1).wrap().and(0xfff)), i32(0)));
    f.unreachable();
  }),

  /**
   * Walks the guest's tables for linear address `va`. access: READ, WRITE or FETCH; user: CPL 3 access;
   * ac: supervisor access that SMAP does not stop. Raises #PF, or gives the guest-physical address of the byte in
   * CPU.stageGpa and returns leaf flags: bit 0 writable now (W permitted and D set), bit 1 only because CR0.WP is clear,
   * TLBFLAG.global << 8,
   * TLBFLAG.large << 8, log2 of the page size << 16.
   */
  routine('walk', ['i32', 'i64', 'i32', 'i32', 'i32'], ['i32'], (f, lib) => {
    const cpu = f.p(0);
    const va = f.p(1);
    const access = f.p(2);
    const user = f.p(3);
    const ac = f.p(4);
    f.store('64', cpu, va, CPU.walkAddress);
    f.store('32', cpu, i32(0), CPU.walkDone);
    const cr0 = f.let(f.load('32', cpu, CPU.cr0));
    const cr4 = f.let(f.load('32', cpu, CPU.cr4));
    const efer = f.let(f.load('32', cpu, CPU.efer));
    f.if(cr0.and(CR0.PG).eqz(), () => {
      f.store('64', cpu, va.and(0xffffffffn), CPU.stageGpa);
      f.store('32', cpu, i32(1), CPU.walkDone);
      f.return(i32(1 | (TLBFLAG.large << 8) | (21 << 16)));
    });
    const nxe = f.let(efer.and(EFER.NXE).bool());
    const write = f.let(access.and(WRITE));
    const fetch = f.let(access.and(FETCH).shrU(1));
    // The instruction bit of the error code: fetches, when NX or SMEP is in force.
    const pae = f.let(cr4.and(CR4.PAE).bool());
    const fetchBit = f.let(fetch.and(nxe.and(pae).or(cr4.and(CR4.SMEP).bool())).shl(4));
    const code = f.let(write.shl(1).or(user.shl(2)).or(fetchBit));
    const physReserved = f.let(f.load('64', cpu, CPU.physReserved));
    // Rights gathered on the way down: W and U stay set only while every level grants them; NX is the other way round.
    const rights = f.local('i32', PTE.W | PTE.U);
    const noExecute = f.local('i32', 0);
    const table = f.local('i64');
    const leaf = f.local('i64');
    const leafGpa = f.local('i64');
    const shift = f.local('i32', 12);
    const leafBytes4 = f.local('i32', 0);

    // Upper entries that the walk went through and that have no A bit yet: it is set once the access is allowed. Address + 1.
    const unmarked = [48, 39, 30, 21].map((bit) => ({ bit, gpa: f.local('i64', 0) }));
    const passed = (bit: number, value: Val, gpa: Val): void => {
      unmarked
        .find((entry) => entry.bit === bit)
        ?.gpa.set(select(value.wrap().and(PTE.A), i64(0), gpa.add(1)));
    };
    const mark = (gpa: Val, bits: Val | number): void => {
      const host = f.callValue(lib('physical'), cpu, gpa, i32(WRITE));
      f.if(host, () => {
        f.call(lib('code_write'), cpu, host, i32(4));
        f.store('32', host, f.load('32', host).or(bits));
      });
    };
    const fail = (bits: Val | number): void => pageFault(f, lib, cpu, va, code.or(bits));
    const permission = (value: Val): void => {
      rights.set(rights.get.and(value.wrap()));
      noExecute.set(noExecute.get.or(value.shrU(63).wrap()));
    };
    const reserved = (value: Val, extra: Val): Val => value.and(physReserved.or(extra)).ne(0);
    const nxReserved = f.let(select(nxe, i64(0), i64(1n << 63n)));

    f.block((found) => {
      f.if(efer.and(EFER.LMA), () => {
        table.set(f.load('64', cpu, CPU.cr3).and(ADDRESS_MASK));
        const level = (bit: number, large: 'never' | '1g' | '2m' | 'leaf', done: Label): void => {
          const gpa = f.let(table.get.add(va.shrU(bit).and(0x1ff).shl(3)));
          const entry = readEntry(f, lib, cpu, gpa, 8);
          f.if(entry.value.wrap().and(PTE.P).eqz(), () => fail(0));
          const isLeaf =
            large === 'leaf'
              ? i32(1)
              : large === 'never'
                ? i32(0)
                : f.let(entry.value.wrap().and(PTE.PS).bool());
          // PS is reserved where no large page exists; in a large page the bits below its size are, but PAT (bit 12).
          const extra =
            large === 'never'
              ? i64(PTE.PS)
              : large === 'leaf'
                ? i64(0)
                : select(isLeaf, i64(BigInt((1n << BigInt(bit)) - 1n) & ~0x1fffn), i64(0));
          f.if(reserved(entry.value, nxReserved.or(extra)), () => fail(9));
          permission(entry.value);
          f.if(isLeaf, () => {
            leaf.set(entry.value);
            leafGpa.set(gpa);
            shift.set(i32(bit));
            f.br(done);
          });
          if (large !== 'leaf') {
            passed(bit, entry.value, gpa);
            table.set(entry.value.and(ADDRESS_MASK));
          }
        };
        f.if(cr4.and(CR4.LA57), () => level(48, 'never', found));
        level(39, 'never', found);
        level(30, '1g', found);
        level(21, '2m', found);
        level(12, 'leaf', found);
      });
      f.if(pae, () => {
        // PAE paging: the four PDPTEs were loaded with CR3.
        const pdpte = f.let(f.load('64', cpu.add(va.wrap().shrU(30).shl(3)), CPU.pdpte));
        f.if(pdpte.wrap().and(PTE.P).eqz(), () => fail(0));
        const level = (table2: Val, bit: number, done: Label): void => {
          const gpa = f.let(table2.add(va.shrU(bit).and(0x1ff).shl(3)));
          const entry = readEntry(f, lib, cpu, gpa, 8);
          f.if(entry.value.wrap().and(PTE.P).eqz(), () => fail(0));
          const isLeaf = bit === 12 ? i32(1) : f.let(entry.value.wrap().and(PTE.PS).bool());
          const extra = bit === 12 ? i64(0) : select(isLeaf, i64(0x1fe000n), i64(0));
          // Bits 62:52 are reserved in PAE paging.
          f.if(reserved(entry.value, nxReserved.or(extra).or(0x7ff0000000000000n)), () => fail(9));
          permission(entry.value);
          f.if(isLeaf, () => {
            leaf.set(entry.value);
            leafGpa.set(gpa);
            shift.set(i32(bit));
            f.br(done);
          });
          if (bit !== 12) {
            passed(bit, entry.value, gpa);
            table.set(entry.value.and(ADDRESS_MASK));
          }
        };
        level(f.let(pdpte.and(ADDRESS_MASK)), 21, found);
        level(table.get, 12, found);
      });
      // 32-bit paging, with 4 MiB pages when CR4.PSE (PSE-36: address bits 39:32 in entry bits 20:13).
      leafBytes4.set(1);
      const pdeGpa = f.let(f.load('64', cpu, CPU.cr3).and(0xfffff000n).add(va.shrU(22).and(0x3ff).shl(2)));
      const pde = readEntry(f, lib, cpu, pdeGpa, 4);
      f.if(pde.value.wrap().and(PTE.P).eqz(), () => fail(0));
      permission(pde.value);
      f.if(pde.value.wrap().and(PTE.PS).bool().and(cr4.and(CR4.PSE).bool()), () => {
        f.if(pde.value.and(0x200000n).ne(0), () => fail(9));
        leaf.set(pde.value.and(0xffc00fffn).or(pde.value.shrU(13).and(0xff).shl(32)));
        leafGpa.set(pdeGpa);
        shift.set(i32(22));
        f.br(found);
      });
      passed(21, pde.value, pdeGpa);
      const pteGpa = f.let(pde.value.and(0xfffff000n).add(va.shrU(12).and(0x3ff).shl(2)));
      const pte = readEntry(f, lib, cpu, pteGpa, 4);
      f.if(pte.value.wrap().and(PTE.P).eqz(), () => fail(0));
      permission(pte.value);
      leaf.set(pte.value);
      leafGpa.set(pteGpa);
    });

    const userPage = f.let(rights.get.and(PTE.U).bool());
    const canWrite = f.let(rights.get.and(PTE.W).bool());
    const wp = f.let(cr0.and(CR0.WP).bool());
    const mayWrite = f.local('i32');
    const unprotected = f.let(user.eqz().and(wp.eqz()));
    mayWrite.set(canWrite.or(unprotected));
    const lent = f.local('i32', unprotected.and(canWrite.eqz()));
    // Protection keys: 4- and 5-level paging, data accesses; PKRU for user pages, IA32_PKRS for supervisor pages. The error
    // code names them beside any other reason.
    const keyed = f.let(select(userPage, cr4.and(CR4.PKE), cr4.and(CR4.PKS)).bool());
    f.if(keyed.and(efer.and(EFER.LMA).bool()).and(fetch.eqz()), () => {
      const pkey = f.let(leaf.get.shrU(59).wrap().and(0xf));
      const keys = f.let(select(userPage, f.load('32', cpu, CPU.pkru), f.load('32', cpu, CPU.pkrs)));
      const pk = f.let(keys.shrU(pkey.shl(1)).and(3));
      f.if(pk.and(1), () => fail(0x21));
      const writeStopped = f.let(pk.shrU(1).and(user.or(wp)));
      f.if(write.and(writeStopped), () => fail(0x21));
      f.if(writeStopped, () => mayWrite.set(0));
      lent.set(lent.get.or(unprotected.and(pk.shrU(1))));
    });
    // User access to a supervisor page.
    f.if(user.and(userPage.eqz()), () => fail(1));
    f.if(
      fetch,
      () => {
        f.if(nxe.and(noExecute.get), () => fail(1));
        f.if(user.eqz().and(userPage).and(cr4.and(CR4.SMEP).bool()), () => fail(1));
      },
      () => {
        // SMAP: supervisor data access to a user page.
        f.if(user.eqz().and(userPage).and(cr4.and(CR4.SMAP).bool()).and(ac.eqz()), () => fail(1));
      },
    );
    f.if(write.and(mayWrite.get.eqz()), () => fail(1));

    const want = f.let(select(write, i32(PTE.A | PTE.D), i32(PTE.A)));
    for (const { gpa } of unmarked) f.if(gpa.get.ne(0), () => mark(gpa.get.sub(1), PTE.A));
    f.if(leaf.get.wrap().and(want).ne(want), () => mark(leafGpa.get, want));
    const dirty = f.let(write.or(leaf.get.wrap().shrU(6).and(1)));
    const offsetMask = f.let(i64(1).shl(shift.get.zext()).sub(1));
    f.store('64', cpu, leaf.get.and(ADDRESS_MASK).and(offsetMask.not()).or(va.and(offsetMask)), CPU.stageGpa);
    f.store('32', cpu, i32(1), CPU.walkDone);
    const global = f.let(leaf.get.wrap().shrU(8).and(cr4.shrU(7)).and(1));
    f.return(
      mayWrite.get
        .and(dirty)
        .or(lent.get.shl(1))
        .or(global.shl(8 + 1))
        .or(select(shift.get.ne(12), i32(TLBFLAG.large << 8), i32(0)))
        .or(shift.get.shl(16)),
    );
    f.unreachable();
  }),

  /** Whether `va` is canonical (48 or 57 bits), outside long mode always. */
  routine('canonical', ['i32', 'i64'], ['i32'], (f) => {
    const cpu = f.p(0);
    const va = f.p(1);
    f.if(f.load('32', cpu, CPU.efer).and(EFER.LMA).eqz(), () => f.return(i32(1)));
    f.if(f.load('32', cpu, CPU.cr4).and(CR4.LA57), () => f.return(va.shl(7).shrS(7).eq(va)));
    f.return(va.shl(16).shrS(16).eq(va));
    f.unreachable();
  }),

  /**
   * Fills the data TLB entry of `va` in array `which` (TLB.user...) after all checks; returns the entry's address.
   */
  routine('tlb_fill', ['i32', 'i64', 'i32', 'i32'], ['i32'], (f, lib) => {
    const cpu = f.p(0);
    const va = f.p(1);
    const write = f.p(2);
    const which = f.p(3);
    const page = f.let(va.and(-4096n));
    const leaf = f.callValue(lib('walk'), cpu, va, write, which.eqz(), which.eq(TLB.supervisorAc));
    const host = f.callValue(lib('second_stage'), cpu, f.let(f.load('64', cpu, CPU.stageGpa)), write);
    const gpa = f.let(f.load('64', cpu, CPU.stageGpa));
    const second = f.let(f.load('32', cpu, CPU.stageFlags));
    const entry = f.let(
      f
        .load('32', cpu, CPU.tlbArea)
        .add(which.mul(TLB.arrayBytes))
        .add(
          va
            .shrU(12)
            .wrap()
            .and(TLB.entries - 1)
            .shl(TLB.entryShift),
        ),
    );
    const flags = f.local('i32', leaf.shrU(8).and(0xff));
    const tag = f.local('i64', page);
    const writeTag = f.local('i64', -1);
    f.if(
      host.eqz(),
      () => {
        flags.set(flags.get.or(TLBFLAG.mmio));
        tag.set(page.or(1));
        writeTag.set(select(leaf.and(1), page.or(1), i64(-1)));
      },
      () => {
        const pageFlags = f.callValue(lib('page_flags'), cpu, host);
        f.if(pageFlags.and(PAGEFLAG.watchRead), () => tag.set(page.or(1)));
        f.if(leaf.and(1).bool().and(second.and(SECOND.noWrite).eqz()), () =>
          writeTag.set(select(pageFlags.and(PAGEFLAG.code | PAGEFLAG.watchWrite), page.or(1), page)),
        );
      },
    );
    note(f, cpu, which.shl(3), TLBUSE.data, va.shrU(12 + Math.log2(TLB.entries / 64)));
    noteEntry(f, cpu, entry);
    noteLarge(f, cpu, va, leaf);
    f.if(leaf.and(3).eq(3), () => f.store('32', cpu, i32(1), CPU.tlbWpOpen));
    f.store('64', entry, tag.get, TLB.read);
    f.store('64', entry, writeTag.get, TLB.write);
    f.store('32', entry, host.sub(page.wrap()), TLB.addend);
    f.store('32', entry, flags.get, TLB.flags);
    f.store('64', entry, gpa.and(-4096n), TLB.gpa);
    f.return(entry);
    f.unreachable();
  }),

  routine('page_flags', ['i32', 'i32'], ['i32'], (f) => {
    const engine = f.let(f.load('32', f.p(0), CPU.engine));
    const index = f.let(
      f
        .p(1)
        .sub(f.load('32', engine, ENGINE.framesBase))
        .shrU(12),
    );
    f.return(f.load('8u', f.load('32', engine, ENGINE.pageFlags).add(index)));
    f.unreachable();
  }),

  /**
   * Data translation with all checks, through the TLB array `which`. Returns the host address of the byte, or 0 when it is
   * not memory; then CPU.stageGpa is its guest-physical address.
   */
  routine('translate', ['i32', 'i64', 'i32', 'i32'], ['i32'], (f, lib) => {
    const cpu = f.p(0);
    const va = f.p(1);
    const write = f.p(2);
    const which = f.p(3);
    const page = f.let(va.and(-4096n));
    const entry = f.local(
      'i32',
      f
        .load('32', cpu, CPU.tlbArea)
        .add(which.mul(TLB.arrayBytes))
        .add(
          va
            .shrU(12)
            .wrap()
            .and(TLB.entries - 1)
            .shl(TLB.entryShift),
        ),
    );
    // Bit 0 of a tag only defeats the inlined compare.
    f.if(
      f
        .load('64', entry.get.add(write.shl(3)))
        .and(-2n)
        .ne(page),
      () => entry.set(f.callValue(lib('tlb_fill'), cpu, va, write, which)),
    );
    f.if(f.load('32', entry.get, TLB.flags).and(TLBFLAG.mmio), () => {
      f.store('64', cpu, f.load('64', entry.get, TLB.gpa).or(va.and(0xfff)), CPU.stageGpa);
      f.return(i32(0));
    });
    f.return(f.load('32', entry.get, TLB.addend).add(va.wrap()));
    f.unreachable();
  }),

  /** Makes the fetch window hold `va`; raises #GP (not canonical) or #PF. */
  routine('fetch_window', ['i32', 'i64'], [], (f, lib) => {
    const cpu = f.p(0);
    const va = f.p(1);
    const user = f.let(f.load('32', cpu, CPU.cpl).eq(3));
    const array = f.let(
      f
        .load('32', cpu, CPU.tlbArea)
        .add(TLB.fetch)
        .add(select(user, i32(0), i32(TLB.fetchBytes))),
    );
    const small = f.let(
      array.add(
        va
          .shrU(12)
          .wrap()
          .and(TLB.fetchSmall - 1)
          .shl(4),
      ),
    );
    const large = f.let(
      array.add(TLB.fetchSmall * 16).add(
        va
          .shrU(21)
          .wrap()
          .and(TLB.fetchLarge - 1)
          .shl(4),
      ),
    );
    const page = f.let(va.and(-4096n));
    const block = f.let(va.and(-0x200000n));
    const use = (entry: Val, base: Val, mask: number): void => {
      f.store('64', cpu, base, CPU.windowBase);
      f.store('64', cpu, i64(mask), CPU.windowMask);
      f.store('32', cpu, f.load('32', entry, 8), CPU.windowHost);
      f.return();
    };
    f.if(f.load('64', small).eq(page), () => use(small, page, -4096));
    f.if(f.load('64', large).eq(block), () => use(large, block, -0x200000));
    f.if(f.callValue(lib('canonical'), cpu, va).eqz(), () =>
      f.call(lib('raise_error'), cpu, i32(VEC.GP), i32(0)),
    );
    const leaf = f.callValue(lib('walk'), cpu, va, i32(FETCH), user, i32(0));
    const gpa = f.let(f.load('64', cpu, CPU.stageGpa));
    const host = f.callValue(lib('second_stage'), cpu, gpa, i32(FETCH));
    f.if(host.eqz(), () => f.call(lib('ask'), cpu, i32(EXIT.nestedPageFault), gpa, i64(FETCH), i64(0)));
    const second = f.let(f.load('32', cpu, CPU.stageFlags));
    const kind = f.let(select(user, i32(0), i32(8)));
    noteLarge(f, cpu, va, leaf);
    // A fetch entry covers the whole guest translation, up to 2 MiB, where the second stage is uniform too.
    f.if(leaf.shrU(16).geU(21).and(second.and(SECOND.uniform).bool()), () => {
      note(f, cpu, kind, TLBUSE.fetchLarge, va.shrU(21));
      // Never two entries for one address: which of them is asked first may depend on the engine.
      const smalls = f.load('64', f.load('32', cpu, CPU.tlbArea).add(kind), TLB.use + TLBUSE.fetchSmall);
      f.if(smalls.ne(0), () => {
        const at = f.local('i32', array);
        f.loop((again) => {
          f.if(f.load('64', at.get).and(-0x200000n).eq(block), () => f.store('64', at.get, i64(-1)));
          at.set(at.get.add(16));
          f.brIf(again, at.get.ne(array.add(TLB.fetchSmall * 16)));
        });
      });
      f.store('64', large, block, 0);
      f.store('32', large, host.sub(va.wrap().and(0x1ff000)), 8);
      f.store('32', large, leaf.shrU(8).and(0xff), 12);
      use(large, block, -0x200000);
    });
    note(f, cpu, kind, TLBUSE.fetchSmall, va.shrU(12 + 9 - 6));
    f.store('64', small, page, 0);
    f.store('32', small, host, 8);
    f.store('32', small, leaf.shrU(8).and(0xff), 12);
    use(small, page, -4096);
  }),

  /** Drops every translation of this context. */
  routine('tlb_flush', ['i32'], [], (f) => {
    const cpu = f.p(0);
    const area = f.let(f.load('32', cpu, CPU.tlbArea));
    const filled = f.let(f.load('32', area, TLB.use + TLBUSE.filled));
    f.if(filled.ltU(TLBUSE.listed), () => {
      const at = f.local('i32', area);
      const end = f.let(area.add(filled.shl(2)));
      f.loop((again) => {
        f.if(at.get.ne(end), () => {
          const entry = f.let(area.add(f.load('32', at.get, TLB.use + TLBUSE.list)));
          f.store('64', entry, i64(-1), TLB.read);
          f.store('64', entry, i64(-1), TLB.write);
          at.set(at.get.add(4));
          f.br(again);
        });
      });
      for (const { use } of ARRAYS.slice(0, 3)) f.store('64', area, i64(0), TLB.use + use);
    });
    f.store('32', area, i32(0), TLB.use + TLBUSE.filled);
    for (const { array, bytes, use } of ARRAYS) {
      const left = f.local('i64', f.load('64', area, TLB.use + use));
      f.store('64', area, i64(0), TLB.use + use);
      f.loop((again) => {
        f.if(left.get.ne(0), () => {
          f.memoryFill(
            area.add(array).add(
              left.get
                .ctz()
                .wrap()
                .mul(bytes / 64),
            ),
            i32(0xff),
            i32(bytes / 64),
          );
          left.set(left.get.and(left.get.sub(1)));
          f.br(again);
        });
      });
    }
    f.store('64', area, i64(0), TLB.use + TLBUSE.large);
    f.store('32', cpu, i32(0), CPU.tlbWpOpen);
    f.store('64', cpu, i64(-1), CPU.windowBase);
    f.store('64', cpu, i64(-1), CPU.windowMask);
  }),

  /**
   * INVLPG: drops the translations of the page of `va`. Entries are 4 KiB pieces of what the guest mapped: where pieces of
   * a large page were filled in the same GiB, everything goes, which is always right.
   */
  routine('tlb_flush_page', ['i32', 'i64'], [], (f, lib) => {
    const cpu = f.p(0);
    const va = f.p(1);
    const area = f.let(f.load('32', cpu, CPU.tlbArea));
    f.if(
      f
        .load('64', area, TLB.use + TLBUSE.large)
        .shrU(va.shrU(30))
        .and(1)
        .ne(0),
      () => {
        f.call(lib('tlb_flush'), cpu);
        f.return();
      },
    );
    const page = f.let(va.and(-4096n));
    const slot = (entries: number, bytes: number): Val =>
      f.let(
        area.add(
          va
            .shrU(12)
            .wrap()
            .and(entries - 1)
            .mul(bytes),
        ),
      );
    const data = slot(TLB.entries, 1 << TLB.entryShift);
    for (const which of [TLB.user, TLB.supervisor, TLB.supervisorAc]) {
      const at = which * TLB.arrayBytes;
      f.if(
        f
          .load('64', data, at + TLB.read)
          .and(-2n)
          .eq(page),
        () => {
          f.store('64', data, i64(-1), at + TLB.read);
          f.store('64', data, i64(-1), at + TLB.write);
        },
      );
    }
    const fetch = slot(TLB.fetchSmall, 16);
    for (const at of [TLB.fetch, TLB.fetch + TLB.fetchBytes])
      f.if(f.load('64', fetch, at).eq(page), () => f.store('64', fetch, i64(-1), at));
    f.store('64', cpu, i64(-1), CPU.windowBase);
    f.store('64', cpu, i64(-1), CPU.windowMask);
  }),
];
void FLAG;
