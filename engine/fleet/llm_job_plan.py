"""What a language-model job asks: prompts nobody knew before, a seed of its own, and the requests.

Everything follows from one secret, drawn for this job alone: the prompts, the seed of the draws,
and which answer the network would have looked at. Its commitment is made public before the job
and the secret after it, so anyone can see that nothing was chosen for the node, and no node can
have known a prompt.
"""

import hashlib
import itertools
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from windrow import WindrowError
from windrow.engine.fleet.frames import from_json, to_json
from windrow.engine.fleet.llm_job_prompts import distinct_prompts
from windrow.engine.fleet.tasks import MAX_REQUEST_BYTES
from windrow.networks.compute_horde import llm_samples

MAX_PROMPTS: Final = llm_samples.SERIES_PROMPTS
MAX_TOKENS: Final = llm_samples.MAX_TOKENS
MAX_PROMPT_CHARACTERS: Final = 2000
MAX_LIMIT_SECONDS: Final = 86_400

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NODE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_SEED = re.compile(r"[0-9a-f]{32}")
_SECRET = re.compile(r"[0-9a-f]{64}")


class BadJob(WindrowError):
    """A job or a request about one is malformed, or asks for more than is allowed."""


@dataclass(frozen=True)
class Job:
    """One job for one node.

    secret: hex of 32 random bytes, shown to nobody until the answer is there. prompts: how many.
    max_tokens: of each answer. limit_seconds: from asking to the answer.
    """

    job_id: str
    node: str
    model: str
    secret: str
    prompts: int = MAX_PROMPTS
    max_tokens: int = MAX_TOKENS
    temperature: float = llm_samples.TEMPERATURE
    top_p: float = llm_samples.TOP_P
    limit_seconds: float = llm_samples.TIMEOUT_SECONDS

    def __post_init__(self) -> None:
        if not (
            all(isinstance(text, str) for text in (self.job_id, self.node, self.secret))
            and _UUID.fullmatch(self.job_id)
            and _NODE.fullmatch(self.node)
            and _SECRET.fullmatch(self.secret)
            and type(self.prompts) is int
            and 0 < self.prompts <= MAX_PROMPTS
            and isinstance(self.limit_seconds, int | float)
            and 0 < self.limit_seconds <= MAX_LIMIT_SECONDS
        ):
            raise BadJob(
                f"job {str(self.job_id)[:40]!r} for {str(self.node)[:40]!r}: a UUID, a node's "
                f"name, a secret of 32 bytes in hex, up to {MAX_PROMPTS} prompts and a limit up to "
                "a day are needed"
            )
        self.request()

    def commitment(self) -> str:
        """SHA-256 of all of it, hex: made public before the job, opened by the job itself."""
        return _hash("commitment", to_json(asdict(self))).hex()

    def texts(self) -> tuple[str, ...]:
        """The prompts, each once."""
        digests = (self._part(f"prompt {place}") for place in itertools.count())
        return distinct_prompts(digests, self.prompts)

    def known(self) -> int:
        """The place of the one prompt that the network would know the answer of."""
        return int.from_bytes(self._part("known"), "big") % self.prompts

    def request(self) -> "Request":
        """What is sent: nothing of it tells the secret, or another job's prompts."""
        return Request(
            self.job_id,
            self.model,
            self._part("draws").hex()[:32],
            self.texts(),
            self.max_tokens,
            self.temperature,
            self.top_p,
        )

    def to_json(self) -> bytes:
        """The job as it is kept and, after its end, made public."""
        return to_json(asdict(self))

    @classmethod
    def from_json(cls, data: bytes) -> "Job":
        """Raises BadFrame and BadJob."""
        return cls(**_fields(cls, from_json(data)))

    def _part(self, label: str) -> bytes:
        return _hash(label, bytes.fromhex(self.secret))


@dataclass(frozen=True)
class Request:
    """What a node is asked to answer. seed: hex, of the draws of every token."""

    job_id: str
    model: str
    seed: str
    prompts: tuple[str, ...]
    max_tokens: int
    temperature: float
    top_p: float

    def __post_init__(self) -> None:
        prompts = self.prompts
        if not (
            all(isinstance(text, str) for text in (self.job_id, self.model, self.seed, *prompts))
            and _UUID.fullmatch(self.job_id)
            and _MODEL.fullmatch(self.model)
            and _SEED.fullmatch(self.seed)
            and 0 < len(prompts) <= MAX_PROMPTS
            and len(set(prompts)) == len(prompts)
            and all(0 < len(prompt) <= MAX_PROMPT_CHARACTERS for prompt in prompts)
            and type(self.max_tokens) is int
            and 0 < self.max_tokens <= MAX_TOKENS
            and isinstance(self.temperature, int | float)
            and isinstance(self.top_p, int | float)
            and 0.01 <= self.temperature <= 10
            and 0 < self.top_p <= 1
        ):
            raise BadJob(
                f"request about {str(self.job_id)[:40]!r} with the model {str(self.model)[:40]!r}: "
                f"up to {MAX_PROMPTS} different prompts of {MAX_PROMPT_CHARACTERS} characters, "
                f"{MAX_TOKENS} tokens, a seed of 16 bytes, a temperature and a top_p are taken"
            )

    def keys(self) -> list[tuple[int, int]]:
        """For each prompt the key of its draws: two 32-bit words."""
        digests = [
            _hash(f"row {row}", bytes.fromhex(self.seed)) for row in range(len(self.prompts))
        ]
        return [
            (int.from_bytes(one[:4], "little"), int.from_bytes(one[4:8], "little"))
            for one in digests
        ]

    def to_json(self) -> bytes:
        """The request to answer it."""
        return to_json(asdict(self) | {"do": "answer"})


@dataclass(frozen=True)
class ScoreRequest:
    """What a trusted node is asked of another's answer. tokens: int32 [L] of each prompt's."""

    request: Request
    tokens: tuple[NDArray[np.int32], ...]

    def to_json(self) -> bytes:
        """The request to score it. Raises BadJob if it is larger than a request may be."""
        data = to_json(
            asdict(self.request) | {"do": "score", "tokens": [one.tolist() for one in self.tokens]}
        )
        if len(data) > MAX_REQUEST_BYTES:
            raise BadJob(
                f"scoring {len(self.tokens)} answers takes a request of {len(data)} bytes; at most "
                f"{MAX_REQUEST_BYTES} are read: ask fewer prompts"
            )
        return data


@dataclass(frozen=True)
class LoadRequest:
    """Have a node load a model, so that the time of its next job is the job's alone."""

    model: str

    def to_json(self) -> bytes:
        """The request to load it."""
        return to_json({"do": "load", "model": self.model})


def read_request(data: bytes) -> Request | ScoreRequest | LoadRequest:
    """What a node was asked. Raises BadFrame and BadJob."""
    found = from_json(data)
    do, tokens = found.pop("do", None), found.pop("tokens", None)
    if do == "load" and tokens is None:
        if found.keys() != {"model"} or not isinstance(found["model"], str):
            raise BadJob("a request to load something else than one model")
        return LoadRequest(found["model"])
    prompts = found.get("prompts")
    if not isinstance(prompts, list):
        raise BadJob("a request without prompts")
    request = Request(**_fields(Request, found | {"prompts": tuple(prompts)}))
    if do == "answer" and tokens is None:
        return request
    if do != "score" or not isinstance(tokens, list) or len(tokens) != len(prompts):
        raise BadJob(
            f"{str(do)[:40]!r} is nothing to do; answer, or score the tokens of each prompt"
        )
    return ScoreRequest(request, tuple(_token_row(row, request.max_tokens) for row in tokens))


def _token_row(row: object, most: int) -> NDArray[np.int32]:
    if (
        not isinstance(row, list)
        or not 0 < len(row) <= most
        or not all(type(token) is int and 0 <= token < 1 << 31 for token in row)
    ):
        raise BadJob(f"tokens to score: 1 to {most} token ids of each prompt are taken")
    return np.array(row, np.int32)


def _fields(kind: type[Any], found: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    if found.keys() != names:
        odd = sorted(found.keys() ^ names)
        raise BadJob(f"a {kind.__name__} with other fields than its own: {', '.join(odd)[:200]}")
    return dict(found)


def _hash(label: str, data: bytes) -> bytes:
    return hashlib.sha256(b"windrow-llm-job-v1\0" + label.encode() + b"\0" + data).digest()
