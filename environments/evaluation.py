"""What an environment makes of one completion."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Evaluation:
    """Reward and success of one completion (grail-protocol §12).

    components: the unweighted reward parts by name, in the network's order.
    tests_passed, tests_total: programs run, where the environment runs any. limit: the bound of
    Windrow that decided, which the network does not have; None where its own rules did.
    """

    reward: float
    success: bool
    components: Mapping[str, float] = field(default_factory=dict)
    tests_passed: int = 0
    tests_total: int = 0
    limit: str | None = None
