"""The time of 7,840 random numbers, in chunks of ten as the lesson makes them, or at once where a library can.

Prints a line for each way: mean and deviation of 7 runs. Those whose library is not installed are left out.
"""

import itertools
import random
import statistics
import timeit


def report(name, work):
    timer = timeit.Timer(work)
    loops, _ = timer.autorange()
    loops = max(1, loops // 2)
    times = [time / loops * 1e6 for time in timer.repeat(7, loops)]
    mean, deviation = statistics.mean(times), statistics.pstdev(times)
    print(f"{name:36} {mean:.1f} µs ± {deviation:.1f} µs")


def seed(number):
    global state
    number, x = divmod(number, 30268)
    number, y = divmod(number, 30306)
    number, z = divmod(number, 30322)
    state = x + 1, y + 1, z + 1


def uniform():
    global state
    x, y, z = state
    state = x, y, z = 171 * x % 30269, 172 * y % 30307, 170 * z % 30323
    return (x / 30269 + y / 30307 + z / 30323) % 1.0


def chunks(items, size):
    items = iter(items)
    while piece := list(itertools.islice(items, size)):
        yield piece


seed(42)
report("CPython, Wichmann-Hill", lambda: list(chunks((uniform() for _ in range(7840)), 10)))
report("CPython, random.random", lambda: list(chunks((random.random() for _ in range(7840)), 10)))

try:
    import numpy as np

    generator = np.random.default_rng(42)
    report("numpy, random((784, 10)) at once", lambda: generator.random((784, 10)))
except ImportError:
    print("numpy is not installed")

try:
    import torch

    report("torch, rand(784, 10) at once", lambda: torch.rand(784, 10))
except ImportError:
    print("torch is not installed")
