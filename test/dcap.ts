/** An independent DCAP verifier, given the root and the collateral of a development platform. */
import { QuoteVerifier } from '@phala/dcap-qvl';
import { tdxCollateral, type TdxCollateral } from '../src/silicon/tdx/attestation/collateral.ts';
import { tdxPlatform } from '../src/silicon/tdx/attestation/platform.ts';

const NOW = 1_800_000_000;
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

/** What the verifier takes. */
export function verifierInput(collateral: TdxCollateral) {
  return {
    pck_crl_issuer_chain: collateral.pckCrlChain,
    root_ca_crl: hex(collateral.rootCrl),
    pck_crl: hex(collateral.pckCrl),
    tcb_info_issuer_chain: collateral.tcbSigningChain,
    tcb_info: collateral.tcbInfo.text,
    tcb_info_signature: collateral.tcbInfo.signature,
    qe_identity_issuer_chain: collateral.tcbSigningChain,
    qe_identity: collateral.qeIdentity.text,
    qe_identity_signature: collateral.qeIdentity.signature,
  } as unknown as Parameters<QuoteVerifier['verify']>[1];
}

export const verifyQuote = (quote: Uint8Array, of = tdxPlatform(1n), root = tdxCollateral(of).root) =>
  QuoteVerifier.newWithRootCa(Buffer.from(root)).verify(
    Buffer.from(quote),
    verifierInput(tdxCollateral(of)),
    NOW,
  );
