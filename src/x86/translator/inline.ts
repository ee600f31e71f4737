/**
 * Library routines that a region may call without writing its registers and flags back to the CPU structure: they neither
 * read nor write general registers, XMM registers, status flags, rip, budget or the fields of a record that name registers.
 */
const float = (suffix: string): string[] =>
  ['add', 'sub', 'mul', 'div', 'sqrt', 'min', 'max', 'cmp', 'round'].map((op) => `${op}${suffix}`);

/** May raise a fault. */
const FAULTING = [
  'raise',
  'raise_error',
  'raise_trap',
  'raise_interpret',
  'div128_u',
  'div128_s',
  'check_target',
  'check_flags_access',
  'probe_write',
  'probe_read',
  ...['ps', 'pd', 'ss', 'sd'].flatMap(float),
  ...['addsubps', 'addsubpd', 'dpps', 'dppd', 'comiss', 'comisd', 'rcp', 'rsqrt'],
  ...['cvtsi322ss', 'cvtsi322sd', 'cvtsi642ss', 'cvtsi642sd', 'cvtss2sd', 'cvtsd2ss', 'cvtps2pd'],
  ...['ss', 'sd'].flatMap((suffix) =>
    ['', 't'].flatMap((t) => [32, 64].map((bits) => `cvt${t}${suffix}2si${bits}`)),
  ),
  ...['cvtpi2ps', 'cvtps2pi', 'cvttps2pi'],
  ...['cvtpd2ps', 'cvtdq2ps', 'cvtps2dq', 'cvttps2dq', 'cvtpd2pi', 'cvttpd2pi'],
  ...['f32_to_int', 'f64_to_int', 'float_finish'],
  ...['fpu_wait', 'fpu_flag', 'fpu_begin', 'fpu_summary', 'fpu_masked'],
  ...['fpu_push', 'fpu_underflow', 'fpu_round', 'fpu_precision', 'fpu_pass'],
  ...['fpu_add', 'fpu_mul', 'fpu_div', 'fpu_sqrt', 'fpu_from_f64', 'fpu_from_f32', 'fpu_from_int'],
  ...['fpu_to_int', 'fpu_to_float', 'fpu_compare', 'fpu_scale', 'fpu_remainder', 'fpu_integral'],
  ...['mmx_begin', 'mmx_done', 'mmx_empty'],
] as const;

const PURE = [
  'mul_high_u',
  'mul_high_s',
  'parallel_extract',
  'parallel_deposit',
  'canonical',
  'flags_image',
  'crc32c',
  'crc32c_reduce',
  'carryless_multiply',
  ...['aes_sub', 'aes_encrypt', 'aes_decrypt', 'aes_inverse_mix', 'aes_key'],
] as const;

/** What the region's own code calls, beside the definitions. */
const SUPPORT = [
  'load_region',
  'store_region',
  'store_region128',
  'load_region128',
  'find_region',
  'plain_flags',
  'update_mode',
  'update_special',
  'stack_linear',
  'carry_of',
  'status_of',
  ...[0, 1, 2, 3, 4, 5, 6, 7].map((group) => `cond_of_${group}`),
] as const;

export const INLINE: ReadonlyMap<string, 'faults' | 'pure'> = new Map([
  ...FAULTING.map((name) => [name, 'faults'] as const),
  ...PURE.map((name) => [name, 'pure'] as const),
]);

export const REGION_ROUTINES: readonly string[] = [...FAULTING, ...PURE, ...SUPPORT];
