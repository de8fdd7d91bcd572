"""Copy detection over all pairs of miners: columns of digests against a Counter for every pair.

100 miners with 5,000 rollouts each, 12 windows. Every miner repeats some of its own completions,
and each fifth one copies a tenth of another's. Both sides start from the same hex digests, as
`sampling.completion_digests` gives them, and both end with the same overlaps.

The plain way (a Counter a miner, min(a, b) summed over the shared digests of each two) is measured
on one of the windows and compared with our time for that same window; the 12 windows are ours only.
Memory is the peak resident size of the process that ran the 12 windows, its input included.
"""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import combinations

import numpy as np

from benchmarks.memory import resident
from benchmarks.ratio import Ratio
from windrow.networks.grail.validation.copies import (
    Interval,
    MinerCompletions,
    digest_array,
    observe,
)

MINERS, ROLLOUTS, WINDOWS = 100, 5000, 12
REPEATED, COPIED, COPIER_EVERY = 250, 500, 5
REPEATS = 3
MEMORY_LIMIT_GB = 2.0

Digests = dict[str, list[str]]


def window_digests(window: int) -> Digests:
    """Hex digests of one window's completions by miner, the same for the same window."""
    rng = np.random.default_rng(window)
    files: Digests = {}
    for miner in range(MINERS):
        raw = rng.bytes(32 * ROLLOUTS).hex()
        digests = [raw[start : start + 64] for start in range(0, len(raw), 64)]
        digests[-REPEATED:] = digests[:REPEATED]
        if miner % COPIER_EVERY == COPIER_EVERY - 1:
            digests[1000 : 1000 + COPIED] = files[f"miner{miner - 1:03}"][2000 : 2000 + COPIED]
        files[f"miner{miner:03}"] = digests
    return files


def columnar(files: Digests, window: int, interval: Interval) -> tuple[Interval, dict[str, int]]:
    submissions = {
        hotkey: MinerCompletions(digest_array(digests), len(digests), float(at))
        for at, (hotkey, digests) in enumerate(files.items())
    }
    interval, report = observe(interval, window, submissions)
    return interval, {" ".join(overlap.pair): overlap.shared for overlap in report.window}


def counter_per_pair(files: Digests) -> dict[str, int]:
    counters = {hotkey: Counter(digests) for hotkey, digests in files.items()}
    overlaps = {}
    for (a, mine), (b, theirs) in combinations(sorted(counters.items()), 2):
        shared = sum(
            min(count, theirs[digest]) for digest, count in mine.items() if digest in theirs
        )
        if shared:
            overlaps[f"{a} {b}"] = shared
    return overlaps


def measure() -> Iterator[tuple[str, float]]:
    files = window_digests(0)
    ours, overlaps = [], {}
    for _ in range(REPEATS):
        started = time.perf_counter()
        _, overlaps = columnar(files, 0, Interval())
        ours.append(time.perf_counter() - started)
    yield "ours", min(ours)
    started = time.perf_counter()
    expected = counter_per_pair(files)
    yield "plain", time.perf_counter() - started
    if overlaps != expected or not expected:
        raise AssertionError("the two ways do not find the same overlaps")


def measure_windows() -> Iterator[tuple[str, float]]:
    interval, seconds = Interval(0), 0.0
    for window in range(WINDOWS):
        files = window_digests(window)
        started = time.perf_counter()
        interval, _ = columnar(files, window, interval)
        seconds += time.perf_counter() - started
    yield "seconds", seconds
    yield "peak_gb", resident("VmHWM") / 2**30


def in_own_process(measurement: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.copy_detection", measurement]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def run() -> list[Ratio]:
    window, windows = in_own_process("window"), in_own_process("windows")
    speed = window["plain"] / window["ours"]
    return [
        Ratio(
            f"copies among {MINERS} miners x {ROLLOUTS} rollouts, one window",
            ours=window["ours"],
            plain=window["plain"],
            unit="s",
            ratio=speed,
            target=">= 20x",
            met=speed >= 20,
        ),
        Ratio(
            f"memory of {WINDOWS} such windows in {windows['seconds']:.1f} s, against the limit",
            ours=windows["peak_gb"],
            plain=MEMORY_LIMIT_GB,
            unit="GB",
            ratio=windows["peak_gb"] / MEMORY_LIMIT_GB,
            target=f"<= {MEMORY_LIMIT_GB:g} GB",
            met=windows["peak_gb"] <= MEMORY_LIMIT_GB,
        ),
    ]


if __name__ == "__main__":
    measurements = {"window": measure, "windows": measure_windows}
    print(json.dumps(dict(measurements[sys.argv[1]]())))
