"""What the window loop needs from outside, as small interfaces; `resources/` implements them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from windrow import WindrowError
from windrow.environments.evaluation import Evaluation
from windrow.environments.tasks import Task
from windrow.networks.grail.checkpoint import GenerationPolicy


class GenerationCancelled(WindrowError):
    """A generation was told to stop before it was done; it says nothing of the completions."""


class ProofCancelled(WindrowError):
    """A proof was told to stop before it was done."""


@dataclass(frozen=True)
class Completion:
    """One sampled completion.

    tokens: int32 [L], the end-of-sequence token included when the model produced it.
    finish_reason: "stop" (ended by EOS) or "length" (reached the policy's max_new_tokens).
    """

    tokens: NDArray[np.int32]
    finish_reason: str


class Generator(Protocol):
    """Samples completions of one prompt; equal seeds give equal completions.

    Its methods may be called from several threads at once.
    """

    @property
    def lanes(self) -> int:
        """Calls worth having in flight at once."""
        ...

    def generate(
        self, prompt: NDArray[np.int32], seeds: Sequence[int], policy: GenerationPolicy
    ) -> list[Completion]:
        """One completion per seed, in order. Raises GenerationCancelled after `cancel`."""
        ...

    def cancel(self) -> None:
        """Have the calls in flight stop and raise GenerationCancelled; later calls work again."""
        ...


@dataclass(frozen=True)
class Proof:
    """Proof of one token sequence of length L.

    sketches: int32 [L], activation sketch of every position, in [0, 2^31-1) (§4.3).
    logprobs: float32 [L], temperature-1 log-probs; zero over the prompt (§6.3).
    """

    sketches: NDArray[np.int32]
    logprobs: NDArray[np.float32]


class Prover(Protocol):
    """Runs the proof forward pass. Its methods may be called from several threads at once."""

    @property
    def lanes(self) -> int:
        """Calls worth having in flight at once."""
        ...

    def prove(
        self,
        sequences: Sequence[NDArray[np.int32]],
        prompt_lengths: Sequence[int],
        coefficients: NDArray[np.int8],
    ) -> list[Proof]:
        """One proof per sequence, in order; coefficients: int8 [16] (§3.2).

        Raises ProofCancelled after `cancel`.
        """
        ...

    def cancel(self) -> None:
        """Have the calls in flight stop and raise ProofCancelled; later calls work again."""
        ...


class Environment(Protocol):
    """One environment bound to a checkpoint's env_params, thinking mode and tokenizer."""

    @property
    def python(self) -> str:
        """Version of the Python that grades, such as "3.12.1": its results can differ."""
        ...

    def task(self, seed: int) -> Task:
        """The task a problem seed selects (§12)."""
        ...

    def prompt(self, task: Task) -> NDArray[np.int32]:
        """The canonical prompt ids of a task (§12.1)."""
        ...

    def evaluate(self, task: Task, completions: Sequence[NDArray[np.int32]]) -> list[Evaluation]:
        """Reward of every completion (token ids), in order.

        Raises a WindrowError when it could not be evaluated, which says nothing of the completion.
        """
        ...


Sign = Callable[[bytes], bytes]
"""sr25519 signature (64 bytes) of a message by the miner's hotkey."""
