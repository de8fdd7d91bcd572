"""Windrow's own proof check: every token counts, and all of them together.

The network opens 32 sketches and allows each an error larger than nearly all sketches, and takes
the median of 32 log-probs (grail-protocol §13, W1-W3). The same wire data say far more, measured
by how far another pass must have drifted to give them. A sketch changes only where an activation
stands near the edge of a bucket or near the cut of the largest; the log-prob of a token follows
its logits by one minus its probability. The verifier knows both from its own pass, so that what a
rounding can do is allowed where it can do it, and nowhere else.
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

FAR: Final = 2.0 * LARGEST_SKETCH
"""Distance of the furthest two sketches; a claim that is no sketch counts as far."""

FAR_DRIFT: Final = 1.0
"""Drift that makes any sketch of any other; what a claim that is no sketch takes."""

FAR_NATS: Final = 1000.0
"""Differences of log-probs are not told apart beyond it, nor is a claim that is no number."""

ROUNDING: Final = 2.0 * float(np.finfo(np.float32).eps)
"""Share of a logit's size by which a float32 log-softmax may be off: as logit minus logsumexp, or
with the highest taken out first, it differs by half of that (2.4e-6 nats where they are 20)."""

_LEAST_SHARE: Final = 1e-30  # where a token's log-prob is exactly 0


@dataclass(frozen=True)
class ProofScores:
    """How far one rollout's claims are from the model's.

    Higher is worse; all are 0 for a perfect proof.
    sketches_differing: share of the completion's sketches that are not equal.
    sketch_distance: their mean distance over the mean magnitude of the model's own. All-zero
        claims give nearly 1, sketches of other hidden states about 1.4.
    stretch_distance: the same over the worst 16 consecutive positions.
    sketch_drift: least relative change of single activations that explains every sketch that
        differs, of prompt and completion.
    mean_drift: mean over all tokens of what each sketch takes.
    logit_drift: least change of logits that explains every log-prob, in nats, beyond rounding.
    logprob_mean: mean absolute difference of the log-probs in nats.
    A value that is no number, or no sketch, counts as the furthest there is.
    """

    sketches_differing: float
    sketch_distance: float
    stretch_distance: float
    sketch_drift: float
    mean_drift: float
    logit_drift: float
    logprob_mean: float


SKETCH_SCORES: Final = (
    "sketches_differing",
    "sketch_distance",
    "stretch_distance",
    "sketch_drift",
    "mean_drift",
)
LOGPROB_SCORES: Final = ("logit_drift", "logprob_mean")


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
    sketch_drift: float
    mean_drift: float
    logit_drift: float
    logprob_mean: float
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
            sketch_distance=0.10,
            stretch_distance=0.50,
            sketch_drift=2e-3,
            mean_drift=1e-4,
            logit_drift=0.02,
            logprob_mean=2e-3,
            source="default for float32 on one machine or several; about 1,000 times the drift "
            "between attention kernels of the demo's model",
        ),
        "bfloat16": Calibration(
            dtype="bfloat16",
            sketches_differing=0.80,
            sketch_distance=0.35,
            stretch_distance=0.70,
            sketch_drift=0.20,
            mean_drift=5e-3,
            logit_drift=0.9,
            logprob_mean=0.05,
            source="default for bfloat16 across devices and attention kernels, whose activations "
            "agree to two or three digits; three to ten times the drift between kernels of the "
            "demo's model, below sketches of which a part is zero and below log-probs that are all "
            "zero",
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


@dataclass(frozen=True)
class Expected:
    """What the verifier's pass gives for a rollout of L tokens, C >= 1 of them its completion.

    sketches: int32 [L] under the canonical randomness. margins: float32 [L], relative change of an
    activation below which a sketch cannot change. logprobs, totals: float32 [C], of the chosen
    tokens and the logsumexp they are taken with.
    """

    sketches: Integers
    margins: NDArray[np.float32]
    logprobs: NDArray[np.float32]
    totals: NDArray[np.float32]


def proof_scores(
    claimed_sketches: Numbers, claimed_logprobs: NDArray[np.floating], own: Expected
) -> ProofScores:
    """Scores of one rollout. claimed_sketches: [L]. claimed_logprobs: [C]."""
    first = len(own.sketches) - len(own.logprobs)
    apart = sketch_distances(claimed_sketches, own.sketches)
    drift = np.where(apart > 0, own.margins, 0.0)
    drift[apart >= FAR] = FAR_DRIFT
    apart = apart[first:]
    magnitude = max(1.0, float(np.mean(_magnitudes(own.sketches[first:]))))
    return ProofScores(
        sketches_differing=float(np.mean(apart > 0)),
        sketch_distance=float(np.mean(apart)) / magnitude,
        stretch_distance=_worst_stretch(apart) / magnitude,
        sketch_drift=float(np.max(drift)),
        mean_drift=float(np.mean(drift)),
        logit_drift=float(np.max(logit_drifts(claimed_logprobs, own.logprobs, own.totals))),
        logprob_mean=float(np.mean(logprob_distances(claimed_logprobs, own.logprobs))),
    )


def sketch_distances(claimed: Numbers, own: Integers) -> NDArray[np.float64]:
    """Distance at each position, float64 [L] in [0, FAR]; FAR where a claim is no sketch."""
    apart = np.asarray(distance(own, claimed), np.float64)
    possible = in_range(claimed) & (_magnitudes(claimed) <= LARGEST_SKETCH)
    return np.where(possible, apart, FAR)


def logprob_distances(
    claimed: NDArray[np.floating], own: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Absolute difference at each position, float64 [C] in [0, FAR_NATS]."""
    off = np.abs(np.asarray(claimed, np.float64) - np.asarray(own, np.float64))
    return np.where(off <= FAR_NATS, off, FAR_NATS)  # nan is not below it either


def logit_drifts(
    claimed: NDArray[np.floating], own: NDArray[np.floating], totals: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Change of logits that each difference of log-probs takes, float64 [C] in [0, FAR_NATS].

    Logits that move by s move the log-prob of a token with probability p by no more than about
    2s(1-p): by the derivative e_k - p, whose parts add up to that. Nearly all of it is the chosen
    token against all others, s(1-p).
    """
    beyond = logprob_distances(claimed, own) - ROUNDING * np.maximum(1.0, np.abs(totals))
    others = -np.expm1(np.minimum(np.asarray(own, np.float64), 0.0))
    drift: NDArray[np.float64] = np.maximum(beyond, 0.0) / np.maximum(others, _LEAST_SHARE)
    return np.minimum(drift, FAR_NATS)


def _magnitudes(sketches: Numbers | Integers) -> NDArray[np.float64]:
    values = np.asarray(sketches, np.float64)
    return np.minimum(np.abs(values), np.abs(SKETCH_MODULUS - values))


def _worst_stretch(apart: NDArray[np.float64]) -> float:
    """Largest mean over STRETCH consecutive positions, or over all if there are fewer."""
    width = min(STRETCH, len(apart))
    sums = np.convolve(apart, np.ones(width), mode="valid")
    return float(sums.max() / width)
