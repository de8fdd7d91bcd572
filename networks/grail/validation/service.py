"""The validator's memory from window to window (grail-validation §2.2, §4, §14, §15.5).

Each step takes the state and gives the next; nothing here waits, asks or sends.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from windrow.networks.grail.sampling import selected_miners
from windrow.networks.grail.validation.histories import RollingHistory
from windrow.networks.grail.validation.metrics import MinerMetrics
from windrow.networks.grail.validation.weights import (
    MAINNET,
    ROLLING_WINDOWS,
    WeightPolicy,
    Weights,
    compute_weights,
)

BAN_WINDOWS: Final = 14
SUBMISSION_BLOCKS: Final = 360

MetricsByWindow = Mapping[int, MinerMetrics]


class WeightsDue(StrEnum):
    """Whether a validator sets weights now (§15.5)."""

    DUE = "due"
    DONE = "done"  # already set in this interval
    TOO_EARLY = "too_early"  # too few windows since start: the whole interval passes without


@dataclass(frozen=True)
class WindowPlan:
    """Whom a validator looks at in a window. active: uploaded; eligible: active and not banned."""

    active: tuple[str, ...]
    eligible: tuple[str, ...]
    selected: tuple[str, ...]


@dataclass(frozen=True)
class ServiceState:
    """Everything one window leaves to the next.

    metrics: by hotkey and window, since the start. windows: how many were processed since the
    start. weights_interval: the last submission interval that is done, -1 before any.
    """

    availability: RollingHistory = field(default=RollingHistory(ROLLING_WINDOWS))
    selection: RollingHistory = field(default=RollingHistory(ROLLING_WINDOWS))
    failures: RollingHistory = field(default=RollingHistory(BAN_WINDOWS))
    metrics: Mapping[str, MetricsByWindow] = field(default_factory=lambda: MappingProxyType({}))
    windows: int = 0
    weights_interval: int = -1

    def plan(self, active: Sequence[str], block_hash: str) -> WindowPlan:
        """Whom to look at (§4.2-4.4). active: in metagraph order. block_hash: of the window."""
        eligible = self.eligible(active)
        selected = selected_miners(eligible, block_hash, self.selection.counts)
        return WindowPlan(tuple(active), tuple(eligible), tuple(selected))

    def eligible(self, active: Sequence[str]) -> list[str]:
        """Those not banned, in the order given. Once a window is processed, these are what its
        trust list names (§16)."""
        return self.failures.absent(active)

    def after_window(
        self, window: int, plan: WindowPlan, results: Mapping[str, MinerMetrics]
    ) -> "ServiceState":
        """The state once a window is processed.

        results: metrics by hotkey after gating; a miner whose file was not found has none.
        """
        metrics = dict(self.metrics)
        for hotkey, result in results.items():
            metrics[hotkey] = MappingProxyType({**metrics.get(hotkey, {}), window: result})
        failed = [hotkey for hotkey, result in results.items() if result.had_failure > 0]
        return replace(
            self,
            availability=self.availability.after(plan.active),
            selection=self.selection.after(plan.selected),
            failures=self.failures.after(failed),
            metrics=MappingProxyType(metrics),
            windows=self.windows + 1,
        )

    def weights_due(self, block: int) -> WeightsDue:
        """Whether weights are set while ``block`` is current."""
        if submission_interval(block) <= self.weights_interval:
            return WeightsDue.DONE
        return WeightsDue.TOO_EARLY if self.windows < ROLLING_WINDOWS else WeightsDue.DUE

    def after_weights(self, block: int) -> "ServiceState":
        """The state once the interval of ``block`` is done, with weights set or passed over."""
        return replace(self, weights_interval=submission_interval(block))

    def weights(
        self,
        hotkeys: Sequence[str],
        uids: Sequence[int],
        window: int,
        policy: WeightPolicy = MAINNET,
    ) -> Weights:
        """The weights to set after a window. Raises InvalidBurn."""
        return compute_weights(
            hotkeys, uids, self.metrics, window, self.availability.counts, policy
        )


def submission_interval(block: int) -> int:
    """The interval in which weights are set once, and over which copies add up (§13.3, §15.5)."""
    return block // SUBMISSION_BLOCKS
