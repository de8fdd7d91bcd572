"""Which card three measured numbers stand for, by the network's table (§7.4)."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple


class Measured(NamedTuple):
    """TFLOPS in half and single precision, and GB (10^9 bytes) of the largest block of memory."""

    fp16: float
    fp32: float
    vram: float


MODELS: Final[Mapping[str, Measured]] = MappingProxyType(
    {
        "NVIDIA H200": Measured(610, 49.6, 68.72),
        "NVIDIA H100 80GB HBM3": Measured(570, 49.0, 34.36),
        "NVIDIA H100": Measured(330, 37.2, 34.36),
        "NVIDIA A100-SXM4-80GB": Measured(238.8, 18.2, 34.36),
        "NVIDIA A100 80GB PCIe": Measured(197, 16.9, 34.36),
        "NVIDIA A100-SXM4-40GB": Measured(257, 18.2, 17.18),
        "NVIDIA L40s": Measured(171, 35.5, 17.18),
        "NVIDIA L40": Measured(116, 27.0, 17.18),
        "NVIDIA RTX 6000 Ada Generation": Measured(112, 26.0, 17.18),
        "NVIDIA RTX A6000": Measured(48.5, 21.28, 17.18),
        "NVIDIA RTX A5000": Measured(60.0, 15.8, 8.59),
        "NVIDIA RTX A4500": Measured(44.0, 14.3, 8.59),
        "NVIDIA RTX 4000 Ada Generation": Measured(70, 14.6, 8.59),
        "NVIDIA A40": Measured(40.0, 22.8, 17.18),
        "NVIDIA RTX 4090": Measured(157, 48.5, 8.59),
        "NVIDIA GeForce RTX 3090": Measured(66.4, 21.7, 8.59),
        "NVIDIA L4": Measured(51, 9, 8.59),
    }
)

_PAIRS: Final = (
    ("NVIDIA L40", "NVIDIA RTX 6000 Ada Generation"),
    ("NVIDIA RTX 4000 Ada Generation", "NVIDIA RTX A5000"),
    ("NVIDIA A100 80GB PCIe", "NVIDIA A100-SXM4-80GB"),
    ("NVIDIA H100 80GB HBM3", "NVIDIA H100"),
    ("NVIDIA A40", "NVIDIA RTX A6000"),
)
ALIKE: Final[Mapping[str, str]] = MappingProxyType(
    {**dict(_PAIRS), **{second: first for first, second in _PAIRS}}
)

MOST_DEVIATION: Final = 0.25
"""Mean relative deviation beyond which Windrow calls a card unknown."""


def deviation(measured: Measured, model: str) -> float:
    """Mean relative deviation of three numbers from a model's."""
    parts = zip(measured, MODELS[model], strict=True)
    return sum(abs(value - known) / known for value, known in parts) / 3


def network_model(measured: Measured, reported: str | None) -> str:
    """The nearest model, however far; its pair where the miner reports that one (§7.4)."""
    nearest = min(MODELS, key=lambda model: deviation(measured, model))
    return reported if reported and ALIKE.get(nearest) == reported else nearest


def strict_model(measured: Measured, reported: str | None) -> str | None:
    """The reported model if the numbers are its own and no other's nearer, else None.

    The network gives any three numbers a name; here a card may stay unknown.
    """
    if reported is None or network_model(measured, None) != reported:
        return None
    return reported if deviation(measured, reported) <= MOST_DEVIATION else None
