"""Validate one miner's window file: every check on every rollout looked at, then the outcome.

The network stops at the first failure and keeps one reason (grail-validation §8-§11). Here all
checks run, each leaves a verdict row, and what the network makes of them is derived afterwards.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pyarrow as pa

from windrow.engine.ports import Environment
from windrow.engine.validation.claims import Claim, claims_of
from windrow.engine.validation.file_verdicts import (
    file_results,
    group_results,
    repeat_results,
    strict_verdicts,
    structure_verdicts,
)
from windrow.engine.validation.group_tasks import Evaluated, GroupTasks
from windrow.engine.validation.inputs import ReplayInputs, ValidationContext, versions_of
from windrow.engine.validation.model_answers import Answers, Measure, ask_model
from windrow.engine.validation.proof_scores import Calibration, calibration_for
from windrow.engine.validation.refusals import refusals
from windrow.engine.validation.rollout_verdicts import (
    BudgetSpent,
    Findings,
    Refused,
    admission,
    check_rollout,
)
from windrow.networks.grail.columns import RolloutColumns, in_one_piece, rows_at
from windrow.networks.grail.commitments import CommitmentsError
from windrow.networks.grail.file_checks import file_violations, network_reason
from windrow.networks.grail.sampling import completion_digests
from windrow.networks.grail.validation.commit_digests import file_sample
from windrow.networks.grail.validation.copies import digest_array
from windrow.networks.grail.validation.metrics import FILE_REJECTED
from windrow.networks.grail.validation.outcome import (
    Admission,
    CheckedRollout,
    Outcome,
    judge_file,
)
from windrow.networks.grail.validation.verdicts import (
    HARD_CHECKS,
    SOFT_CHECKS,
    CheckResult,
    Place,
    graded_by,
    stopped,
    verdict_table,
)
from windrow.networks.grail.violations import Severity
from windrow.networks.grail.window_file import Source, WindowFile, read_window_file
from windrow.networks.grail.window_guards import WindowFileError

MAX_SAMPLED_ROWS: Final = 64
"""Most rows looked at where the network samples: 4 groups of 16. A file whose groups have other
sizes fails before any row is (§5), and is cut to as many."""


@dataclass(frozen=True)
class FileVerdict:
    """What one miner's file is worth.

    verdicts: VERDICT_SCHEMA, one row a rollout and check, besides those of groups and the file.
    outcome: the network's, None where it treats the file as missing, without a ban (§3.5), or
    where `limit` says which bound of Windrow kept it from being known.
    skipped: checks that were not made on some rollout, for want of a model or an environment or
    through a fault; the outcome takes them as passed. faults: what this machine failed at.
    completions: digests of all rows for copy detection, None unless the file passes (§11.2).
    """

    verdicts: pa.Table
    outcome: Outcome | None
    skipped: tuple[str, ...]
    faults: tuple[str, ...]
    completions: pa.FixedSizeBinaryArray | None
    replay: ReplayInputs
    limit: str | None = None

    @property
    def network_accepts(self) -> bool:
        """Whether the network gives the file its worth, as far as was checked."""
        return self.outcome is not None and not self.outcome.metrics.had_failure

    @property
    def windrow_accepts(self) -> bool:
        """Whether the network accepts the file, and Windrow has nothing to refuse it for."""
        return self.network_accepts and not refusals(self.verdicts).num_rows


def validate_file(
    source: Source | WindowFile,
    context: ValidationContext,
    *,
    environment: Environment | None = None,
    measure: Measure | None = None,
    unevaluated: Collection[int] | None = None,
) -> FileVerdict:
    """Every check on every sampled rollout of a window file, or on all (`every_rollout`).

    environment: of the checkpoint, for prompts and rewards. measure: asks its model. Without
    one of them, all checks that do not need it. unevaluated: rows that the evaluation budget left
    out in an earlier run, to leave out again. What a hostile file does ends as a verdict.
    Work is bounded: by the reader's limits, by MAX_SAMPLED_ROWS unless all rows are asked for,
    for each of these by the longest sequence that can be honest, and by the time for evaluations.
    Raises NoCalibration where the model's number format has no limits for Windrow's proof check.
    """
    try:
        file = source if isinstance(source, WindowFile) else read_window_file(source)
    except WindowFileError as error:
        return _unreadable(error, context)
    rollouts = in_one_piece(file.rows)
    structure = file_violations(
        rollouts,
        wallet=file.header.wallet,
        metadata_window=file.header.window_start,
        hotkey=context.hotkey,
        window=context.window,
        block_hash=context.block_hash,
    )
    sample = _network_sample(rollouts, structure, file, context)
    rows = list(range(rollouts.num_rows)) if context.every_rollout else sample
    columns = RolloutColumns.of(rows_at(rollouts, rows))
    claims = claims_of(columns, rows, file, context.hotkey)
    looked = _look(claims, context, environment, measure, unevaluated)
    digests = completion_digests(
        rollouts["tokens"].combine_chunks(), rollouts["prompt_length"].combine_chunks()
    )
    outcome, limit = _outcome(structure, file, [looked.by_row[row] for row in sample], digests)
    passed = outcome is not None and not outcome.metrics.had_failure
    measured = looked.answers.measured
    groups = rollouts["rollout_group"].take(pa.array(sample, pa.int64()))
    return FileVerdict(
        verdicts=graded_by(
            pa.concat_tables(
                [
                    verdict_table(
                        context.window,
                        context.hotkey,
                        file_results(structure, file)
                        + looked.results()
                        + group_results(claims)
                        + repeat_results(claims, looked.answers),
                    ),
                    structure_verdicts(structure, rollouts, context),
                    strict_verdicts(columns, rows, rollouts, digests, context),
                ]
            ),
            environment.python if environment else None,
        ),
        outcome=outcome,
        skipped=looked.skipped(),
        faults=looked.faults,
        completions=digest_array(digests) if passed else None,
        replay=ReplayInputs(
            context=replace(context, calibration=looked.calibration or context.calibration),
            sampled_groups=tuple(sorted(set(groups.to_pylist()))),
            forward=measured.setting if measured else None,
            sub_batches=measured.sub_batches if measured else (),
            unevaluated=looked.unevaluated,
            versions=versions_of(environment),
        ),
        limit=limit,
    )


@dataclass(frozen=True)
class _Checked:
    claim: Claim
    admission: Admission
    results: list[CheckResult]


@dataclass(frozen=True)
class _Looked:
    """The rows looked at, by row."""

    by_row: dict[int, _Checked]
    answers: Answers
    faults: tuple[str, ...]
    unevaluated: tuple[int, ...]
    calibration: Calibration | None

    def results(self) -> list[tuple[Place, CheckResult]]:
        return [(c.claim.place, found) for c in self.by_row.values() for found in c.results]

    def skipped(self) -> tuple[str, ...]:
        made = [{found.check for found in c.results} for c in self.by_row.values()]
        return tuple(
            name
            for name in (*HARD_CHECKS, *SOFT_CHECKS)
            if not all(name in checks for checks in made)
        )


def _look(
    claims: Sequence[Claim],
    context: ValidationContext,
    environment: Environment | None,
    measure: Measure | None,
    unevaluated: Collection[int] | None,
) -> _Looked:
    count = len(claims)
    faults: list[str] = []
    prompts: list[np.ndarray | Refused | None] = [None] * count
    evaluations: list[Evaluated] = [None] * count
    answers = Answers([None] * count, None)
    tasks = environment and GroupTasks(environment, context, faults, unevaluated)
    if tasks:
        prompts = [tasks.prompt(claim.place.rollout_group) for claim in claims]
    if measure:
        answers = ask_model(measure, claims, prompts, context)
        faults += filter(None, [answers.fault])
    if tasks:
        evaluations = tasks.evaluate(claims, context.vocabulary)
    calibration = (
        calibration_for(answers.measured.setting.dtype, context.calibration)
        if answers.measured
        else None
    )
    by_row = {}
    for claim, prompt, evaluation, model in zip(
        claims, prompts, evaluations, answers.rollouts, strict=True
    ):
        findings = Findings(prompt, evaluation, model)
        results = check_rollout(claim, findings, context, calibration)
        by_row[claim.row] = _Checked(claim, admission(claim, context), results)
    left_out = tuple(
        claim.row
        for claim, evaluation in zip(claims, evaluations, strict=True)
        if isinstance(evaluation, BudgetSpent)
    )
    return _Looked(by_row, answers, tuple(faults), left_out, calibration)


def _network_sample(
    rollouts: pa.Table, structure: pa.Table, file: WindowFile, context: ValidationContext
) -> list[int]:
    """The rows the network looks at, ascending (§6); the first ones where it looks at none."""
    first = list(range(min(rollouts.num_rows, MAX_SAMPLED_ROWS)))
    if structure.num_rows:  # rejected before it is sampled (§5)
        return first
    columns = RolloutColumns.of(rollouts)
    try:
        return file_sample(
            columns, file.irregular, file.foreign, context.hotkey, context.validator_randomness
        )
    except CommitmentsError:  # the network cannot decode such a file, and samples nothing of it
        return first


def _outcome(
    structure: pa.Table,
    file: WindowFile,
    sampled: Sequence[_Checked],
    digests: Sequence[str | None],
) -> tuple[Outcome | None, str | None]:
    """The network's outcome, or the limit of Windrow that it hangs on."""
    broken = [text.json for text in file.irregular if not text.json.is_json]
    if broken:
        known = any(not text.beyond for text in broken)
        return None, None if known else broken[0].reason
    reason = network_reason(structure)
    if reason is not None:
        return _rejected(reason), None
    best = judge_file(_rollouts(sampled, digests, unknown=True), file.rows.num_rows)
    worst = judge_file(_rollouts(sampled, digests, unknown=False), file.rows.num_rows)
    if best == worst:
        return best, None
    limits = [f.reason for c in sampled for f in c.results if f.network_verdict is None]
    return None, limits[0]


def _rollouts(
    sampled: Sequence[_Checked], digests: Sequence[str | None], *, unknown: bool
) -> list[CheckedRollout]:
    """unknown: the verdict that stands for one that is not known."""
    unchecked = dict.fromkeys(HARD_CHECKS, True)
    return [
        CheckedRollout(
            group=checked.claim.place.rollout_group or 0,
            admission=checked.admission,
            checks=unchecked
            | {
                found.check: unknown if found.network_verdict is None else found.network_verdict
                for found in checked.results
            },
            success=checked.claim.success is True,
            digest=digests[checked.claim.row],
            total_reward=checked.claim.reward,
            advantage=checked.claim.advantage,
        )
        for checked in sampled
    ]


def _rejected(reason: str) -> Outcome:
    return Outcome(FILE_REJECTED, f"file:{reason}", 0, 0, 0, 0)


def _unreadable(error: WindowFileError, context: ValidationContext) -> FileVerdict:
    """A file of which no row can be read: banned for or ignored (§3.5), or beyond our limits."""
    banned = error.network_reason
    found = (
        stopped("file_readable", str(error))
        if error.limit
        else CheckResult(
            check="file_readable",
            severity=Severity.BAN if banned else Severity.IGNORED,
            network_verdict=banned is None,
            windrow_verdict=False,
            measured=None,
            threshold=None,
            margin=None,
            reason=str(error),
        )
    )
    return FileVerdict(
        verdicts=verdict_table(context.window, context.hotkey, [(Place(), found)]),
        outcome=_rejected(banned) if banned else None,
        skipped=(*HARD_CHECKS, *SOFT_CHECKS),
        faults=(),
        completions=None,
        replay=ReplayInputs(context, (), None, (), (), versions_of(None)),
        limit=str(error) if error.limit else None,
    )
