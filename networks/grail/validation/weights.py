"""From estimated rollouts to weights: cap, exponent, burn (grail-validation §15)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from windrow import WindrowError
from windrow.networks.grail.constants import MAX_UNIQUE_ROLLOUTS, WINDOW_BLOCKS
from windrow.networks.grail.validation.metrics import MinerMetrics

ROLLING_WINDOWS: Final = 12
SUPERLINEAR_EXPONENT: Final = 4.0
BURN_UID: Final = 0
BURN_PERCENTAGE: Final = 90.0


class InvalidBurn(WindrowError):
    """No miner to burn to, or no share to burn."""


@dataclass(frozen=True)
class WeightPolicy:
    """How rollouts become weights (§15). Without the cap, miners share by their raw scores."""

    rolling_windows: int = ROLLING_WINDOWS
    exponent: float = SUPERLINEAR_EXPONENT
    burn_uid: int | None = BURN_UID
    burn_percentage: float | None = BURN_PERCENTAGE
    capped: bool = True

    @property
    def cap(self) -> float:
        """Unique rollouts of a period beyond which more earn nothing."""
        return float(MAX_UNIQUE_ROLLOUTS * self.rolling_windows)


MAINNET: Final = WeightPolicy()


@dataclass(frozen=True)
class Weights:
    """weights: aligned to the hotkeys they were asked for. earning: those above 0 with a hotkey."""

    weights: tuple[float, ...]
    earning: Mapping[str, float]


def recent_windows(target: int, count: int = ROLLING_WINDOWS) -> range:
    """The windows that count towards the weights at a window (§15.2)."""
    first = max(0, target - (count - 1) * WINDOW_BLOCKS)
    return range(first, target + 1, WINDOW_BLOCKS)


def period_rollouts(
    metrics: Mapping[int, MinerMetrics], target: int, availability: int, policy: WeightPolicy
) -> float:
    """A miner's unique rollouts of the period, extrapolated to the windows it was there (§15.2).

    metrics: by window. 0 for a miner that was not there, not looked at, or failed once.
    """
    checked = [
        metrics[window]
        for window in recent_windows(target, policy.rolling_windows)
        if window in metrics
    ]
    if not availability or not checked or any(m.had_failure == 1 for m in checked):
        return 0.0
    rollouts = sum(m.estimated_unique for m in checked) * (availability / len(checked))
    return max(0.0, min(rollouts, policy.cap) if policy.capped else rollouts)


def compute_weights(
    hotkeys: Sequence[str],
    uids: Sequence[int],
    metrics: Mapping[str, Mapping[int, MinerMetrics]],
    target: int,
    availability: Mapping[str, int],
    policy: WeightPolicy = MAINNET,
) -> Weights:
    """The weights a validator sets after window `target` (§15).

    metrics: by hotkey and window. availability: in how many of the last windows each hotkey was
    active. Raises InvalidBurn where nothing or nobody is named to burn to.
    """
    rollouts = [
        period_rollouts(metrics.get(h, {}), target, availability.get(h, 0), policy) for h in hotkeys
    ]
    shares, signal = _shares(rollouts, policy)
    weights = _burnt(shares, signal, uids, policy)
    burner = {hotkeys[uids.index(policy.burn_uid)]} if policy.burn_uid in uids else set()
    earning = {
        hotkey: weight
        for hotkey, share, weight in zip(hotkeys, shares, weights, strict=True)
        if weight > 0.0 and (share > 0.0 or hotkey in burner)
    }
    return Weights(tuple(weights), earning)


def _shares(rollouts: Sequence[float], policy: WeightPolicy) -> tuple[list[float], float]:
    """Shares before the burn, and how much there is to share (§15.3)."""
    if policy.capped:
        relative = [(r / policy.cap) ** policy.exponent for r in rollouts]
        signal = math.fsum(relative)
        return ([r / signal for r in relative] if signal > 1.0 else relative), signal
    raw = [r**policy.exponent for r in rollouts]
    total = math.fsum(raw)
    return ([r / total for r in raw] if total > 0.0 else raw), 1.0


def _burnt(
    shares: Sequence[float], signal: float, uids: Sequence[int], policy: WeightPolicy
) -> list[float]:
    """Shares after the burn (§15.4)."""
    if policy.burn_uid is None or policy.burn_percentage is None or policy.burn_percentage <= 0:
        raise InvalidBurn(
            f"burn uid {policy.burn_uid} and percentage {policy.burn_percentage}: "
            "name a uid and a share above 0"
        )
    if policy.burn_uid not in uids:
        return list(shares)
    burner = uids.index(policy.burn_uid)
    burn = min(policy.burn_percentage, 100.0) / 100.0
    total = math.fsum(shares)
    emission = min(1.0 - burn, (1.0 - burn) * signal) if signal > 0.0 and total > 0.0 else 0.0
    weights = [emission * (share / total) if total > 0.0 else 0.0 for share in shares]
    weights[burner] = 0.0
    weights[burner] = 1.0 - math.fsum(weights)
    return weights
