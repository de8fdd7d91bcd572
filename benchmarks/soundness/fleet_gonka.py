"""Cheats against Gonka's proof of compute: what the network pays for them, and what Windrow sees.

Every one is carried out, with a tiny model. Those of the first kind are batches handed in to the
network, judged by its own rules and by `networks/gonka/strict.py`; those of the second are answers
of a node, judged by `engine/fleet/proof_of_compute.py`.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from windrow.engine.fleet import proof_of_compute as poc
from windrow.engine.fleet.frames import pack, to_json, unpack
from windrow.engine.fleet.poc_model import BlockModel
from windrow.networks.gonka.artifacts import encode, network_mismatches, strict_mismatches
from windrow.networks.gonka.poc_batches import (
    ReceivedAboveTarget,
    fraud_from_counts,
    network_fraud_test,
    network_refusal,
)
from windrow.networks.gonka.poc_capacity import dense_partition
from windrow.networks.gonka.poc_model import PARAMETER_SETS, pool_size, total_parameters
from windrow.networks.gonka.poc_nonces import r_target_for
from windrow.networks.gonka.sampling import network_sample
from windrow.networks.gonka.strict import Batch, StrictRules, verified

TINY: Final = PARAMETER_SETS["tiny"]
BLOCK: Final = "7464F5FD4216FFE6162E664009E5C34301E4D660FE4F82E63DCD098C6848D5D5"
OTHER_BLOCK: Final = BLOCK[::-1]
KEY: Final = "03f78011f6854d9b971140667c393cf9058002d8eb47e0d14cacd71811d0b12b71"
OTHER_KEY: Final = "02" + KEY[2:]
VALIDATOR: Final = "02fc620dddcd2fc751af3a944114dbeb671ff62fe9654bdda6d50ecbb64efbd284"
RANDOMNESS: Final = b"\x07" * 32
HEIGHT: Final = 1000
RULES: Final = StrictRules(
    r_target=r_target_for(0.25, TINY.vocab_size), stage_height=HEIGHT, window=(1001, 1065)
)

ACCEPTED: Final = "accepted"
REFUSED: Final = "refused"


class Row(NamedTuple):
    """A cheat, what the network makes of it, what Windrow does, and why."""

    name: str
    network_outcome: str
    windrow_outcome: str
    reason: str


@cache
def model(block_hash: str = BLOCK) -> BlockModel:
    return BlockModel(block_hash, TINY)


@cache
def successes(count: int) -> tuple[tuple[int, float], ...]:
    """The first nonces that succeed, with their distances."""
    nonces = range(6 * count)
    distances = model().distances(KEY, nonces, batch_size=64).tolist()
    rows = zip(nonces, distances, strict=True)
    return tuple(row for row in rows if row[1] < RULES.r_target)[:count]


def batch(rows: Sequence[tuple[int, float]], name: str = "a") -> Batch:
    nonces, distances = zip(*rows, strict=True)
    return Batch(name, HEIGHT, HEIGHT + 10, nonces, distances)


def network_outcome(batches: Sequence[Batch]) -> str:
    """What the chain and one validator make of a participant's batches, and the weight it gets."""
    for one in batches:
        message = {
            "poc_stage_start_block_height": one.stage_height,
            "batch_id": one.batch_id,
            "nonces": one.nonces,
            "dist": one.distances,
        }
        fault = network_refusal(message, HEIGHT)
        if fault:
            return f"{REFUSED}: {fault}"
    ordered = sorted(batches, key=lambda one: one.batch_id)
    claims = [row for one in ordered for row in zip(one.nonces, one.distances, strict=True)]
    chosen = [claims[i] for i in network_sample(VALIDATOR, BLOCK, HEIGHT, len(claims))]
    again = model().distances(KEY, [nonce for nonce, _ in chosen], batch_size=64)
    try:
        test = network_fraud_test(again.tolist(), [dist for _, dist in chosen], RULES.r_target)
    except ReceivedAboveTarget:
        return "none: the validator's process dies of it"
    return REFUSED if test.fraud else f"{ACCEPTED}: weight {len(claims)}"


def handed_in(name: str, batches: Sequence[Batch], rules: StrictRules = RULES) -> Row:
    """A row of the first kind."""

    def recompute(nonces: list[int]) -> list[float]:
        found: list[float] = model().distances(KEY, nonces, batch_size=64).tolist()
        return found

    verdict = verified(batches, rules, RANDOMNESS, recompute)
    outcome = f"{ACCEPTED}: weight {verdict.weight}" if verdict.accepted else REFUSED
    noticed = [f"{finding.code} ({finding.count})" for finding in verdict.findings]
    return Row(name, network_outcome(batches), outcome, "; ".join([*verdict.reasons, *noticed]))


def honest() -> Row:
    """The same participant without a cheat: both pay, so the catalogue says something."""
    return handed_in("honest", [batch(successes(250))])


def rows() -> list[Row]:
    """Every cheat and its outcomes."""
    return [*_handed_in(), *_artifacts(), *_answered()]


def _handed_in() -> Iterator[Row]:
    good = list(successes(250))
    same = [batch(good, name) for name in "abc"]
    yield handed_in("duplicate nonces: the same work in three batches", same)
    below = RULES.r_target - 1e-3
    lies = [(nonce, 0.2) for nonce, _ in good]
    yield handed_in("invented distances on real successes", [batch(lies)])
    uncomputed = [(nonce, below) for nonce in range(10_000, 10_250)]
    yield handed_in("invented distances on nonces never computed", [batch(uncomputed)])
    yield handed_in("predictable samples: 200 computed, 5000 paid", [batch(_around_the_sample())])
    four = [*good[:196], *((nonce, below) for nonce in _failures(4))]
    yield handed_in("four false nonces among 200", [batch(four)])
    two = [(nonce, below) for nonce in _failures(2)]
    yield handed_in("two nonces, both false", [batch(two)])
    loud = [*good, (20_000, RULES.r_target)]
    yield handed_in("one distance at the target, to silence validators", [batch(loud[51:])])
    quiet = [(nonce, math.nan) for nonce, _ in good]
    yield handed_in("NaN for distances", [batch(quiet)])
    mine = replace(RULES, partitions=[dense_partition(0, 2)])
    yield handed_in("nonces out of another own node's share", [batch(good)], mine)


def _around_the_sample() -> list[tuple[int, float]]:
    """5000 claims, of which only those that the validator will look at were computed."""
    total = 5000
    real = iter(successes(250))
    claims = [(100_000 + i, RULES.r_target - 1e-3) for i in range(total)]
    for i in network_sample(VALIDATOR, BLOCK, HEIGHT, total):
        claims[i] = next(real)
    return claims


def _failures(count: int) -> list[int]:
    """Nonces that are no success by far, beyond those of `successes`."""
    nonces = range(50_000, 50_000 + 20 * count)
    distances = model().distances(KEY, nonces, batch_size=64)
    far = RULES.r_target + 0.01
    return [n for n, dist in zip(nonces, distances, strict=True) if dist > far][:count]


def _artifacts() -> Iterator[Row]:
    """Version 2: 200 vectors asked for, none of them given."""
    nonces = list(range(200))
    computed = [encode(np.full(12, 0.25, np.float16))] * len(nonces)
    empty = [""] * len(nonces)

    def outcome(mismatched: Sequence[int]) -> str:
        test = fraud_from_counts(len(nonces), len(mismatched), 0.1, 0.05)
        return REFUSED if test.fraud else ACCEPTED

    network = outcome(network_mismatches(nonces, computed, empty, 0.4))
    missing = strict_mismatches(nonces, computed, empty, 0.4)
    reason = f"{len(missing)} of {len(nonces)} vectors are missing"
    yield Row("v2: empty vectors", network, outcome(missing), reason)


def asked(**changes: object) -> poc.Challenge:
    values: dict[str, object] = {
        "block_hash": BLOCK,
        "block_height": HEIGHT,
        "public_key": KEY,
        "parameters": "tiny",
        "start": 0,
        "stride": 1,
        "count": 600,
    }
    return poc.Challenge(**(values | changes))  # type: ignore[arg-type]


def computed(challenge: poc.Challenge) -> NDArray[np.float64]:
    answer = poc.answered(challenge, ["cpu"])
    expected = {"distances": ("f8", (challenge.count,))}
    return unpack(answer, max_bytes=1 << 20, expected=expected)[1]["distances"]


def labelled(distances: NDArray[np.float64]) -> bytes:
    """Distances under the name of the challenge asked."""
    honest_frame = poc.answered(asked(count=1), ["cpu"])
    header, _ = unpack(honest_frame, max_bytes=1 << 20, expected={"distances": ("f8", (1,))})
    return pack(header | {"challenge": poc.digest(asked())}, {"distances": distances})


def verify(answer: bytes, elapsed: float = 10.0) -> poc.Result:
    return poc.verify(
        asked(),
        answer,
        elapsed,
        randomness=RANDOMNESS,
        validator_key=VALIDATOR,
        model=model(),
        least_per_second=50.0,
        peak_tflops=1e-3,
    )


def _answered() -> Iterator[Row]:
    right = computed(asked())
    yield _judged("replayed from another block", computed(asked(block_hash=OTHER_BLOCK)))
    yield _judged("computed for another public key", computed(asked(public_key=OTHER_KEY)))
    yield _judged("other nonces than were asked for", computed(asked(start=600)))
    yield _judged("NaN for every nonce", np.full_like(right, np.nan))
    typical = np.where(np.arange(len(right)) % 20, np.sqrt(2), right)
    yield _judged("one nonce in twenty computed, the others typical", typical)
    hidden = np.where(right < asked().r_target, right, np.sqrt(2))
    hidden[::10] = right[::10]
    yield _judged("right on successes, invented elsewhere", hidden)
    yield _judged("precomputed: right bytes, sooner than the cards can", right, elapsed=1e-4)
    yield _judged("a card of half the speed", right, elapsed=24.0)
    shape = PARAMETER_SETS["V2"]
    views, whole = 2 * pool_size(shape) / 1e9, 2 * total_parameters(shape) / 1e9
    yield Row(
        "a card too small for the model, with weights as views",
        ACCEPTED,
        ACCEPTED,
        f"{views:.1f} GB hold what is counted as {whole:.1f} GB: attestation proves memory",
    )
    result = verify(to_json({"distances": [1.0]}))
    yield Row("JSON instead of an answer", REFUSED, REFUSED, result.checks[0].reason)


def _judged(name: str, distances: NDArray[np.float64], elapsed: float = 10.0) -> Row:
    result = verify(labelled(distances), elapsed)
    looked = [check for check in result.checks if check.windrow_verdict is not None]
    failed = [check for check in looked if not check.windrow_verdict]
    (network,) = (check for check in result.checks if check.check == "poc_distances")
    outcome = {True: ACCEPTED, False: REFUSED, None: "nothing to pay for"}[network.network_verdict]
    reason = "; ".join(check.reason for check in failed)
    return Row(name, outcome, REFUSED if failed else ACCEPTED, reason)
