/**
 * The ports and the memory that unit tests for virtual machines expect of a test device: a register that remembers
 * (0xE0 to 0xE3), one that remembers single bytes (0xE8), a page to flush (0xE4), a line for each interrupt
 * (0x2000 and up), and 64 KiB of device memory at 0xFF000000.
 *
 * There is no specification; what the programs that use them rely on is the interface.
 */

export const DEVICE_MEMORY_BASE = 0xff000000;
export const DEVICE_MEMORY_SIZE = 0x10000;

const REGISTER_PORT = 0xe0;
const FLUSH_PORT = 0xe4;
const BYTE_PORT = 0xe8;
const LINE_PORT = 0x2000;
const LINES = 24;

export interface TestDevice {
  register: number;
  byte: number;
  memory: Uint8Array;
}

export function createTestDevice(): TestDevice {
  return { register: 0, byte: 0, memory: new Uint8Array(DEVICE_MEMORY_SIZE) };
}

export type TestDeviceRead = { readonly claimed: false } | { readonly claimed: true; readonly value: number };

const bytesMask = (size: 1 | 2 | 4): number => (size === 4 ? 0xffffffff : (1 << (size * 8)) - 1) >>> 0;

export function readTestPort(device: TestDevice, port: number, size: 1 | 2 | 4): TestDeviceRead {
  if (port >= REGISTER_PORT && port < FLUSH_PORT) {
    const value = (device.register >>> ((port & 3) * 8)) & bytesMask(size);
    return { claimed: true, value: value >>> 0 };
  }
  if (port >= FLUSH_PORT && port < BYTE_PORT) return { claimed: true, value: 0 };
  if (port >= BYTE_PORT && port < BYTE_PORT + 4) return { claimed: true, value: device.byte };
  if (port >= LINE_PORT && port < LINE_PORT + LINES) return { claimed: true, value: 0 };
  return { claimed: false };
}

export type TestDeviceWrite =
  | { readonly kind: 'not-claimed' }
  | { readonly kind: 'done' }
  | { readonly kind: 'line'; readonly line: number; readonly level: boolean };

export function writeTestPort(
  device: TestDevice,
  port: number,
  size: 1 | 2 | 4,
  value: number,
): TestDeviceWrite {
  if (port >= REGISTER_PORT && port < FLUSH_PORT) {
    const shift = (port & 3) * 8;
    const mask = bytesMask(size) << shift;
    device.register = ((device.register & ~mask) | ((value << shift) & mask)) >>> 0;
    return { kind: 'done' };
  }
  // A hypervisor that caches translations forgets them here; this machine has nothing to forget.
  if (port >= FLUSH_PORT && port < BYTE_PORT) return { kind: 'done' };
  if (port >= BYTE_PORT && port < BYTE_PORT + 4) {
    device.byte = value & 0xff;
    return { kind: 'done' };
  }
  if (port >= LINE_PORT && port < LINE_PORT + LINES) {
    return { kind: 'line', line: port - LINE_PORT, level: (value & 0xff) !== 0 };
  }
  return { kind: 'not-claimed' };
}
