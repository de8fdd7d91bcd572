"""One line of the catalogue."""

from typing import NamedTuple

ACCEPTED = "accepted"
REFUSED = "refused"


class Row(NamedTuple):
    """A cheat, what the network makes of it, what Windrow does, and why."""

    name: str
    network_outcome: str
    windrow_outcome: str
    reason: str


def outcome(taken: object) -> str:
    return ACCEPTED if taken else REFUSED
