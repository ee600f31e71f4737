#!/usr/bin/env python3
"""Recomputes an SEV-SNP launch digest from the list that `vitrine measure --pages FILE` writes.

Needs nothing but Python. The rule is SNP_LAUNCH_UPDATE of AMD's SEV-SNP firmware ABI (document 56860): for each page, in order,
digest = SHA-384(PAGE_INFO).
"""
import hashlib
import struct
import sys

TYPES = {"normal": 1, "vmsa": 2, "zero": 3, "unmeasured": 4, "secrets": 5, "cpuid": 6}


def launch_digest(lines):
    digest = bytes(48)
    expected = 0
    for line in lines:
        if line.startswith("#") or not line.strip():
            continue
        order, kind, gpa, contents = line.split()[:4]
        if int(order) != expected:
            raise SystemExit(f"page {order} stands where page {expected} should")
        expected += 1
        counts = kind in ("normal", "vmsa")
        hashed = bytes.fromhex(contents) if counts else bytes(48)
        # Current digest, contents, length, type, no migration image, a reserved byte, permissions of VMPL1 to 3, address.
        info = digest + hashed + struct.pack("<HBB4BQ", 0x70, TYPES[kind], 0, 0, 0, 0, 0, int(gpa, 16))
        assert len(info) == 0x70
        digest = hashlib.sha384(info).digest()
    return digest


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: snp-launch-digest.py PAGES")
    with open(sys.argv[1]) as pages:
        print(launch_digest(pages).hex())
