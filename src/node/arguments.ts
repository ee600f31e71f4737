/** Values on the command line: text in, a value or a sentence out. */
import { InvalidArgumentError } from 'commander';

export function integer(what: string, least: number, most: number) {
  return (text: string): number => {
    const value = /^(0x[0-9a-f]+|\d+)$/i.test(text) ? Number(text) : NaN;
    if (!Number.isSafeInteger(value) || value < least || value > most)
      throw new InvalidArgumentError(`give ${what} from ${least} to ${most}.`);
    return value;
  };
}

/** 512M, 1G, 65536K or bytes. */
export function memorySize(text: string): number {
  const match = /^(\d+)([KMG]?)(?:i?B)?$/i.exec(text);
  const unit = { '': 1, K: 1024, M: 1024 ** 2, G: 1024 ** 3 }[(match?.[2] ?? '').toUpperCase()];
  const value = Number(match?.[1]) * (unit ?? NaN);
  if (!Number.isSafeInteger(value) || value <= 0)
    throw new InvalidArgumentError('give a size such as 512M or 2G.');
  return value;
}

/** What the guest's clock can hold: its year has two digits and a century. */
const FIRST_DATE = Date.UTC(1970, 0, 1);
const LAST_DATE = Date.UTC(2099, 11, 31, 23, 59, 59);

const ISO_DATE = /^(\d{4}-\d\d-\d\d)(?:[T ]\d\d:\d\d(?::\d\d)?(Z|[+-]\d\d:\d\d)?)?$/i;

/** Date.parse takes the 31st of February for a day in March. */
function isDay(text: string): boolean {
  const value = Date.parse(text);
  return !Number.isNaN(value) && new Date(value).toISOString().startsWith(text);
}

/** Seconds since 1970. A date without a zone is UTC: the place where a run is repeated must not matter. */
export function date(text: string): number {
  const match = ISO_DATE.exec(text);
  const value =
    match === null || !isDay(match[1] as string)
      ? NaN
      : Date.parse(match[2] === undefined && text.length > 10 ? `${text}Z` : text);
  if (Number.isNaN(value) || value < FIRST_DATE || value > LAST_DATE)
    throw new InvalidArgumentError('give a date from 1970 to 2099 such as 2026-01-01T00:00:00Z.');
  return Math.floor(value / 1000);
}

export function seed(text: string): bigint {
  const value = /^(0x[0-9a-f]{1,16}|\d{1,20})$/i.test(text) ? BigInt(text) : -1n;
  if (value < 0n || value >> 64n !== 0n)
    throw new InvalidArgumentError('give an integer from 0 to 2^64 - 1.');
  return value;
}

export function oneOf(names: readonly string[]) {
  return (text: string): string => {
    if (!names.includes(text)) throw new InvalidArgumentError(`give one of ${names.join(', ')}.`);
    return text;
  };
}

export function each<T>(parse: (text: string) => T) {
  return (text: string, list: readonly T[]): T[] => [...list, parse(text)];
}
