"""What the network and Windrow make of claimed rollouts, by the validator's own code."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from benchmarks.soundness.claims import ROWS, Claims
from benchmarks.soundness.provers import Oracle
from benchmarks.soundness.world import World
from windrow.engine.validation.measures import RolloutMeasure
from windrow.engine.validation.proof_scores import Calibration, Expected, ProofScores, proof_scores
from windrow.engine.validation.validator import validate_file


@dataclass(frozen=True)
class Judged:
    """Verdicts on n rollouts in files of 64.

    network, windrow: bool [n], whether a rollout passes every check that concerns it: for the
    network all hard ones, for Windrow all; without Windrow's limits on proof scores.
    network_files, windrow_files: bool, one a file. refusals: rollouts refused by check, by each.
    file_rules: files refused by a rule of Windrow's that concerns whole files. checks: all that
    were made.
    """

    network: NDArray[np.bool_]
    windrow: NDArray[np.bool_]
    network_files: NDArray[np.bool_]
    windrow_files: NDArray[np.bool_]
    network_refusals: Counter[str]
    windrow_refusals: Counter[str]
    file_rules: Counter[str]
    checks: frozenset[str]


def judge(claims: Claims, world: World, oracle: Oracle) -> Judged:
    """Validate the claims' files, all rows of each."""
    network, windrow, network_files, windrow_files = [], [], [], []
    refused: tuple[Counter[str], Counter[str]] = Counter(), Counter()
    file_rules: Counter[str] = Counter()
    checks: set[str] = set()
    for miner, file in claims.files(world):
        verdict = validate_file(
            file, world.context(miner, oracle.dtype), environment=world.environment, measure=oracle
        )
        network_files.append(verdict.network_accepts)
        windrow_files.append(verdict.windrow_accepts)
        table = verdict.verdicts
        hard = pc.or_(table["network_verdict"], pc.equal(table["severity"], "soft"))
        network.append(_by_row(table, hard, file.rollouts, refused[0]))
        windrow.append(_by_row(table, table["windrow_verdict"], file.rollouts, refused[1]))
        whole = pc.and_(pc.is_null(table["rollout_group"]), pc.invert(table["windrow_verdict"]))
        checks.update(table["check"].unique().to_pylist())
        file_rules.update(set(table["check"].filter(whole).to_pylist()))
    return Judged(
        np.concatenate(network),
        np.concatenate(windrow),
        np.array(network_files),
        np.array(windrow_files),
        *refused,
        file_rules,
        frozenset(checks),
    )


def _by_row(
    table: pa.Table, passed: pa.ChunkedArray, rollouts: pa.Table, refused: Counter[str]
) -> NDArray[np.bool_]:
    """bool [rows of the file]; a group's failure is that of all its rollouts."""
    failing = table.filter(pc.invert(passed))
    accepted = np.ones(rollouts.num_rows, np.bool_)
    groups = rollouts["rollout_group"].to_numpy()
    named: dict[str, set[int]] = {}
    for row, group, check in zip(
        *(failing[name].to_pylist() for name in ("row", "rollout_group", "check")), strict=True
    ):
        if group is None:
            continue
        rows = np.flatnonzero(groups == group) if row is None else [row]
        accepted[rows] = False
        named.setdefault(check, set()).update(int(r) for r in rows)
    refused.update({check: len(rows) for check, rows in named.items()})
    return accepted


def scores_of(claims: Claims, own: Sequence[RolloutMeasure]) -> list[ProofScores]:
    """Windrow's proof scores of every rollout against a verifier's measures."""
    return [
        proof_scores(
            sketches,
            logprobs[prompt:],
            Expected(measured.sketches[0], measured.margins, measured.logprobs, measured.totals),
        )
        for sketches, logprobs, prompt, measured in zip(
            claims.sketches,
            claims.logprobs,
            claims.rollouts.prompt_lengths,
            own,
            strict=True,
        )
    ]


def within(scores: Sequence[ProofScores], limits: Calibration) -> NDArray[np.bool_]:
    """bool [n]: rollouts whose scores keep every limit."""
    return np.array([max(limits.excess(score).values()) <= 1.0 for score in scores])


def all_in_file(accepted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """bool, one a file: whether all its rollouts are accepted."""
    return np.array([accepted[i : i + ROWS].all() for i in range(0, len(accepted), ROWS)])
