"""What a check of a node says: what was measured, what was needed, and what mends it."""

from dataclasses import dataclass

WINDROW = "windrow"
"""The `network` of a check that is our own, and asked of every node."""

NETWORKS = ("grail", "chutes", "compute-subnet", "compute-horde", "gonka", WINDROW)


@dataclass(frozen=True)
class NodeCheck:
    """One finding about one node, or about one of its GPUs.

    check: name of the rule, e.g. `ram_per_vram`. network: whose rule it is.
    network_verdict: what that network would say, weaknesses included; None where it does not look.
    windrow_verdict: what is true; None where it could not be measured, and reason says why.
    measured, needed: numbers in `unit`; None where the finding is not a number.
    reason: in words what is wrong, empty where nothing is. remedy: a command or an act that mends
    it, empty where nothing is wrong or nothing can. gpu: NVML uuid, or None for the whole node.
    """

    check: str
    network: str
    network_verdict: bool | None
    windrow_verdict: bool | None
    measured: float | None = None
    needed: float | None = None
    unit: str = ""
    reason: str = ""
    remedy: str = ""
    gpu: str | None = None
