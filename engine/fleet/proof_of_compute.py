"""Gonka's proof of compute v1 as a check of a node: asked, answered, verified (gonka §9).

A node answers with the distance of every nonce of a range, not only of the successes, so that each
can be asked for: which ones are computed again is drawn after the answer is in. The network's
verdict is over the successes alone, with the sample it draws from what everybody knows.
"""

import hashlib
import math
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from windrow.engine.fleet.checks import NodeCheck
from windrow.engine.fleet.frames import BadFrame, from_json, pack, to_json, unpack
from windrow.engine.fleet.poc_model import BlockModel
from windrow.engine.fleet.tasks import BadRequest
from windrow.kernels.decoder import DecoderShape
from windrow.networks.gonka.poc_batches import (
    FRAUD_THRESHOLD,
    ProofBatch,
    ReceivedAboveTarget,
    network_fraud_test,
)
from windrow.networks.gonka.poc_model import PARAMETER_SETS, draw_pool, pool_size
from windrow.networks.gonka.poc_nonces import R_TARGET, r_target_for
from windrow.networks.gonka.sampling import SAMPLE_SIZE, network_sample, strict_sample
from windrow.networks.gonka.strict import Claims, StrictRules, judge

MAX_COUNT: Final = 1 << 16
MAX_NONCE: Final = 1 << 53
MAX_ANSWER_BYTES: Final = 8 * MAX_COUNT + 4096
_MAX_REQUEST: Final = 4096
_BATCH: Final = 32
_HASH = re.compile("[0-9A-F]{64}")
_KEY = re.compile("0[23][0-9a-f]{64}")


@dataclass(frozen=True)
class Challenge:
    """Nonces start, start + stride, ... of one key, for the model of one block.

    block_hash: 64 upper-case, public_key: 66 lower-case hexadecimal digits. parameters: a name of
    `PARAMETER_SETS`; those of the network need a GPU. A block hash that was not known before makes
    an answer that could not be made before.
    """

    block_hash: str
    block_height: int
    public_key: str
    parameters: str
    start: int
    stride: int
    count: int

    def __post_init__(self) -> None:
        texts = (self.block_hash, self.public_key, self.parameters)
        numbers = (self.block_height, self.start, self.stride, self.count)
        sound = (
            all(isinstance(text, str) for text in texts)
            and all(type(number) is int for number in numbers)
            and _HASH.fullmatch(self.block_hash)
            and _KEY.fullmatch(self.public_key)
            and self.parameters in PARAMETER_SETS
            and 0 <= self.block_height < MAX_NONCE
            and self.start >= 0
            and self.stride >= 1
            and 1 <= self.count <= MAX_COUNT
            and self.start + self.stride * self.count <= MAX_NONCE
        )
        if not sound:
            raise BadRequest(
                "a proof of compute needs a block hash, a public key, one of "
                f"{', '.join(PARAMETER_SETS)} and 1 to {MAX_COUNT} nonces below 2^53"
            )

    @property
    def shape(self) -> DecoderShape:
        return PARAMETER_SETS[self.parameters]

    @property
    def nonces(self) -> range:
        return range(self.start, self.start + self.stride * self.count, self.stride)

    @property
    def r_target(self) -> float:
        """The deployed one for the network's sets; for others what one in twenty is below."""
        vocab_size = self.shape.vocab_size
        return R_TARGET if self.parameters in ("V1", "V2") else r_target_for(0.05, vocab_size)

    def to_bytes(self) -> bytes:
        """The request of this challenge."""
        return to_json(self.__dict__)


@dataclass(frozen=True)
class Result:
    """What an answer came to. nonces_per_second: of the whole range, over the asker's seconds.

    mismatched: nonces computed again that differ. successes: what the node could hand in to the
    network. checks: the findings.
    """

    checks: tuple[NodeCheck, ...]
    nonces_per_second: float = 0.0
    sampled: int = 0
    mismatched: tuple[int, ...] = ()
    successes: ProofBatch | None = None


def read_challenge(request: bytes) -> Challenge:
    """A challenge as a node receives it. Raises BadRequest, BadFrame."""
    fields = from_json(request, max_bytes=_MAX_REQUEST)
    if fields.keys() != Challenge.__dataclass_fields__.keys():
        raise BadRequest("a proof of compute was asked for with other fields than it has")
    return Challenge(**fields)


def answer(request: bytes) -> bytes:
    """The node's side: distances of all nonces, computed on every GPU, else on the processor.

    Raises BadRequest where the request is none, or asks a machine without a GPU for the network's
    model.
    """
    challenge = read_challenge(request)
    devices = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if not devices and challenge.parameters != "tiny":
        raise BadRequest(
            f"{challenge.parameters} takes a GPU and torch sees none here; ask for 'tiny', or mend "
            "the driver"
        )
    return answered(challenge, devices or ["cpu"])


def answered(challenge: Challenge, devices: Sequence[str]) -> bytes:
    """An answer computed on these torch devices, each with its share of the nonces."""
    pool = draw_pool(challenge.block_hash, pool_size(challenge.shape))
    distances = np.empty(challenge.count)

    def compute(index: int) -> None:
        model = BlockModel(challenge.block_hash, challenge.shape, device=devices[index], pool=pool)
        share = challenge.nonces[index :: len(devices)]
        distances[index :: len(devices)] = model.distances(
            challenge.public_key, share, batch_size=_BATCH
        )

    with ThreadPoolExecutor(len(devices)) as threads:
        list(threads.map(compute, range(len(devices))))
    header = {"challenge": digest(challenge), "devices": [_device_name(d) for d in devices]}
    return pack(header, {"distances": distances})


def verify(
    challenge: Challenge,
    answer: bytes,
    elapsed: float,
    *,
    randomness: bytes,
    validator_key: str,
    model: BlockModel | None = None,
    sample_size: int = SAMPLE_SIZE,
    network_sample_size: int = SAMPLE_SIZE,
    least_per_second: float | None = None,
    peak_tflops: float | None = None,
) -> Result:
    """What an answer shows.

    elapsed: seconds the asker measured. randomness: drawn after the answer came in.
    validator_key: whose sample the network's verdict is over. model: computes the samples, on the
    processor where none is given; V2 takes that minutes a nonce, so give one on a GPU.
    sample_size: nonces computed again, at least; 1 % of many. network_sample_size: 0 leaves the
    network's verdict out. least_per_second: nonces the cards should do. peak_tflops: what they can
    do at most all together, in float16.
    """
    try:
        claimed = _claimed(challenge, answer)
    except BadFrame as error:
        reason = f"no answer to this challenge: {error}"
        return Result((NodeCheck("poc_answer", "gonka", False, False, reason=reason),))
    if model is None:
        model = BlockModel(challenge.block_hash, challenge.shape)
    rate = challenge.count / elapsed if elapsed > 0 else math.inf
    # Every nonce is claimed here, not only successes, so no distance is too large.
    rules = StrictRules(r_target=2.0, stage_height=0, window=(0, 0), sample_size=sample_size)
    size = max(sample_size, math.ceil(rules.sample_share * challenge.count))
    rows = strict_sample(randomness, challenge.count, size)
    successes = np.flatnonzero(claimed < challenge.r_target).tolist()
    seen = _network_rows(challenge, successes, validator_key, network_sample_size)
    again = _recomputed(challenge, model, sorted({*rows, *seen}))

    nonces = challenge.nonces
    claims = Claims({nonces[row]: float(claimed[row]) for row in rows}, ())
    verdict = judge(claims, {nonces[row]: again[row] for row in rows}, rules)
    named = [f"nonces {', '.join(map(str, verdict.mismatched[:5]))}"] if verdict.mismatched else []
    distances = NodeCheck(
        "poc_distances",
        "gonka",
        _network_verdict(challenge, claimed, again, seen),
        verdict.accepted,
        measured=float(len(verdict.mismatched)),
        needed=float(rules.most_mismatches if len(rows) >= 3 else 0),
        unit="mismatches",
        reason="; ".join([*verdict.reasons, *named]),
        remedy="" if verdict.accepted else "compute every nonce with the model of this block",
    )
    handed_in = ProofBatch(
        challenge.public_key,
        challenge.block_hash,
        challenge.block_height,
        nonces=tuple(nonces[row] for row in successes),
        distances=tuple(float(claimed[row]) for row in successes),
    )
    formed = NodeCheck("poc_answer", "gonka", True, True)
    speed = _rate_check(challenge, rate, least_per_second, peak_tflops)
    checks = (formed, distances, speed)
    return Result(checks, rate, len(rows), verdict.mismatched, handed_in)


def _claimed(challenge: Challenge, answer: bytes) -> NDArray[np.float64]:
    header, arrays = unpack(
        answer, max_bytes=MAX_ANSWER_BYTES, expected={"distances": ("f8", (challenge.count,))}
    )
    if header.get("challenge") != digest(challenge):
        raise BadFrame("it names another challenge")
    if len(arrays["distances"]) != challenge.count:
        raise BadFrame(f"{len(arrays['distances'])} distances for {challenge.count} nonces")
    return arrays["distances"]


def _network_rows(
    challenge: Challenge, successes: Sequence[int], validator_key: str, size: int
) -> list[int]:
    sampled = network_sample(
        validator_key, challenge.block_hash, challenge.block_height, len(successes), size
    )
    return [successes[i] for i in sampled]


def _recomputed(challenge: Challenge, model: BlockModel, rows: Sequence[int]) -> dict[int, float]:
    nonces = [challenge.nonces[row] for row in rows]
    found = model.distances(challenge.public_key, nonces, batch_size=_BATCH)
    return dict(zip(rows, found.tolist(), strict=True))


def _network_verdict(
    challenge: Challenge, claimed: NDArray[Any], again: dict[int, float], seen: Sequence[int]
) -> bool | None:
    if not seen:
        return None  # Nothing to hand in, or nothing of it is to be looked at.
    if (claimed < 0).any():
        return False  # The chain takes no negative distance.
    try:
        test = network_fraud_test(
            [again[row] for row in seen],
            [float(claimed[row]) for row in seen],
            challenge.r_target,
            FRAUD_THRESHOLD,
        )
    except ReceivedAboveTarget:
        return False
    return not test.fraud


def _rate_check(
    challenge: Challenge, rate: float, least: float | None, peak_tflops: float | None
) -> NodeCheck:
    """The network does not look at the rate of a node."""
    most = None if peak_tflops is None else peak_tflops * 1e12 / challenge.shape.flops
    reason = ""
    if most is not None and rate > most:
        reason = f"faster than the declared cards can be: {most:.3g} nonces a second"
    elif least is not None and rate < least:
        reason = "slower than the declared cards"
    measured = (most, least) != (None, None)
    return NodeCheck(
        "poc_rate",
        "gonka",
        None,
        not reason if measured else None,
        measured=rate if math.isfinite(rate) else None,
        needed=least,
        unit="nonces/s",
        reason=reason or ("" if measured else "no rate of these cards is known yet"),
        remedy="compare the cards, their clocks and other processes on them" if reason else "",
    )


def digest(challenge: Challenge) -> str:
    """What an answer names its challenge by."""
    return hashlib.sha256(challenge.to_bytes()).hexdigest()


def _device_name(device: str) -> str:
    return "cpu" if device == "cpu" else torch.cuda.get_device_name(device)
