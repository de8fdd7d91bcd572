"""What an attestation asks of a node: sizes, seeds and the requests of its three rounds.

First the node fills its devices and walks over them (commit); then, out of randomness drawn only
after its answer came, it proves that everything is still there (residency) and opens what the
asker picked of the walk (walk). Every request carries the whole challenge, and the seed of all
work is a hash of who asks, whom, and a fresh nonce: an answer is good for nothing else.
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

SLICE_FACTOR: Final = 64
MAX_SIZE: Final = 16384
MAX_MATRICES: Final = 8192
MAX_STEPS: Final = 1 << 16
MAX_DEVICES: Final = 16
MAX_SAMPLES: Final = 16
MAX_ROWS: Final = 1024
RESIDENCY_COLUMNS: Final = 8

_WORKSPACE: Final = 3 * 2048 * 4
"""Bytes for each column: a panel of int32 products and what is made of it."""

_HEX = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[\w.:@/ -]{1,128}", re.ASCII)
_UUID = re.compile(r"[A-Za-z0-9-]{1,64}")


class BadChallenge(WindrowError):
    """A challenge or a request about one is malformed, or asks for more than is allowed."""


@dataclass(frozen=True)
class Plan:
    """The work of one device. n: size of its matrices; matrices: how many stay in its memory;
    rows: of the state that walks; steps: of the walk; segment: steps between two fixed states."""

    n: int
    matrices: int
    rows: int
    steps: int
    segment: int

    def __post_init__(self) -> None:
        sizes = (self.n, self.matrices, self.rows, self.steps, self.segment)
        if not all(type(size) is int and size > 0 for size in sizes):
            raise BadChallenge(f"a plan of {sizes}: every size is a positive whole number")
        if self.n % SLICE_FACTOR or self.n > MAX_SIZE:
            raise BadChallenge(f"n of {self.n}: a multiple of {SLICE_FACTOR} up to {MAX_SIZE}")
        if self.rows % 32 or self.n % self.rows or self.rows > MAX_ROWS:
            raise BadChallenge(f"{self.rows} rows: a multiple of 32 that divides {self.n}")
        if self.matrices > MAX_MATRICES or self.steps > MAX_STEPS or self.steps % self.segment:
            raise BadChallenge(
                f"{self.matrices} matrices and {self.steps} steps: at most {MAX_MATRICES} and "
                f"{MAX_STEPS}, in whole segments of {self.segment}"
            )

    @property
    def segments(self) -> int:
        return self.steps // self.segment

    @property
    def resident_bytes(self) -> int:
        return self.matrices * self.n**2

    @property
    def needed_bytes(self) -> int:
        """Memory the work takes in all: matrices, the four weights, states and workspace."""
        return (self.matrices + 4) * self.n**2 + self.n * (_WORKSPACE + 8 * self.rows)

    @property
    def fill_operations(self) -> float:
        return 2.0 * self.n**3 * (self.matrices - 1)

    @property
    def walk_operations(self) -> float:
        return 2.0 * self.rows * self.n**2 * self.steps

    @property
    def walk_bytes(self) -> float:
        return float(self.steps * self.n**2)


def plan_for(memory: int) -> Plan:
    """The plan for a device of so many bytes: 95 % of them, less what does not fit (§6.6)."""
    n = MAX_SIZE if memory > 25 * 10**9 else 8192
    overhead = Plan(n, 1, 512, 16, 16).needed_bytes - n**2
    matrices = min(int(FILLED * memory), memory - overhead - 2**28) // n**2
    if matrices < 1:
        raise BadChallenge(f"{memory} bytes of memory are too few for an attestation; give a Plan")
    return Plan(n, matrices, 512, steps=-(-4 * matrices // 16) * 16, segment=16)


def small_plan(budget: int) -> Plan:
    """A plan for the pseudo device of a machine without a GPU that needs at most so many bytes."""
    for n in (2048, 1024, 512, 256):
        base = Plan(n, 1, 64, 16, 8)
        matrices = 1 + (budget - base.needed_bytes) // n**2
        if matrices >= 8:
            return Plan(n, min(int(matrices), 64), 64, steps=64, segment=8)
    raise BadChallenge(f"a budget of {budget} bytes: an attestation takes at least 4 MB")


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

    seed: hex. samples: by device the segments and the rows of the walk to open; empty asks for
    residency instead.
    """

    challenge: Challenge
    seed: str
    samples: Mapping[str, tuple[list[int], list[int]]]

    def to_bytes(self) -> bytes:
        samples = {uuid: list(sample) for uuid, sample in self.samples.items()}
        mine = {"challenge": self.challenge.fields(), "seed": self.seed, "samples": samples}
        return to_json(mine)


def residency_request(asked: bytes, randomness: bytes) -> bytes:
    """The request of the second round. randomness: drawn after the first answer came."""
    return Opening(parse_challenge(asked), drawn(randomness, "residency"), {}).to_bytes()


def walk_request(asked: bytes, randomness: bytes, *, segments: int = 4, rows: int = 4) -> bytes:
    """The request of the third round, from the same randomness; after it the node lets go."""
    made = parse_challenge(asked)
    samples = {}
    for uuid, plan in made.plans.items():
        picked = pick(randomness, f"segments|{uuid}", plan.segments, segments)
        samples[uuid] = picked, pick(randomness, f"rows|{uuid}", plan.rows, rows)
    return Opening(made, drawn(randomness, "walk"), samples).to_bytes()


def parse_opening(request: bytes) -> Opening:
    """The request of a second or third round. Raises BadChallenge and BadFrame."""
    found = from_json(request)
    if found.keys() != {"challenge", "seed", "samples"} or not isinstance(found["samples"], dict):
        raise BadChallenge("a request to open has a challenge, a seed and samples")
    made = _challenge(found["challenge"])
    seed, samples = found["seed"], found["samples"]
    if not isinstance(seed, str) or not _HEX.fullmatch(seed):
        raise BadChallenge("the seed of a request to open is not of 64 hex digits")
    if samples and samples.keys() != made.plans.keys():
        raise BadChallenge("a request to open samples other devices than it challenged")
    return Opening(made, seed, {uuid: _sample(samples[uuid], made.plans[uuid]) for uuid in samples})


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


def _sample(found: Any, plan: Plan) -> tuple[list[int], list[int]]:
    if not isinstance(found, list) or len(found) != 2:
        raise BadChallenge("a sample is of segments and of rows")
    return _numbers(found[0], plan.segments), _numbers(found[1], plan.rows)


def _numbers(found: Any, below: int) -> list[int]:
    numbers: Sequence[Any] = found if isinstance(found, list) else ()
    if not 0 < len(numbers) <= MAX_SAMPLES or not all(
        type(number) is int and 0 <= number < below for number in numbers
    ):
        raise BadChallenge(f"a sample holds 1 to {MAX_SAMPLES} numbers below {below}")
    return list(numbers)
