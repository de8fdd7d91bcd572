"""compute-subnet: scores of every release, statistics, difficulty and weights."""

import math
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
import pytest

from windrow.networks.compute_subnet import challenge_scores as scores
from windrow.networks.compute_subnet import gpu_scores
from windrow.networks.compute_subnet.challenge_stats import (
    Challenge,
    challenge_stats,
    next_difficulty,
)
from windrow.networks.compute_subnet.machines import hardware_score

from .framework import Case, VectorFile, assert_close, each, handles

Row = dict[str, Any]


def record(stats: Row) -> scores.Record:
    return scores.Record(
        attempts=stats.get("challenge_attempts", 1),
        successes=stats.get("challenge_successes", 0),
        failures=stats.get("challenge_failed", 0),
        recent_failures=stats.get("last_20_challenge_failed", 0),
        seconds=stats.get("challenge_elapsed_time_avg", scores.SECONDS),
        difficulty=stats.get("challenge_difficulty_avg"),
        recent_difficulty=stats.get("last_20_difficulty_avg"),
        has_docker=stats.get("has_docker") is True,
    )


def worth(inputs: Row) -> dict[str, float]:
    return (inputs["config_data"] or {}).get("gpu_performance", {}).get("gpu_scores", {})


@handles("compute-subnet/util_percent.json")
def util_percent(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Row) -> None:
        assert_close([scores.percent(given["a"], given["b"])], [out["percent"]])
        if out["percent_yield"] == "ZeroDivisionError":
            with pytest.raises(scores.NoTimeAllowed):
                scores.percent_yield(given["a"], given["b"])
        else:
            assert_close([scores.percent_yield(given["a"], given["b"])], [out["percent_yield"]])

    return each(file, check)


def one_challenge(score: Callable[[bool, float, int, bool], float], given: Row, out: Row) -> None:
    registered = given["hotkey"] in given["registered_hotkeys"]
    made = score(given["success"], given["elapsed_time"], given["difficulty"], registered)
    assert_close([made], [out["score"]])


@handles("compute-subnet/pow_score_v1_1_1.json")
def v1_1_1(file: VectorFile) -> Iterator[Case]:
    return each(file, partial(one_challenge, scores.score_v1_1_1))


@handles("compute-subnet/pow_score_v1_2_0.json")
def v1_2_0(file: VectorFile) -> Iterator[Case]:
    return each(file, partial(one_challenge, scores.score_v1_2_0))


def of_registered(score: Callable[[scores.Record, bool], float], given: Row, out: Row) -> None:
    registered = given.get("registered") or given["hotkey"] in given["registered_hotkeys"]
    assert_close([score(record(given["stats"]), registered)], [out["score"]])


@handles("compute-subnet/pow_score_v1_3_0.json")
def v1_3_0(file: VectorFile) -> Iterator[Case]:
    return each(file, partial(of_registered, scores.score_v1_3_0))


@handles("compute-subnet/pow_score_v1_3_9.json")
def v1_3_9(file: VectorFile) -> Iterator[Case]:
    return each(file, partial(of_registered, scores.score_v1_3_9))


def of_allocated(score: Callable[[scores.Record, bool], float], given: Row, out: Row) -> None:
    allocated = given["hotkey"] in given["allocated_hotkeys"]
    assert_close([score(record(given["stats"]), allocated)], [out["score"]])


@handles("compute-subnet/pow_score_v1_4_2.json")
def v1_4_2(file: VectorFile) -> Iterator[Case]:
    return each(file, partial(of_allocated, scores.score_v1_4_2))


@handles("compute-subnet/pow_score_v1_4_3.json")
def v1_4_3(file: VectorFile) -> Iterator[Case]:
    return each(file, partial(of_allocated, scores.score_v1_4_3))


@handles("compute-subnet/pow_score_v1_5_2.json")
def v1_5_2(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Row) -> None:
        made = scores.score_v1_5_2(
            record(given["stats"]),
            given["hotkey"] in given["allocated_hotkeys"],
            given["hotkey"],
            given["penalized_hotkeys"],
            len(given["validator_hotkeys"]),
        )
        assert_close([made], [out["score"]])

    return each(file, check)


def of_gpus(score: Callable[..., float], given: Row, out: Row, *, rented: bool) -> None:
    specs = given["gpu_specs"] or {}
    arguments = [specs.get("gpu_name"), specs.get("num_gpus"), worth(given)]
    if rented:
        arguments.append(given["hotkey"] in given["allocated_hotkeys"])
    assert_close([score(*arguments)], [out["score"]], rel=1e-12, abs_=1e-12)


@handles("compute-subnet/pog_score_v1_6_0.json")
def v1_6_0(file: VectorFile) -> Iterator[Case]:
    return each(file, partial(of_gpus, gpu_scores.score_v1_6_0, rented=True))


@handles("compute-subnet/pog_score_v1_6_x.json")
def v1_6_x(file: VectorFile) -> Iterator[Case]:
    return each(file, partial(of_gpus, gpu_scores.score_v1_6_x, rented=True))


@handles("compute-subnet/pog_score_v1_7_0.json")
def v1_7_0(file: VectorFile) -> Iterator[Case]:
    return each(file, partial(of_gpus, gpu_scores.score_v1_7_0, rented=True))


@handles("compute-subnet/pog_score_v1_8_3.json")
def v1_8_3(file: VectorFile) -> Iterator[Case]:
    return each(file, partial(of_gpus, gpu_scores.score_v1_8_3, rented=False))


@handles("compute-subnet/difficulty_controller.json")
def difficulty(file: VectorFile) -> Iterator[Case]:
    meta = file.load_json()["meta"]

    def check(given: Row, out: Row) -> None:
        stat = given["stat"] if given["known_uid"] else {}
        made = next_difficulty(
            stat.get("challenge_successes") or 0,
            stat.get("last_20_challenge_failed") or 0,
            stat.get("last_20_difficulty_avg"),
            least=meta["min"],
            most=meta["max"],
        )
        assert made == out["difficulty"]

    return each(file, check)


@handles("compute-subnet/challenge_stats.json")
def statistics(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Row) -> None:
        rows = [dict(zip(given["columns"], row, strict=True)) for row in given["rows"]]
        made = challenge_stats(
            Challenge(
                row["uid"],
                row["ss58_address"],
                bool(row["success"]),
                row["elapsed_time"],
                row["difficulty"],
                datetime.fromisoformat(row["created_at"]),
            )
            for row in rows
        )
        assert {str(uid) for uid in made} == out["stats"].keys()
        for uid, stats in made.items():
            wanted = out["stats"][str(uid)]
            counts = {
                "ss58_address": stats.hotkey,
                "challenge_attempts": stats.attempts,
                "challenge_failed": stats.failures,
                "challenge_successes": stats.successes,
                "last_20_challenge_failed": stats.recent_failures,
            }
            means = {
                "challenge_elapsed_time_avg": stats.elapsed_mean,
                "challenge_difficulty_avg": stats.difficulty_mean,
                "last_20_difficulty_avg": stats.recent_difficulty,
            }
            assert wanted.keys() == counts.keys() | means.keys()
            assert counts == {name: wanted[name] for name in counts}
            for name, mean in means.items():
                assert (mean is None) == (wanted[name] is None), name
                assert mean is None or math.isclose(mean, wanted[name], rel_tol=1e-9), name

    return each(file, check)


@handles("compute-subnet/hardware_score.json")
def hardware(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Row) -> None:
        assert_close([hardware_score(given["data"], given["registered"])], [out["score"]])

    return each(file, check)


@handles("compute-subnet/pog_listing_gate.json")
def listing_gate(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Row) -> None:
        entries = [
            gpu_scores.ProofEntry(entry["age_hours"], entry["gpu_name"], entry["num_gpus"])
            for entry in given["entries"]
        ]
        made = gpu_scores.may_be_listed(entries, given["hours"], given["blacklisted"])
        assert made == out["ok"]

    return each(file, check)


@handles("compute-subnet/score_sync.json")
def synchronised_scores(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Row) -> None:
        made = gpu_scores.scores_of_uids(
            {int(uid): hotkey for uid, hotkey in given["hotkeys"].items()},
            given["queryable"],
            {
                hotkey: gpu_scores.ProvedGpus(gpus["gpu_name"], gpus["num_gpus"])
                for hotkey, gpus in given["local_pog"].items()
            },
            {int(uid): stat["score"] for uid, stat in given["shared_stats"].items()},
            given["penalized"],
            worth(given),
        )
        for uid, wanted in out["stats_score"].items():
            assert_close([made[int(uid)].score], [wanted], rel=1e-6, abs_=1e-6)
        assert {str(uid): score.own for uid, score in made.items()} == out["own_score"]
        on_chain = [made[uid].score / 100 if uid in made else 0.0 for uid in given["uids"]]
        assert_close(on_chain, out["scores"], rel=1e-6, abs_=1e-6)

    return each(file, check)


@handles("compute-subnet/weights.json")
def weights(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Row) -> None:
        made = gpu_scores.chain_weights(np.array(given["scores"]))
        assert_close(made.tolist(), out["weights"], rel=1e-6, abs_=1e-6)

    return each(file, check)
