/** What attests for one development processor: versions, secrets and keys, all from the machine's seed. */
import { ecKey, type EcKey } from '../../pki/ec.ts';
import { derive } from '../../pki/seed.ts';
import { sha384 } from '../../sha384.ts';
import { ascii } from '../../../abi/bytes.ts';

export interface TdxPlatform {
  readonly seed: bigint;
  readonly cpuSvn: Uint8Array;
  readonly pceSvn: number;
  /** Byte 0: the module's version, byte 1: its major version (1 for 1.5), byte 2: the loader's. */
  readonly teeTcbSvn: Uint8Array;
  readonly mrSeam: Uint8Array;
  /** Zeros stand for the module's usual signer. */
  readonly mrSignerSeam: Uint8Array;
  /** The key behind REPORTMACSTRUCT.MAC. */
  readonly macKey: Uint8Array;
  readonly fmspc: Uint8Array;
  readonly pceId: Uint8Array;
  readonly ppid: Uint8Array;
  readonly platformInstance: Uint8Array;
  /** Signs quotes. */
  readonly attestationKey: EcKey;
  /** Signs the quoting enclave's report. */
  readonly pckKey: EcKey;
  readonly qe: {
    readonly mrEnclave: Uint8Array;
    readonly mrSigner: Uint8Array;
    readonly id: Uint8Array;
    readonly isvProdId: number;
    readonly isvSvn: number;
    /** INIT, MODE64BIT and PROVISIONKEY. */
    readonly attributes: Uint8Array;
  };
}

const padded = (...bytes: number[]): Uint8Array => Uint8Array.from({ length: 16 }, (_, i) => bytes[i] ?? 0);

export function tdxPlatform(seed: bigint): TdxPlatform {
  const secret = (what: string, length: number): Uint8Array => derive(seed, `tdx ${what}`, length);
  return {
    seed,
    cpuSvn: padded(2, 2, 2, 2, 3, 1, 0, 3),
    pceSvn: 13,
    teeTcbSvn: padded(5, 1, 2),
    mrSeam: sha384(ascii('vitrine TDX module 1.5')),
    mrSignerSeam: new Uint8Array(48),
    macKey: secret('report mac', 32),
    fmspc: secret('fmspc', 6),
    pceId: new Uint8Array(2),
    ppid: secret('ppid', 16),
    platformInstance: secret('platform instance', 16),
    attestationKey: ecKey('p-256', seed, 'tdx attestation key'),
    pckKey: ecKey('p-256', seed, 'tdx pck'),
    qe: {
      mrEnclave: sha384(ascii('vitrine quoting enclave')).slice(0, 32),
      mrSigner: sha384(ascii('vitrine quoting enclave signer')).slice(0, 32),
      id: secret('qe id', 16),
      isvProdId: 2,
      isvSvn: 4,
      attributes: padded(0x15),
    },
  };
}
