"""The steps of a node's verification, where a node stands in it, and when it is due again.

Everything is worked out from rows of the lake, so whoever asks gets the same answer: a sensor, the
command line, or a run that goes on where another stopped.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

STAGES: Final = (
    "inventory",
    "facts",
    "preflight",
    "attestation",
    "hash_challenge",
    "gemm_proof",
    "proof_of_compute",
    "llm_job",
)
"""In the order they are made; each is an asset of its own."""

LOOK: Final = ("facts", "preflight")
"""What is asked between verifications: cheap, and enough to see that a machine changed."""

NETWORK_OF: Final = {
    "hash_challenge": "compute-subnet",
    "gemm_proof": "compute-subnet",
    "proof_of_compute": "gonka",
    "llm_job": "compute-horde",
}
"""Steps that only the nodes of one network are asked for."""

VERIFIED_SECONDS: Final = 6 * 3600.0
LOOK_SECONDS: Final = 1800.0
RESUME_SECONDS: Final = 3600.0
"""How long finished steps count for a verification that failed at a later one."""
GPU_BUSY: Final = "GpuBusy"
"""Reason of a task that found its GPUs at other work: no verdict on the node."""
LOST_SECONDS: Final = 1800.0
"""A step that began so long ago and never ended has died with its run."""
RETRY_SECONDS: Final = 300.0
MOST_RETRY_SECONDS: Final = VERIFIED_SECONDS
_MOST_DOUBLINGS: Final = 10


def concerned(stages: Sequence[str], networks: Collection[str]) -> tuple[str, ...]:
    """Those of the steps that a node of these networks is asked for."""
    return tuple(s for s in stages if s not in NETWORK_OF or NETWORK_OF[s] in networks)


@dataclass(frozen=True)
class State:
    """A row of `node_states`. at: unix seconds; state: started, done or failed."""

    stage: str
    state: str
    at: float
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Standing:
    """Where a node is.

    state: new, under way, verified, failed or lost. since: unix seconds, 0 for a new node.
    stage, reason, detail: of what failed. remaining: steps to make for it to be verified.
    failures: verifications that failed one after the other. busy: steps of a verified node that
    found its GPUs at other work, and so showed nothing.
    """

    state: str
    since: float
    stage: str = ""
    reason: str = ""
    detail: str = ""
    remaining: tuple[str, ...] = STAGES
    failures: int = 0
    busy: tuple[str, ...] = ()


def standing(rows: Iterable[State], now: float) -> Standing:
    """Where a node stands by its states, in any order.

    A verification begins with its inventory; what was done since then counts, each step by its
    newest row.
    """
    ordered = sorted(rows, key=lambda row: row.at)
    begun = [n for n, row in enumerate(ordered) if (row.stage, row.state) == (STAGES[0], "started")]
    if not begun:
        return Standing("new", 0.0)
    newest = {row.stage: row for row in ordered[begun[-1] :]}
    remaining = tuple(s for s in STAGES if s not in newest or newest[s].state != "done")
    last = ordered[-1]
    failed = [row for row in newest.values() if row.state == "failed"]
    if failed:
        worst = max(failed, key=lambda row: row.at)
        return Standing(
            "failed",
            worst.at,
            worst.stage,
            worst.reason,
            worst.detail,
            _still_to_make(remaining, ordered[begun[-1]].at, now),
            _failures(ordered),
        )
    if not remaining:
        busy = tuple(s for s in STAGES if newest[s].reason == GPU_BUSY)
        return Standing("verified", max(newest[s].at for s in STAGES), remaining=(), busy=busy)
    if now - last.at > LOST_SECONDS:
        return Standing(
            "lost",
            last.at,
            last.stage,
            "lost",
            f"{last.stage} began and its run never said how it ended",
            _still_to_make(remaining, ordered[begun[-1]].at, now),
            _failures(ordered) + 1,
        )
    return Standing("under way", last.at, last.stage, remaining=remaining)


def _still_to_make(remaining: tuple[str, ...], begun: float, now: float) -> tuple[str, ...]:
    return remaining if now - begun <= RESUME_SECONDS else STAGES


def _failures(ordered: Sequence[State]) -> int:
    """Failed steps since the node last proved itself."""
    count = 0
    for row in reversed(ordered):
        if row.state == "failed":
            count += 1
        elif (row.stage, row.state) == ("attestation", "done"):
            break
    return count


@dataclass(frozen=True)
class Machine:
    """What must not change unnoticed: the driver, and the GPUs by uuid. at: when it was seen."""

    at: float
    driver: str | None
    uuids: tuple[str, ...]


@dataclass(frozen=True)
class Due:
    """Steps of a node to make now. marker: the same while the reason is the same one."""

    reason: str
    marker: str
    stages: tuple[str, ...]


def due(
    node: Standing,
    verified: Machine | None,
    seen: Machine | None,
    mishap: float,
    now: float,
    *,
    declared_anew: bool = False,
) -> Due | None:
    """What a node is due for, if anything.

    declared_anew: whether its declaration is another one than when it was verified. verified: the
    machine its newest attestation was held to; seen: as it was last seen. mishap: when a scoring
    window last failed on it, 0 for never.
    """
    match node.state:
        case "new":
            return Due("new", f"{now // 3600:.0f}", STAGES)
        case "under way":
            return None
        case "failed" | "lost":
            doublings = min(max(node.failures - 1, 0), _MOST_DOUBLINGS)
            wait = min(RETRY_SECONDS * 2**doublings, MOST_RETRY_SECONDS)
            if now - node.since < wait:
                return None
            return Due(f"again after {node.reason}", f"{node.since:.0f}", node.remaining)
    if declared_anew:
        return Due("other declaration", f"{node.since:.0f}", STAGES)
    if verified and seen and seen.at > verified.at:
        if set(seen.uuids) != set(verified.uuids):
            return Due("other GPUs", f"{seen.at:.0f}", STAGES)
        if seen.driver != verified.driver:
            return Due("other driver", f"{seen.at:.0f}", STAGES)
    if mishap > node.since:
        return Due("a window failed", f"{mishap:.0f}", STAGES)
    if now - node.since > VERIFIED_SECONDS:
        return Due("age", f"{node.since:.0f}", STAGES)
    if node.busy and now - node.since > LOOK_SECONDS:
        return Due("busy GPUs", f"{node.since:.0f}", (*LOOK, *node.busy))
    looked = max(node.since, seen.at if seen else 0.0)
    if now - looked > LOOK_SECONDS:
        return Due("look", f"{looked:.0f}", LOOK)
    return None
