/**
 * What scripts/kvm-unit-tests.ts knows about kvm-unit-tests: its configuration format, how one of its programs says
 * what it found, and when a result is good enough. Pure functions, so that they are tested without the programs.
 */

export type Architecture = 'x86_64' | 'i386';

export interface UnitTest {
  readonly name: string;
  readonly file: string;
  readonly cpus: number;
  readonly args: string;
  /** Seconds, as the configuration gives them. */
  readonly timeout: number;
  readonly memoryMiB: number;
  readonly vendor: 'amd' | 'intel';
  /** CPUID features that the configuration takes away, by name. */
  readonly without: readonly string[];
  /** What the configuration adds to QEMU's command line. */
  readonly parameters: readonly string[];
  /** It tests the Hyper-V interfaces. */
  readonly hyperv: boolean;
  /** Why the configuration itself says that this test needs another machine. */
  readonly needs: string | undefined;
}

const DEFAULT_TIMEOUT = 90;
const DEFAULT_MEMORY_MIB = 128;

/** Reads unittests.cfg: sections of `key = value` lines, comments with `#`. */
export function parseConfig(text: string, architecture: Architecture): UnitTest[] {
  const sections: { name: string; keys: Map<string, string> }[] = [];
  for (const raw of text.split('\n')) {
    const line = raw.trim();
    if (line === '' || line.startsWith('#')) continue;
    const section = /^\[(.+)\]$/.exec(line)?.[1];
    if (section !== undefined) {
      sections.push({ name: section, keys: new Map() });
      continue;
    }
    const equals = line.indexOf('=');
    if (equals > 0) sections.at(-1)?.keys.set(line.slice(0, equals).trim(), line.slice(equals + 1).trim());
  }
  return sections
    .filter(({ keys }) => (keys.get('arch') ?? architecture) === architecture && keys.has('file'))
    .map(({ name, keys }) => unitTest(name, keys));
}

/** Programs about what only Intel has, for which the configuration leaves the vendor open. */
const OF_INTEL: readonly string[] = ['pks.flat'];

function unitTest(name: string, keys: ReadonlyMap<string, string>): UnitTest {
  const parameters = (keys.get('qemu_params') ?? keys.get('extra_params') ?? '').split(/\s+/).filter(Boolean);
  const after = (flag: string): string | undefined => {
    const at = parameters.indexOf(flag);
    return at < 0 ? undefined : parameters[at + 1];
  };
  const [model = '', ...features] = (after('-cpu') ?? '').split(',');
  const intel =
    OF_INTEL.includes(keys.get('file') ?? '') ||
    features.includes('vendor=GenuineIntel') ||
    /^(IvyBridge|Skylake)/.test(model);
  return {
    name,
    file: keys.get('file') ?? '',
    cpus: Number(keys.get('smp') ?? 1),
    args: unquote(keys.get('test_args') ?? ''),
    timeout: Number(keys.get('timeout') ?? DEFAULT_TIMEOUT),
    memoryMiB: mebibytes(after('-m')),
    vendor: intel ? 'intel' : 'amd',
    parameters,
    hyperv: parameters.some((parameter) => parameter.includes('hv_passthrough')),
    without: features.filter((feature) => feature.startsWith('-')).map((feature) => feature.slice(1)),
    needs: needs(keys, parameters),
  };
}

function needs(keys: ReadonlyMap<string, string>, parameters: readonly string[]): string | undefined {
  if (parameters.some((parameter) => parameter.includes('hv_passthrough'))) return undefined;
  const check = keys.get('check');
  if (check !== undefined) return `a host with ${check}`;
  if (keys.get('accel') === 'kvm' || parameters.includes('-enable-kvm')) return 'KVM';
  const device = parameters[parameters.indexOf('-device') + 1];
  if (parameters.includes('-device')) return `the device ${device ?? ''}`;
  return undefined;
}

/** QEMU's command line for the test, by its TCG: what the configuration's own runner would give, `host` being KVM's. */
export function qemuArguments(test: UnitTest, image: string): string[] {
  const fixed = '--no-reboot -nodefaults -device pc-testdev -device isa-debug-exit,iobase=0xf4,iosize=0x4';
  const args = `${fixed} -display none -serial stdio -device pci-testdev -machine accel=tcg`.split(' ');
  args.push('-kernel', image, '-smp', String(test.cpus));
  for (const parameter of test.parameters)
    if (parameter !== '-enable-kvm')
      args.push(parameter.replace(/^host\b/, 'max').replace(',hv_passthrough', ''));
  if (test.args !== '') args.push('-append', test.args);
  return args;
}

/** A shell would take the quotes off and put the time in; nothing else of a shell occurs in the file. */
function unquote(args: string): string {
  return args.replaceAll(/["']/g, '').replaceAll(/`date \+%s`/g, '0');
}

function mebibytes(size: string | undefined): number {
  const match = /^(\d+)([gGmM]?)$/.exec(size ?? '');
  if (match === null) return DEFAULT_MEMORY_MIB;
  return Number(match[1]) * (match[2]?.toLowerCase() === 'g' ? 1024 : 1);
}

export type Outcome = 'PASS' | 'FAIL' | 'SKIP' | 'TIMEOUT' | 'NO IMAGE' | 'NOT RUN';

export interface TestResult {
  readonly outcome: Outcome;
  /** Exit status of the command; the program's own code is `status >> 1`. */
  readonly status: number | null;
  readonly pass: number;
  readonly fail: number;
  readonly skip: number;
  readonly seconds: number;
  /** The lines that say what failed, or the end of the output when nothing does. */
  readonly failures: readonly string[];
  /** Count of instructions and hash of the state at the end, in words. */
  readonly run?: string;
}

/** The exit status, not the code, when everything in a program was skipped. */
const SKIPPED_STATUS = 77;
const PASSED_STATUS = 1;

export function readResult(
  status: number | null,
  output: string,
  seconds: number,
  timedOut: boolean,
): TestResult {
  const lines = output.replaceAll('\r', '').split('\n');
  const count = (word: string): number => lines.filter((line) => line.startsWith(`${word}:`)).length;
  // QEMU itself also refuses with the status of a pass.
  const refused =
    /^qemu-system-\S+: /m.test(output) && count('PASS') === 0 && !output.includes('enabling apic');
  const outcome = timedOut
    ? 'TIMEOUT'
    : status === PASSED_STATUS && !refused
      ? 'PASS'
      : status === SKIPPED_STATUS
        ? 'SKIP'
        : 'FAIL';
  const failed = lines.filter((line) => line.startsWith('FAIL:') || line.includes('assert failed'));
  const last = lines.filter((line) => line.trim() !== '').slice(-4);
  return {
    outcome,
    status,
    pass: count('PASS'),
    fail: count('FAIL'),
    skip: count('SKIP'),
    seconds,
    failures: outcome === 'PASS' || outcome === 'SKIP' ? [] : failed.length > 0 ? failed : last,
  };
}

/** The other machine's results, by test name; only the outcome is compared. */
export type Baseline = Readonly<Record<string, { readonly outcome: string }>>;
/** Why a test may end otherwise than with PASS, by test name. */
export type Expected = Readonly<Record<string, string>>;

export interface Verdict {
  readonly good: boolean;
  readonly note: string;
}

export function judge(
  name: string,
  outcome: Outcome,
  baseline: string | undefined,
  reason: string | undefined,
): Verdict {
  if (outcome === 'NOT RUN') return { good: true, note: reason ?? 'needs another machine' };
  if (outcome === 'PASS') {
    if (reason !== undefined)
      return { good: false, note: `passes: take ${name} off the list of expected failures` };
    return { good: true, note: baseline !== undefined && baseline !== 'PASS' ? 'beyond the baseline' : '' };
  }
  if (reason !== undefined) return { good: true, note: reason };
  return { good: false, note: baseline === 'PASS' ? 'the baseline passes' : 'no reason is listed' };
}
