"""Finished groups on disk: one Parquet file a group, written once and atomically.

A window run that dies at any point starts again with the groups its spool holds. The folder is
named by everything the groups depend on, so groups made under another checkpoint, beacon or
policy are never mixed in: they stay where they are and the new run starts a folder of its own.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from windrow import WindrowError
from windrow.networks.grail.constants import ROLLOUTS_PER_GROUP

GROUP_SCHEMA = pa.schema(
    [
        ("rollout_group", pa.int64()),
        ("rollout_index", pa.int32()),
        ("nonce", pa.int64()),
        ("problem_seed", pa.int64()),
        ("request_seed", pa.int64()),
        ("task_index", pa.int64()),
        ("tokens", pa.list_(pa.int32())),
        ("prompt_length", pa.int32()),
        ("completion_length", pa.int32()),
        ("finish_reason", pa.string()),
        ("reward", pa.float64()),
        ("success", pa.bool_()),
        ("advantage", pa.float64()),
        ("sketches", pa.list_(pa.int32())),
        ("token_logprobs", pa.list_(pa.float32())),
        ("block", pa.int64()),
        ("finished_at", pa.float64()),
        ("generation_seconds", pa.float64()),
        ("reward_seconds", pa.float64()),
        ("proof_seconds", pa.float64()),
    ]
)
"""One row a rollout; sketches and token_logprobs are null in a run that does not prove."""


class SpoolError(WindrowError):
    """The spool cannot be written or holds a file that is not one of its groups."""


@dataclass(frozen=True)
class DroppedGroup:
    """Why a group was dropped whole. stage: prompt, generation, reward, proof or check."""

    group: int
    stage: str
    reason: str
    detail: str


def identity_of(inputs: Mapping[str, object]) -> str:
    """Name of everything a window's groups depend on: 16 hex digits of a SHA-256."""
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def forget_groups(root: Path, window_start: int) -> None:
    """Delete every group of a window; one that is mined again starts from nothing."""
    folder = _window_folder(root, window_start)
    if folder.exists():
        shutil.rmtree(folder)


def _window_folder(root: Path, window_start: int) -> Path:
    return root / f"window_start={window_start}"


class Spool:
    """The finished and the dropped groups of one window under one identity."""

    def __init__(self, root: Path, window_start: int, hotkey: str, identity: str) -> None:
        self.folder = _window_folder(root, window_start) / hotkey / identity
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for leftover in self.folder.glob("*.partial"):
                leftover.unlink()
        except OSError as error:
            raise SpoolError(
                f"the spool folder {self.folder} cannot be used: {error.strerror}; make room or "
                "fix its permissions and run the window again"
            ) from error

    def finished(self) -> list[int]:
        """Group numbers on disk, ascending."""
        return sorted(int(path.stem.removeprefix("group-")) for path in self._files())

    def dropped(self) -> list[DroppedGroup]:
        """Groups given up for good, ascending; a resumed run does not try them again."""
        dropped = []
        for path in sorted(self.folder.glob("dropped-*.json")):
            try:
                dropped.append(DroppedGroup(**json.loads(path.read_text())))
            except (OSError, ValueError, TypeError) as error:
                raise SpoolError(
                    f"{path} does not say why a group was dropped ({error}); delete it to try the "
                    "group again"
                ) from error
        return dropped

    def groups(self) -> Iterator[pa.RecordBatch]:
        """Every finished group in ascending order, one batch of 16 rows each."""
        for number in self.finished():
            yield self.read(number)

    def read(self, group: int) -> pa.RecordBatch:
        """One finished group; SpoolError where the file is not a whole group."""
        path = self._path(group)
        try:
            table = pq.read_table(path, schema=GROUP_SCHEMA, partitioning=None)
        except (OSError, pa.ArrowException) as error:
            raise SpoolError(
                f"{path} is not a readable group ({error}); delete it to make the group again"
            ) from error
        if table.num_rows != ROLLOUTS_PER_GROUP or set(table["rollout_group"].to_pylist()) != {
            group
        }:
            raise SpoolError(
                f"{path} does not hold the {ROLLOUTS_PER_GROUP} rollouts of group {group}; "
                "delete it to make the group again"
            )
        return table.combine_chunks().to_batches()[0]

    def add(self, batch: pa.RecordBatch) -> None:
        """Store a finished group; on return it survives a power cut."""
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_batches([batch]), sink, compression="zstd")
        self._write(self._path(batch["rollout_group"][0].as_py()), sink.getvalue())

    def add_dropped(self, dropped: DroppedGroup) -> None:
        """Store why a group was dropped."""
        data = json.dumps(asdict(dropped)).encode()
        self._write(self.folder / f"dropped-{dropped.group:06d}.json", data)

    def _files(self) -> Iterator[Path]:
        return self.folder.glob("group-*.parquet")

    def _path(self, group: int) -> Path:
        return self.folder / f"group-{group:06d}.parquet"

    def _write(self, path: Path, data: bytes | pa.Buffer) -> None:
        partial = path.with_suffix(".partial")
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.rename(path)
            folder = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise SpoolError(
                f"cannot store {path.name} in {self.folder}: {error.strerror}; the groups already "
                "there are safe, make room or fix the folder and run the window again"
            ) from error


def list_array(rows: Sequence[NDArray[Any]], dtype: pa.DataType) -> pa.ListArray:
    """A list column from one array a row, without a Python object per element."""
    offsets = np.zeros(len(rows) + 1, dtype=np.int32)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(rows), type=dtype))
