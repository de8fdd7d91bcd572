"""How far a claimed sketch may lie from the verifier's own (grail-protocol §4.4)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from windrow.networks.grail.constants import SKETCH_MODULUS, TOLERANCE_BASE, TOLERANCE_GROWTH

Integers = NDArray[np.integer[Any]]
Numbers = NDArray[np.int64] | NDArray[np.float64]

# Claims beyond it cannot be subtracted in 64 bits. Clamping keeps every verdict: any distance
# above the modulus is accepted by the network and outside the range here.
_CLAMP = 2**62


def tolerance(positions: Integers) -> NDArray[np.int64]:
    """Largest accepted distance at absolute token indices [N], int64 [N]."""
    return (TOLERANCE_BASE + TOLERANCE_GROWTH * np.sqrt(positions)).astype(np.int64)


def distance(own: Integers, claimed: Numbers) -> Numbers:
    """Distance of claimed sketches [N] from the verifier's own [N], around the modulus.

    own: in [0, 2^31-1). claimed: any int64 (or float64, as a JSON number may be). A claim outside
    the range can give a negative distance, as it does on the network (§13, W1).
    """
    values = np.asarray(claimed)
    if values.dtype.kind in "iu":
        values = np.clip(values, -_CLAMP, _CLAMP).astype(np.int64)
    apart = np.abs(np.asarray(own, np.int64) - values)
    shorter: Numbers = np.minimum(apart, SKETCH_MODULUS - apart)
    return shorter


def within_tolerance(own: Integers, claimed: Numbers, positions: Integers) -> NDArray[np.bool_]:
    """The network's verdict on claimed sketches [N]: bool [N]. It has no range check."""
    accepted: NDArray[np.bool_] = distance(own, claimed) <= tolerance(positions)
    return accepted


def in_range(claimed: Numbers) -> NDArray[np.bool_]:
    """Whether claims [N] are values a sketch can have, in [0, 2^31-1): bool [N].

    Windrow requires it besides the tolerance; an honest prover writes nothing else.
    """
    values = np.asarray(claimed)
    possible: NDArray[np.bool_] = (
        (values >= 0) & (values < SKETCH_MODULUS) & (values == np.floor(values))
    )
    return possible
