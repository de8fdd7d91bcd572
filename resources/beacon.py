"""The randomness of a window: from the block hash alone, or mixed with a drand round.

A window that asks for drand gets drand or an error; Windrow never falls back to the block hash.
"""

import hashlib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from windrow import WindrowError
from windrow.networks.grail.windows import QUICKNET, drand_round, miner_randomness
from windrow.resources.chain import Chain

# A year of windows holds 87,600 rounds of about 300 bytes.
MAX_RECORDING_BYTES = 64 * 1024 * 1024
_HEX = re.compile(r"(?:[0-9a-f]{2})+")


class BeaconError(WindrowError):
    """A window's randomness cannot be made."""


class MalformedRecording(BeaconError):
    """A file of recorded drand rounds holds something else, or a round that does not hold."""


class RoundNotRecorded(BeaconError):
    """The drand round a window needs is not in the recording."""


@dataclass(frozen=True)
class Beacon:
    """What a window starts from.

    block_hash: of the window's first block, `0x` included.
    randomness: R_m, 64 hex digits (grail-protocol §2).
    source: "block_hash" or "recorded_drand".
    """

    window_start: int
    block_hash: str
    randomness: str
    use_drand: bool
    drand_round: int | None
    source: str


class BeaconSource(Protocol):
    """Makes the beacon of a window."""

    def beacon(self, window: int) -> Beacon:
        """Raises FutureBlock before the window opens, BeaconError when its round is missing."""
        ...


class BlockHashBeacon:
    """Randomness from the window's block hash alone."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain

    def beacon(self, window: int) -> Beacon:
        block_hash = self._chain.block_hash(window)
        randomness = miner_randomness(block_hash, None)
        return Beacon(window, block_hash, randomness, False, None, "block_hash")


class RecordedDrand:
    """Randomness mixed with the quicknet round that was current when the window opened."""

    def __init__(self, chain: Chain, path: Path) -> None:
        """path: JSON, one round as a drand relay answers it, or `{"rounds": [round, …]}`.

        Raises MalformedRecording; every round's randomness must be the SHA-256 of its signature.
        """
        self._chain = chain
        self._path = path
        self._randomness = _read_recording(path)

    def beacon(self, window: int) -> Beacon:
        block_hash = self._chain.block_hash(window)
        number = drand_round(math.floor(self._chain.timestamp(window)), QUICKNET)
        drand = self._randomness.get(number)
        if drand is None:
            raise RoundNotRecorded(
                f"Window {window} needs drand round {number}, which {self._path} does not hold "
                f"({len(self._randomness)} rounds). Record it, or set WINDROW_BEACON=block_hash."
            )
        randomness = miner_randomness(block_hash, drand)
        return Beacon(window, block_hash, randomness, True, number, "recorded_drand")


def _read_recording(path: Path) -> dict[int, str]:
    """Randomness by round number."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_RECORDING_BYTES + 1)
        if len(content) > MAX_RECORDING_BYTES:
            raise MalformedRecording(f"{path} is larger than {MAX_RECORDING_BYTES} bytes.")
        document = json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        raise MalformedRecording(f"{path} is not a readable JSON file: {error}.") from error
    if not isinstance(document, dict):
        raise MalformedRecording(f"{path} must hold one JSON object.")
    if document.get("chain_hash", QUICKNET.hash) != QUICKNET.hash:
        raise MalformedRecording(f"{path} is of another drand chain than quicknet.")

    rounds = document.get("rounds", [document])
    if not isinstance(rounds, list):
        raise MalformedRecording(f"{path}: `rounds` must be a list.")
    recorded: dict[int, str] = {}
    for index, entry in enumerate(rounds):
        number, randomness = _checked_round(entry, f"{path}, round entry {index}")
        if recorded.setdefault(number, randomness) != randomness:
            raise MalformedRecording(f"{path} holds two different rounds {number}.")
    return recorded


def _checked_round(entry: Any, where: str) -> tuple[int, str]:
    match entry:
        case {"round": int(number), "randomness": str(randomness), "signature": str(signature)}:
            pass
        case _:
            raise MalformedRecording(f"{where} needs `round`, `randomness` and `signature`.")
    if isinstance(number, bool) or number < 1:
        raise MalformedRecording(f"{where}: `round` must be 1 or more.")
    if not _HEX.fullmatch(signature) or not _HEX.fullmatch(randomness):
        raise MalformedRecording(f"{where}: `randomness` and `signature` must be lower-case hex.")
    if hashlib.sha256(bytes.fromhex(signature)).hexdigest() != randomness:
        raise MalformedRecording(
            f"{where}: the randomness of round {number} is not the SHA-256 of its signature."
        )
    return number, randomness
