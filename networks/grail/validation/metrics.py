"""What validating one miner's window comes to (grail-validation §11, §13.5)."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class MinerMetrics:
    """One miner's window. Counts of checked rollouts, and estimates for the whole file.

    total: rows of the file. had_failure: 1 fails the window and bans the miner (§14).
    """

    valid: int = 0
    checked: int = 0
    total: int = 0
    successful: int = 0
    unique: int = 0
    estimated_valid: int = 0
    estimated_unique: int = 0
    estimated_successful: int = 0
    prompt_valid: int = 0
    prompt_mismatch: int = 0
    had_failure: int = 0


FILE_REJECTED = MinerMetrics(had_failure=1)
"""A file that fails before any rollout is looked at (§11.3)."""


def passed_metrics(
    *,
    checked: int,
    total: int,
    valid: int,
    successful: int,
    unique: int,
    prompt_valid: int,
    prompt_mismatch: int,
) -> MinerMetrics:
    """Metrics of a file in which nothing failed (§11.1)."""

    def whole_file(count: int) -> int:
        return int(total * (count / checked)) if checked else 0

    return MinerMetrics(
        valid=valid,
        checked=checked,
        total=total,
        successful=successful,
        unique=unique,
        estimated_valid=whole_file(valid),
        estimated_unique=whole_file(unique),
        estimated_successful=whole_file(successful),
        prompt_valid=prompt_valid,
        prompt_mismatch=prompt_mismatch,
    )


def failed_metrics(*, checked: int, total: int) -> MinerMetrics:
    """Metrics of a file in which a rollout or a group failed (§11.2)."""
    return MinerMetrics(checked=checked, total=total, had_failure=1)


def gated_metrics(metrics: MinerMetrics | None) -> MinerMetrics:
    """Metrics of a miner found to copy: nothing earned, and banned (§13.5)."""
    return replace(
        metrics or MinerMetrics(),
        valid=0,
        successful=0,
        unique=0,
        estimated_valid=0,
        estimated_unique=0,
        estimated_successful=0,
        had_failure=1,
    )
