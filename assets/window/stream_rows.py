"""What the window stream stores and shows of its groups."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from windrow import WindrowError
from windrow.assets.window.plots import rewards_plot, stages_plot
from windrow.engine.mining.loop import WindowLoop
from windrow.engine.mining.packaging import token_hashes
from windrow.engine.mining.report import Report
from windrow.engine.mining.spool import GROUP_SCHEMA, Spool, list_array
from windrow.engine.ports import Proof
from windrow.networks.grail.constants import ROLLOUTS_PER_GROUP
from windrow.resources.inference import Sampler
from windrow.resources.proof_pool.client import Placement
from windrow.resources.warehouse.schema import DATASETS


class NoGroups(WindrowError):
    """A window run ended without one finished group."""


def finished_groups(spool: Spool, report: Report, window: int) -> pa.Table:
    """The spool's groups, GROUP_SCHEMA. Raises NoGroups."""
    batches = list(spool.groups())
    if not batches:
        raise NoGroups(
            f"window {window} has no finished group: stopped by {report.stopped_by} with "
            f"{len(report.dropped)} groups dropped; nothing will be uploaded for it"
        )
    return pa.Table.from_batches(batches, GROUP_SCHEMA)


def proved(rollouts: pa.Table, proofs: Iterator[Proof]) -> pa.Table:
    """Stored rollouts with new proofs beside them, and the seconds each group's proofs took."""
    made, seconds, began = [], [], time.perf_counter()
    for proof in proofs:
        made.append(proof)
        if len(made) % ROLLOUTS_PER_GROUP == 0:
            seconds += [time.perf_counter() - began] * ROLLOUTS_PER_GROUP
            began = time.perf_counter()
    return (
        rollouts.append_column("sketches", list_array([p.sketches for p in made], pa.int32()))
        .append_column("token_logprobs", list_array([p.logprobs for p in made], pa.float32()))
        .append_column("proof_seconds", pa.array(seconds, pa.float64()))
    )


def rollouts(groups: pa.Table, window: int, hotkey: str) -> pa.Table:
    """The rollouts dataset of one window."""
    return _shaped("rollouts", groups, {"window_start": window, "hotkey": hotkey})


def proofs(groups: pa.Table, window: int, hotkey: str, placement: Placement) -> pa.Table:
    """The proofs dataset of one window."""
    hashes = [digest.hex() for digest in token_hashes(groups["tokens"].combine_chunks())]
    return _shaped(
        "proofs",
        groups.append_column("tokens_hash", pa.array(hashes, pa.string())),
        {
            "window_start": window,
            "hotkey": hotkey,
            "device": placement.device,
            "dtype": placement.dtype,
            "attention": placement.attention,
        },
    )


def window_run(window: int, hotkey: str, loop: WindowLoop, sampler: Sampler) -> pa.Table:
    """The window_runs row: how the loop went, and what it sampled with."""
    report = loop.report
    return _shaped(
        "window_runs",
        pa.table({"resumed": [report.resumed]}),
        {
            "window_start": window,
            "hotkey": hotkey,
            "finished": len(report.finished),
            "dropped": len(report.dropped),
            "tokens": report.tokens,
            "seconds": report.seconds,
            "generation_seconds": report.busy_seconds["generation"],
            "reward_seconds": report.busy_seconds["reward"],
            "proof_seconds": report.busy_seconds["proof"],
            "group_seconds": loop.budget.group_seconds,
            "block_seconds": loop.budget.block_seconds,
            "stopped_by": report.stopped_by,
            "cancelled": len(report.cancelled),
            **{f"{stage}_utilisation": share for stage, share in report.utilisation().items()},
            "limiting_stage": report.limiting_stage(),
            "reproducible": sampler.reproducible,
            "weights_proof": sampler.weights_proof,
            "ended_at": time.time(),
        },
    )


def rollouts_metadata(rollouts: pa.Table, report: Report, sampler: Sampler) -> dict[str, Any]:
    """What a person wants to see of a window's rollouts."""
    lengths = rollouts["completion_length"].to_numpy()
    rewards = rollouts["reward"].to_numpy().reshape(-1, ROLLOUTS_PER_GROUP)
    mixed = float(np.mean(rewards.min(axis=1) != rewards.max(axis=1)))
    return {
        "groups": len(rewards),
        "rollouts": rollouts.num_rows,
        "resumed_groups": report.resumed,
        "dropped_groups": len(report.dropped),
        "mean_reward": float(rewards.mean()),
        "solved": float(pc.mean(pc.cast(rollouts["success"], pa.float64())).as_py()),
        "groups_with_differing_rewards": mixed,
        "tokens": int(lengths.sum()),
        "tokens_per_second": round(report.tokens / report.seconds, 1) if report.seconds else 0.0,
        "median_completion_length": float(np.median(lengths)),
        "seconds": round(report.seconds, 3),
        "stopped_by": report.stopped_by,
        "cancelled_groups": len(report.cancelled),
        "limiting_stage": report.limiting_stage() or "none worked",
        "reproducible": sampler.reproducible,
        "weights_proof": sampler.weights_proof,
        **{
            f"{stage}_utilisation": round(share, 3) for stage, share in report.utilisation().items()
        },
        "rewards": rewards_plot(rewards),
        "stages": stages_plot(report.utilisation()),
    }


def proofs_metadata(proofs: pa.Table) -> dict[str, Any]:
    """What a person wants to see of a window's proofs."""
    positions = int(pc.sum(pc.list_value_length(proofs["sketches"])).as_py())
    seconds = float(pc.sum(proofs["proof_seconds"]).as_py()) / ROLLOUTS_PER_GROUP
    logprobs = proofs["token_logprobs"].combine_chunks().flatten().to_numpy()
    return {
        "rollouts": proofs.num_rows,
        "positions": positions,
        "proof_seconds": round(seconds, 3),
        "positions_per_second": round(positions / seconds, 1) if seconds else 0.0,
        "mean_logprob": float(logprobs[logprobs != 0].mean()),
        "device": proofs["device"][0].as_py(),
        "dtype": proofs["dtype"][0].as_py(),
        "attention": proofs["attention"][0].as_py(),
    }


def _shaped(dataset: str, columns: pa.Table, constants: dict[str, Any]) -> pa.Table:
    """The dataset's schema filled from columns and from values that every row repeats."""
    schema = DATASETS[dataset].schema
    return pa.table(
        {
            field.name: (
                pa.array([constants[field.name]] * columns.num_rows, field.type)
                if field.name in constants
                else columns[field.name].cast(field.type)
            )
            for field in schema
        },
        schema=schema,
    )
