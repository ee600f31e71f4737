/** A guest for tests of the firmware: a platform, and a context that was launched with one page. */
import { PAGE_TYPE } from '../../../abi/snp/firmware.ts';
import type { CpuidRegisters } from './cpuid-page.ts';
import { createContext, type GuestContext } from './guest-context.ts';
import { launchFinish, launchStart, launchUpdate } from './launch.ts';
import { snpPlatform } from './platform.ts';

export const platform = snpPlatform(1n, 0x00a00f11, 2_000_000);
export const POLICY_VALUE = 0x30000n;
/** A chip that has no CPUID function. */
export const nothing = (): CpuidRegisters => ({ eax: 0, ebx: 0, ecx: 0, edx: 0 });
export const hex = (bytes: Uint8Array): string =>
  Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
export const bytes = (text: string): Uint8Array =>
  Uint8Array.from(text.match(/../g) ?? [], (digits) => parseInt(digits, 16));

export function launched(finish: Parameters<typeof launchFinish>[1] = {}): GuestContext {
  const context = createContext(platform, 0);
  launchStart(context, { policy: POLICY_VALUE, desiredTscKhz: 3_000_000 });
  const page = { type: PAGE_TYPE.normal, gpa: 0x1000, contents: new Uint8Array(4096).fill(1) };
  launchUpdate(platform, context, page, nothing);
  launchFinish(context, finish);
  return context;
}
