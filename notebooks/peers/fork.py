"""What random number generators do in a forked process: each is seeded, forked, and drawn from once on both sides.

Prints a line for each generator. Those whose library is not installed are left out.
"""

import os
import random
import sys


def both_sides(draw):
    """What `draw` returns in a forked child, and then in this process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, repr(draw()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    return os.read(reader, 100).decode(), repr(draw())


def report(name, draw):
    child, parent = both_sides(draw)
    verdict = "the same" if child == parent else "different"
    print(f"{name:28} child {child:.8}  parent {parent:.8}  {verdict}")


if not hasattr(os, "fork"):
    sys.exit("This system has no fork.")

random.seed(42)
report("CPython random", random.random)
own = random.Random(42)
report("CPython Random(42)", own.random)

try:
    import numpy as np

    np.random.seed(42)
    report("numpy np.random", lambda: float(np.random.rand()))
    generator = np.random.default_rng(42)
    report("numpy default_rng", lambda: float(generator.random()))
except ImportError:
    print("numpy is not installed")

try:
    import torch
    from torch.utils.data import DataLoader, Dataset

    class Draws(Dataset):
        """Two items, each a random number drawn by whichever worker is asked."""

        def __len__(self):
            return 2

        def __getitem__(self, _):
            return torch.rand(1).item()

    torch.manual_seed(42)
    report("torch.rand", lambda: torch.rand(1).item())
    first, second = [draw.item() for draw in DataLoader(Draws(), num_workers=2)]
    verdict = "the same" if first == second else "different"
    print(f"{'torch DataLoader, 2 workers':28} first {str(first):.8}  second {str(second):.8}  {verdict}")
except ImportError:
    print("torch is not installed")
