"""Reading the answers of an attestation: exactly the arrays asked for, and plausible claims."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from windrow import WindrowError
from windrow.engine.fleet.attestation_plan import COLUMNS, Challenge, Opening
from windrow.engine.fleet.frames import unpack

_HEADER_BYTES: Final = 1 << 16

Expected = Mapping[str, tuple[str, tuple[int, ...]]]
DeviceArrays = list[dict[str, NDArray[Any]]]


class WrongAnswer(WindrowError):
    """An answer is not for this challenge, or claims what cannot be; the message says what."""


@dataclass(frozen=True)
class Claimed:
    """What a device's work was done with, by the node's word: no proof rests on it."""

    backend: str
    way: str
    memory_bytes: int
    fill_seconds: float
    walk_seconds: float


def commit_limit(challenge: Challenge) -> int:
    """Most bytes the first answer may have: whoever asks reads no more."""
    return _limit(_committed(challenge))


def opening_limit(opening: Opening) -> int:
    """Most bytes the answer to a request to open may have."""
    return _limit(_opened(opening))


def read_commit(body: bytes, challenge: Challenge) -> tuple[list[Claimed], DeviceArrays]:
    """Claims and arrays of each device. Raises BadFrame and WrongAnswer."""
    header, arrays = _read(body, _committed(challenge), challenge)
    described = header.get("devices")
    uuids = sorted(challenge.plans)
    if not isinstance(described, list) or len(described) != len(uuids):
        raise WrongAnswer(f"the answer does not describe just the {len(uuids)} devices asked")
    return [_claimed(one, uuid) for one, uuid in zip(described, uuids, strict=True)], arrays


def read_opening(body: bytes, opening: Opening) -> tuple[bool, DeviceArrays]:
    """Whether the node did its work again, and each device's arrays. Raises as `read_commit`."""
    header, arrays = _read(body, _opened(opening), opening.challenge)
    recomputed = header.get("recomputed")
    if not isinstance(recomputed, bool):
        raise WrongAnswer("the answer does not say whether the work was done again")
    return recomputed, arrays


def _committed(challenge: Challenge) -> Expected:
    expected: dict[str, tuple[str, tuple[int, ...]]] = {}
    for place, (_, plan) in enumerate(sorted(challenge.plans.items())):
        expected[f"slices/{place}"] = ("u1", (plan.matrices, plan.n))
        expected[f"walk/{place}"] = ("u1", (plan.steps + 1, 32))
    return expected


def _opened(opening: Opening) -> Expected:
    expected: dict[str, tuple[str, tuple[int, ...]]] = {}
    for place, (uuid, plan) in enumerate(sorted(opening.challenge.plans.items())):
        expected[f"sums/{place}"] = ("u8", (plan.n,))
        expected[f"traces/{place}"] = ("i1", (len(opening.steps[uuid]), plan.n, COLUMNS))
    return expected


def _limit(expected: Expected) -> int:
    sizes = (math.prod(shape) * np.dtype(dtype).itemsize for dtype, shape in expected.values())
    return sum(sizes) + _HEADER_BYTES + 1


def _read(
    body: bytes, expected: Expected, challenge: Challenge
) -> tuple[dict[str, Any], DeviceArrays]:
    header, arrays = unpack(
        body, max_bytes=_limit(expected), expected=expected, max_header_bytes=_HEADER_BYTES
    )
    if header.get("session") != challenge.session:
        raise WrongAnswer("the answer belongs to another session: replayed, or for another node")
    devices: DeviceArrays = [{} for _ in challenge.plans]
    for name, array in arrays.items():
        if array.shape != expected[name][1]:
            raise WrongAnswer(f"array {name} is {array.shape}, not {expected[name][1]}")
        kind, _, place = name.rpartition("/")
        devices[int(place)][kind] = array
    return header, devices


def _claimed(described: object, uuid: str) -> Claimed:
    if not isinstance(described, dict) or described.get("uuid") != uuid:
        raise WrongAnswer(f"device {uuid} is not where it should be among the devices described")
    backend, way = described.get("backend"), described.get("way")
    memory = described.get("memory_bytes")
    times = [_seconds(described.get(name)) for name in ("fill_seconds", "walk_seconds")]
    if not isinstance(backend, str) or not isinstance(way, str) or max(len(backend), len(way)) > 64:
        raise WrongAnswer(f"device {uuid} names no backend")
    if type(memory) is not int or not 0 <= memory < 2**63:
        raise WrongAnswer(f"device {uuid} has {str(memory)[:40]} bytes of memory, it says")
    return Claimed(backend, way, memory, *times)


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise WrongAnswer(f"a device worked {str(value)[:40]} seconds, it says")
    return float(value)
