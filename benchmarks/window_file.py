"""A window file of 5,000 rollouts x 512 tokens: columns against Python objects, row by row.

Both sides start from the arrays a prover returns for each rollout and end with a file of the same
schema and options, then read that file back. The plain way does what the network's own miner and
validator do: for every rollout a dict with a dict a position, JSON text from it, and rows from
`to_pylist` on the way back. Both sides handle all 5,000 rollouts; the best of REPEATS counts.

Memory is measured in a fresh process for each side: the peak resident size while reading (the
kernel's VmHWM, reset just before) less the resident size just before, over the file's
uncompressed size as its footer states it.
"""

import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.ratio import Ratio
from windrow.networks.grail.window_file import read_window_file, write_window_file
from windrow.networks.grail.window_schema import FLAT_SCHEMA, WIRE_SCHEMA

ROLLOUTS, TOKENS, PROMPT, REPEATS = 5000, 512, 128, 3
WALLET, WINDOW = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY", 61260
LISTS = ("tokens", "sketches", "token_logprobs")

Arrays = dict[str, NDArray[Any]]


def scalars(row: int) -> dict[str, Any]:
    """The columns of one rollout that hold a single value."""
    randomness = "87" * 32
    return {
        "window_start": WINDOW,
        "block": WINDOW + 3,
        "nonce": row,
        "block_hash": "0x" + "79" * 32,
        "randomness": randomness,
        "use_drand": True,
        "rollout_group": row // 16,
        "rollout_index": row % 16,
        "total_in_group": 16,
        "checkpoint_window": WINDOW - 60,
        "proof_version": "v5",
        "model_name": "async_trainer_snapshot",
        "layer_index": -1,
        "commit_signature": f"{row:0128x}",
        "beacon_randomness": randomness,
        "total_reward": row % 7 / 7,
        "advantage": row % 5 - 2.0,
        "success": row % 3 == 0,
        "prompt_length": PROMPT,
        "completion_length": TOKENS - PROMPT,
        "timestamp": 1.76e9 + row,
        "challenge": f"|{'79' * 32}|{row}",
        "hotkey": WALLET,
        "signature": f"{row:0128x}",
    }


def proved(seed: int = 0) -> list[Arrays]:
    """What a prover returns for every rollout, over tokens as common as a text's words are."""
    rng = np.random.default_rng(seed)
    return [
        {
            "tokens": np.minimum(rng.zipf(1.3, TOKENS), 151_000).astype(np.int32),
            "sketches": (rng.normal(0, 1000, TOKENS).astype(np.int64) % (2**31 - 1)).astype(
                np.int32
            ),
            "token_logprobs": np.where(
                np.arange(TOKENS) < PROMPT, 0.0, -rng.exponential(0.5, TOKENS)
            ).astype(np.float32),
        }
        for _ in range(ROLLOUTS)
    ]


def flat_batch(arrays: list[Arrays], values: list[dict[str, Any]]) -> pa.RecordBatch:
    offsets = pa.array(np.arange(len(arrays) + 1, dtype=np.int32) * TOKENS)
    columns = [
        pa.ListArray.from_arrays(
            offsets, pa.array(np.concatenate([a[field.name] for a in arrays]))
        ).cast(field.type)
        if field.name in LISTS
        else pa.array([row[field.name] for row in values], field.type)
        for field in FLAT_SCHEMA
    ]
    return pa.RecordBatch.from_arrays(columns, schema=FLAT_SCHEMA)


def write_ours(arrays: list[Arrays], values: list[dict[str, Any]], path: Path) -> None:
    batch = flat_batch(arrays, values)
    write_window_file(path, [batch], wallet=WALLET, window_start=WINDOW, timestamp=1.0)


def wire_row(arrays: Arrays, values: dict[str, Any]) -> dict[str, Any]:
    """One row of the file as nested Python objects (grail-protocol §5.1, §8.2)."""
    rollout = ("total_reward", "advantage", "success", "prompt_length", "completion_length")
    commitments = [{"sketch": sketch} for sketch in arrays["sketches"].tolist()]
    commit = {
        "tokens": arrays["tokens"].tolist(),
        "commitments": json.dumps(commitments),
        "proof_version": values["proof_version"],
        "model": {"name": values["model_name"], "layer_index": values["layer_index"]},
        "signature": values["commit_signature"],
        "beacon": json.dumps({"randomness": values["beacon_randomness"]}),
        "rollout": {
            "token_logprobs": arrays["token_logprobs"].tolist(),
            **{name: values[name] for name in rollout},
        },
    }
    outer = {name: values[name] for name in WIRE_SCHEMA.names if name != "commit"}
    return {**outer, "commit": commit}


def write_plain(arrays: list[Arrays], values: list[dict[str, Any]], path: Path) -> None:
    rows = [wire_row(a, v) for a, v in zip(arrays, values, strict=True)]
    table = pa.Table.from_pylist(rows, schema=WIRE_SCHEMA)
    pq.write_table(table, path, compression="zstd", compression_level=1, version="2.6")


def read_plain(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    for row in rows:
        row["commit"]["commitments"] = json.loads(row["commit"]["commitments"])
        row["commit"]["beacon"] = json.loads(row["commit"]["beacon"])
    return rows


def best(action: Callable[[], object]) -> float:
    """Seconds of the fastest of REPEATS runs."""
    seconds = []
    for _ in range(REPEATS):
        gc.collect()
        start = time.perf_counter()
        result = action()
        seconds.append(time.perf_counter() - start)
        del result
    return min(seconds)


def peak_bytes(side: str, path: Path) -> int:
    """Peak memory of reading the file in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.window_file", side, str(path)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure_peak(read: Callable[[Path], object], path: Path) -> int:
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back to the present size
    before = status_bytes("VmRSS")
    kept = read(path)
    peak = status_bytes("VmHWM") - before
    del kept
    return peak


def status_bytes(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def run() -> list[Ratio]:
    arrays = proved()
    values = [scalars(row) for row in range(ROLLOUTS)]
    what = f"window file, {ROLLOUTS} rollouts x {TOKENS} tokens"
    with tempfile.TemporaryDirectory() as folder:
        ours, plain = Path(folder, "ours.parquet"), Path(folder, "plain.parquet")
        write = best(lambda: write_ours(arrays, values, ours))
        plain_write = best(lambda: write_plain(arrays, values, plain))
        if not pq.read_table(ours).equals(pq.read_table(plain)):
            raise AssertionError("the two files differ, so their times compare nothing")
        read = best(lambda: read_window_file(ours))
        plain_read = best(lambda: read_plain(ours))
        size = pq.read_metadata(ours).row_group(0).total_byte_size
        peak, plain_peak = peak_bytes("ours", ours), peak_bytes("plain", ours)
    return [
        speed(f"{what}: write", write, plain_write),
        speed(f"{what}: read", read, plain_read),
        Ratio(
            name=f"{what}: peak memory of reading over the uncompressed size",
            ours=peak / size,
            plain=plain_peak / size,
            unit="x size",
            ratio=peak / size,
            target="< 3x",
            met=peak < 3 * size,
        ),
    ]


def speed(name: str, ours: float, plain: float) -> Ratio:
    ratio = plain / ours
    return Ratio(name, ours, plain, "s", ratio, ">= 20x", ratio >= 20)


if __name__ == "__main__":
    reader = {"ours": read_window_file, "plain": read_plain}[sys.argv[1]]
    print(measure_peak(reader, Path(sys.argv[2])))
