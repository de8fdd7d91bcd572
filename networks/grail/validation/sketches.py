"""C4, the part that needs the model: claimed sketches at the challenged positions (§8.4)."""

import numpy as np
from numpy.typing import NDArray

from windrow.networks.grail.sketch import (
    Integers,
    Numbers,
    distance,
    in_range,
    tolerance,
    within_tolerance,
)
from windrow.networks.grail.validation.verdicts import CheckResult, result


def check_sketches(own: Integers, claimed: Numbers, positions: Integers) -> CheckResult:
    """C4's comparison for one rollout: one position outside its tolerance fails it (§8.4).

    own, claimed, positions: [k], at the challenged positions, absolute. measured, threshold: at
    the position with the least margin. Windrow also refuses claims that no sketch can be.
    """
    apart: NDArray[np.float64] = np.asarray(distance(own, claimed), np.float64)
    allowed = tolerance(positions)
    margins = allowed - apart
    worst = int(np.argmin(margins))
    outside = np.flatnonzero(~within_tolerance(own, claimed, positions))
    impossible = np.flatnonzero(~in_range(claimed))
    return result(
        "proof_valid",
        network_reason=f"{len(outside)} of {len(apart)} challenged sketches are not the model's, "
        f"the first at position {positions[outside[0]]}"
        if len(outside)
        else None,
        windrow_reason=f"{len(impossible)} challenged sketches are no value a sketch has"
        if len(impossible)
        else None,
        measured=float(apart[worst]),
        threshold=float(allowed[worst]),
        margin=float(margins[worst]),
    )
