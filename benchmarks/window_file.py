"""A window file of 5,000 rollouts x 512 tokens: columns against Python objects, row by row.

Every side starts from the same: the arrays a prover returns for each rollout, and columns of the
single values. Every side writes all 5,000 rollouts with the same schema, codec and level, and
reads them back from the file Windrow wrote. Times are CPU seconds of the whole process, so that a
second thread would count and other load does not; every side is told to use one thread. Medians
of REPEATS rounds that each run every side.

Windrow writes: joins the arrays to list columns and calls write_window_file. Windrow reads as a
validator does: read_window_file, which checks the untrusted file and the text of every row's
commitments, then the sketches of the four groups a validator samples. "every sketch" turns all
texts into numbers.

Row by row. Writing: for each rollout a nested dict with a dict a position, JSON text from it, a
one-row record batch, appended to the open file as a streaming writer does. pyarrow makes a row
group of every batch it is handed, and that costs more than half of the time. Reading: batches of
one row, each a nested dict with a Python number a position, its texts parsed with json, and all
of them kept, as a validator needs them to check the groups.

The target is for writing and reading together, against row by row. For information, so that it
misleads nobody: each alone, reading being by far the lesser gain. "one row group": the same
one-row batches gathered and written at once, which gives the very file that Windrow writes. "one
conversion": all the dicts converted by one from_pylist, and the whole table by one to_pylist.
"pyarrow alone": the finished Parquet columns written, or every column of the file drawn and
dropped, by pyarrow; what no work of ours around it can go below.

All sides use the system's memory pool, as Windrow's own processes do. Memory is measured in a
fresh process for each side: the peak resident size while reading (the
kernel's VmHWM, reset just before) less the resident size just before, over the file's
uncompressed size as its footer states it.
"""

import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.memory import resident
from benchmarks.ratio import Ratio
from windrow.networks.grail.columns import RolloutColumns, rows_at
from windrow.networks.grail.window_file import (
    BATCH_ROWS,
    WindowFile,
    read_window_file,
    write_window_file,
)
from windrow.networks.grail.window_schema import FLAT_SCHEMA, WIRE_SCHEMA

pa.set_memory_pool(pa.system_memory_pool())

ROLLOUTS, TOKENS, PROMPT, GROUPS, REPEATS = 5000, 512, 128, 4, 5
WALLET, WINDOW = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY", 61260
LISTS = ("tokens", "sketches", "token_logprobs")
OURS, EVERY, ROW_BY_ROW, ALONE = "ours", "every sketch", "row by row", "pyarrow alone"
WHAT = f"window file, {ROLLOUTS} rollouts x {TOKENS} tokens"
OPTIONS: dict[str, Any] = {"compression": "zstd", "compression_level": 1, "version": "2.6"}

Arrays = dict[str, NDArray[Any]]


def scalars(seed: int = 0) -> dict[str, list[Any]]:
    """The columns that hold a single value a rollout."""
    rng = np.random.default_rng(seed)
    same = {
        "window_start": WINDOW,
        "block": WINDOW + 3,
        "block_hash": "0x" + "79" * 32,
        "randomness": "87" * 32,
        "use_drand": True,
        "total_in_group": 16,
        "checkpoint_window": WINDOW - 60,
        "proof_version": "v5",
        "model_name": "async_trainer_snapshot",
        "layer_index": -1,
        "beacon_randomness": "87" * 32,
        "prompt_length": PROMPT,
        "completion_length": TOKENS - PROMPT,
        "hotkey": WALLET,
    }
    rows = range(ROLLOUTS)
    return {name: [value] * ROLLOUTS for name, value in same.items()} | {
        "nonce": list(rows),
        "rollout_group": [row // 16 for row in rows],
        "rollout_index": [row % 16 for row in rows],
        "commit_signature": [rng.bytes(64).hex() for _ in rows],
        "total_reward": [row % 7 / 7 for row in rows],
        "advantage": [row % 5 - 2.0 for row in rows],
        "success": [row % 3 == 0 for row in rows],
        "timestamp": [1.76e9 + row for row in rows],
        "challenge": [f"|{'79' * 32}|{row}" for row in rows],
        "signature": [rng.bytes(64).hex() for _ in rows],
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


def write_ours(arrays: list[Arrays], values: dict[str, list[Any]], path: Path) -> None:
    offsets = pa.array(np.arange(len(arrays) + 1, dtype=np.int32) * TOKENS)
    columns = [
        pa.ListArray.from_arrays(
            offsets, pa.array(np.concatenate([a[field.name] for a in arrays]))
        ).cast(field.type)
        if field.name in LISTS
        else pa.array(values[field.name], field.type)
        for field in FLAT_SCHEMA
    ]
    batch = pa.RecordBatch.from_arrays(columns, schema=FLAT_SCHEMA)
    write_window_file(path, [batch], wallet=WALLET, window_start=WINDOW, timestamp=1.0)


def read_ours(path: Path) -> tuple[WindowFile, RolloutColumns]:
    """The file, and the rows a validator looks at with their sketches."""
    file = read_window_file(path)
    groups = range(0, ROLLOUTS, ROLLOUTS // GROUPS)
    sampled = RolloutColumns.of(rows_at(file.rows, [g + i for g in groups for i in range(16)]))
    if len(sampled.sketches.values) != GROUPS * 16 * TOKENS:
        raise AssertionError("the sampled rows have other sketches than were written")
    return file, sampled


def read_every_sketch(path: Path) -> pa.Table:
    return read_window_file(path).rollouts


def nested_rows(arrays: list[Arrays], values: dict[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """Each row of the file as nested Python objects (grail-protocol §5.1, §8.2)."""
    in_rollout = ("total_reward", "advantage", "success", "prompt_length", "completion_length")
    outer = [name for name in WIRE_SCHEMA.names if name != "commit"]
    for row, proof in enumerate(arrays):
        single = {name: column[row] for name, column in values.items()}
        commitments = [{"sketch": sketch} for sketch in proof["sketches"].tolist()]
        commit = {
            "tokens": proof["tokens"].tolist(),
            "commitments": json.dumps(commitments),
            "proof_version": single["proof_version"],
            "model": {"name": single["model_name"], "layer_index": single["layer_index"]},
            "signature": single["commit_signature"],
            "beacon": json.dumps({"randomness": single["beacon_randomness"]}),
            "rollout": {
                "token_logprobs": proof["token_logprobs"].tolist(),
                **{name: single[name] for name in in_rollout},
            },
        }
        yield {**{name: single[name] for name in outer}, "commit": commit}


def one_row_batches(rows: Iterable[dict[str, Any]]) -> Iterator[pa.RecordBatch]:
    return (pa.RecordBatch.from_pylist([row], schema=WIRE_SCHEMA) for row in rows)


def write_row_by_row(rows: Iterable[dict[str, Any]], path: Path) -> None:
    with pq.ParquetWriter(path, WIRE_SCHEMA, **OPTIONS) as file:
        for batch in one_row_batches(rows):
            file.write_batch(batch)


def write_one_row_group(rows: Iterable[dict[str, Any]], path: Path) -> None:
    pq.write_table(pa.Table.from_batches(one_row_batches(rows)), path, **OPTIONS)


def write_one_conversion(rows: Iterable[dict[str, Any]], path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(list(rows), schema=WIRE_SCHEMA), path, **OPTIONS)


def read_row_by_row(path: Path) -> list[dict[str, Any]]:
    batches = pq.ParquetFile(path).iter_batches(batch_size=1, use_threads=False)
    return [parsed(batch.to_pylist()[0]) for batch in batches]


def read_one_conversion(path: Path) -> list[dict[str, Any]]:
    return [parsed(row) for row in pq.read_table(path, use_threads=False).to_pylist()]


def draw_batches(path: Path) -> None:
    for batch in pq.ParquetFile(path).iter_batches(batch_size=BATCH_ROWS, use_threads=False):
        del batch


def parsed(row: dict[str, Any]) -> dict[str, Any]:
    commit = row["commit"]
    for name in ("commitments", "beacon"):
        commit[name] = json.loads(commit[name])
    return row


def median_seconds(actions: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Every action's median CPU seconds, all in turn in each round, so that they share its load."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(REPEATS):
        for name, action in actions.items():
            gc.collect()
            start = time.process_time()
            result = action()
            seconds[name].append(time.process_time() - start)
            del result
    return {name: statistics.median(times) for name, times in seconds.items()}


def peak_bytes(side: str, path: Path) -> int:
    """Peak memory of reading the file in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.window_file", side, str(path)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure_peak(read: Callable[[Path], object], path: Path) -> int:
    pa.array([0])  # the first conversion imports pandas, whose code is no part of a file
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back to the present size
    before = resident("VmRSS")
    kept = read(path)
    peak = resident("VmHWM") - before
    del kept
    return peak


def run() -> list[Ratio]:
    arrays, values = proved(), scalars()
    plain_writers = {
        ROW_BY_ROW: write_row_by_row,
        "row by row, one row group": write_one_row_group,
        "one conversion": write_one_conversion,
    }
    readers = {
        OURS: read_ours,
        EVERY: read_every_sketch,
        ROW_BY_ROW: read_row_by_row,
        "one conversion": read_one_conversion,
        ALONE: draw_batches,
    }
    with tempfile.TemporaryDirectory() as folder:
        ours, plain = Path(folder, "ours.parquet"), Path(folder, "plain.parquet")
        writes: dict[str, Callable[[], object]] = {OURS: lambda: write_ours(arrays, values, ours)}
        writes[OURS]()
        written = pq.read_table(ours)
        for name, writer in plain_writers.items():
            writes[name] = lambda w=writer: w(nested_rows(arrays, values), plain)
            writes[name]()
            if not written.equals(pq.read_table(plain)):
                raise AssertionError(f"{name}: the files differ, so their times compare nothing")
        writes[ALONE] = lambda: pq.write_table(written, plain, **OPTIONS)
        reads = {name: lambda r=reader: r(ours) for name, reader in readers.items()}
        write, read = median_seconds(writes), median_seconds(reads)
        size = pq.read_metadata(ours).row_group(0).total_byte_size
        peak, plain_peak = peak_bytes("ours", ours), peak_bytes("plain", ours)
    both = {name: write[name] + read[name] for name in write.keys() & read.keys() - {ALONE}}
    both["row by row, one row group"] = write["row by row, one row group"] + read[ROW_BY_ROW]
    every = {OURS: read[EVERY], ROW_BY_ROW: read[ROW_BY_ROW]}
    memory = Ratio(
        name=f"{WHAT}: peak memory of reading over the uncompressed size",
        ours=peak / size,
        plain=plain_peak / size,
        unit="x size",
        ratio=peak / size,
        target="< 3x",
        met=peak < 3 * size,
    )
    return [
        *speeds("write", write, target=False),
        *speeds("read", read, target=False),
        *speeds("read every sketch", every, target=False),
        *speeds("write and read", both, target=True),
        memory,
    ]


def speeds(what: str, seconds: dict[str, float], *, target: bool) -> list[Ratio]:
    """Each plain way over ours. target: whether the one row by row has one."""
    ours = seconds[OURS]
    results = []
    for name, plain in seconds.items():
        if name in {OURS, EVERY}:
            continue
        bound, met = "information", True
        if target and name == ROW_BY_ROW:
            bound, met = ">= 20x", plain / ours >= 20
        label = f"{WHAT}: {what}, against {name}"
        results.append(Ratio(label, ours, plain, "s", plain / ours, bound, met))
    return results


if __name__ == "__main__":
    reader = {"ours": read_ours, "plain": read_row_by_row}[sys.argv[1]]
    print(measure_peak(reader, Path(sys.argv[2])))
