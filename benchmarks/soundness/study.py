"""Both sides of the study: false rejects of honest work, false accepts of forgeries."""

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.soundness import toploc_side
from benchmarks.soundness.claims import Claims
from benchmarks.soundness.forgeries import catalogue
from benchmarks.soundness.forgeries.base import Forgery, Material
from benchmarks.soundness.forgeries.sketches import chosen_randomness, stale_randomness
from benchmarks.soundness.forgeries.weights import other_models
from benchmarks.soundness.honest import ALONE, Drift, drifts
from benchmarks.soundness.judging import Judged, all_in_file, judge, scores_of, within
from benchmarks.soundness.provers import Oracle
from benchmarks.soundness.toploc_side import Comparison
from benchmarks.soundness.world import World
from windrow.engine.validation.measures import RolloutMeasure
from windrow.engine.validation.proof_scores import (
    CONSERVATIVE,
    LOGPROB_SCORES,
    SKETCH_SCORES,
    Calibration,
    ProofScores,
)

FIRST_MINER = 60_000
"""Miners 0 to 47, 1000 to 1047, 2000 to 2047 and 20000 to 20499 served to find the rules and
limits, and are not judged again."""

FULL_MINERS = 48
QUICK_MINERS = 2
CALIBRATED, DEFAULT = "calibrated", "default"


@dataclass(frozen=True)
class Rate:
    """How many of `trials` were accepted."""

    accepted: int
    trials: int

    @classmethod
    def of(cls, accepted: NDArray[np.bool_]) -> "Rate":
        return cls(int(accepted.sum()), len(accepted))


@dataclass(frozen=True)
class HonestRow:
    """Honest provers of one kind.

    refusals: rollouts whose proof scores exceed limits, by kind of limits (calibrated, default).
    network, windrow: rollouts that the network's checks, and Windrow's others, refuse.
    """

    name: str
    verifier: str
    trials: int
    network: int
    windrow: int
    refusals: Mapping[str, int]
    scores: Mapping[str, NDArray[np.float64]] = field(repr=False)


@dataclass(frozen=True)
class ForgedRow:
    """One forgery. windrow: accepted rollouts by limits, such as "float32 calibrated"."""

    name: str
    section: str
    note: str
    network: Rate
    network_files: Rate
    network_checks: Sequence[str]
    windrow: Mapping[str, Rate]
    windrow_files: Rate
    windrow_checks: Sequence[str]
    scores: Mapping[str, NDArray[np.float64]] = field(repr=False)


@dataclass(frozen=True)
class Study:
    """Everything measured. whole: honest claims against every check. toploc: None without it."""

    rollouts: int
    distinct: int
    limits: Mapping[str, Calibration]
    honest: Sequence[HonestRow]
    whole: Judged
    forged: Sequence[ForgedRow]
    toploc: Comparison | None
    seconds: float
    cpu_seconds: float


def run(miners: int = FULL_MINERS) -> Study:
    """Measure with so many miners' files of 64 rollouts."""
    toploc_side.installed()  # a broken one should fail now, not after minutes
    started, cpu = time.monotonic(), time.process_time()
    torch.set_num_threads(1)
    world = World.load()
    say("calibrating")
    calibrated = world.calibrations()
    limits = {
        f"{dtype} {kind}": chosen[dtype]
        for kind, chosen in ((CALIBRATED, calibrated), (DEFAULT, CONSERVATIVE))
        for dtype in ("float32", "bfloat16")
    }
    say("sampling")
    rollouts = world.sample(range(FIRST_MINER, FIRST_MINER + miners))
    oracles = {
        "float32": Oracle(world, world.loaded.model, (stale_randomness(), chosen_randomness())),
        "bfloat16": Oracle(world, world.model_bfloat16),
    }
    say("verifying")
    own = {dtype: oracle.own(rollouts, world.policy) for dtype, oracle in oracles.items()}
    rows, claimed, judgements = [], {}, {}
    for drift in drifts(world, rollouts):
        say(f"honest: {drift.name}, {drift.verifier}")
        claims = Claims(rollouts, *drift.proofs, world.randomness, rollouts.miners)
        judged = judge(claims, world, oracles[drift.verifier])
        claimed[drift.name], judgements[drift.name] = claims, judged
        rows.append(_honest_row(drift, judged, scores_of(claims, own[drift.verifier]), limits))
    others = other_models(world)
    material = Material(world, claimed[ALONE], own["float32"], oracles["float32"], others)
    forged = []
    for forgery in catalogue(material):
        say(f"forged {forgery.section}: {forgery.name}")
        forged.append(_forged_row(forgery, world, oracles["float32"], own, limits))
    return Study(
        rollouts=len(rollouts),
        distinct=len({s.tobytes() for s in rollouts.sequences}),
        limits=limits,
        honest=rows,
        whole=judgements[ALONE],
        forged=forged,
        toploc=toploc_side.compare(world, rollouts, others),
        seconds=time.monotonic() - started,
        cpu_seconds=time.process_time() - cpu,
    )


def say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {what} …", file=sys.stderr, flush=True)


def _honest_row(
    drift: Drift,
    judged: Judged,
    scores: Sequence[ProofScores],
    limits: Mapping[str, Calibration],
) -> HonestRow:
    return HonestRow(
        name=drift.name,
        verifier=drift.verifier,
        trials=len(scores),
        network=int((~judged.network).sum()),
        windrow=int((~judged.windrow).sum()),
        refusals={
            kind: int((~within(scores, limits[f"{drift.verifier} {kind}"])).sum())
            for kind in (CALIBRATED, DEFAULT)
        },
        scores=_columns(scores),
    )


def _forged_row(
    forgery: Forgery,
    world: World,
    oracle: Oracle,
    own: Mapping[str, Sequence[RolloutMeasure]],
    limits: Mapping[str, Calibration],
) -> ForgedRow:
    claims, applies = forgery.claims, forgery.applies
    judged = judge(claims, world, oracle)
    measures = {"float32": oracle.own(claims.rollouts, world.policy)}
    if forgery.same_tokens:
        measures["bfloat16"] = own["bfloat16"]
    scores = {dtype: scores_of(claims, found) for dtype, found in measures.items()}
    kept = {
        name: judged.windrow & within(scores[limit.dtype], limit)
        for name, limit in limits.items()
        if limit.dtype in scores
    }
    tight = limits[f"float32 {CALIBRATED}"]
    caught = Counter(judged.windrow_refusals)
    excess = [tight.excess(score) for score in scores["float32"]]
    for check, names in (("sketches_agree", SKETCH_SCORES), ("logprobs_agree", LOGPROB_SCORES)):
        caught[check] += sum(max(e[n] for n in names) > 1.0 for e in excess)
    files = judged.windrow_files & all_in_file(within(scores["float32"], tight))
    rules = [f"{check} (file)" for check in judged.file_rules]
    return ForgedRow(
        name=forgery.name,
        section=forgery.section,
        note=forgery.note,
        network=Rate.of(judged.network[applies]),
        network_files=Rate.of(judged.network_files),
        network_checks=[c for c, n in judged.network_refusals.most_common(2) if n],
        windrow={name: Rate.of(accepted[applies]) for name, accepted in kept.items()},
        windrow_files=Rate.of(files),
        windrow_checks=[c for c, n in caught.most_common(3) if n] + rules,
        scores=_columns([s for s, a in zip(scores["float32"], applies, strict=True) if a]),
    )


def _columns(scores: Sequence[ProofScores]) -> dict[str, NDArray[np.float64]]:
    return {
        name: np.array([getattr(score, name) for score in scores])
        for name in (*SKETCH_SCORES, *LOGPROB_SCORES)
    }
