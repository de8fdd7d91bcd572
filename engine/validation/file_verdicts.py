"""Verdicts on a whole file and its groups, and on what the network never asks of its rows."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from windrow.engine.validation.claims import Claim
from windrow.engine.validation.inputs import ValidationContext
from windrow.engine.validation.model_answers import Answers
from windrow.engine.validation.proof_verdicts import ModelSays
from windrow.networks.grail.columns import RolloutColumns
from windrow.networks.grail.rollout_checks import check_proof_fields
from windrow.networks.grail.submission_checks import SubmissionContext, check_identity
from windrow.networks.grail.validation.drawing import (
    SAMPLER_DRIFT,
    check_repeats,
    log_probability,
    repeat_evidence,
)
from windrow.networks.grail.validation.groups import check_rollout_group
from windrow.networks.grail.validation.strict import check_duplicates, check_group_numbers
from windrow.networks.grail.validation.verdicts import (
    CheckResult,
    Place,
    result,
    violation_verdicts,
)
from windrow.networks.grail.violations import Severity, Violations
from windrow.networks.grail.window_file import WindowFile

MAX_LISTED = 256
"""Rows that one broken rule of a whole file is listed for."""


def structure_verdicts(
    structure: pa.Table, rollouts: pa.Table, context: ValidationContext
) -> pa.Table:
    """VERDICT_SCHEMA of the file-level violations (§5), at most MAX_LISTED of each check."""
    return _verdicts(_bounded(structure), rollouts, context)


def strict_verdicts(
    columns: RolloutColumns,
    rows: Sequence[int],
    rollouts: pa.Table,
    digests: Sequence[str | None],
    context: ValidationContext,
) -> pa.Table:
    """VERDICT_SCHEMA of rules that the network lacks and an honest miner keeps (§26).

    columns: of the checked rows, which stand at `rows` in the file. rollouts, digests: of all.
    """
    found = Violations(columns.column("rollout_group"))
    check_identity(columns, _identity(context), found)
    check_proof_fields(columns, found)
    violations = found.table()
    strict = violations.filter(pc.equal(violations["severity"], str(Severity.STRICT)))
    positions = strict["row"].combine_chunks()
    of_rows = strict.set_column(
        strict.schema.get_field_index("row"), "row", pa.array(rows, pa.int64()).take(positions)
    )
    groups = rollouts["rollout_group"].combine_chunks()
    whole = Violations(groups)
    check_group_numbers(groups, whole)
    check_duplicates(RolloutColumns.of(rollouts), pa.array(digests, pa.string()), whole)
    return _verdicts(pa.concat_tables([of_rows, _bounded(whole.table())]), rollouts, context)


def file_results(structure: pa.Table, file: WindowFile) -> list[tuple[Place, CheckResult]]:
    """One result each for the file's structure and for its JSON texts."""
    broken = structure.num_rows
    texts = [text for text in file.irregular if not text.json.is_json]
    structural = result(
        "file_structure",
        network_reason=f"{broken} violations, the first: {structure['reason'][0]}"
        if broken
        else None,
        measured=broken,
        threshold=0,
    )
    readable = CheckResult(
        check="json_text",
        severity=Severity.IGNORED,
        network_verdict=True,
        windrow_verdict=not texts,
        measured=len(texts),
        threshold=0,
        margin=None,
        reason=f"{len(texts)} texts are not JSON, so that the network ignores the whole file; the "
        f"first is {texts[0].column} of row {texts[0].row}: {texts[0].json.reason}"
        if texts
        else "",
    )
    return [(Place(), structural), (Place(), readable)]


def group_results(claims: Sequence[Claim]) -> list[tuple[Place, CheckResult]]:
    """The check of every group among the rows looked at (§10)."""
    groups: dict[int | None, list[Claim]] = {}
    for claim in claims:
        groups.setdefault(claim.place.rollout_group, []).append(claim)
    return [
        (
            Place(rollout_group=group),
            check_rollout_group(
                [claim.reward for claim in members],
                [claim.advantage for claim in members],
                [None] * len(members),
            ),
        )
        for group, members in groups.items()
    ]


def repeat_results(
    claims: Sequence[Claim],
    answers: Answers,
) -> list[tuple[Place, CheckResult]]:
    """Whether equal completions come as sampled, of every group and of the file.

    Rollouts that the model could not be asked about are left out.
    """
    if answers.measured is None:
        return []
    drift = SAMPLER_DRIFT[answers.measured.setting.dtype]
    groups: dict[int | None, list[tuple[bytes, float]]] = {}
    for claim, model in zip(claims, answers.rollouts, strict=True):
        if isinstance(model, ModelSays):
            drawn = model.draw_logprobs
            likely = 0.0 if drawn is None else log_probability(drawn, drift)
            group = groups.setdefault(claim.place.rollout_group, [])
            group.append((claim.tokens.tobytes(), likely))
    evidence = {
        group: repeat_evidence([key for key, _ in own], [likely for _, likely in own])
        for group, own in groups.items()
    }
    of_groups = [(Place(rollout_group=g), check_repeats(found)) for g, found in evidence.items()]
    return [*of_groups, (Place(), check_repeats(sum(evidence.values())))]


def _verdicts(violations: pa.Table, rollouts: pa.Table, context: ValidationContext) -> pa.Table:
    return violation_verdicts(violations, rollouts, window=context.window, hotkey=context.hotkey)


def _bounded(violations: pa.Table) -> pa.Table:
    parts = []
    for check in violations["check"].unique():
        of_check = violations.filter(pc.equal(violations["check"], check))
        parts.append(of_check.slice(0, MAX_LISTED))
    return pa.concat_tables([violations.schema.empty_table(), *parts])


def _identity(context: ValidationContext) -> SubmissionContext:
    """For `check_identity`; what a strict rule does not read is left at nothing."""
    return SubmissionContext(
        hotkey=context.hotkey,
        window=context.window,
        block_hash=context.block_hash,
        randomness=context.miner_randomness,
        checkpoint_window=context.checkpoint_window or 0,
        vocab_size=context.vocabulary or 0,
        max_context=context.max_context,
        eos_token_id=context.eos_token_id or 0,
        max_new_tokens=context.policy.max_new_tokens,
    )
