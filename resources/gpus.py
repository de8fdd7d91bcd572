"""GPUs by index, as the miner guide counts them: those that CUDA_VISIBLE_DEVICES shows, from 0."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from windrow import WindrowError

DEVICES = Path("/dev")


class NoSuchGpu(WindrowError):
    """A setting names a GPU that this process cannot see."""


def visible_gpus(
    environment: Mapping[str, str] = os.environ, devices: Path = DEVICES
) -> tuple[str, ...]:
    """What CUDA_VISIBLE_DEVICES would hold for each GPU: its entries, or all that there are."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        found = sorted(int(p.name[6:]) for p in devices.glob("nvidia*") if _is_gpu(p.name))
        return tuple(map(str, found))
    entries = [entry.strip() for entry in visible.split(",")]
    # CUDA shows what comes before the first entry it does not know; -1 is used to show none.
    shown = entries.index("-1") if "-1" in entries else len(entries)
    return tuple(entry for entry in entries[:shown] if entry)


def named_gpus(indices: Sequence[int], use: str, visible: Sequence[str]) -> tuple[str, ...]:
    """The entries of these GPUs. Raises NoSuchGpu. use: what they are for, in words."""
    missing = [index for index in indices if index >= len(visible)]
    if missing:
        raise NoSuchGpu(
            f"{use} would need GPU {missing[0]}, but {len(visible)} are visible, counted from 0 "
            f"within CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', '(not set)')}. "
            "Show more GPUs, or name others."
        )
    return tuple(visible[index] for index in indices)


def _is_gpu(name: str) -> bool:
    return re.fullmatch(r"nvidia[0-9]+", name) is not None
