#!/usr/bin/env python3
"""Recomputes MRTD from the list that `vitrine measure tdx --pages FILE` writes, and from the contents beside it (FILE.data).

Needs nothing but Python. The rule is Intel's (TDX Module base specification, "TD Measurement"): one SHA-384 over a record for
each page that is added, and for each 256 bytes that are extended a record and the bytes.
"""
import hashlib
import struct
import sys

PAGE = 4096
CHUNK = 256


def record(name, gpa):
    return name.ljust(16, b"\0") + struct.pack("<Q", gpa) + bytes(104)


def mrtd(lines, data):
    measurement = hashlib.sha384()
    expected = 0
    for line in lines:
        if line.startswith("#") or not line.strip():
            continue
        order, kind, gpa, *rest = line.split()
        if int(order) != expected:
            raise SystemExit(f"page {order} stands where page {expected} should")
        expected += 1
        gpa = int(gpa, 16)
        measurement.update(record(b"MEM.PAGE.ADD", gpa))
        if kind == "added":
            continue
        digest, offset = rest
        data.seek(int(offset))
        contents = data.read(PAGE)
        if hashlib.sha384(contents).hexdigest() != digest:
            raise SystemExit(f"page {order} at {gpa:#x} does not have the contents that the list says")
        for at in range(0, PAGE, CHUNK):
            measurement.update(record(b"MR.EXTEND", gpa + at) + contents[at : at + CHUNK])
    return measurement.digest()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: tdx-mrtd.py PAGES")
    with open(sys.argv[1]) as pages, open(sys.argv[1] + ".data", "rb") as data:
        print(mrtd(pages, data).hex())
