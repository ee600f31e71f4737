/** GUEST_TSC_SCALE (AMD 56860, 7.9): the wanted frequency by the reference clock as 8.32 fixed point, rounded up. */
export function tscScale(desiredKhz: number, referenceKhz: number): bigint {
  if (referenceKhz === 0) return 0n;
  const scaled = BigInt(desiredKhz) << 32n;
  return BigInt.asUintN(40, (scaled + BigInt(referenceKhz) - 1n) / BigInt(referenceKhz));
}
