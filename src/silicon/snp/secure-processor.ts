/** The AMD-SP as the processor of this system has it: the firmware's functions with the one guest's context. */
import { STATUS } from '../../abi/snp/firmware.ts';
import type { LaunchFinish } from '../../seats/snp.ts';
import { hostCertificateTable, snpCertificates } from './firmware/certificates.ts';
import type { Hardware } from './firmware/cpuid-page.ts';
import { createContext, type GuestContext } from './firmware/guest-context.ts';
import { guestRequest } from './firmware/guest-request.ts';
import { launchFinish, launchStart, launchUpdate, type LaunchUpdateResult } from './firmware/launch.ts';
import { snpPlatform, type SnpPlatform } from './firmware/platform.ts';

export class SecureProcessor {
  #platform: SnpPlatform | undefined;
  readonly #identity: { readonly seed: bigint; readonly signature: number; readonly referenceKhz: number };
  readonly #hardware: Hardware;
  #context: GuestContext | undefined;
  /** Made when first asked for: RSA keys cost seconds. */
  #certificates: Uint8Array | undefined;

  constructor(seed: bigint, signature: number, referenceKhz: number, hardware: Hardware) {
    this.#identity = { seed, signature, referenceKhz };
    this.#hardware = hardware;
  }

  /** Made when first asked for: keys cost time. */
  get platform(): SnpPlatform {
    const { seed, signature, referenceKhz } = this.#identity;
    return (this.#platform ??= snpPlatform(seed, signature, referenceKhz));
  }

  launchStart(policy: bigint): number {
    if (this.#context !== undefined) return STATUS.invalidGuestState;
    const context = createContext(this.platform, 0);
    const status = launchStart(context, { policy, desiredTscKhz: this.#identity.referenceKhz });
    if (status === STATUS.success) this.#context = context;
    return status;
  }
  launchUpdate(update: Parameters<typeof launchUpdate>[2]): LaunchUpdateResult {
    if (this.#context === undefined) return { status: STATUS.invalidGuestState };
    return launchUpdate(this.platform, this.#context, update, this.#hardware);
  }
  launchFinish(finish: LaunchFinish): number {
    return this.#context === undefined ? STATUS.invalidGuestState : launchFinish(this.#context, finish);
  }
  guestRequest(request: Uint8Array): { readonly status: number; readonly response?: Uint8Array } {
    if (this.#context === undefined) return { status: STATUS.invalidGuestState };
    return guestRequest(this.platform, this.#context, request, this.#hardware);
  }
  certificates(): Uint8Array {
    return (this.#certificates ??= hostCertificateTable(snpCertificates(this.platform)));
  }
  /** The launch digest so far. */
  get measurement(): Uint8Array | undefined {
    return this.#context?.measurement;
  }

  save(): unknown {
    return this.#context;
  }
  load(state: unknown): void {
    this.#context = state as GuestContext | undefined;
  }
}
