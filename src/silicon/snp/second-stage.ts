/**
 * Nested paging with RMP checks (AMD APM vol. 2, 15.36.10 and table 15-39), as the routine that fills TLB entries. What
 * passes here is what the entry allows afterwards, so a hit needs no check.
 */
import { CPU, ENGINE, SECOND } from '../../x86/layout.ts';
import { CR0, CR4 } from '../../x86/registers.ts';
import { FETCH, TABLE, WRITE } from '../../x86/runtime/paging.ts';
import { routine, type Routine } from '../../x86/runtime/library.ts';
import { i32, i64, select, type Val } from '../../x86/wasm/value.ts';
import { NPF } from '../../abi/snp/exit-codes.ts';
import { SEV_FEATURE } from '../../abi/snp/vmsa.ts';
import { ALIAS_BIT, C_BIT, CONTEXT, NESTED, PERMISSION, RMP, SNP_EXIT, SNP_STAGE } from './layout.ts';

const ADDRESS = (1n << BigInt(C_BIT)) - 1n;

export const secondStageSnp: Routine = routine('second_stage', ['i32', 'i64', 'i32'], ['i32'], (f, lib) => {
  const cpu = f.p(0);
  const access = f.p(2);
  const stage = f.let(f.load('32', f.load('32', cpu, CPU.engine), ENGINE.stage));
  const features = f.let(f.load('32', cpu, CONTEXT.features));
  const write = f.let(access.and(WRITE).bool());
  const fetch = f.let(access.and(FETCH).bool());
  const table = f.let(access.and(TABLE).bool());
  // The effective C-bit (15.36.8, and 15.34.5 for page tables and code).
  const encrypted = f.local('i32', 1);
  f.if(fetch.or(table).eqz(), () =>
    f.if(
      features.and(SEV_FEATURE.vTom),
      () => encrypted.set(f.p(1).ltU(f.load('64', cpu, CONTEXT.virtualTom))),
      () =>
        f.if(
          f
            .load('32', cpu, CPU.cr0)
            .and(CR0.PG)
            .bool()
            .and(f.load('32', cpu, CPU.cr4).and(CR4.PAE).bool()),
          () => encrypted.set(f.p(1).shrU(C_BIT).wrap().and(1)),
        ),
    ),
  );
  const gpa = f.let(f.p(1).and(ADDRESS));
  f.store('64', cpu, gpa, CPU.stageGpa);
  f.store('32', cpu, i32(0), CPU.stageFlags);
  const leave = (code: number, information: Val): void =>
    f.call(lib('stage_exit'), cpu, i32(code), gpa, information);
  // EXITINFO1 without the reasons: write, user (nested walks are), fetch; which walk; the C-bit.
  const about = (low: Val, high: Val): Val => {
    const walk = f.let(select(table, i32(NPF.table), i32(NPF.final)));
    return f.let(
      low
        .or(write.shl(1))
        .or(NPF.user)
        .or(fetch.shl(4))
        .zext()
        .or(high.or(walk).or(encrypted.get.shl(2)).zext().shl(32)),
    );
  };
  const rmpFault = (high = 0): void =>
    leave(SNP_EXIT.nestedFault, about(i32(NPF.rmp | NPF.present), i32(high)));

  const alias = f.let(gpa.shrU(ALIAS_BIT).wrap());
  const page = f.let(gpa.and((1n << BigInt(ALIAS_BIT)) - 1n).shrU(12));
  const pages = f.let(f.load('32u', stage, SNP_STAGE.nestedPages, 'i64'));
  const nested = f.local('i32', f.load('32', stage, SNP_STAGE.outside));
  f.if(page.ltU(pages).and(alias.ltU(2)), () =>
    nested.set(
      f.load(
        '32',
        f.load('32', stage, SNP_STAGE.nested).add(page.wrap().add(alias.mul(pages.wrap())).shl(2)),
      ),
    ),
  );
  f.if(nested.get.and(NESTED.present).eqz(), () => {
    f.if(nested.get.and(NESTED.mmio), () =>
      leave(SNP_EXIT.mmio, about(i32(NPF.reserved | NPF.present), i32(0))),
    );
    leave(SNP_EXIT.nestedFault, about(i32(0), i32(0)));
  });
  const nestedWritable = f.let(nested.get.and(NESTED.writable).bool());
  f.if(write.and(nestedWritable.eqz()), () => leave(SNP_EXIT.nestedFault, about(i32(NPF.present), i32(0))));
  const nestedLarge = f.let(nested.get.and(NESTED.large).bool());
  const host = f.let(nested.get.and(-4096));
  const index = f.let(host.sub(f.load('32', stage, SNP_STAGE.framesBase)).shrU(12));
  const rmp = f.let(f.load('32', stage, SNP_STAGE.rmp));
  const blockEntry = f.let(rmp.add(index.and(~511).shl(4)));
  const large = f.let(
    f
      .load('32', blockEntry, RMP.bits)
      .and(RMP.assigned | RMP.large)
      .eq(RMP.assigned | RMP.large),
  );
  const entry = f.let(select(large, blockEntry, rmp.add(index.shl(4))));
  const bits = f.let(f.load('32', entry, RMP.bits));
  const writable = f.local('i32', nestedWritable);
  const uniform = f.local('i32', 0);
  const domain = f.local('i32', 0);
  f.if(
    encrypted.get,
    () => {
      const asid = f.let(f.load('32', cpu, CONTEXT.asid));
      const expected = f.let(
        f.load('64', entry, RMP.gpa).add(select(large, index.and(511).shl(12), i32(0)).zext()),
      );
      f.if(
        bits
          .and(RMP.assigned | RMP.immutable)
          .ne(RMP.assigned)
          .or(bits.shrU(RMP.asidShift).ne(asid))
          .or(expected.ne(gpa.and(-4096n)))
          .or(large.ne(nestedLarge)),
        () => rmpFault(),
      );
      f.if(bits.and(RMP.validated).eqz(), () =>
        leave(SNP_EXIT.notValidated, about(i32(NPF.present), i32(0))),
      );
      const permissions = f.let(f.load('8u', entry.add(f.load('32', cpu, CONTEXT.vmpl)), RMP.permissions));
      const supervisor = f.let(f.load('32', cpu, CPU.cpl).ne(3));
      const need = f.let(
        select(
          fetch,
          select(supervisor, i32(PERMISSION.supervisorExecute), i32(PERMISSION.userExecute)),
          select(write, i32(PERMISSION.read | PERMISSION.write), i32(PERMISSION.read)),
        ),
      );
      f.if(permissions.and(need).ne(need), () => rmpFault(NPF.vmpl));
      writable.set(writable.get.and(permissions.shrU(1).and(1)));
      domain.set(asid);
      uniform.set(
        nestedLarge.and(f.load('8u', f.load('32', stage, SNP_STAGE.mixed).add(index.shrU(9))).eqz()),
      );
    },
    () => {
      // A shared read of a guest's page gives ciphertext; a write does not happen.
      const assigned = f.let(bits.and(RMP.assigned));
      f.if(write.and(assigned), () => rmpFault());
      writable.set(writable.get.and(assigned.xor(1)));
    },
  );
  f.if(f.load('8u', f.load('32', stage, SNP_STAGE.domains).add(index)).ne(domain.get), () =>
    f.call(lib('stage_exit'), cpu, i32(SNP_EXIT.keyChange), host.zext(), domain.get.zext()),
  );
  f.store(
    '32',
    cpu,
    select(writable.get, i32(0), i32(SECOND.noWrite)).or(select(uniform.get, i32(SECOND.uniform), i32(0))),
    CPU.stageFlags,
  );
  f.return(host);
  f.unreachable();
  void i64;
});
