"""Cheats against attestation: what a node might send or how long it might take, and who notices.

Cheats of the first kind are carried out, with tiny matrices, and their bytes verified. Those of
the second kind give the right bytes too late or too soon, so they are judged by the times that the
hardware would take, for an H200 of 141 GB.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from windrow.engine.fleet.attestation_plan import (
    COLUMNS,
    Plan,
    challenge,
    opening_request,
    parse_challenge,
    parse_opening,
    plan_for,
)
from windrow.engine.fleet.attestation_timing import (
    PEAKS,
    TimeVerdict,
    residency_verdict,
    timing_verdict,
)
from windrow.engine.fleet.attestation_verify import DeviceProof, prove_devices
from windrow.engine.fleet.attestation_work import Arrays, DeviceWork, trace_of, walk_columns
from windrow.engine.fleet.frames import pack
from windrow.kernels import sgp1
from windrow.networks.chutes.gpus import Device, device_problem, registered_in_time

PLAN: Final = Plan(n=256, matrices=12, steps=48)
RANDOMNESS: Final = b"\x07" * 32
REAL: Final = plan_for(141 * 10**9)
H200: Final = PEAKS["h200"]
EFFICIENCY: Final = 0.75
"""Of its peak, what an honest card reaches in the modelled times."""
ROUND_TRIP: Final = 0.1
HOST_MEMORY: Final = 25e9
"""Bytes per second over PCIe 4.0 with 16 lanes, both ways shared."""

NOT_LOOKED_AT: Final = "not looked at"
CLOSED: Final = "unknown: its proof is closed"
WORD: Final = "accepted: name and memory are the node's own word"


class Row(NamedTuple):
    """A cheat, what Chutes' published checks make of it, what Windrow does, and why."""

    name: str
    network_outcome: str
    windrow_outcome: str
    reason: str


def asked(nonce: int) -> bytes:
    return challenge("node-1", "asker", bytes([nonce]) * 32, {"cpu": PLAN}, budget=1 << 26)


ASKED: Final = asked(1)
OPENING: Final = opening_request(ASKED, RANDOMNESS)


Bodies = tuple[bytes, bytes]


@dataclass
class Node:
    """A node of one device: its bytes, made by honest work or by a cheat's."""

    work: type[DeviceWork] = DeviceWork
    request: bytes = ASKED

    def bodies(self) -> Bodies:
        made = parse_challenge(self.request)
        opening = parse_opening(opening_request(self.request, RANDOMNESS))
        work = self.work(made.seed, "cpu", PLAN, torch.device("cpu"))
        committed = framed({"session": made.session, "devices": [described()]}, work.run())
        opened = work.open(opening.steps["cpu"], opening.seed)
        return committed, framed({"session": made.session, "recomputed": False}, opened)


def framed(header: dict[str, Any], arrays: Arrays) -> bytes:
    return pack(header, {f"{name}/0": array for name, array in arrays.items()})


def described() -> dict[str, Any]:
    times = {"fill_seconds": 0.1, "walk_seconds": 0.1}
    return {"uuid": "cpu", "backend": "cuda", "way": "int8", "memory_bytes": 141 * 10**9} | times


class FewerMatrices(DeviceWork):
    """A smaller card: half of its matrices are gone when they are asked for again."""

    def open(self, steps: Sequence[int], seed: str) -> Arrays:
        for matrix in self.matrices[::2]:
            matrix.zero_()
        return super().open(steps, seed)


class Structured(DeviceWork):
    """One row stands for all: every product costs n^2 instead of n^3."""

    def _fill(self) -> list[bytes]:
        weights = sgp1.weights(self.seed, self.uuid, self.plan.n)
        row = sgp1.byte_rows(sgp1.key_of(self.seed, self.uuid, "B/0"), range(1), self.plan.n)
        self.matrices = []
        for index in range(self.plan.matrices):
            row = sgp1.next_rows(row, weights[(index - 1) % 4]) if index else row
            self.matrices.append(row.repeat(self.plan.n, 1))
        return [sgp1.slice_of(matrix, index) for index, matrix in enumerate(self.matrices)]


class SkippedRows(DeviceWork):
    """A fifth of the rows is never computed."""

    def _fill(self) -> list[bytes]:
        super()._fill()
        for matrix in self.matrices[1:]:
            matrix[::5] = 0
        return [sgp1.slice_of(matrix, index) for index, matrix in enumerate(self.matrices)]


class WrongFromTheMiddle(DeviceWork):
    """The second half of the matrices is one matrix again and again."""

    def _fill(self) -> list[bytes]:
        super()._fill()
        middle = len(self.matrices) // 2
        self.matrices[middle:] = [self.matrices[middle]] * (len(self.matrices) - middle)
        return [sgp1.slice_of(matrix, index) for index, matrix in enumerate(self.matrices)]


class OneMatrixWalk(DeviceWork):
    """Every step takes the matrix that lies in fast memory, and says it was the one drawn."""

    def _step(self, step: int, digest: bytes) -> tuple[int, NDArray[np.int8]]:
        right = walk_columns(digest, self.uuid, self.plan.n)
        index = sgp1.walk_index(digest, step, len(self.matrices))
        return index, trace_of(self.matrices[0], right)


class NoWalk(DeviceWork):
    """Invents the digests, and does the steps when they are asked for."""

    def run(self) -> Arrays:
        arrays = super().run()
        invented = np.random.default_rng(0).integers(0, 256, arrays["walk"].shape, np.uint8)
        invented[0] = arrays["walk"][0]
        self.digests = [digest.tobytes() for digest in invented]
        return arrays | {"walk": invented}


class HalfAWalk(DeviceWork):
    """Leaves out every other step: takes the digest of the step before for its trace."""

    def _step(self, step: int, digest: bytes) -> tuple[int, NDArray[np.int8]]:
        if step % 2:
            return super()._step(step, digest)
        index = sgp1.walk_index(digest, step, len(self.matrices))
        return index, np.resize(np.frombuffer(digest, np.int8), (self.plan.n, COLUMNS))


class MendedSums(DeviceWork):
    """Lacks a fifth of the rows, and says of those what would be likely."""

    def open(self, steps: Sequence[int], seed: str) -> Arrays:
        arrays = super().open(steps, seed)
        arrays["sums"][::5] = arrays["sums"][1::5].mean(dtype=np.float64)
        return arrays


def rows() -> list[Row]:
    """Every cheat and its outcomes."""
    return [*_carried_out(), *_by_time()]


def prove(bodies: Bodies) -> DeviceProof:
    (proof,) = prove_devices(ASKED, OPENING, RANDOMNESS, *bodies)
    return proof


def honest() -> DeviceProof:
    """The same node without a cheat: it passes, so the catalogue says something."""
    return prove(Node().bodies())


def _carried_out() -> Iterator[Row]:
    for name, network, work in (
        ("holds half of the matrices: a smaller card with the claimed name", WORD, FewerMatrices),
        ("structured shortcut: one row for all, O(n^2)", CLOSED, Structured),
        ("skips a fifth of the rows", CLOSED, SkippedRows),
        ("half of the matrices are one", CLOSED, WrongFromTheMiddle),
        ("walks over one matrix only", CLOSED, OneMatrixWalk),
        ("invents the walk's digests", CLOSED, NoWalk),
        ("leaves out every other step of the walk", CLOSED, HalfAWalk),
        ("guesses the sums of a fifth of the rows", CLOSED, MendedSums),
    ):
        yield _judged(name, network, prove(Node(work).bodies()))
    other = Node(request=asked(2)).bodies()
    yield _judged("replays the proof of another session", CLOSED, prove(other))
    yield _judged("precomputed answers, labelled anew", CLOSED, prove(_relabelled(other)))
    commit, opened = Node().bodies()
    for name, body in (
        ("a gigabyte instead of an answer", bytes(1 << 30)),
        ("NaN for a time", _claiming(commit, b"NaN")),
        ("a negative time", _claiming(commit, b"-1")),
        ("answers for another device", commit.replace(b'"uuid":"cpu"', b'"uuid":"GPU-1"')),
    ):
        yield _judged(name, NOT_LOOKED_AT, prove((body, opened)))


def _by_time() -> Iterator[Row]:
    fill = REAL.fill_operations / (EFFICIENCY * H200.operations)
    read = REAL.resident_bytes / (EFFICIENCY * H200.bandwidth)
    work = fill + REAL.walk_bytes / (EFFICIENCY * H200.bandwidth)
    history = [work * factor for factor in (0.98, 1.0, 1.02, 1.01, 0.99)]

    def worked(seconds: float, known: list[float] | None = None) -> TimeVerdict:
        return timing_verdict(REAL, seconds, peak=H200, history=known or (), round_trip=ROUND_TRIP)

    def answered(seconds: float) -> TimeVerdict:
        return residency_verdict(
            REAL, seconds, work, peak=H200, recomputed=False, round_trip=ROUND_TRIP
        )

    claims = Device("NVIDIA H200", 141 * 10**9, 132, 1_980_000.0, "h200")
    by_word = WORD if device_problem(claims) is None else "refused"
    l40s = work * H200.operations / PEAKS["l40s"].operations
    yield _timed("an L40S says it is an H200", by_word, worked(l40s))
    missing = REAL.fill_operations * (1 - 80 / 141) / (EFFICIENCY * PEAKS["h100_sxm"].operations)
    yield _timed("80 GB card makes again what does not fit", by_word, answered(read + missing))
    share = 0.1 * REAL.resident_bytes / HOST_MEMORY
    yield _timed("a tenth of the matrices lies in host memory", CLOSED, answered(read + share))
    estimate, shared = 70.0, 1.6
    network = "accepted" if registered_in_time(shared * estimate, estimate) else "refused"
    yield _timed(f"GPU shared: {shared} times the time", network, worked(shared * work, history))
    nominal = worked(shared * work)
    yield _timed("GPU shared, and no history of the card known", network, nominal)
    yield _timed("says it took 1 ms, answers after a minute", NOT_LOOKED_AT, worked(60.0))
    yield _timed("several cards work as one, four times as fast", CLOSED, worked(work / 4))
    yield _timed("relays to an equal card, 50 ms away", CLOSED, answered(read + 0.05))


def _judged(name: str, network: str, proof: DeviceProof) -> Row:
    problem = proof.committed or proof.resident or proof.walked
    return Row(name, network, "refused" if problem else "accepted", problem)


def _timed(name: str, network: str, verdict: TimeVerdict) -> Row:
    outcome = {True: "accepted", False: "refused", None: "to be looked at"}[verdict.verdict]
    reason = (
        verdict.reason or "right bytes in plausible time: docs/attestation.md, what is not proved"
    )
    return Row(name, network, outcome, reason)


def _relabelled(bodies: Bodies) -> Bodies:
    """Another session's answers under this session's name."""
    other, this = (parse_challenge(request).session.encode() for request in (asked(2), ASKED))
    return bodies[0].replace(other, this), bodies[1].replace(other, this)


def _claiming(commit: bytes, seconds: bytes) -> bytes:
    return commit.replace(b'"fill_seconds":0.1', b'"fill_seconds":' + seconds)
