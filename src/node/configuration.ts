/** What makes a machine, as plain data: `--json` prints it, `--config` reads it back. */
import { resolve } from 'node:path';
import type { BootOptions } from './boot.ts';
import { UserError } from './errors.ts';

type Kind = 'string' | 'file' | 'number' | 'boolean' | 'strings' | 'added' | 'seed';

/** What belongs to the machine; where results go and how the run is paced is said anew each time. */
const KEYS = {
  configuration: 'string',
  kernel: 'file',
  kernelPackage: 'string',
  modules: 'file',
  initrd: 'file',
  add: 'added',
  append: 'string',
  memory: 'number',
  cpus: 'number',
  cpuModel: 'string',
  run: 'string',
  limit: 'number',
  seed: 'seed',
  date: 'number',
  hyperv: 'boolean',
  hypervWithout: 'strings',
  paravisorWithout: 'strings',
  hideIsolation: 'boolean',
} as const satisfies Readonly<Partial<Record<keyof BootOptions, Kind>>>;

/** As JSON: seeds as decimal text, files by their whole path, and the kernel package that was found in place of "the newest". */
export function printedConfiguration(
  options: BootOptions,
  kernelPackage: string | undefined,
): Record<string, unknown> {
  const printed: Record<string, unknown> = {};
  for (const [key, kind] of Object.entries(KEYS) as [keyof typeof KEYS, Kind][]) {
    const value = key === 'kernelPackage' ? kernelPackage : options[key];
    if (value === undefined) continue;
    printed[key] = print(value, kind);
  }
  return printed;
}

function print(value: unknown, kind: Kind): unknown {
  switch (kind) {
    case 'seed':
      return (value as bigint).toString();
    case 'file':
      return resolve(value as string);
    case 'added':
      return (value as string[]).map((text) => {
        const colon = text.indexOf(':');
        return colon < 0 ? resolve(text) : `${resolve(text.slice(0, colon))}${text.slice(colon)}`;
      });
    default:
      return value;
  }
}

function fits(value: unknown, kind: Kind): boolean {
  switch (kind) {
    case 'strings':
    case 'added':
      return Array.isArray(value) && value.every((item) => typeof item === 'string');
    case 'seed':
      return typeof value === 'string' && /^\d{1,20}$/.test(value) && BigInt(value) >> 64n === 0n;
    case 'number':
      return Number.isSafeInteger(value) && (value as number) >= 0;
    case 'file':
      return typeof value === 'string';
    default:
      return typeof value === kind;
  }
}

const LIMITS: readonly (readonly [keyof typeof KEYS, number, number])[] = [
  ['cpus', 1, 64],
  ['limit', 1, Number.MAX_SAFE_INTEGER],
];

/** The options that the file sets. `text` is a whole report or its `configuration` alone. */
export function readConfiguration(text: string, where: string): Record<string, unknown> {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    throw new UserError(`${where} is not JSON: give what --json wrote`);
  }
  const isObject = (value: unknown): value is Record<string, unknown> =>
    typeof value === 'object' && value !== null && !Array.isArray(value);
  const from = isObject(parsed) && isObject(parsed['configuration']) ? parsed['configuration'] : parsed;
  if (!isObject(from)) throw new UserError(`${where} holds no configuration: give what --json wrote`);
  const unknown = Object.keys(from).find((key) => !(key in KEYS));
  if (unknown !== undefined)
    throw new UserError(`${where} has an unknown key '${unknown}': give what --json wrote`);
  const found: Record<string, unknown> = {};
  for (const [key, kind] of Object.entries(KEYS)) {
    const value = from[key];
    if (value === undefined) continue;
    if (!fits(value, kind))
      throw new UserError(`${where} has no good value for '${key}': give what --json wrote`);
    found[key] = kind === 'seed' ? BigInt(value as string) : value;
  }
  for (const [key, least, most] of LIMITS) {
    const value = found[key] as number | undefined;
    if (value !== undefined && (value < least || value > most))
      throw new UserError(`${where} has no good value for '${key}': give a number from ${least} to ${most}`);
  }
  if (Object.keys(found).length === 0)
    throw new UserError(`${where} holds no configuration: give what --json wrote`);
  return found;
}
