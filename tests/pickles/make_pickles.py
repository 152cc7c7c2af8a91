#!/usr/bin/env python3
"""Makes the pickles in this folder with today's Python and numpy: python3 tests/pickles/make_pickles.py

numpy2_protocolN.pkl.gz: two, one and one blank images with labels (1, 2), (3), (4), as numpy pickles them under
protocol N. python_protocolN.pkl: a structure of every kind of value that this protocol can write without a call. attack_protocolN.pkl: a call of
os.system; making it is harmless, and so is reading it with anything but Python's own pickle module.
"""
import gzip
import os
import pickle
import sys
from pathlib import Path

import numpy as np

here = Path(__file__).parent


class Attack:
    def __reduce__(self):
        return os.system, ("touch minai_was_here",)


def split(*labels):
    return np.zeros((len(labels), 784), np.float32), np.array(labels, np.int64)


digits = (split(1, 2), split(3), split(4))
values = {
    "numbers": (0, -1, 255, 65_535, 2**31 - 1, 2**40, 2**100, -(2**70), 1.5, True, False, None),
    "texts": ["plain", "grün", "x" * 300],
    "nested": [[1, [2, [3, ()]]], {"a": {"b": {"c": []}}}],
    "twice": ["same"] * 3,
}
for protocol in range(6):
    if protocol == 3:
        values["bytes"] = (b"bytes", b"\0" * 300)
    if protocol == 4:
        values["sets"] = {frozenset([1, 2]), frozenset()}
    if protocol >= 2:
        packed = gzip.compress(pickle.dumps(digits, protocol), 9, mtime=0)
        (here / f"numpy2_protocol{protocol}.pkl.gz").write_bytes(packed)
    (here / f"python_protocol{protocol}.pkl").write_bytes(pickle.dumps(values, protocol))
    (here / f"attack_protocol{protocol}.pkl").write_bytes(pickle.dumps(Attack(), protocol))
print("Python", sys.version.split()[0], "numpy", np.__version__)
