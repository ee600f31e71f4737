#!/usr/bin/env bash
# Verifies an SEV-SNP attestation report and its certificate chain with OpenSSL alone.
#
#   verify-snp-report.sh REPORT CHAIN [ROOT]
#
# REPORT is the binary report (1184 bytes), CHAIN a PEM file with the VCEK first, then the ASK and the ARK. ROOT is the ARK that
# you trust; without it the chain's own ARK is taken, which shows consistency and nothing about who made it.
set -euo pipefail

if (($# < 2 || $# > 3)); then
  echo "usage: $0 REPORT CHAIN [ROOT]" >&2
  exit 2
fi
report=$1
chain=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if (($(wc -c <"$report") != 1184)); then
  echo "$report is not a report of 1184 bytes" >&2
  exit 2
fi
awk -v out="$work" '/-----BEGIN CERTIFICATE-----/ { n++ } n { print > (out "/" n ".pem") }' "$chain"
for n in 1 2 3; do
  [[ -s $work/$n.pem ]] || {
    echo "$chain holds no three certificates" >&2
    exit 2
  }
done
root=${3:-$work/3.pem}

# AMD's certificates do not carry the purpose fields that OpenSSL's strict mode asks for; signatures and dates are checked.
openssl verify -CAfile "$root" -untrusted "$work/2.pem" "$work/1.pem" >"$work/verify" 2>&1 || {
  cat "$work/verify" >&2
  exit 1
}
echo "chain: good"
openssl x509 -in "$work/1.pem" -noout -pubkey >"$work/vcek.pub"

# R and S stand in 72 bytes each, little-endian; OpenSSL wants a DER sequence of two integers.
reversed() { tail -c +$(($1 + 1)) "$report" | head -c 72 | od -An -v -tx1 | tr -s ' \n' '\n' | awk '{ v = $0 v } END { printf "%s", v }'; }
cat >"$work/signature.conf" <<END
asn1 = SEQUENCE:signature
[signature]
r = INTEGER:0x$(reversed 672)
s = INTEGER:0x$(reversed 744)
END
openssl asn1parse -genconf "$work/signature.conf" -noout -out "$work/signature.der" >/dev/null
head -c 672 "$report" >"$work/signed"
openssl dgst -sha384 -verify "$work/vcek.pub" -signature "$work/signature.der" "$work/signed" >/dev/null || {
  echo "report: signature bad" >&2
  exit 1
}
echo "report: signature good"
