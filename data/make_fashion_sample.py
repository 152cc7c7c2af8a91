#!/usr/bin/env python3
"""Makes the sample of Fashion-MNIST: python3 data/make_fashion_sample.py data/fashion-mnist-own data/fashion-mnist-sample

The first 600 training and 100 test images of each class, in the order of the split `fashion-mnist-own`, in the same
four gzipped IDX files. The originals are checked by their SHA-256s. Needs nothing but Python. What is inside the gzip
files is always the same; the gzip files themselves can differ with the version of zlib, and their SHA-256s with them.
"""
import gzip
import hashlib
import os
import struct
import sys
import zlib

ORIGINALS = {
    "train-images-idx3-ubyte.gz": "7459d2e9e65c2d8a69479333e459f568ca4d03db8908d7866a4bd404386c616e",
    "train-labels-idx1-ubyte.gz": "bed6dbc9f639895de320b6bed590f55f88cb3fa46e87858fef1ecab22d6cac17",
    "t10k-images-idx3-ubyte.gz": "c2a6c3e093bea0e708476f314eead1fcb272c2b85ad511deeea290297a0d9e0c",
    "t10k-labels-idx1-ubyte.gz": "2e12656e54e9cf179c5379686e0fa04ae433fd6ca1dd54cee4967151e83d67a1",
}
PER_CLASS = {"train": 600, "t10k": 100}


def unpacked(folder, name):
    with open(os.path.join(folder, name), "rb") as file:
        packed = file.read()
    if hashlib.sha256(packed).hexdigest() != ORIGINALS[name]:
        sys.exit(f"{name} in {folder} is not the file that this script knows: its SHA-256 differs")
    return gzip.decompress(packed)


def chosen(labels, count):
    """The positions of the first `count` labels of each class, in order."""
    seen, positions = [0] * 10, []
    for position, label in enumerate(labels):
        if seen[label] < count:
            positions.append(position)
            seen[label] += 1
    assert seen == [count] * 10, "too few images of a class"
    return positions


def gzipped(data):
    """One gzip member without name and date."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
    body = packer.compress(data) + packer.flush()
    return b"\x1f\x8b\x08\0\0\0\0\0\x02\xff" + body + struct.pack("<II", zlib.crc32(data), len(data))


def write(folder, name, idx):
    path = os.path.join(folder, name)
    with open(path + ".tmp", "wb") as file:
        file.write(gzipped(idx))
    os.replace(path + ".tmp", path)
    with open(path, "rb") as file:
        made = file.read()
    print(f"{name}: {len(made):,} bytes, {len(idx):,} unpacked, SHA-256 {hashlib.sha256(made).hexdigest()}")


def main():
    source, target = sys.argv[1:]
    os.makedirs(target, exist_ok=True)
    for part, count in PER_CLASS.items():
        images = unpacked(source, f"{part}-images-idx3-ubyte.gz")
        labels = unpacked(source, f"{part}-labels-idx1-ubyte.gz")
        assert struct.unpack(">4I", images[:16]) == (0x803, len(labels) - 8, 28, 28), "another header"
        positions = chosen(labels[8:], count)
        pixels = b"".join(images[16 + 784 * p : 16 + 784 * (p + 1)] for p in positions)
        header = struct.pack(">4I", 0x803, len(positions), 28, 28)
        write(target, f"{part}-images-idx3-ubyte.gz", header + pixels)
        header = struct.pack(">2I", 0x801, len(positions))
        write(target, f"{part}-labels-idx1-ubyte.gz", header + bytes(labels[8 + p] for p in positions))


if __name__ == "__main__":
    main()
