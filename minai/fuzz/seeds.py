#!/usr/bin/env python3
"""Puts small good and bad files into the corpus of each fuzz target: python3 fuzz/seeds.py (from minai/)."""
import gzip
import struct
from pathlib import Path

fuzz = Path(__file__).parent
pickles = fuzz.parent.parent / "tests" / "pickles"
seeds = {"pickle": [], "idx": []}
for path in sorted(pickles.iterdir()):
    data = path.read_bytes()
    if path.suffix == ".pkl":
        seeds["pickle"].append(b"\x02" + data)
    elif path.suffix == ".gz":
        seeds["pickle"] += [b"\0" + gzip.decompress(data), b"\x01" + data]
for sizes in ([], [5], [2, 3], [2, 3, 4], [0, 7]):
    count = 1
    for size in sizes:
        count *= size
    idx = struct.pack(f">BBBB{len(sizes)}I", 0, 0, 8, len(sizes), *sizes) + bytes(range(count))
    seeds["idx"] += [idx, gzip.compress(idx, mtime=0)]
for target, files in seeds.items():
    folder = fuzz / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    for k, data in enumerate(files):
        (folder / f"seed{k:02}").write_bytes(data)
    print(f"{len(files)} seeds for {target}")
