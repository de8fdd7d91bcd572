"""What the submission stores and shows of its window file."""

import hashlib
import time
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from windrow.assets.window.plots import rewards_plot
from windrow.networks.grail.constants import ROLLOUTS_PER_GROUP
from windrow.resources.warehouse.schema import DATASETS


def sha256_of(path: Path) -> str:
    """SHA-256 hex of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def summary(window: int, hotkey: str, flat: pa.Table, path: Path, refused: int) -> pa.Table:
    """The submissions row of a written window file."""
    rewards = flat["total_reward"].to_numpy()
    row = {
        "window_start": window,
        "hotkey": hotkey,
        "checkpoint_window": flat["checkpoint_window"][0].as_py(),
        "groups": flat.num_rows // ROLLOUTS_PER_GROUP,
        "rollouts": flat.num_rows,
        "refused_groups": refused,
        "mean_reward": float(rewards.mean()),
        "solved": float(pc.mean(pc.cast(flat["success"], pa.float64())).as_py()),
        "tokens": int(pc.sum(flat["completion_length"]).as_py()),
        "path": str(path),
        "bytes": path.stat().st_size,
        "sha256": sha256_of(path),
        "made_at": time.time(),
    }
    return DATASETS["submissions"].table([row])


def summary_metadata(summary: pa.Table, flat: pa.Table) -> dict[str, Any]:
    """What a person wants to see of a window file."""
    row = summary.to_pylist()[0]
    rewards = flat["total_reward"].to_numpy()
    return {
        **{
            name: row[name]
            for name in (
                "groups",
                "rollouts",
                "refused_groups",
                "mean_reward",
                "solved",
                "tokens",
            )
        },
        "bytes": row["bytes"],
        "bytes_per_rollout": round(row["bytes"] / row["rollouts"], 1),
        "sha256": row["sha256"],
        "file": dg.MetadataValue.path(row["path"]),
        "mean_abs_advantage": float(np.abs(flat["advantage"].to_numpy()).mean()),
        "rewards": rewards_plot(rewards.reshape(-1, ROLLOUTS_PER_GROUP)),
    }
