"""Log records the network's dashboards read (grail-validation §22.2)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from windrow.networks.grail.validation.metrics import MinerMetrics
from windrow.networks.grail.validation.service import ServiceState, submission_interval
from windrow.networks.grail.validation.weights import MAINNET, WeightPolicy, Weights

HOTKEY_CHARS = 8
_WEIGHT_DIGITS = 6
Record = dict[str, object]


def verdict_record(
    *,
    window: int,
    uid: int,
    hotkey: str,
    metrics: MinerMetrics | None,
    reason: str | None,
    seconds: float,
    blocks: int,
) -> Record:
    """One validated miner. metrics None: no file was found; its uid is then given as -1."""
    found = metrics or MinerMetrics()
    return {
        "event": "verdict",
        "window": window,
        "uid": -1 if metrics is None else uid,
        "hotkey_short": hotkey[:HOTKEY_CHARS],
        "found_file": metrics is not None,
        "valid_count": found.valid,
        "checked_count": found.checked,
        "total_inferences": found.total,
        "estimated_unique": found.estimated_unique,
        "estimated_successful": found.estimated_successful,
        "success_rate": _percent(found.estimated_successful, found.total),
        "failure_flag": found.had_failure,
        "failure_reason": reason or "",
        "prompt_mismatch_count": found.prompt_mismatch,
        "validation_sec": seconds,
        "validation_blocks": blocks,
    }


def leaderboard_records(
    state: ServiceState,
    weights: Weights,
    hotkeys: Sequence[str],
    uids: Sequence[int],
    block: int,
    policy: WeightPolicy = MAINNET,
) -> list[Record]:
    """Every hotkey with weight, highest first; the one that is burnt to included.

    Sums run over all windows since the start, so that cap_pct grows beyond 100.
    """
    ranked = sorted(weights.earning, key=weights.earning.__getitem__, reverse=True)
    uid_of = dict(zip(hotkeys, uids, strict=True))
    records = []
    for rank, hotkey in enumerate(ranked, start=1):
        metrics = list(state.metrics.get(hotkey, {}).values())
        sums = _Sums.of(metrics)
        records.append(
            {
                "event": "leaderboard",
                "rank": rank,
                "uid": uid_of[hotkey],
                "weight": round(weights.earning[hotkey], _WEIGHT_DIGITS),
                "unique_rollouts": sums.unique,
                "unique_per_window": round(sums.unique / len(metrics), 1) if metrics else 0.0,
                "cap_pct": _percent(sums.unique, policy.cap),
                "total_rollouts": sums.total,
                "success_rate": _percent(sums.successful, sums.total),
                "windows_active": state.availability.count(hotkey),
                "windows_checked": state.selection.count(hotkey),
                "failure_count": state.failures.count(hotkey),
                "interval": submission_interval(block),
                "block": block,
                "hotkey_short": hotkey[:HOTKEY_CHARS],
            }
        )
    return records


def network_record(state: ServiceState, weights: Weights, miners: int, block: int) -> Record:
    """All hotkeys with weight together. miners: size of the metagraph."""
    earning = list(weights.earning.values())
    sums = _Sums.of(m for hotkey in weights.earning for m in state.metrics.get(hotkey, {}).values())
    return {
        "event": "network_stats",
        "interval": submission_interval(block),
        "block": block,
        "total_miners": miners,
        "active_miners": len(earning),
        "total_unique_rollouts": sums.unique,
        "avg_weight": round(fmean(earning), _WEIGHT_DIGITS) if earning else 0.0,
        "max_weight": round(max(earning, default=0.0), _WEIGHT_DIGITS),
        "median_weight": round(median(earning), _WEIGHT_DIGITS) if earning else 0.0,
        "total_failures": sum(map(state.failures.count, weights.earning)),
        "avg_success_rate": _percent(sums.successful, sums.total),
    }


@dataclass(frozen=True)
class _Sums:
    unique: int
    successful: int
    total: int

    @classmethod
    def of(cls, metrics: Iterable[MinerMetrics]) -> "_Sums":
        known = list(metrics)
        return cls(
            unique=sum(m.estimated_unique for m in known),
            successful=sum(m.estimated_successful for m in known),
            total=sum(m.total for m in known),
        )


def _percent(part: float, whole: float) -> float:
    return round(100.0 * part / whole, 1) if whole > 0 else 0.0
