/** Reads back what `--json` printed as configuration. */
import { UserError } from './errors.ts';

type Kind = 'string' | 'number' | 'boolean' | 'strings' | 'seed';

/** What belongs to the machine; where results go and how the run is paced is said anew each time. */
const KEYS: Readonly<Record<string, Kind>> = {
  configuration: 'string',
  kernel: 'string',
  kernelPackage: 'string',
  modules: 'string',
  initrd: 'string',
  add: 'strings',
  append: 'string',
  memory: 'number',
  cpus: 'number',
  cpuModel: 'string',
  run: 'string',
  limit: 'number',
  seed: 'seed',
  date: 'number',
  hyperv: 'boolean',
  invariantTsc: 'boolean',
};

function fits(value: unknown, kind: Kind): boolean {
  switch (kind) {
    case 'strings':
      return Array.isArray(value) && value.every((item) => typeof item === 'string');
    case 'seed':
      return typeof value === 'string' && /^\d{1,20}$/.test(value) && BigInt(value) >> 64n === 0n;
    case 'number':
      return Number.isSafeInteger(value) && (value as number) >= 0;
    default:
      return typeof value === kind;
  }
}

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
  const found: Record<string, unknown> = {};
  for (const [key, kind] of Object.entries(KEYS)) {
    const value = from[key];
    if (value === undefined) continue;
    if (!fits(value, kind))
      throw new UserError(`${where} has no good value for '${key}': give what --json wrote`);
    found[key] = kind === 'seed' ? BigInt(value as string) : value;
  }
  const limits: readonly [string, number, number][] = [
    ['cpus', 1, 64],
    ['limit', 1, Number.MAX_SAFE_INTEGER],
  ];
  for (const [key, least, most] of limits) {
    const value = found[key] as number | undefined;
    if (value !== undefined && (value < least || value > most))
      throw new UserError(`${where} has no good value for '${key}': give a number from ${least} to ${most}`);
  }
  if (Object.keys(found).length === 0)
    throw new UserError(`${where} holds no configuration: give what --json wrote`);
  return found;
}
