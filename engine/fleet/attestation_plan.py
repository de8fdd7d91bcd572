"""What an attestation asks of a node: sizes, seeds and the requests of its two rounds.

First the node fills its devices and walks over them (commit); then, out of randomness drawn only
after its answer came, it proves that everything is still there and opens some steps of the walk
(open). Both requests carry the whole challenge, and the seed of all work is a hash of who asks,
whom, and a fresh nonce: an answer is good for nothing else.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

import numpy as np

from windrow import WindrowError
from windrow.engine.fleet.frames import from_json, to_json
from windrow.kernels.philox import philox_words
from windrow.kernels.sgp1 import key_of

CPU_UUID: Final = "cpu"
"""The pseudo device of a machine without a GPU."""

FILLED: Final = 0.95
"""Share of a device's memory that its matrices take."""

ROUNDING: Final = int(1.2 * 2**30)
"""Bytes by which they may fall short of it: drivers keep memory for themselves."""

SIZE_FACTOR: Final = 64
MAX_SIZE: Final = 16384
MAX_MATRICES: Final = 8192
MAX_STEPS: Final = 1 << 16
MAX_DEVICES: Final = 16
MAX_SAMPLES: Final = 256
STEPS: Final = 32
"""Steps of a walk that are opened where an asker does not say."""

COLUMNS: Final = 8
"""Bytes of randomness that meet each column of a matrix, see kernels/mersenne.py."""

_WORKSPACE: Final = 3 * 2048 * 4
"""Bytes for each column: a panel of int32 products and what is made of it."""
_DRIVER: Final = 3 << 28
"""Bytes of a card that its driver and torch keep for themselves."""

_HEX = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[\w.:@/ -]{1,128}", re.ASCII)
_UUID = re.compile(r"[A-Za-z0-9-]{1,64}")


class BadChallenge(WindrowError):
    """A challenge or a request about one is malformed, or asks for more than is allowed."""


@dataclass(frozen=True)
class Plan:
    """The work of one device. n: size of its matrices; matrices: how many stay in its memory;
    steps: of the walk over them."""

    n: int
    matrices: int
    steps: int

    def __post_init__(self) -> None:
        sizes = (self.n, self.matrices, self.steps)
        if not all(type(size) is int and size > 0 for size in sizes):
            raise BadChallenge(f"a plan of {sizes}: every size is a positive whole number")
        if self.n % SIZE_FACTOR or self.n > MAX_SIZE:
            raise BadChallenge(f"n of {self.n}: a multiple of {SIZE_FACTOR} up to {MAX_SIZE}")
        if self.matrices > MAX_MATRICES or self.steps > MAX_STEPS:
            raise BadChallenge(
                f"{self.matrices} matrices and {self.steps} steps: at most {MAX_MATRICES} and "
                f"{MAX_STEPS}"
            )

    @property
    def resident_bytes(self) -> int:
        return self.matrices * self.n**2

    @property
    def needed_bytes(self) -> int:
        """Memory the work takes in all: matrices, the four weights and workspace."""
        return (self.matrices + 4) * self.n**2 + self.n * _WORKSPACE

    @property
    def fill_operations(self) -> float:
        return 2.0 * self.n**3 * (self.matrices - 1)

    @property
    def walk_bytes(self) -> float:
        return float(self.steps * self.n**2)


def plan_for(memory: int) -> Plan:
    """The plan for a device of so many bytes: 95 % of them, less what does not fit (§6.6)."""
    n = MAX_SIZE if memory > 25 * 10**9 else 8192
    overhead = Plan(n, 1, 1).needed_bytes - n**2
    matrices = min(int(FILLED * memory), memory - overhead - _DRIVER) // n**2
    if matrices < 1:
        raise BadChallenge(f"{memory} bytes of memory are too few for an attestation; give a Plan")
    return Plan(n, matrices, steps=2 * matrices)


def small_plan(budget: int) -> Plan:
    """A plan for the pseudo device of a machine without a GPU that needs at most so many bytes."""
    for n in (2048, 1024, 512, 256):
        matrices = min(1 + (budget - Plan(n, 1, 1).needed_bytes) // n**2, 32)
        if matrices >= 8:
            return Plan(n, matrices, steps=2 * matrices)
    raise BadChallenge(f"a budget of {budget} bytes: an attestation takes at least 8 MB")


@dataclass(frozen=True)
class Challenge:
    """A whole challenge. nonce: 32 fresh bytes, hex; plans: by device, as NVML names it."""

    node: str
    caller: str
    nonce: str
    budget: int
    plans: Mapping[str, Plan]

    @property
    def seed(self) -> str:
        """Seed of all generators, hex: bound to the asker, to the node and to the occasion."""
        bound = to_json({"caller": self.caller, "node": self.node, "nonce": self.nonce})
        return hashlib.sha256(b"windrow-attestation" + bound).hexdigest()

    @property
    def session(self) -> str:
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        return to_json(self.fields())

    def fields(self) -> dict[str, Any]:
        plans = {uuid: asdict(plan) for uuid, plan in self.plans.items()}
        mine = {"node": self.node, "caller": self.caller, "nonce": self.nonce}
        return mine | {"budget": self.budget, "plans": plans}


def challenge(
    node: str, caller: str, nonce: bytes, plans: Mapping[str, Plan], *, budget: int
) -> bytes:
    """The request that starts an attestation. nonce: 32 bytes never used before.

    plans: by NVML uuid, or CPU_UUID. budget: bytes of main memory the node may use for the pseudo
    device. Raises BadChallenge.
    """
    made = Challenge(node, caller, nonce.hex(), budget, dict(plans)).to_bytes()
    parse_challenge(made)
    return made


def parse_challenge(request: bytes) -> Challenge:
    """A challenge from its bytes. Raises BadChallenge and BadFrame."""
    return _challenge(from_json(request))


@dataclass(frozen=True)
class Opening:
    """What an asker wants opened, out of randomness of after the commitment.

    seed: hex. steps: by device, those of the walk to open. last: whether the node may let go.
    """

    challenge: Challenge
    seed: str
    steps: Mapping[str, list[int]]
    last: bool = True

    def to_bytes(self) -> bytes:
        mine = {"seed": self.seed, "steps": dict(self.steps), "last": self.last}
        return to_json(mine | {"challenge": self.challenge.fields()})


def opening_request(
    asked: bytes, randomness: bytes, *, steps: int = STEPS, last: bool = True
) -> bytes:
    """The request of the second round. randomness: 32 bytes drawn after the first answer came,
    and kept secret until the second is verified; steps: of each walk to open. Not `last`: the
    node keeps its memory filled, and can be asked again with other randomness."""
    made = parse_challenge(asked)
    picked = {
        uuid: [1 + step for step in pick(randomness, f"steps|{uuid}", plan.steps, steps)]
        for uuid, plan in made.plans.items()
    }
    return Opening(made, drawn(randomness, "residency"), picked, last).to_bytes()


def parse_opening(request: bytes) -> Opening:
    """The request of the second round. Raises BadChallenge and BadFrame."""
    found = from_json(request)
    if found.keys() != {field.name for field in fields(Opening)}:
        raise BadChallenge("a request to open has a challenge, a seed, steps and last")
    made = _challenge(found["challenge"])
    seed, steps, last = found["seed"], found["steps"], found["last"]
    if not isinstance(seed, str) or not _HEX.fullmatch(seed) or not isinstance(last, bool):
        raise BadChallenge("the seed of a request to open is 64 hex digits, and last true or false")
    if not isinstance(steps, dict) or steps.keys() != made.plans.keys():
        raise BadChallenge("a request to open names steps of just the devices challenged")
    for uuid, plan in made.plans.items():
        _check_steps(steps[uuid], plan.steps)
    return Opening(made, seed, steps, last)


def drawn(randomness: bytes, label: str) -> str:
    """A seed out of the asker's randomness, hex: one tells nothing of the others."""
    return hashlib.sha256(label.encode() + b"|" + randomness).hexdigest()


def pick(randomness: bytes, label: str, population: int, count: int) -> list[int]:
    """Distinct numbers below `population`, in order: at most `count` of them."""
    key = key_of(drawn(randomness, label), "", "pick")
    words = philox_words(key, 0, population)[:, 0]
    return sorted(np.argsort(words, kind="stable")[:count].tolist())


def _challenge(found: Any) -> Challenge:
    names = {field.name for field in fields(Challenge)}
    if not isinstance(found, dict) or found.keys() != names:
        raise BadChallenge(f"a challenge has {', '.join(sorted(names))}")
    node, caller, nonce, budget = (found[name] for name in ("node", "caller", "nonce", "budget"))
    if not all(isinstance(name, str) and _NAME.fullmatch(name) for name in (node, caller)):
        raise BadChallenge("node and caller are names of at most 128 plain characters")
    if not isinstance(nonce, str) or not _HEX.fullmatch(nonce):
        raise BadChallenge("the nonce of a challenge is not of 64 hex digits")
    if type(budget) is not int or budget < 0:
        raise BadChallenge("the budget of a challenge is not a number of bytes")
    return Challenge(node, caller, nonce, budget, _plans(found["plans"]))


def _plans(found: Any) -> dict[str, Plan]:
    if not isinstance(found, dict) or not 0 < len(found) <= MAX_DEVICES:
        raise BadChallenge(f"a challenge plans for 1 to {MAX_DEVICES} devices")
    names = {field.name for field in fields(Plan)}
    for uuid, plan in found.items():
        if not _UUID.fullmatch(uuid) or not isinstance(plan, dict) or plan.keys() != names:
            raise BadChallenge(f"the plan of device {uuid[:64]!r} has not just {sorted(names)}")
    return {uuid: Plan(**plan) for uuid, plan in found.items()}


def _check_steps(found: Any, most: int) -> None:
    steps: Sequence[Any] = found if isinstance(found, list) else ()
    if not 0 < len(steps) <= MAX_SAMPLES or not all(
        type(step) is int and 0 < step <= most for step in steps
    ):
        raise BadChallenge(f"a request opens 1 to {MAX_SAMPLES} steps, from 1 to {most}")
