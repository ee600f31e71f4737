/** What a loader says about input that it cannot use: the parts of one sentence for the user. */

export interface LaunchError {
  /** What is wrong: "the kernel is an arm64 image". */
  readonly what: string;
  /** Where: "kernel, byte 0x38". */
  readonly where: string;
  /** What to do about it. */
  readonly advice: string;
}

export interface Failure {
  readonly ok: false;
  readonly error: LaunchError;
}

export function fail(what: string, where: string, advice: string): Failure {
  return { ok: false, error: { what, where, advice } };
}

export function sentence(error: LaunchError): string {
  return `${error.what} (${error.where}): ${error.advice}`;
}

export function hex(value: number | bigint): string {
  return `0x${value.toString(16)}`;
}

/** "55.9 MiB", "1 byte"; "3600 MiB", which is not quite 3.5 GiB. */
export function size(length: number): string {
  if (length === 1) return '1 byte';
  if (length < 1024) return `${length} bytes`;
  const units = ['KiB', 'MiB', 'GiB', 'TiB'];
  let value = length / 1024;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    if (Number.isInteger(value) && !Number.isInteger((value / 1024) * 10) && value < 10_000) break;
    value /= 1024;
    unit++;
  }
  return `${Number.isInteger(value) ? value : value.toFixed(1)} ${units[unit] ?? ''}`;
}
