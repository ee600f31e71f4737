/** The AMD secure processor of one development chip: identity, versions and keys, all from the machine's seed. */
import { tcbValue, type TcbVersion } from '../../../abi/snp/firmware.ts';
import { ecKey, type EcKey } from '../../pki/ec.ts';
import { derive } from '../../pki/seed.ts';

/** ABI 1.55, the first whose reports say which processor it is (version 3). */
export const ABI = { major: 1, minor: 55, build: 29 } as const;
export const REPORT_VERSION = 3;
/** What a Milan of 2024 has. */
export const DEVELOPMENT_TCB: TcbVersion = { bootLoader: 4, tee: 0, snp: 24, microcode: 219 };

export interface SnpPlatform {
  readonly seed: bigint;
  readonly chipId: Uint8Array;
  readonly tcb: bigint;
  /** CPUID function 1 EAX. */
  readonly signature: number;
  /** The clock that a guest's TSC is scaled from, kHz. */
  readonly referenceKhz: number;
  readonly vcek: EcKey;
  /** The secret that keys are derived from when a guest asks for the VCEK as root. */
  readonly vcekRoot: Uint8Array;
}

export function snpPlatform(seed: bigint, signature: number, referenceKhz: number): SnpPlatform {
  const tcb = tcbValue(DEVELOPMENT_TCB);
  let vcek: EcKey | undefined;
  return {
    seed,
    chipId: derive(seed, 'snp chip id', 64),
    tcb,
    signature,
    referenceKhz,
    // A VCEK belongs to a chip and a TCB version. Made when something is signed: that costs a tenth of a second.
    get vcek() {
      return (vcek ??= ecKey('p-384', seed, `snp vcek ${tcb}`));
    },
    vcekRoot: derive(seed, `snp vcek root ${tcb}`, 48),
  };
}
