import { describe, expect, test } from 'vitest';
import { judge, parseConfig, qemuArguments, readResult } from './kvm-unit-tests-report.ts';

const CONFIG = `
# a comment
[alpha]
file = alpha.flat
smp = 2
qemu_params = -cpu qemu64,-x2apic,+tsc-deadline -m 4g
timeout = 30

[beta]
file = beta.flat
arch = i386
test_args = "one two"
qemu_params = -cpu max,vendor=GenuineIntel

[gamma]
file = gamma.flat
accel = kvm
`;

describe('parseConfig', () => {
  test('reads processors, memory, features and time limit', () => {
    expect(parseConfig(CONFIG, 'x86_64')[0]).toEqual({
      name: 'alpha',
      file: 'alpha.flat',
      cpus: 2,
      args: '',
      timeout: 30,
      memoryMiB: 4096,
      vendor: 'amd',
      parameters: ['-cpu', 'qemu64,-x2apic,+tsc-deadline', '-m', '4g'],
      without: ['x2apic'],
      hyperv: false,
      needs: undefined,
    });
  });

  test('leaves out tests for the other architecture', () => {
    expect(parseConfig(CONFIG, 'x86_64').map(({ name }) => name)).toEqual(['alpha', 'gamma']);
    expect(parseConfig(CONFIG, 'i386').map(({ name }) => name)).toEqual(['alpha', 'beta', 'gamma']);
  });

  test('takes quotes off arguments and the vendor from the processor model', () => {
    const beta = parseConfig(CONFIG, 'i386')[1];
    expect(beta?.args).toBe('one two');
    expect(beta?.vendor).toBe('intel');
  });

  test('says what a test needs that this machine is not', () => {
    expect(parseConfig(CONFIG, 'x86_64')[1]?.needs).toBe('KVM');
  });
});

test('qemuArguments gives what the configuration adds, without what only KVM has', () => {
  const [kvm] = parseConfig(
    '[a]\nfile = a.flat\nqemu_params = -enable-kvm -cpu host,hv_passthrough -m 1g',
    'i386',
  );
  const args = qemuArguments(kvm!, 'a.flat').join(' ');
  expect(args).toContain('-machine accel=tcg');
  expect(args).toMatch(/-cpu max -m 1g$/);
});

test('a test of Hyper-V asks for it and needs no other machine', () => {
  const text =
    '[a]\nfile = a.flat\nqemu_params = -cpu host,hv_passthrough -device hyperv-testdev\ncheck = /x=y';
  expect(parseConfig(text, 'x86_64')[0]).toMatchObject({ hyperv: true, needs: undefined });
});

test('a refusal by QEMU is no pass', () => {
  const output = "qemu-system-x86_64: Property 'max.vmx-mbec' not found\n";
  expect(readResult(1, output, 0.2, false).outcome).toBe('FAIL');
});

describe('readResult', () => {
  test('status 1 is a pass and lines are counted', () => {
    const result = readResult(1, 'PASS: a\r\nPASS: b\r\nSKIP: c\r\nSUMMARY: 3 tests\r\n', 1, false);
    expect(result).toMatchObject({ outcome: 'PASS', pass: 2, fail: 0, skip: 1, failures: [] });
  });

  test('a failure shows its lines', () => {
    const result = readResult(3, 'PASS: a\nFAIL: b\n', 1, false);
    expect(result).toMatchObject({ outcome: 'FAIL', fail: 1, failures: ['FAIL: b'] });
  });

  test('a crash without a FAIL line shows the end of the output', () => {
    expect(readResult(127, 'x\nunhandled exception 13\n', 1, false).failures).toContain(
      'unhandled exception 13',
    );
  });

  test('status 77 is a skip, and no status within the limit a timeout', () => {
    expect(readResult(77, 'SKIP: all\n', 1, false).outcome).toBe('SKIP');
    expect(readResult(null, '', 90, true).outcome).toBe('TIMEOUT');
  });
});

describe('judge', () => {
  test('a pass is good, and beyond the baseline where that fails', () => {
    expect(judge('a', 'PASS', 'PASS', undefined)).toEqual({ good: true, note: '' });
    expect(judge('a', 'PASS', 'FAIL', undefined).note).toBe('beyond the baseline');
  });

  test('a failure is good only with a reason', () => {
    expect(judge('a', 'FAIL', 'PASS', undefined)).toEqual({ good: false, note: 'the baseline passes' });
    expect(judge('a', 'SKIP', undefined, undefined).good).toBe(false);
    expect(judge('a', 'FAIL', 'PASS', 'no nested virtualisation')).toEqual({
      good: true,
      note: 'no nested virtualisation',
    });
  });

  test('a reason for a test that passes is out of date', () => {
    expect(judge('a', 'PASS', 'PASS', 'no longer true').good).toBe(false);
  });
});
