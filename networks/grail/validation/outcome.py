"""What the network would say of a file, given every check of its sampled rollouts (§8.0, §9-11).

The checks need no order; the network does: it goes through the sampled rows, and stops at the
first that ends it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from windrow.networks.grail.validation.gates import Gates
from windrow.networks.grail.validation.groups import check_rollout_group
from windrow.networks.grail.validation.metrics import (
    MinerMetrics,
    failed_metrics,
    passed_metrics,
)


class Admission(StrEnum):
    """Whether a row reaches the checks; each stop fails the file without a reason (§8.0)."""

    ADMITTED = "admitted"
    WRONG_CHECKPOINT = "wrong_checkpoint"
    WRONG_IDENTITY = "wrong_identity"  # window, block hash or nonce
    BAD_SIGNATURE = "bad_signature"
    NO_GROUP = "no_group"
    ERROR = "error"  # an exception outside the checks: the row is skipped, the file goes on


@dataclass(frozen=True)
class CheckedRollout:
    """One sampled row with all that was found out about it.

    checks: network verdicts by check. success: as claimed. digest: of the completion, None
    without tokens. total_reward, advantage, env_seed: as claimed.
    """

    group: int
    admission: Admission
    checks: Mapping[str, bool]
    success: bool
    digest: str | None
    total_reward: float
    advantage: float
    env_seed: int | None = None


@dataclass(frozen=True)
class Outcome:
    """A file's fate. reason: as the network records it, None also for failures it records none of.

    pipelines, bad_signatures, hard_failures, errors: the network's counters of the file.
    """

    metrics: MinerMetrics
    reason: str | None
    pipelines: int
    bad_signatures: int
    hard_failures: int
    errors: int


@dataclass
class _Tally:
    looked_at: int = 0
    pipelines: int = 0
    errors: int = 0
    valid: int = 0
    successful: int = 0
    prompts_valid: int = 0
    prompts_wrong: int = 0


def judge_file(sampled: Sequence[CheckedRollout], total: int) -> Outcome:
    """The network's verdict on a file that passed the file-level checks.

    sampled: the rows it looks at, ascending (§6). total: rows of the file.
    """
    tally, gates, digests = _Tally(), Gates(len(sampled)), set[str]()
    groups: dict[int, list[CheckedRollout]] = {}

    def outcome(metrics: MinerMetrics, *, bad_signature: bool = False) -> Outcome:
        return Outcome(
            metrics,
            gates.reason,
            tally.pipelines,
            int(bad_signature),
            int(gates.hard_failure),
            tally.errors,
        )

    def failed(*, bad_signature: bool = False) -> Outcome:
        metrics = failed_metrics(checked=tally.looked_at, total=total)
        return outcome(metrics, bad_signature=bad_signature)

    for rollout in sampled:
        tally.looked_at += 1
        if rollout.admission is Admission.ERROR:
            tally.errors += 1
            continue
        if rollout.admission is not Admission.ADMITTED:
            return failed(bad_signature=rollout.admission is Admission.BAD_SIGNATURE)
        groups.setdefault(rollout.group, []).append(rollout)
        tally.pipelines += 1
        prompt = rollout.checks.get("env_prompt_valid")
        tally.prompts_valid += prompt is True
        tally.prompts_wrong += prompt is False
        gates = gates.after(rollout.checks)
        if not gates.open:
            return failed()
        tally.valid += 1
        tally.successful += rollout.success
        if rollout.digest is not None:
            digests.add(rollout.digest)
    if not all(_group_holds(rollouts) for rollouts in groups.values()):
        return failed()
    return outcome(
        passed_metrics(
            checked=tally.looked_at,
            total=total,
            valid=tally.valid,
            successful=tally.successful,
            unique=len(digests),
            prompt_valid=tally.prompts_valid,
            prompt_mismatch=tally.prompts_wrong,
        )
    )


def _group_holds(rollouts: Sequence[CheckedRollout]) -> bool:
    found = check_rollout_group(
        [rollout.total_reward for rollout in rollouts],
        [rollout.advantage for rollout in rollouts],
        [rollout.env_seed for rollout in rollouts],
    )
    return found.network_verdict is True
