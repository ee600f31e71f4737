/** Validity of everything in the development PKIs, so that a check does not depend on when a machine ran. Seconds since 1970. */
export const NOT_BEFORE = 1_577_836_800; // 2020-01-01
export const NOT_AFTER = 2_524_607_999; // 2049-12-31, 23:59:59
