"""What is asked of a generation server, and what any server's answer must hold up to."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from windrow.networks.grail.checkpoint import GenerationPolicy
from windrow.resources.generation.client import GenerationServerError, MalformedAnswer

BYTES_A_TOKEN: Final = 256
"""Room in an answer for a token: its id, and its text in JSON escapes."""
BYTES_A_SEQUENCE: Final = 64 * 1024


class RequestAborted(GenerationServerError):
    """A server gave a request up before it was done, because it was told to or could not go on."""


class WrongWeights(GenerationServerError):
    """A server sampled with other weights than those of the window's checkpoint."""


@dataclass(frozen=True)
class SampleRequest:
    """Completions to be sampled of one prompt by one server.

    prompt: int32 [P]. names: what the server calls each sequence, unique and of equal length, as
    servers match them by prefix. vocab_size, eos_token_id: of the checkpoint.
    """

    prompt: NDArray[np.int32]
    seeds: tuple[int, ...]
    policy: GenerationPolicy
    names: tuple[str, ...]
    vocab_size: int
    eos_token_id: int

    @classmethod
    def of(
        cls,
        prompt: NDArray[np.int32],
        seeds: Sequence[int],
        policy: GenerationPolicy,
        *,
        vocab_size: int,
        eos_token_id: int,
    ) -> "SampleRequest":
        """With fresh names."""
        request = cls(prompt, tuple(seeds), policy, (), vocab_size, eos_token_id)
        return request.renamed()

    def renamed(self) -> "SampleRequest":
        """The same for another attempt: a server may still be at work on this one's names."""
        return replace(self, names=tuple(uuid4().hex for _ in self.seeds))

    def largest_answer(self) -> int:
        """Bytes that an honest answer cannot exceed."""
        tokens = len(self.seeds) * self.policy.max_new_tokens
        return BYTES_A_TOKEN * tokens + BYTES_A_SEQUENCE * len(self.seeds)


def checked_tokens(ids: object, name: str, request: SampleRequest) -> NDArray[np.int32]:
    """Token ids of an answer as int32 [L]. Raises MalformedAnswer for anything that is none."""
    longest, vocab_size = request.policy.max_new_tokens, request.vocab_size
    if not isinstance(ids, list) or not 1 <= len(ids) <= longest:
        size = len(ids) if isinstance(ids, list) else None
        raise MalformedAnswer(f"completion {name} has {size} tokens, not 1 to {longest}")
    for token in ids:
        if type(token) is not int or not 0 <= token < vocab_size:
            raise MalformedAnswer(
                f"completion {name} holds {token!r:.40}, no token of the vocabulary of {vocab_size}"
            )
    return np.array(ids, dtype=np.int32)


def checked_reason(
    kind: object, tokens: NDArray[np.int32], name: str, request: SampleRequest
) -> str:
    """Why a completion ended, as `Completion` says it. Raises MalformedAnswer if it did not."""
    eos, longest = request.eos_token_id, request.policy.max_new_tokens
    if (tokens[:-1] == eos).any():
        raise MalformedAnswer(f"completion {name} goes on after its end of sequence")
    if kind == "stop" or tokens[-1] == eos:
        return "stop"
    if kind == "length" and len(tokens) == longest:
        return "length"
    raise MalformedAnswer(
        f"completion {name} ends after {len(tokens)} of {longest} tokens with {kind!r:.40}"
    )
