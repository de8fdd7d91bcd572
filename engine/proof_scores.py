"""Windrow's own proof check: every completion token counts, and all of them together.

The network opens 32 sketches and allows each an error larger than nearly all sketches, and takes
the median of 32 log-probs (grail-protocol §13, W1-W3). The same wire data say far more: an honest
prover's sketches are mostly equal to the verifier's, the others close, and no log-prob is far off.
How equal and how close depends on the number format, so limits come from honest drift.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from windrow import WindrowError
from windrow.networks.grail.constants import SKETCH_MODULUS
from windrow.networks.grail.rollout_checks import LARGEST_SKETCH
from windrow.networks.grail.sketch import Integers, Numbers, distance, in_range

STRETCH: Final = 16
"""Consecutive positions looked at together, so that a short edit does not drown in a long text."""

POSITIONS_PER_FLIP: Final = 64
"""Of so many sketches the furthest is left out: one activation at the edge of a bucket, or at the
cut of the largest, moves a sketch far however well the passes agree. In float32 that is rarer by
far; more in a short completion would let the one or two through that rounded weights change."""

LOGPROB_QUANTILE: Final = 0.95
FAR: Final = 2.0 * LARGEST_SKETCH
"""Distance of the furthest two sketches; a claim that is no sketch counts as far."""

FAR_NATS: Final = 1000.0
"""Differences of log-probs are not told apart beyond it, nor is a claim that is no number."""


@dataclass(frozen=True)
class ProofScores:
    """How far one rollout's claims are from the model's, over a completion of `positions` tokens.

    Higher is worse; all are 0 for a perfect proof. The furthest of every 64 sketches is left out.
    sketches_differing: share of sketches that are not equal.
    sketch_distance: mean distance of the sketches over the mean magnitude of the model's own.
        All-zero claims give nearly 1, sketches of other hidden states about 1.4.
    stretch_distance: the same over the worst 16 consecutive positions.
    logprob_mean, logprob_quantile, logprob_worst: mean, 95 % quantile and maximum of the
        absolute difference in nats.
    A value that is no number, or no sketch, counts as the furthest there is.
    """

    positions: int
    sketches_differing: float
    sketch_distance: float
    stretch_distance: float
    logprob_mean: float
    logprob_quantile: float
    logprob_worst: float


SKETCH_SCORES: Final = ("sketches_differing", "sketch_distance", "stretch_distance")
LOGPROB_SCORES: Final = ("logprob_mean", "logprob_quantile", "logprob_worst")


@dataclass(frozen=True)
class Calibration:
    """Largest scores an honest prover is allowed, for one model and number format.

    Fields named as in ProofScores. source: where the limits come from, in words. rollouts: honest
    rollouts they were taken from, 0 for none.
    """

    dtype: str
    sketches_differing: float
    sketch_distance: float
    stretch_distance: float
    logprob_mean: float
    logprob_quantile: float
    logprob_worst: float
    source: str
    rollouts: int = 0

    def excess(self, scores: ProofScores) -> dict[str, float]:
        """Score over limit by name; above 1 is refused."""
        return {
            name: getattr(scores, name) / getattr(self, name)
            for name in (*SKETCH_SCORES, *LOGPROB_SCORES)
        }


CONSERVATIVE: Final[Mapping[str, Calibration]] = MappingProxyType(
    {
        "float32": Calibration(
            dtype="float32",
            sketches_differing=0.10,
            sketch_distance=0.05,
            stretch_distance=0.40,
            logprob_mean=2e-3,
            logprob_quantile=5e-3,
            logprob_worst=0.05,
            source="default for float32 on one machine or several; about 100 times the drift "
            "between batch shapes and thread counts of a random Qwen2",
        ),
        "bfloat16": Calibration(
            dtype="bfloat16",
            sketches_differing=0.80,
            sketch_distance=0.35,
            stretch_distance=0.70,
            logprob_mean=0.05,
            logprob_quantile=0.15,
            logprob_worst=1.0,
            source="default for bfloat16 across devices and attention kernels, whose activations "
            "agree to two or three digits; three times the drift between kernels of the demo's "
            "model, below sketches of which a part is zero (docs/soundness.md)",
        ),
    }
)
"""Limits for a model that has not been calibrated, by number format."""


class NoCalibration(WindrowError):
    """There are no limits for a number format, or they are another format's."""


def calibration_for(dtype: str, chosen: Calibration | None) -> Calibration:
    """The limits for a model in `dtype`: the chosen ones or the default. Raises NoCalibration."""
    limits = chosen or CONSERVATIVE.get(dtype)
    if limits is None or limits.dtype != dtype:
        raise NoCalibration(
            f"the model runs in {dtype}, the limits of the proof check are for "
            f"{limits.dtype if limits else ' and '.join(CONSERVATIVE)}; calibrate on this model"
        )
    return limits


def proof_scores(
    claimed_sketches: Numbers,
    claimed_logprobs: NDArray[np.floating],
    own_sketches: Integers,
    own_logprobs: NDArray[np.floating],
) -> ProofScores:
    """Scores of one rollout. All arrays [C], over the completion, C >= 1.

    own_sketches, own_logprobs: of the verifier's pass, under the canonical randomness.
    """
    apart = sketch_distances(claimed_sketches, own_sketches)
    flips = len(apart) // POSITIONS_PER_FLIP
    apart[np.argsort(apart, kind="stable")[len(apart) - flips :]] = 0.0
    magnitude = max(1.0, float(np.mean(_magnitudes(own_sketches))))
    off = logprob_distances(claimed_logprobs, own_logprobs)
    return ProofScores(
        positions=len(apart),
        sketches_differing=float(np.mean(apart > 0)),
        sketch_distance=float(np.mean(apart)) / magnitude,
        stretch_distance=_worst_stretch(apart) / magnitude,
        logprob_mean=float(np.mean(off)),
        logprob_quantile=float(np.quantile(off, LOGPROB_QUANTILE)),
        logprob_worst=float(np.max(off)),
    )


def sketch_distances(claimed: Numbers, own: Integers) -> NDArray[np.float64]:
    """Distance at each position, float64 [C] in [0, FAR]; FAR where a claim is no sketch."""
    apart = np.asarray(distance(own, claimed), np.float64)
    possible = in_range(claimed) & (_magnitudes(claimed) <= LARGEST_SKETCH)
    return np.where(possible, apart, FAR)


def logprob_distances(
    claimed: NDArray[np.floating], own: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Absolute difference at each position, float64 [C] in [0, FAR_NATS]."""
    off = np.abs(np.asarray(claimed, np.float64) - np.asarray(own, np.float64))
    return np.where(off <= FAR_NATS, off, FAR_NATS)  # nan is not below it either


def _magnitudes(sketches: Numbers | Integers) -> NDArray[np.float64]:
    values = np.asarray(sketches, np.float64)
    return np.minimum(np.abs(values), np.abs(SKETCH_MODULUS - values))


def _worst_stretch(apart: NDArray[np.float64]) -> float:
    """Largest mean over STRETCH consecutive positions, or over all if there are fewer."""
    width = min(STRETCH, len(apart))
    sums = np.convolve(apart, np.ones(width), mode="valid")
    return float(sums.max() / width)
