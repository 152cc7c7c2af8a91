#!/usr/bin/env python3
"""Time and peak memory of reading mnist.pkl.gz: minai's load_mnist against CPython with numpy.

    cargo build --release --example load_mnist
    python3 data/bench_pickle.py data/mnist.pkl.gz target/release/examples/load_mnist

Run it with a Python that has numpy, on a machine that has nothing else to do. Each program is started 11 times, by
turns; its own report is the time from opening the file to the arrays, and its peak is the whole process.
"""
import os
import platform
import statistics
import subprocess
import sys

PYTHON = """
import gzip, pickle, sys, time, warnings
import numpy
warnings.simplefilter("ignore")
start = time.perf_counter()
with gzip.open(sys.argv[1], "rb") as file:
    ((x_train, y_train), (x_valid, y_valid), _) = pickle.load(file, encoding="latin-1")
print(f"{time.perf_counter() - start:.4f} s", numpy.__version__)
"""


def measured(command):
    """Seconds as the program reports them, peak memory in MB, and all that it printed."""
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    output = child.stdout.read().strip()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{command[0]} failed")
    kilobytes = usage.ru_maxrss / (1024 if platform.system() == "Darwin" else 1)
    return float(output.split()[0]), kilobytes * 1024 / 1e6, output


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    path, rust = sys.argv[1:]
    commands = {"minai": [rust, path], "CPython + numpy": [sys.executable, "-c", PYTHON, path]}
    runs = {name: [] for name in commands}
    for _ in range(11):
        for name, command in commands.items():
            runs[name].append(measured(command))
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}; {path}")
    for name, results in runs.items():
        seconds = [run[0] for run in results]
        spread = f"{min(seconds):.3f} to {max(seconds):.3f}"
        print(f"{name:16} {statistics.median(seconds):.3f} s ({spread}), peak {max(run[1] for run in results):.0f} MB")
    ratios = [ours[0] / theirs[0] for ours, theirs in zip(*runs.values())]
    print(f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
