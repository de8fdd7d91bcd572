"""What a participant's batches are worth: every hole of the network's check closed (§10.4, §16).

Pure in three steps, so whoever has the device computes in between: `read_claims` takes batches as
they came, `sample` says what to compute again, `judge` decides. The order batches or nonces came in
changes nothing.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from windrow.kernels.tails import binomial_tail
from windrow.networks.gonka.poc_capacity import Partition
from windrow.networks.gonka.sampling import SAMPLE_SIZE, strict_sample

TOLERANCE: Final = 5e-4
"""Between two honest distances of one nonce, in float16 or float32; measured: below 6e-5."""

_EXAMPLES: Final = 10


@dataclass(frozen=True)
class StrictRules:
    """What is asked of a stage's batches.

    stage_height: block of the stage's start; window: first and last block that batches count in.
    tolerance: most that distances may differ. p_mismatch: share of honest nonces that differ by
    more (calibrate it). least_probability: of an honest sample as bad as the one seen.
    most_mismatches: hard limit, whatever the probability. partitions: the participant's share of
    nonces, None where any will do. most_nonces: in all batches together.
    """

    r_target: float
    stage_height: int
    window: tuple[int, int]
    tolerance: float = TOLERANCE
    p_mismatch: float = 1e-5
    least_probability: float = 1e-3
    most_mismatches: int = 1
    sample_size: int = SAMPLE_SIZE
    sample_share: float = 0.01
    partitions: Sequence[Partition] | None = None
    most_nonces: int = 10_000_000


@dataclass(frozen=True)
class Batch:
    """One `MsgSubmitPocBatch` as it came: nothing of it is checked yet."""

    batch_id: str
    stage_height: int
    received_height: int
    nonces: Any
    distances: Any


@dataclass(frozen=True)
class Finding:
    """Something wrong: how often, and the first cases of it (batch ids or nonces)."""

    code: str
    count: int
    examples: tuple[Any, ...]


@dataclass(frozen=True)
class Claims:
    """What is left to be believed: distance by nonce, ascending; and what was wrong."""

    distances: Mapping[int, float]
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Verdict:
    """The decision. weight: nonces that count, 0 where refused. reasons: why, empty if accepted."""

    accepted: bool
    weight: int
    sampled: int
    mismatched: tuple[int, ...]
    probability_honest: float
    findings: tuple[Finding, ...]
    reasons: tuple[str, ...]


def read_claims(batches: Sequence[Batch], rules: StrictRules) -> Claims:
    """Well-formed claims, one per nonce: of several the one in the earliest block counts."""
    found: dict[str, list[Any]] = {}
    claims: dict[int, float] = {}
    left = rules.most_nonces
    for batch in sorted(batches, key=lambda batch: (batch.received_height, str(batch.batch_id))):
        fault = _fault(batch, rules, left)
        if fault is not None:
            found.setdefault(fault, []).append(batch.batch_id)
            continue
        left -= len(batch.nonces)
        for nonce, distance in sorted(zip(batch.nonces, batch.distances, strict=True)):
            code = _nonce_fault(nonce, distance, claims, rules)
            if code is None:
                claims[nonce] = distance
            else:
                found.setdefault(code, []).append(nonce)
    findings = (
        Finding(code, len(cases), tuple(sorted(cases, key=str)[:_EXAMPLES]))
        for code, cases in sorted(found.items())
    )
    return Claims({nonce: claims[nonce] for nonce in sorted(claims)}, tuple(findings))


def sample(claims: Claims, randomness: bytes, rules: StrictRules) -> list[int]:
    """Nonces to compute again, ascending. randomness: see `sampling.strict_sample`."""
    nonces = list(claims.distances)
    size = max(rules.sample_size, math.ceil(rules.sample_share * len(nonces)))
    return [nonces[i] for i in strict_sample(randomness, len(nonces), size)]


def judge(
    claims: Claims,
    recomputed: Mapping[int, float],
    rules: StrictRules,
    *,
    passes_per_second: float = 0.0,
    most_per_second: float = math.inf,
) -> Verdict:
    """The decision over a sample.

    recomputed: distances of the nonces sampled, NaN included. passes_per_second: forward passes
    that the claims stand for; most_per_second: what the declared hardware can do.
    """
    bad = [
        nonce
        for nonce, distance in sorted(recomputed.items())
        if not agrees(claims.distances[nonce], distance, rules)
    ]
    probability = binomial_tail(len(recomputed), len(bad), rules.p_mismatch)
    reasons = []
    if not claims.distances:
        reasons.append("no claim is left to be believed")
    elif not recomputed:
        reasons.append("nothing was computed again")
    if len(recomputed) < 3:
        if bad:
            reasons.append(f"{len(bad)} of only {len(recomputed)} sampled nonces are false")
    elif len(bad) > rules.most_mismatches:
        reasons.append(
            f"{len(bad)} of {len(recomputed)} sampled nonces are false; at most "
            f"{rules.most_mismatches} may be"
        )
    elif probability < rules.least_probability:
        reasons.append(f"an honest sample is as bad with a probability of {probability:.1e}")
    if not passes_per_second <= most_per_second:
        reasons.append(
            f"{passes_per_second:.3g} passes a second; the hardware does {most_per_second:.3g}"
        )
    accepted = not reasons
    return Verdict(
        accepted,
        len(claims.distances) if accepted else 0,
        len(recomputed),
        tuple(bad),
        probability,
        claims.findings,
        tuple(reasons),
    )


def agrees(claimed: float, recomputed: float, rules: StrictRules) -> bool:
    """Whether a claim is the distance computed again, and that a success; NaN is neither."""
    near = abs(recomputed - claimed) <= rules.tolerance
    return near and recomputed < rules.r_target + rules.tolerance


def verified(
    batches: Sequence[Batch],
    rules: StrictRules,
    randomness: bytes,
    recompute: Callable[[list[int]], Sequence[float]],
) -> Verdict:
    """All three steps. recompute: distances of nonces, in order."""
    claims = read_claims(batches, rules)
    nonces = sample(claims, randomness, rules)
    return judge(claims, dict(zip(nonces, recompute(nonces), strict=True)), rules)


def _fault(batch: Batch, rules: StrictRules, left: int) -> str | None:
    lists = isinstance(batch.nonces, list | tuple) and isinstance(batch.distances, list | tuple)
    if not batch.batch_id or not lists or not batch.nonces:
        return "MALFORMED_BATCH"
    if len(batch.nonces) != len(batch.distances) or len(batch.nonces) > left:
        return "MALFORMED_BATCH"
    if batch.stage_height != rules.stage_height:
        return "WRONG_STAGE"
    if not rules.window[0] <= batch.received_height <= rules.window[1]:
        return "OUTSIDE_WINDOW"
    if any(type(nonce) is not int or not 0 <= nonce < 2**63 for nonce in batch.nonces):
        return "MALFORMED_BATCH"
    numbers = all(type(dist) in (int, float) for dist in batch.distances)
    if not numbers or not all(0 <= dist <= 2 for dist in batch.distances):
        return "MALFORMED_BATCH"
    return None


def _nonce_fault(
    nonce: int, distance: float, claims: Mapping[int, float], rules: StrictRules
) -> str | None:
    if nonce in claims:
        same = abs(claims[nonce] - distance) <= rules.tolerance
        return "DUPLICATE_NONCES" if same else "CONTRADICTED_NONCES"
    if not distance < rules.r_target:
        return "ABOVE_TARGET"
    if rules.partitions is not None and not any(nonce in part for part in rules.partitions):
        return "FOREIGN_NONCES"
    return None
