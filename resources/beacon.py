"""The randomness of a window: from the block hash alone, or mixed with a drand round."""

import hashlib
import json
import math
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from windrow import WindrowError
from windrow.networks.grail.drand import DrandRound, FalseRound, parse_round, verify_round
from windrow.networks.grail.windows import QUICKNET, DrandChain, drand_round, miner_randomness
from windrow.resources.chain import Chain, Concern
from windrow.resources.drand import DrandRelays, DrandUnavailable

# A year of windows holds 87,600 rounds of about 300 bytes.
MAX_RECORDING_BYTES = 64 * 1024 * 1024
_RANDOMNESS = re.compile(r"[0-9a-f]{64}")
AT_ONCE = 16
"""Rounds that relays are asked for side by side."""


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
    source: "block_hash", "recorded_drand" or "drand".
    relay: the drand relay that gave the round. fallback: what stands in for drand, "block_hash",
    where drand was asked for and no relay gave a round that holds.
    """

    window_start: int
    block_hash: str
    randomness: str
    use_drand: bool
    drand_round: int | None
    source: str
    relay: str | None = None
    fallback: str | None = None


class BeaconSource(Protocol):
    """Makes the beacon of a window."""

    def beacon(self, window: int) -> Beacon:
        """Raises FutureBlock before the window opens, BeaconError when its round is missing."""
        ...

    def miners(self, opened: Beacon, claimed: str) -> str | None:
        """The R_m that a miner's file is held against, which may claim another than `opened`.

        With live drand each miner draws the round it meets (§2): the one claimed, if it is one of
        the window's. None where that cannot be known.
        """
        ...

    def concerns(self) -> list[Concern]:
        """What was noticed in this process since this was last asked, and stopped nothing."""
        ...


class BlockHashBeacon:
    """Randomness from the window's block hash alone."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain

    def beacon(self, window: int) -> Beacon:
        block_hash = self._chain.block_hash(window)
        randomness = miner_randomness(block_hash, None)
        return Beacon(window, block_hash, randomness, False, None, "block_hash")

    def miners(self, opened: Beacon, claimed: str) -> str:  # noqa: ARG002
        return opened.randomness

    def concerns(self) -> list[Concern]:
        return []


class LiveDrand:
    """Randomness mixed with the quicknet round that was current when the window opened.

    The round is known from the block's timestamp, so anyone can ask for it again later. While no
    relay has it, the block hash stands in, and the beacon says so.
    """

    def __init__(
        self, chain: Chain, relays: Sequence[str], seconds: float, drand: DrandChain = QUICKNET
    ) -> None:
        """relays: base URLs, asked in this order; seconds: what each has to answer."""
        self._chain = chain
        self._drand = drand
        self._relays = DrandRelays(relays, seconds, drand)
        self._concerns: list[Concern] = []
        self._asking = threading.Lock()
        self._drawable: dict[int, set[str]] = {}
        self._unknown: set[int] = set()

    def beacon(self, window: int) -> Beacon:
        block_hash = self._chain.block_hash(window)
        number = drand_round(math.floor(self._chain.timestamp(window)), self._drand)
        try:
            answer = self._relays.round(number)
        except DrandUnavailable as error:
            self._concerns += [Concern(refusal.name, refusal.detail) for refusal in error.refusals]
            self._concerns.append(Concern("DrandUnavailable", str(error)))
            randomness = miner_randomness(block_hash, None)
            return Beacon(
                window, block_hash, randomness, False, None, "block_hash", fallback="block_hash"
            )
        self._concerns += [Concern(refusal.name, refusal.detail) for refusal in answer.refusals]
        randomness = miner_randomness(block_hash, answer.round.randomness)
        return Beacon(window, block_hash, randomness, True, number, "drand", relay=answer.relay)

    def miners(self, opened: Beacon, claimed: str) -> str | None:
        """The claimed R_m, if a round of the window gives it or, without drand, the block hash.

        A window has some 120 rounds. They are asked for in order, as far as miners claim them, and
        once: a miner draws when it sees the first block, so the first few are mostly enough.
        """
        claimed, window = claimed.lower(), opened.window_start
        if claimed in (opened.randomness, miner_randomness(opened.block_hash, None)):
            return claimed
        if not _RANDOMNESS.fullmatch(claimed):
            return opened.randomness
        with self._asking:
            known = self._drawable.setdefault(window, set())
            # A relay may be a round behind when it is asked for the latest.
            first = drand_round(math.floor(self._chain.timestamp(window)), self._drand) - 1
            last = drand_round(math.ceil(self._chain.deadline(window)), self._drand)
            while claimed not in known and window not in self._unknown:
                numbers = range(first + len(known), min(first + len(known) + AT_ONCE, last + 1))
                if not numbers:
                    return opened.randomness
                try:
                    with ThreadPoolExecutor(AT_ONCE) as threads:
                        answers = list(threads.map(self._relays.round, numbers))
                except DrandUnavailable as error:
                    self._concerns.append(Concern("DrandUnavailable", str(error)))
                    self._unknown.add(window)
                else:
                    drawn = (answer.round.randomness for answer in answers)
                    known |= {miner_randomness(opened.block_hash, each) for each in drawn}
            return claimed if claimed in known else None

    def concerns(self) -> list[Concern]:
        noticed, self._concerns = self._concerns, []
        return noticed


class RecordedDrand:
    """Randomness mixed with the quicknet round that was current when the window opened."""

    def __init__(self, chain: Chain, path: Path) -> None:
        """path: JSON, one round as a drand relay answers it, or `{"rounds": [round, …]}`.

        Raises MalformedRecording; every round's randomness must be the SHA-256 of its signature,
        and the signature of a round that is used must hold.
        """
        self._chain = chain
        self._path = path
        self._rounds = _read_recording(path)

    def beacon(self, window: int) -> Beacon:
        block_hash = self._chain.block_hash(window)
        number = drand_round(math.floor(self._chain.timestamp(window)), QUICKNET)
        found = self._rounds.get(number)
        if found is None:
            raise RoundNotRecorded(
                f"Window {window} needs drand round {number}, which {self._path} does not hold "
                f"({len(self._rounds)} rounds). Record it, or set WINDROW_BEACON=block_hash."
            )
        try:
            verify_round(found)
        except FalseRound as error:
            raise MalformedRecording(f"{self._path}: {error}. Record it again.") from None
        randomness = miner_randomness(block_hash, found.randomness)
        return Beacon(window, block_hash, randomness, True, number, "recorded_drand")

    def miners(self, opened: Beacon, claimed: str) -> str:  # noqa: ARG002
        return opened.randomness

    def concerns(self) -> list[Concern]:
        return []


def _read_recording(path: Path) -> dict[int, DrandRound]:
    """Rounds by number."""
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
    recorded: dict[int, DrandRound] = {}
    for index, entry in enumerate(rounds):
        where = f"{path}, round entry {index}"
        try:
            found = parse_round(entry)
        except FalseRound as error:
            raise MalformedRecording(f"{where}: {error}.") from None
        if hashlib.sha256(bytes.fromhex(found.signature)).hexdigest() != found.randomness:
            raise MalformedRecording(
                f"{where}: the randomness of round {found.number} is not the SHA-256 of its "
                "signature."
            )
        if recorded.setdefault(found.number, found) != found:
            raise MalformedRecording(f"{path} holds two different rounds {found.number}.")
    return recorded
