"""From the checks of rollouts to the fate of a file: hard and soft gates (grail-validation §9)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from windrow.networks.grail.validation.verdicts import HARD_CHECKS, SOFT_CHECKS


def soft_cutoff(threshold: float, planned: int) -> int:
    """From how many failing rollouts on a soft check fails the file (§9).

    planned: rollouts chosen to be checked.
    """
    return max(1, math.ceil(threshold * max(1, planned)))


@dataclass(frozen=True)
class Gates:
    """What the gates have let through so far. reason: `hard:<check>` or `soft:<check>`."""

    planned: int
    soft_failures: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    hard_failure: bool = False
    soft_triggered: bool = False
    reason: str | None = None

    @property
    def cutoffs(self) -> dict[str, int]:
        return {name: soft_cutoff(share, self.planned) for name, share in SOFT_CHECKS.items()}

    @property
    def open(self) -> bool:
        """Whether the next rollout is looked at."""
        return self.reason is None

    def after(self, checks: Mapping[str, bool]) -> "Gates":
        """The gates after one more rollout.

        checks: network verdicts by check. A hard check that is absent was not reached and counts
        as failed; a soft one counts as passed.
        """
        for name in HARD_CHECKS:
            if checks.get(name) is not True:
                return self._closed(self.soft_failures, f"hard:{name}", hard=True)
        failures = dict(self.soft_failures)
        for name, cutoff in self.cutoffs.items():
            if not checks.get(name, True):
                failures[name] = failures.get(name, 0) + 1
                if failures[name] >= cutoff:
                    return self._closed(failures, f"soft:{name}", hard=False)
        return Gates(self.planned, MappingProxyType(failures))

    def _closed(self, failures: Mapping[str, int], reason: str, *, hard: bool) -> "Gates":
        return Gates(
            self.planned,
            MappingProxyType(dict(failures)),
            hard_failure=hard,
            soft_triggered=not hard,
            reason=reason,
        )
