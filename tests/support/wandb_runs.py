"""What offline W&B runs hold, read from their files."""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

BLOCK = 32768


@dataclass
class OfflineRun:
    """name, id, project, entity: of the run. history: what was logged, row by row."""

    name: str = ""
    id: str = ""
    project: str = ""
    entity: str = ""
    history: list[dict[str, Any]] = field(default_factory=list)


def offline_runs(folder: Path) -> list[OfflineRun]:
    """The offline runs under a folder, oldest first."""
    return [_run(path) for path in sorted(folder.glob("wandb/offline-run-*/*.wandb"))]


def _run(path: Path) -> OfflineRun:
    run = OfflineRun()
    for content in _records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content)
        match record.WhichOneof("record_type"):
            case "run":
                run.name, run.id = record.run.display_name, record.run.run_id
                run.project, run.entity = record.run.project, record.run.entity
            case "history":
                run.history.append(
                    {
                        item.key or ".".join(item.nested_key): json.loads(item.value_json)
                        for item in record.history.item
                    }
                )
    return run


def _records(data: bytes) -> Iterator[bytes]:
    """A log of LevelDB's form behind a header of 7 bytes: blocks of chunks (crc, length, type)."""
    assert data[:4] == b":W&B"
    at, parts = 7, b""
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        if kind == 0:
            return
        chunk = data[at + 7 : at + 7 + length]
        at += 7 + length
        parts = chunk if kind in (1, 2) else parts + chunk
        if kind in (1, 4):
            yield parts
