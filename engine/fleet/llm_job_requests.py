"""What is sent of a language-model job: to answer it, to load its model, to score its answers.

The prompts of a job come with the request, or as a volume: an object at an address that the asker
signed, as the network's executors get theirs, and the answer leaves the node the same way (§4.1).
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from windrow import WindrowError
from windrow.engine.fleet.frames import from_json, to_json
from windrow.engine.fleet.tasks import MAX_REQUEST_BYTES
from windrow.networks.compute_horde import llm_samples
from windrow.networks.compute_horde.volumes import FilePut, SingleFile

NETWORK: Final = "compute-horde"
MAX_PROMPTS: Final = llm_samples.SERIES_PROMPTS
MAX_TOKENS: Final = llm_samples.MAX_TOKENS
MAX_PROMPT_CHARACTERS: Final = 2000
MAX_SERIES_BYTES: Final = 1 << 20
"""All prompts of a job as a volume."""

PROMPTS_FILE: Final = "prompts.txt"
ANSWER_FILE: Final = "answer.frame"
"""What a job's folder calls them."""

MAX_URL_CHARACTERS: Final = 4096

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_SEED = re.compile(r"[0-9a-f]{32}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class BadJob(WindrowError):
    """A job or a request about one is malformed, or asks for more than is allowed."""


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
            job_hash(f"row {row}", bytes.fromhex(self.seed)) for row in range(len(self.prompts))
        ]
        return [
            (int.from_bytes(one[:4], "little"), int.from_bytes(one[4:8], "little"))
            for one in digests
        ]

    def to_json(self) -> bytes:
        """The request to answer it."""
        return to_json(asdict(self) | {"do": "answer"})


@dataclass(frozen=True)
class VolumeRequest:
    """A job whose prompts a node fetches, and whose answer it puts, at addresses signed for it.

    size, sha256: of the prompts' object. volume, upload: in the network's own form (§4.1); whoever
    has one of their addresses can read or write the object, so they are in no text of this.
    """

    job_id: str
    model: str
    seed: str
    max_tokens: int
    temperature: float
    top_p: float
    size: int
    sha256: str
    volume: SingleFile = field(repr=False)
    upload: FilePut = field(repr=False)

    def __post_init__(self) -> None:
        self.with_prompts(("?",))
        urls = self.volume.url, self.upload.url
        if not (
            type(self.size) is int
            and 0 < self.size <= MAX_SERIES_BYTES
            and is_sha256(self.sha256)
            and self.volume.relative_path == PROMPTS_FILE
            and self.upload.relative_path == ANSWER_FILE
            and not self.upload.signed_headers
            and all(len(url) <= MAX_URL_CHARACTERS for url in urls)
        ):
            raise BadJob(
                f"request about {self.job_id[:40]!r}: prompts of up to {MAX_SERIES_BYTES} bytes "
                f"with their SHA-256, {PROMPTS_FILE} to fetch and {ANSWER_FILE} to put without "
                f"headers, at addresses of up to {MAX_URL_CHARACTERS} characters, are taken"
            )

    @classmethod
    def of(cls, request: "Request", volume: SingleFile, upload: FilePut) -> "VolumeRequest":
        """The same request, its prompts as an object."""
        rest = {name: value for name, value in asdict(request).items() if name != "prompts"}
        data = series_bytes(request.prompts)
        digest = hashlib.sha256(data).hexdigest()
        return cls(**rest, size=len(data), sha256=digest, volume=volume, upload=upload)

    def with_prompts(self, prompts: tuple[str, ...]) -> "Request":
        """The request once the prompts are there. Raises BadJob."""
        return Request(
            self.job_id,
            self.model,
            self.seed,
            prompts,
            self.max_tokens,
            self.temperature,
            self.top_p,
        )

    def to_json(self) -> bytes:
        """The request to answer it; it holds both addresses."""
        models = {"volume": self.volume.model_dump(), "upload": self.upload.model_dump()}
        return to_json(vars(self) | models | {"do": "answer_volume"})


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


def read_request(data: bytes) -> Request | VolumeRequest | ScoreRequest | LoadRequest:
    """What a node was asked. Raises BadFrame and BadJob."""
    found = from_json(data)
    do, tokens = found.pop("do", None), found.pop("tokens", None)
    if do == "load" and tokens is None:
        if found.keys() != {"model"} or not isinstance(found["model"], str):
            raise BadJob("a request to load something else than one model")
        return LoadRequest(found["model"])
    if do == "answer_volume" and tokens is None:
        return _volume_request(found)
    prompts = found.get("prompts")
    if not isinstance(prompts, list):
        raise BadJob("a request without prompts")
    request = Request(**exact_fields(Request, found | {"prompts": tuple(prompts)}))
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


def exact_fields(kind: type[Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a dataclass, no more and no fewer. Raises BadJob."""
    names = {field.name for field in fields(kind)}
    if found.keys() != names:
        odd = sorted(found.keys() ^ names)
        raise BadJob(f"a {kind.__name__} with other fields than its own: {', '.join(odd)[:200]}")
    return dict(found)


def is_sha256(value: object) -> bool:
    """Whether it is a SHA-256 as hex."""
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def job_hash(label: str, data: bytes) -> bytes:
    """SHA-256 for one purpose of a job."""
    return hashlib.sha256(b"windrow-llm-job-v1\0" + label.encode() + b"\0" + data).digest()


def series_bytes(prompts: Sequence[str]) -> bytes:
    """A series: a prompt a line, as the network's generator writes it. Raises BadJob."""
    if [line for prompt in prompts for line in prompt.splitlines()] != list(prompts):
        raise BadJob("a prompt is empty or has more than one line")
    return "\n".join(prompts).encode()


def read_series(data: bytes) -> tuple[str, ...]:
    """The prompts of a series. Raises BadJob."""
    try:
        prompts = tuple(data.decode().split("\n"))
    except UnicodeDecodeError as error:
        raise BadJob(f"a series is no text: {error}") from error
    if not 0 < len(prompts) <= MAX_PROMPTS or not all(prompts):
        raise BadJob(f"a series has not 1 to {MAX_PROMPTS} prompts")
    return prompts


def _volume_request(found: Mapping[str, Any]) -> VolumeRequest:
    named = exact_fields(VolumeRequest, found)
    try:
        named["volume"] = SingleFile.model_validate(named["volume"], strict=True)
        named["upload"] = FilePut.model_validate(named["upload"], strict=True)
    except ValidationError:
        # What it says holds the addresses.
        raise BadJob("a request whose volume or upload is not a single file's") from None
    return VolumeRequest(**named)
