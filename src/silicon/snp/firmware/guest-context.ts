/** What the firmware keeps for one guest (GCTX, AMD 56860 4.2): plain data. */
import { idBlock } from '../../../abi/snp/launch.ts';
import { derive } from '../../pki/seed.ts';
import type { SnpPlatform } from './platform.ts';

export interface GuestContext {
  /** Between SNP_GCTX_CREATE and SNP_LAUNCH_START, until SNP_LAUNCH_FINISH, and after. */
  state: 'init' | 'launch' | 'running';
  policy: bigint;
  /** The launch digest so far. */
  measurement: Uint8Array;
  vmpcks: Uint8Array[];
  /** Messages that were exchanged under each VMPCK. */
  messageCounts: bigint[];
  vmrk: Uint8Array;
  reportId: Uint8Array;
  reportIdMa: Uint8Array;
  idBlock: Uint8Array;
  idBlockEnabled: boolean;
  authorKeyEnabled: boolean;
  vcekDisabled: boolean;
  idKeyDigest: Uint8Array;
  authorKeyDigest: Uint8Array;
  hostData: Uint8Array;
  gosvw: Uint8Array;
  desiredTscKhz: number;
  launchTcb: bigint;
}

/** SNP_GCTX_CREATE. `ordinal` tells the guests of one platform apart: each has its own secrets. */
export function createContext(platform: SnpPlatform, ordinal: number): GuestContext {
  const secret = (what: string): Uint8Array => derive(platform.seed, `snp guest ${ordinal} ${what}`, 32);
  return {
    state: 'init',
    policy: 0n,
    measurement: new Uint8Array(48),
    vmpcks: [0, 1, 2, 3].map((vmpl) => secret(`vmpck ${vmpl}`)),
    messageCounts: [0n, 0n, 0n, 0n],
    vmrk: secret('vmrk'),
    reportId: secret('report id'),
    // No migration agent.
    reportIdMa: new Uint8Array(32).fill(0xff),
    idBlock: new Uint8Array(idBlock.size),
    idBlockEnabled: false,
    authorKeyEnabled: false,
    vcekDisabled: false,
    idKeyDigest: new Uint8Array(48),
    authorKeyDigest: new Uint8Array(48),
    hostData: new Uint8Array(32),
    gosvw: new Uint8Array(16),
    desiredTscKhz: 0,
    launchTcb: platform.tcb,
  };
}
