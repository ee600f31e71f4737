/** The secrets page that the firmware writes at launch (AMD 56860, PAGE_TYPE_SECRETS). */
import { SECRETS_VERSION, secretsPage } from '../../../abi/snp/launch.ts';
import type { GuestContext } from './guest-context.ts';
import type { SnpPlatform } from './platform.ts';

export function makeSecretsPage(platform: SnpPlatform, context: GuestContext): Uint8Array {
  const [vmpck0, vmpck1, vmpck2, vmpck3] = context.vmpcks;
  // The register-protection bitmap stays zero: the processor does not have that feature. The clock loses nothing.
  return secretsPage.write({
    version: SECRETS_VERSION,
    fms: platform.signature,
    gosvw: context.gosvw,
    vmpck0: vmpck0 as Uint8Array,
    vmpck1: vmpck1 as Uint8Array,
    vmpck2: vmpck2 as Uint8Array,
    vmpck3: vmpck3 as Uint8Array,
  });
}
