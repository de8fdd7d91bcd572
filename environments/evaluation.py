"""What an environment makes of one completion."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Evaluation:
    """Reward and success of one completion (grail-protocol §12).

    components: the unweighted reward parts by name, for the lake and for people.
    """

    reward: float
    success: bool
    components: Mapping[str, float] = field(default_factory=dict)
