/**
 * Identifiers of metadata fields (TDX Module 1.5 ABI, "MD_FIELD_ID"): bits 23:0 field code, 33:32 element size, 37:34
 * last element, 46:38 last field, 50 increment size, 51 write mask valid, 54:52 context, 61:56 class, 63 non-architectural.
 * A single element is found by class and field code; context, size and bit 63 are not compared.
 */

export interface FieldId {
  readonly code: number;
  readonly class: number;
}

export const FIRST_FIELD = 0xffff_ffff_ffff_ffffn;

/** Bits that must be 0 to name one element: last element, last field, reserved. */
const MUST_BE_ZERO =
  (0xfn << 34n) | (0x1ffn << 38n) | (0x7n << 47n) | (1n << 55n) | (1n << 62n) | (0xffn << 24n);

/** `undefined`: it names more than one element, or has reserved bits. */
export function parseFieldId(id: bigint): FieldId | undefined {
  if ((id & MUST_BE_ZERO) !== 0n) return undefined;
  return { code: Number(id & 0xff_ffffn), class: Number((id >> 56n) & 0x3fn) };
}

/** As the module gives it out. `size`: log2 of the element's bytes; `context`: 0 platform, 1 TD, 2 VCPU. */
export function fieldId(
  classCode: number,
  code: number,
  size: 0 | 1 | 2 | 3,
  context: 0 | 1 | 2,
  nonArchitectural = false,
): bigint {
  return (
    (nonArchitectural ? 1n << 63n : 0n) |
    (BigInt(classCode) << 56n) |
    (BigInt(context) << 52n) |
    (BigInt(size) << 32n) |
    BigInt(code)
  );
}

/** Class codes (TDX Module 1.5 ABI, "Class Codes"): of platform, TD and VCPU. */
export const FIELD_CLASS = {
  tdxFeatures: 10,
  tdManagement: 16,
  tdExecution: 17,
  tdMeasurement: 19,
  tdServiceTd: 25,
  vcpuManagement: 32,
  vcpuVmcs: 0,
  vcpuCpuidControl: 33,
  l2Vmcs: [36, 44, 52],
  l2MsrBitmap: [37, 45, 53],
} as const;
