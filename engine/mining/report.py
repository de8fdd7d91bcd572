"""What a window run did, and how it stands at one moment."""

from dataclasses import dataclass, field

from windrow.engine.mining.spool import DroppedGroup

STAGES = ("generation", "reward", "proof")


@dataclass(frozen=True)
class Progress:
    """A window run at one moment. blocks_left: until the window ends, 0 when it is over."""

    finished: int
    dropped: int
    in_flight: int
    rollouts: int
    tokens: int
    mean_reward: float
    blocks_left: int


@dataclass
class Report:
    """What a window run did. Groups that an earlier run finished count as resumed; those it
    dropped are not named again.

    cancelled: groups that were in flight when only the time of the upload was left.
    lanes, busy_seconds: by stage; seconds at work of all its lanes together.
    stopped_by: max_groups, time_budget or window_closed.
    """

    resumed: int = 0
    finished: list[int] = field(default_factory=list)
    dropped: list[DroppedGroup] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)
    tokens: int = 0
    reward_sum: float = 0.0
    seconds: float = 0.0
    lanes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STAGES, 0))
    busy_seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    stopped_by: str = ""

    def utilisation(self) -> dict[str, float]:
        """By stage, the share of its lanes' time that was spent at work, 0 to 1."""
        return {
            stage: self.busy_seconds[stage] / (lanes * self.seconds)
            if lanes and self.seconds
            else 0.0
            for stage, lanes in self.lanes.items()
        }

    def limiting_stage(self) -> str | None:
        """The stage with the least time to spare; None where none has worked."""
        shares = self.utilisation()
        busiest = max(shares, key=lambda stage: shares[stage])
        return busiest if shares[busiest] else None
