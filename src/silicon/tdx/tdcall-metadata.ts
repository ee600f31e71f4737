/** TDG.VM.RD/WR, TDG.VP.RD/WR, TDG.SYS.RD/RDALL. */
import { FIRST_FIELD, parseFieldId } from '../../abi/tdx/metadata.ts';
import { OPERAND, STATUS } from '../../abi/tdx/status.ts';
import { SYS_FIELDS, TD_FIELDS, VCPU_FIELDS, type FieldRow } from './fields.ts';
import { readL2Field, writeL2Field } from './l2-fields.ts';
import type { LeafOutcome } from './module.ts';
import { GPR } from './registers.ts';
import { ended, invalid, succeeded, type Caller } from './tdcall.ts';

function find(rows: readonly FieldRow[], id: bigint): { row: FieldRow; index: number } | undefined {
  const parsed = parseFieldId(id);
  if (parsed === undefined) return undefined;
  for (const row of rows) {
    const index = parsed.code - row.code;
    if (row.class === parsed.class && index >= 0 && index < row.count) return { row, index };
  }
  return undefined;
}

/** Identifier of the field behind this one; all ones after the last. */
function next(rows: readonly FieldRow[], row: FieldRow, index: number): bigint {
  if (index + 1 < row.count) return row.id + BigInt(index + 1);
  return rows[rows.indexOf(row) + 1]?.id ?? FIRST_FIELD;
}

function readField(caller: Caller, rows: readonly FieldRow[], withNext: boolean): LeafOutcome {
  const { registers } = caller;
  const id = registers.get(GPR.rdx);
  if (withNext && id === FIRST_FIELD) {
    registers.set(GPR.rdx, rows[0]?.id ?? FIRST_FIELD);
    registers.set(GPR.r8, 0n);
    return ended(caller, STATUS.metadataFirstFieldIdInContext);
  }
  const found = find(rows, id);
  if (found === undefined) {
    registers.set(GPR.r8, 0n);
    return ended(caller, STATUS.metadataFieldIdIncorrect, OPERAND.rdx);
  }
  registers.set(GPR.r8, found.row.read(caller, found.index));
  if (withNext) registers.set(GPR.rdx, next(rows, found.row, found.index));
  return succeeded(caller);
}

function writeField(caller: Caller, rows: readonly FieldRow[]): LeafOutcome {
  const { registers } = caller;
  const found = find(rows, registers.get(GPR.rdx));
  const value = registers.get(GPR.r8);
  const mask = registers.get(GPR.r9);
  registers.set(GPR.r8, 0n);
  if (found === undefined) return ended(caller, STATUS.metadataFieldIdIncorrect, OPERAND.rdx);
  const { row, index } = found;
  if (row.writable === undefined || row.write === undefined)
    return ended(caller, STATUS.metadataFieldNotWritable, OPERAND.rdx);
  const writable = row.writable(caller, index);
  if (writable === 0n) return ended(caller, STATUS.metadataFieldCurrentlyNotWritable, OPERAND.rdx);
  const effective = mask & writable;
  if (effective === 0n) return ended(caller, STATUS.metadataWriteMaskNotValid, OPERAND.r9);
  const old = row.read(caller, index);
  row.write(caller, (old & ~effective) | (value & effective), index);
  registers.set(GPR.r8, old);
  return succeeded(caller);
}

/** RCX names the TD or the virtual processor: only the caller's own, 0. */
const ownOnly =
  (leaf: (caller: Caller) => LeafOutcome) =>
  (caller: Caller): LeafOutcome => {
    if (caller.registers.get(GPR.rcx) !== 0n) {
      caller.registers.set(GPR.r8, 0n);
      return invalid(caller, OPERAND.rcx);
    }
    return leaf(caller);
  };

const VERSION_MASK = 0xff_0000n;

export const vmRd = ownOnly((caller) =>
  readField(caller, TD_FIELDS, (caller.registers.get(GPR.rax) & VERSION_MASK) !== 0n),
);
export const vmWr = ownOnly((caller) => writeField(caller, TD_FIELDS));
export const vpRd = ownOnly((caller) => readL2Field(caller) ?? readField(caller, VCPU_FIELDS, true));
export const vpWr = ownOnly((caller) => writeL2Field(caller) ?? writeField(caller, VCPU_FIELDS));
export const sysRd = (caller: Caller): LeafOutcome => readField(caller, SYS_FIELDS, true);

/** Writes all platform fields as a list into a private page: header, then identifier and value of each. */
export function sysRdall(caller: Caller): LeafOutcome {
  const { module, registers } = caller;
  const gpa = registers.get(GPR.rdx);
  if (!module.isPrivateGpa(gpa, 4096)) return invalid(caller, OPERAND.rdx);
  const reached = module.reach(gpa, true);
  if (!reached.ok) return { kind: 'exit', exit: reached.exit };
  // MD_LIST_HEADER: size in bytes, number of sequences; a sequence of one element is its header and the value.
  const list = new Uint8Array(8 + SYS_FIELDS.length * 16);
  const view = new DataView(list.buffer);
  view.setUint16(0, list.length, true);
  view.setUint16(2, SYS_FIELDS.length, true);
  for (const [k, row] of SYS_FIELDS.entries()) {
    view.setBigUint64(8 + k * 16, row.id, true);
    view.setBigUint64(16 + k * 16, row.read(caller, 0), true);
  }
  module.writeHost(reached.host, list);
  return succeeded(caller);
}
