"""What the verdicts asset stores and shows."""

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from windrow import WindrowError
from windrow.assets.window.plots import margins_plot
from windrow.engine.ports import Environment
from windrow.engine.validation.inputs import ReplayInputs
from windrow.engine.validation.refusals import refusals
from windrow.engine.validation.replay import replay
from windrow.engine.validation.validator import FileVerdict
from windrow.networks.grail.validation.metrics import MinerMetrics
from windrow.networks.grail.validation.verdicts import VERDICT_SCHEMA
from windrow.resources.calibrations import Limits
from windrow.resources.miners import FoundUpload
from windrow.resources.warehouse.schema import DATASETS

if TYPE_CHECKING:
    from windrow.engine.validation.verification import ModelVerifier

NETWORK_SAYS: Mapping[bool | None, str] = MappingProxyType(
    {True: "accepts", False: "refuses", None: "not known"}
)
METRICS = tuple(MinerMetrics.__dataclass_fields__)


def base(
    window: int, hotkey: str, validator: str, found: FoundUpload, deadline: float
) -> dict[str, Any]:
    """A validations row of which only the upload is known."""
    unknown = dict.fromkeys(DATASETS["validations"].schema.names)
    info = found.info
    return unknown | {
        "window_start": window,
        "hotkey": hotkey,
        "validator": validator,
        "state": str(found.upload.state),
        "key": found.upload.key,
        "etag": info.etag if info else None,
        "bytes": info.size if info else None,
        "uploaded_at": found.upload.uploaded,
        "deadline": deadline,
    }


def judged(verdict: FileVerdict, data: bytes, seconds: float) -> dict[str, Any]:
    """What a verdict adds to a miner's validations row."""
    replay, outcome = verdict.replay, verdict.outcome
    context, forward = replay.context, replay.forward
    state = _state(verdict)
    counted = outcome is not None and state == "checked"
    metrics = vars(outcome.metrics) if counted else dict.fromkeys(METRICS)
    return {
        "state": state,
        "sha256": hashlib.sha256(data).hexdigest(),
        "block_hash": context.block_hash,
        "randomness": context.validator_randomness,
        "drand_round": context.drand_round,
        "checkpoint_window": context.checkpoint_window,
        "weights_hash": context.weights_hash,
        "sampled_groups": list(replay.sampled_groups),
        "device": forward and forward.device,
        "dtype": forward and forward.dtype,
        "attention": forward and forward.attention,
        "threads": forward and forward.threads,
        "sub_batches": list(replay.sub_batches),
        "replay": replay.to_json(),
        "skipped": list(verdict.skipped),
        "faults": list(verdict.faults),
        "network_reason": network_reason(verdict),
        "windrow_failures": refusals(verdict.verdicts).num_rows,
        "seconds": seconds,
        **metrics,
    }


def _state(verdict: FileVerdict) -> str:
    """A file that this machine could not check to the end counts for nothing, either way."""
    if verdict.outcome is None:
        return "unfinished" if verdict.limit else "unreadable"
    unfinished = verdict.faults and not verdict.outcome.metrics.had_failure
    return "unfinished" if unfinished else "checked"


def network_reason(verdict: FileVerdict) -> str | None:
    """Why the network fails a file, in its own words or, where it gives none, in ours."""
    if verdict.outcome is None:
        return None if verdict.limit else "unreadable: treated as missing"
    if verdict.outcome.reason or not verdict.outcome.metrics.had_failure:
        return verdict.outcome.reason
    refused = verdict.verdicts.filter(pc.invert(verdict.verdicts["network_verdict"]))
    if not refused.num_rows:
        return "no reason given"
    return f"{refused['check'][0].as_py()}: {refused['reason'][0].as_py()}"


def tables(
    window: int, verdicts: Sequence[tuple[str, FileVerdict]], validations: list[dict[str, Any]]
) -> dict[str, pa.Table]:
    """The datasets of one window's validation, by name."""
    completions = [
        pa.table(
            {
                "window_start": pa.array([window] * len(verdict.completions), pa.int64()),
                "hotkey": pa.array([hotkey] * len(verdict.completions), pa.string()),
                "row": pa.array(range(len(verdict.completions)), pa.int64()),
                "digest": verdict.completions,
            }
        )
        for hotkey, verdict in verdicts
        if verdict.completions is not None
    ]
    empty = {name: DATASETS[name].schema.empty_table() for name in ("verdicts", "completions")}
    return {
        "validations": DATASETS["validations"].table(validations),
        "verdicts": pa.concat_tables(
            [empty["verdicts"]]
            + [v.verdicts.select(empty["verdicts"].column_names) for _, v in verdicts]
        ),
        "completions": pa.concat_tables([empty["completions"], *completions]),
    }


def metadata(
    validations: Sequence[Mapping[str, Any]], verdicts: pa.Table, miners: int, limits: Limits
) -> dict[str, Any]:
    """What a person wants to see of a window's validation."""
    states: dict[str, int] = {}
    for row in validations:
        states[row["state"]] = states.get(row["state"], 0) + 1
    checked = [row for row in validations if row["state"] == "checked"]
    failed = verdicts.filter(pc.invert(verdicts["windrow_verdict"]))
    counts = failed.group_by(["check", "network_verdict"]).aggregate([("check", "count")])
    lines = ["| check | network | rows |", "|---|---|---|"] + [
        f"| {row['check']} | {NETWORK_SAYS[row['network_verdict']]} | {row['check_count']} |"
        for row in counts.sort_by([("check_count", "descending")]).to_pylist()
    ]
    return {
        "miners": miners,
        "uploads": len(validations),
        "states": dg.MetadataValue.json(states),
        "accepted_by_network": sum(not row["had_failure"] for row in checked),
        "accepted_by_windrow": sum(row["windrow_failures"] == 0 for row in checked),
        "verdict_rows": verdicts.num_rows,
        "seconds": round(sum(row["seconds"] for row in checked), 3),
        "refusals": dg.MetadataValue.md("\n".join(lines) if counts.num_rows else "none"),
        "limits": limits.calibration.source,
        "calibration_seconds": round(limits.seconds, 3),
        "calibrated_now": limits.made,
        "margins": margins_plot(verdicts),
    }


def coverage(
    verdicts: Sequence[tuple[str, FileVerdict]], lost: Mapping[str, str]
) -> dg.AssetCheckResult:
    """Whether every check could be made on every rollout looked at. lost: errors by miner."""
    missing = dict[str, Any](lost) | {
        hotkey: [*verdict.skipped, *verdict.faults]
        for hotkey, verdict in verdicts
        if verdict.faults or (verdict.replay.sampled_groups and verdict.skipped)
    }
    return dg.AssetCheckResult(
        check_name="coverage",
        passed=not missing,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"files": len(verdicts), "missing": dg.MetadataValue.json(missing)},
    )


def no_nan(verdicts: pa.Table) -> dg.AssetCheckResult:
    """Whether every check that passed measured a number, where it measured one."""
    passed = verdicts.filter(verdicts["windrow_verdict"])
    wrong = int(pc.sum(pc.is_nan(pc.fill_null(passed["measured"], 0.0))).as_py() or 0)
    return dg.AssetCheckResult(check_name="no_nan", passed=wrong == 0, metadata={"rows": wrong})


def replayed(
    verdicts: Sequence[tuple[str, FileVerdict]],
    fetch: Callable[[str], bytes],
    environment: Environment,
    verifier: "ModelVerifier",
    weights_hash: str,
) -> dg.AssetCheckResult:
    """Run one file's verdict again from what was stored, and compare bits.

    An accepted file's where there is one. One that its miner replaced meanwhile fails the check.
    """
    for hotkey, verdict in sorted(verdicts, key=lambda named: not named[1].network_accepts)[:1]:
        stored = ReplayInputs.from_json(verdict.replay.to_json())
        try:
            source = pa.BufferReader(fetch(hotkey))
        except WindrowError as error:
            return dg.AssetCheckResult(
                check_name="replay",
                passed=False,
                metadata={"miner": hotkey, "reason": str(error)},
            )
        again = replay(
            source,
            stored,
            environment=environment,
            verifier=verifier,
            weights_hash=weights_hash,
        )
        return dg.AssetCheckResult(
            check_name="replay",
            passed=_bits(again.verdicts) == _bits(verdict.verdicts),
            metadata={"miner": hotkey, "rows": verdict.verdicts.num_rows},
        )
    return dg.AssetCheckResult(check_name="replay", passed=True, metadata={"rows": 0})


def _bits(table: pa.Table) -> bytes:
    """A table as bytes: NaN equals NaN, and nothing is rounded."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, VERDICT_SCHEMA) as writer:
        writer.write_table(table.select(VERDICT_SCHEMA.names).combine_chunks())
    return sink.getvalue()
