"""The bytes of a job's answer and of what a trusted node says of one, read as from strangers."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from windrow import WindrowError
from windrow.engine.fleet.frames import from_json, pack, to_json, unpack
from windrow.engine.fleet.llm_job_requests import MAX_PROMPTS, MAX_TOKENS, Request

MAX_TEXT_BYTES: Final = 4 << 20
"""All answers of a job as JSON."""

MAX_ANSWER_BYTES: Final = MAX_TEXT_BYTES + 12 * MAX_PROMPTS * MAX_TOKENS + (64 << 10)

MAX_LOADED_BYTES: Final = 4096

_ALL: Final = MAX_PROMPTS * MAX_TOKENS
_DTYPE = re.compile(r"[a-z][a-z0-9_]{0,31}")


class BadAnswer(WindrowError):
    """Bytes that are no answer to the job that was asked."""


@dataclass(frozen=True)
class Answered:
    """One prompt's answer. tokens: int32 [L], the end of text included if the model ended.

    logprobs: float32 [L], at temperature 1.
    """

    text: str
    tokens: NDArray[np.int32]
    logprobs: NDArray[np.float32]


@dataclass(frozen=True)
class Answers:
    """claimed_seconds: what the node says it took."""

    answered: tuple[Answered, ...]
    claimed_seconds: float

    def texts(self, prompts: Sequence[str]) -> dict[str, str]:
        """By prompt, as the network's nodes write them."""
        return {prompt: one.text for prompt, one in zip(prompts, self.answered, strict=True)}

    def token_rows(self) -> tuple[NDArray[np.int32], ...]:
        """Tokens of each answer."""
        return tuple(one.tokens for one in self.answered)


@dataclass(frozen=True)
class Score:
    """What a trusted node says of one answer's tokens.

    logprobs: float32 [L], its own. gaps: float32 [L], nats by which the token drawn falls short of
    the one that the seed draws, 0 where they are the same, infinite where it could not be drawn.
    text: the tokens as text. ended: whether they end as the model's answers do.
    """

    logprobs: NDArray[np.float32]
    gaps: NDArray[np.float32]
    text: str
    ended: bool


@dataclass(frozen=True)
class Loaded:
    """A node's answer to loading a model: the numbers it is stored in, and those it computes in."""

    model: str
    stored: str
    computes: str

    def to_json(self) -> bytes:
        """As it travels."""
        return to_json(vars(self))


def read_loaded(data: bytes, model: str) -> Loaded:
    """What a node says of a model it was asked to load. Raises BadFrame and BadAnswer."""
    found = from_json(data, max_bytes=MAX_LOADED_BYTES)
    words = found.get("stored"), found.get("computes")
    if found.keys() != {"model", "stored", "computes"} or found["model"] != model:
        raise BadAnswer("it does not say how it loaded the model that was asked for")
    if not all(isinstance(word, str) and _DTYPE.fullmatch(word) for word in words):
        raise BadAnswer("it does not say in which numbers the model computes")
    return Loaded(model, str(found["stored"]), str(found["computes"]))


def pack_answers(request: Request, answered: Sequence[Answered], seconds: float) -> bytes:
    """The answer to a job: a frame whose texts are the network's map of prompts to answers."""
    texts = {prompt: one.text for prompt, one in zip(request.prompts, answered, strict=True)}
    return pack(
        {"job": request.job_id, "model": request.model, "seconds": seconds},
        {
            "lengths": np.array([len(one.tokens) for one in answered], np.int32),
            "logprobs": np.concatenate([one.logprobs for one in answered]),
            "texts": np.frombuffer(to_json(texts), np.uint8),
            "tokens": np.concatenate([one.tokens for one in answered]),
        },
    )


def read_answers(data: bytes, request: Request) -> Answers:
    """A node's answers, one to each prompt. Raises BadFrame and BadAnswer."""
    header, arrays = unpack(
        data,
        max_bytes=MAX_ANSWER_BYTES,
        expected={
            "lengths": ("i4", (MAX_PROMPTS,)),
            "logprobs": ("f4", (_ALL,)),
            "texts": ("u1", (MAX_TEXT_BYTES,)),
            "tokens": ("i4", (_ALL,)),
        },
        max_header_bytes=4096,
    )
    seconds = header.get("seconds")
    if (header.get("job"), header.get("model")) != (request.job_id, request.model):
        raise BadAnswer("it is the answer to another job, or of another model")
    if (type(seconds) is not float and type(seconds) is not int) or not 0 <= seconds <= 1e9:
        raise BadAnswer(f"it says it took {str(seconds)[:40]} s")
    texts = from_json(arrays["texts"].tobytes(), max_bytes=MAX_TEXT_BYTES)
    if texts.keys() != set(request.prompts):
        missing = len(set(request.prompts) - texts.keys())
        raise BadAnswer(f"{missing} of {len(request.prompts)} prompts have no answer")
    if not all(isinstance(text, str) for text in texts.values()):
        raise BadAnswer("an answer is no text")
    rows = _rows(arrays["lengths"], request, arrays["tokens"], arrays["logprobs"])
    if arrays["tokens"].min(initial=0) < 0 or not np.isfinite(arrays["logprobs"]).all():
        raise BadAnswer("token ids below 0, or log-probabilities that are no numbers")
    answered = [
        Answered(texts[prompt], tokens, logprobs)
        for prompt, (tokens, logprobs) in zip(request.prompts, rows, strict=True)
    ]
    return Answers(tuple(answered), float(seconds))


def pack_scores(
    request: Request, tokens: Sequence[NDArray[np.int32]], scores: Sequence[Score]
) -> bytes:
    """What a trusted node says of an answer's tokens."""
    return pack(
        {"job": request.job_id, "model": request.model, "tokens": tokens_digest(tokens)},
        {
            "ended": np.array([one.ended for one in scores], np.uint8),
            "gaps": np.concatenate([one.gaps for one in scores]),
            "lengths": np.array([len(one.gaps) for one in scores], np.int32),
            "logprobs": np.concatenate([one.logprobs for one in scores]),
            "texts": np.frombuffer(to_json({"texts": [one.text for one in scores]}), np.uint8),
        },
    )


def read_scores(
    data: bytes, request: Request, tokens: Sequence[NDArray[np.int32]]
) -> tuple[Score, ...]:
    """A trusted node's scores of just these tokens. Raises BadFrame and BadAnswer."""
    header, arrays = unpack(
        data,
        max_bytes=MAX_ANSWER_BYTES,
        expected={
            "ended": ("u1", (MAX_PROMPTS,)),
            "gaps": ("f4", (_ALL,)),
            "lengths": ("i4", (MAX_PROMPTS,)),
            "logprobs": ("f4", (_ALL,)),
            "texts": ("u1", (MAX_TEXT_BYTES,)),
        },
        max_header_bytes=4096,
    )
    wanted = {"job": request.job_id, "model": request.model, "tokens": tokens_digest(tokens)}
    texts = from_json(arrays["texts"].tobytes(), max_bytes=MAX_TEXT_BYTES).get("texts")
    if (
        header != wanted
        or not isinstance(texts, list)
        or len(texts) != len(tokens)
        or len(arrays["ended"]) != len(tokens)
        or arrays["lengths"].tolist() != [len(row) for row in tokens]
    ):
        raise BadAnswer("the trusted node's scores are not of the answer it was asked about")
    rows = _rows(arrays["lengths"], request, arrays["logprobs"], arrays["gaps"])
    return tuple(
        Score(logprobs, gaps, str(text), bool(ended))
        for (logprobs, gaps), text, ended in zip(rows, texts, arrays["ended"], strict=True)
    )


def tokens_digest(tokens: Sequence[NDArray[np.int32]]) -> str:
    """SHA-256 of an answer's tokens, hex."""
    digest = hashlib.sha256()
    for row in tokens:
        digest.update(len(row).to_bytes(4, "little") + row.astype("<i4").tobytes())
    return digest.hexdigest()


def _rows(
    lengths: NDArray[np.int32], request: Request, *arrays: NDArray[Any]
) -> list[tuple[NDArray[Any], ...]]:
    if (
        len(lengths) != len(request.prompts)
        or lengths.min(initial=1) < 1
        or lengths.max(initial=1) > request.max_tokens
        or any(len(array) != int(lengths.sum()) for array in arrays)
    ):
        raise BadAnswer(f"not 1 to {request.max_tokens} tokens for each prompt")
    ends = np.cumsum(lengths)[:-1].tolist()
    return list(zip(*(np.split(array, ends) for array in arrays), strict=True))
