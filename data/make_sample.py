#!/usr/bin/env python3
"""Makes mnist_sample.pkl.gz from mnist.pkl.gz: python3 data/make_sample.py path/to/mnist.pkl.gz data/mnist_sample.pkl.gz

The first 6,000 train, 1,000 valid and 1,000 test images, in file order, with the very pickle instructions of the
original. Pickling the sample anew would not do: today's Python and numpy write other instructions than Python 2 did.
So the original is copied instruction by instruction, and only two things in each array change: its first size and
its bytes. Needs nothing but Python. What is inside the gzip is always the same; the gzip itself can differ with zlib.
"""
import gzip
import hashlib
import os
import pickletools
import struct
import sys
import zlib

ORIGINAL = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"
KEEP = {50_000: 6_000, 10_000: 1_000}  # how many of a split's images stay


def shortened(pickle):
    """The pickle with fewer images: sizes and byte strings replaced, every other byte copied."""
    instructions = list(pickletools.genops(pickle))
    ends = [position for _, _, position in instructions[1:]] + [len(pickle)]
    out, size = [], None
    for (op, argument, start), end in zip(instructions, ends):
        if op.name == "BININT2" and argument in KEEP:
            size = argument
            out.append(b"M" + struct.pack("<H", KEEP[size]))
        elif op.name == "BINSTRING":
            length = (end - start - 5) * KEEP[size] // size
            out.append(b"T" + struct.pack("<i", length) + pickle[start + 5 : start + 5 + length])
        else:
            out.append(pickle[start:end])
    return b"".join(out)


def gzipped(data):
    """One gzip member without name and date."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
    body = packer.compress(data) + packer.flush()
    return b"\x1f\x8b\x08\0\0\0\0\0\x02\xff" + body + struct.pack("<II", zlib.crc32(data), len(data))


def main():
    source, target = sys.argv[1:]
    with open(source, "rb") as file:
        packed = file.read()
    if hashlib.sha256(packed).hexdigest() != ORIGINAL:
        sys.exit(f"{source} is not the file that lesson 1 downloads: its SHA-256 differs")
    original = gzip.decompress(packed)
    sample = shortened(original)
    names = [[op.name for op, _, _ in pickletools.genops(p)] for p in (original, sample)]
    assert names[0] == names[1], "the instructions differ"
    with open(target + ".tmp", "wb") as file:
        file.write(gzipped(sample))
    os.replace(target + ".tmp", target)
    with open(target, "rb") as file:
        made = file.read()
    print(f"{target}: {len(made):,} bytes, {len(sample):,} unpacked, SHA-256 {hashlib.sha256(made).hexdigest()}")


if __name__ == "__main__":
    main()
