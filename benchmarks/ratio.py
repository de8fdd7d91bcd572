"""What a benchmark reports: Windrow's way and the plain way, measured side by side in one run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Ratio:
    """One comparison. ratio is stated so that `target` reads naturally, e.g. ">= 2x"."""

    name: str
    ours: float
    plain: float
    unit: str
    ratio: float
    target: str
    met: bool
