#!/usr/bin/env python3
"""Puts small good and bad files into the corpus of each fuzz target: python3 fuzz/seeds.py (from minai/)."""
import gzip
import json
import struct
from pathlib import Path

fuzz = Path(__file__).parent
pickles = fuzz.parent.parent / "tests" / "pickles"
seeds = {"pickle": [], "idx": [], "safetensors": [], "tokenizer": []}
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
for dtype, size in (("F32", 4), ("F16", 2), ("BF16", 2), ("F64", 8), ("I64", 8)):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape, count in (("a.bias", [2], 2), ("a.weight", [2, 2], 4), ("n.bias", [2], 2), ("n.weight", [2], 2), ("x", [], 1)):
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size * count]}
        at += size * count
    text = json.dumps(header, separators=(",", ":")).encode()
    seeds["safetensors"] += [b"\0" + struct.pack("<Q", len(text)) + text + bytes(at), b"\x01" + text + bytes(at)]
seeds["safetensors"].append(b"\x01" + json.dumps({"width": 320, "eps": 1e-5, "flip": True, "kinds": ["A"], "sizes": [1, 2], "none": None}).encode())
printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
signs = [chr(byte) for byte in printable] + [chr(256 + k) for k in range(256 - len(printable))]
names = signs + [sign + "</w>" for sign in signs] + ["in", "the</w>", "th", "<|startoftext|>", "<|endoftext|>"]
vocabulary = json.dumps({name: k for k, name in enumerate(names)}, ensure_ascii=False, separators=(",", ":"))
seeds["tokenizer"].append(("\x01" + vocabulary + "\0#version: 0.2\ni n\nt h\nth e</w>\n").encode())
seeds["tokenizer"].append(("\x02" + "#version: 0.2\ni n\nt h\nth e</w>\n").encode())
texts = json.loads((fuzz.parent.parent / "tests" / "golden" / "tokenizer_texts.json").read_text())
seeds["tokenizer"] += [b"\0" + text.encode() for text, _ in texts if len(text) < 200]
for target, files in seeds.items():
    folder = fuzz / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    for k, data in enumerate(files):
        (folder / f"seed{k:02}").write_bytes(data)
    print(f"{len(files)} seeds for {target}")
