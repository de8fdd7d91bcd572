"""Copies, sampling, weights, and the service over windows (grail-validation §4, §6, §11-§16)."""

import hashlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from windrow.networks.grail.sampling import (
    commit_digest,
    miner_sample_size,
    sampled_rows,
    selected_miners,
)
from windrow.networks.grail.validation import copies
from windrow.networks.grail.validation.histories import RollingHistory
from windrow.networks.grail.validation.metrics import MinerMetrics, gated_metrics
from windrow.networks.grail.validation.records import (
    leaderboard_records,
    network_record,
    verdict_record,
)
from windrow.networks.grail.validation.service import ServiceState, WeightsDue
from windrow.networks.grail.validation.trust import trust_list, trust_list_key
from windrow.networks.grail.validation.weights import (
    InvalidBurn,
    WeightPolicy,
    compute_weights,
)
from windrow.networks.grail.windows import validator_randomness

from ._validation_values import load
from .framework import Case, VectorFile, assert_close, handles

LOGGERS = {"leaderboard": "grail.leaderboard", "network_stats": "grail.validator.network"}


@handles("grail-validation/copycat.json")
def copycat(file: VectorFile) -> Iterator[Case]:
    vectors = load(file)
    yield Case("thresholds", partial(check_thresholds, vectors["thresholds"]))
    for case in vectors["cases"]:
        yield Case(case["name"], partial(check_steps, case["steps"]))
    for index, case in enumerate(vectors["gating"]):
        yield Case(f"gating-{index}", partial(check_gating, case))


def check_thresholds(thresholds: dict[str, float]) -> None:
    own = {"window": copies.WINDOW_THRESHOLD, "interval": copies.INTERVAL_THRESHOLD}
    assert own == thresholds


def check_steps(steps: list[dict[str, Any]]) -> None:
    interval = copies.Interval()
    for step in steps:
        expected = step["expected"]
        if "reset_interval" in step:
            interval = interval.entering(step["reset_interval"])
            assert interval.id == expected["interval_id"]
            continue
        submissions = {hotkey: submission(s) for hotkey, s in step["submissions"].items()}
        interval, report = copies.observe(interval, step["window_start"], submissions)
        for scope, found in (("window", report.window), ("interval", report.interval)):
            violations = [overlap for overlap in found if overlap.violates]
            gated = {overlap.copier for overlap in violations} - {None}
            assert sorted(gated) == expected[f"{scope}_cheaters"]
            compare([describe(o) for o in violations], expected[f"{scope}_violations"])
            everything = [describe(o) | {"copier": None, "victim": None} for o in found]
            compare(everything, expected[f"{scope}_all_pairs"])


def submission(document: dict[str, Any]) -> copies.MinerCompletions:
    digests = [digest for digest, n in document["digests"].items() for _ in range(n)]
    return copies.MinerCompletions(
        copies.digest_array(digests), document["total"], document["upload_time"]
    )


def describe(overlap: copies.Overlap) -> dict[str, Any]:
    return {
        "miner_pair": list(overlap.pair),
        "shared": overlap.shared,
        "denominator": overlap.denominator,
        "ratio": overlap.ratio,
        "threshold": overlap.threshold,
        "scope": overlap.scope,
        "window_start": overlap.window_start,
        "copier": overlap.copier,
        "victim": overlap.victim,
    }


def compare(mine: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    expected = [{**row, "miner_pair": sorted(row["miner_pair"])} for row in theirs]
    assert mine == sorted(expected, key=lambda row: row["miner_pair"])


def check_gating(case: dict[str, Any]) -> None:
    metrics = {h: MinerMetrics(**m) for h, m in case["window_metrics_in"].items()}
    for cheater in case["cheaters"]:
        metrics[cheater] = gated_metrics(metrics.get(cheater))
    assert metrics == {h: MinerMetrics(**m) for h, m in case["window_metrics_out"].items()}


@handles("grail-validation/miner_sampling.json")
def miner_sampling(file: VectorFile) -> Iterator[Case]:
    vectors = load(file)
    for index, case in enumerate(vectors["sample_size"]):
        yield Case(f"size-{index}", partial(check_sample_size, case))
    for index, case in enumerate(vectors["selection"]):
        yield Case(f"selection-{index}", partial(check_selection, case))
    for case in vectors["rolling"]:
        yield Case(f"rolling-{case['label']}", partial(check_rolling, case))


def check_sample_size(case: dict[str, Any]) -> None:
    for miners, expected in case["cases"]:
        size = miner_sample_size(miners, case["rate"], case["min"], case["max"])
        assert size == expected, miners


def check_selection(case: dict[str, Any]) -> None:
    hotkeys = case["active_hotkeys"]
    size = miner_sample_size(len(hotkeys), case["rate"], case["min"], case["max"])
    chosen = selected_miners(hotkeys, case["window_hash"], case["selection_counts"], size)
    assert chosen == case["selected"]


def check_rolling(case: dict[str, Any]) -> None:
    history = RollingHistory(case["maxlen"])
    for step in case["steps"]:
        history = history.after(step["current"])
        assert dict(history.counts) == step["counts_after"]
        assert history.absent(case["hotkeys"]) == step["without_failures"]


@handles("grail-validation/rollout_sampling.json")
def rollout_sampling(file: VectorFile) -> Iterator[Case]:
    vectors = load(file)
    for index, case in enumerate(vectors["cases"]):
        yield Case(f"case-{index}", partial(check_rows, vectors["row_fields"], case))


def check_rows(fields: list[str], case: dict[str, Any]) -> None:
    rows = [dict(zip(fields, row, strict=True)) for row in case["rows"]]

    def digest(index: int) -> bytes:
        row = rows[index]
        rollout = {"advantage": row["commit.rollout.advantage"]}
        tokens, signature = row["commit.tokens"], row["commit.signature"]
        return commit_digest({"tokens": tokens, "rollout": rollout, "signature": signature})

    groups = np.array([row["rollout_group"] for row in rows], np.int64)
    chosen = sampled_rows(groups, digest, case["hotkey"], case["window_randomness"])
    assert chosen.tolist() == case["expected_indices"]


@handles("grail-validation/weights.json")
def weights(file: VectorFile) -> Iterator[Case]:
    for case in load(file)["cases"]:
        yield Case(case["name"], partial(check_weights, case))


def check_weights(case: dict[str, Any]) -> None:
    params, expected = case["params"], case["expected"]
    policy = WeightPolicy(
        params["rolling_windows"],
        params["superlinear_exponent"],
        params["burn_uid"],
        params["burn_percentage"],
        params["cap_enabled"],
    )
    metrics = {
        hotkey: {int(window): MinerMetrics(**m) for window, m in windows.items()}
        for hotkey, windows in case["inference_counts"].items()
    }
    hotkeys, uids, target = case["meta_hotkeys"], case["meta_uids"], case["target_window"]
    inputs = (hotkeys, uids, metrics, target, case["availability_counts"], policy)
    if "error" in expected:
        with pytest.raises(InvalidBurn):
            compute_weights(*inputs)
        return
    own = compute_weights(*inputs)
    assert_close(own.weights, expected["weights"], rel=1e-12)
    earning = sorted(own.earning.items())
    assert [hotkey for hotkey, _ in earning] == [hotkey for hotkey, _ in expected["non_zero"]]
    assert_close([w for _, w in earning], [w for _, w in expected["non_zero"]], rel=1e-12)


@handles("grail-validation/service_simulation.json")
def service_simulation(file: VectorFile) -> Iterator[Case]:
    vectors = load(file)
    yield Case("windows", partial(check_windows, vectors))
    for index, record in enumerate(vectors["verdict_example"]["verdicts"]):
        yield Case(f"verdict-{index}", partial(check_verdict, vectors, record))


def check_windows(vectors: dict[str, Any]) -> None:
    state = ServiceState()
    for window in vectors["windows"]:
        if not window.get("skipped_by_validator"):
            state = check_window(state, vectors, window)


def check_window(
    state: ServiceState, vectors: dict[str, Any], case: dict[str, Any]
) -> ServiceState:
    hotkeys, uids = vectors["hotkeys"], vectors["uids"]
    window, block, script = case["window"], case["current_block"], case["script"]
    assert case["window_hash"] == block_hash(vectors["setname"], window)
    next_hash = block_hash(vectors["setname"], window + 30)
    assert case["window_randomness"] == validator_randomness(next_hash, vectors["drand_randomness"])
    active = [hotkey for hotkey in hotkeys if script.get(hotkey, {}).get("active")]
    plan = state.plan(active, case["window_hash"])
    assert list(plan.selected) == case["selected"]
    results = {h: MinerMetrics(**m) for h in plan.selected if (m := script[h]["metrics"])}
    state = state.after_window(window, plan, results)
    assert dict(state.availability.counts) == case["availability_counts"]
    assert dict(state.selection.counts) == case["selection_counts"]
    assert dict(state.failures.counts) == case["failure_counts"]
    check_trust_list(state, vectors["validator_hotkey"], window, active, case["trust_list"])
    due, records = state.weights_due(block), case["log_records"]
    assert (due is WeightsDue.DUE) == (case["weights_submitted"] is not None)
    if due is WeightsDue.DUE:
        own = state.weights(hotkeys, uids, window)
        assert case["weights_submitted"]["uids"] == uids
        assert_close(own.weights, case["weights_submitted"]["weights"], rel=1e-12)
        mine = leaderboard_records(state, own, hotkeys, uids, block)
        mine.append(network_record(state, own, len(hotkeys), block))
        assert [{"logger": LOGGERS[str(r["event"])], "record": r} for r in mine] == records
    else:
        assert records == []
    return state if due is WeightsDue.DONE else state.after_weights(block)


def block_hash(setname: str, block: int) -> str:
    return "0x" + hashlib.sha256(f"{setname}{block}".encode()).hexdigest()


def check_trust_list(
    state: ServiceState, validator: str, window: int, active: list[str], published: dict[str, Any]
) -> None:
    content = trust_list(
        window=window,
        timestamp=published["body"]["timestamp"],
        validator=validator,
        active=active,
        eligible=state.eligible(active),
    )
    assert published == {"key": trust_list_key(window), "body": content}


def check_verdict(vectors: dict[str, Any], expected: dict[str, Any]) -> None:
    """The record of a miner with the counts that the expected record states."""
    hotkey = next(h for h in vectors["hotkeys"] if h.startswith(expected["hotkey_short"]))
    metrics = MinerMetrics(
        valid=expected["valid_count"],
        checked=expected["checked_count"],
        total=expected["total_inferences"],
        estimated_unique=expected["estimated_unique"],
        estimated_successful=expected["estimated_successful"],
        prompt_mismatch=expected["prompt_mismatch_count"],
        had_failure=expected["failure_flag"],
    )
    record = verdict_record(
        window=expected["window"],
        uid=vectors["uids"][vectors["hotkeys"].index(hotkey)],
        hotkey=hotkey,
        metrics=metrics if expected["found_file"] else None,
        reason=expected["failure_reason"] or None,
        seconds=0.0,
        blocks=expected["validation_blocks"],
    )
    assert record | {"validation_sec": expected["validation_sec"]} == expected
