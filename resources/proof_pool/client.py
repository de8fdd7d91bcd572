"""One proof worker as a run sees it: asked, checked, and replaced when it fails."""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from windrow import WindrowError
from windrow.engine.ports import Proof
from windrow.resources.checkpoints.files import VerifiedCheckpoint
from windrow.resources.proof_pool.frames import MalformedFrame, Message, decode, encode

ATTEMPTS: Final = 3

Answer = TypeVar("Answer")

_log = logging.getLogger(__name__)


class WorkerDied(WindrowError):
    """A proof worker ended, or could not be started."""


class WorkerHung(WindrowError):
    """A proof worker gave no answer in time."""


class WrongWeights(WindrowError):
    """A proof worker answered with other weights than it was asked for."""


class ProofWorkerLost(WindrowError):
    """A batch could not be proved although its worker was replaced again and again."""


class ProofWorkerError(WindrowError):
    """An error in a proof worker that has no class on this side."""


@dataclass(frozen=True)
class Placement:
    """Where a model proves. attention: the kernel's name; dtype: as torch names it."""

    device: str
    dtype: str
    attention: str


@dataclass(frozen=True)
class Limits:
    """How long a worker may take, in seconds, before it counts as hung."""

    prove_seconds: float = 600.0
    load_seconds: float = 900.0


class Host(Protocol):
    """Where one worker runs: on this machine or another."""

    @property
    def name(self) -> str:
        """For people: which worker this is."""
        ...

    def ask(self, frame: bytes, seconds: float, told_to_stop: threading.Event) -> bytes:
        """Put a question to the worker, started if there is none, and wait for the answer.

        Raises WorkerDied, WorkerHung after `seconds`, ProofCancelled once told to stop.
        """
        ...

    def replace(self) -> None:
        """End the worker if it is still there; the next question finds or starts another."""
        ...


class RemoteWorker:
    """Proves in a worker that may die, hang or lie. One call at a time, others wait."""

    def __init__(self, host: Host, limits: Limits) -> None:
        self._host = host
        self._limits = limits
        self._lock = threading.Lock()
        self._placement: Placement | None = None
        self._weights_hash: str | None = None

    def load(self, checkpoint: VerifiedCheckpoint, told_to_stop: threading.Event) -> Placement:
        """Have the worker load a checkpoint. Raises as `load_checkpoint`, ProofWorkerLost."""
        return self._replacing(lambda: self._loaded(checkpoint, told_to_stop))

    def prove(
        self,
        checkpoint: VerifiedCheckpoint,
        sequences: Sequence[NDArray[np.int32]],
        prompt_lengths: Sequence[int],
        coefficients: NDArray[np.int8],
        told_to_stop: threading.Event,
    ) -> list[Proof]:
        """As `engine.ports.Prover.prove`. Raises as `ModelProver.prove`, ProofWorkerLost."""
        header = {
            "op": "prove",
            **_named(checkpoint),
            "prompt_lengths": [*map(int, prompt_lengths)],
        }
        question = encode(header, [coefficients, *sequences])
        lengths = [len(sequence) for sequence in sequences]

        def proved() -> list[Proof]:
            self._loaded(checkpoint, told_to_stop)
            seconds = self._limits.prove_seconds
            answer = decode(self._host.ask(question, seconds, told_to_stop))
            _check(answer, checkpoint, lengths)
            pairs = zip(answer.arrays[::2], answer.arrays[1::2], strict=True)
            return [Proof(sketches, logprobs) for sketches, logprobs in pairs]

        return self._replacing(proved)

    def _loaded(self, checkpoint: VerifiedCheckpoint, told_to_stop: threading.Event) -> Placement:
        """Loading has a time limit of its own, so a batch after it is measured alone."""
        if self._placement is None or self._weights_hash != checkpoint.weights_hash:
            question = encode({"op": "load", **_named(checkpoint)})
            answer = decode(self._host.ask(question, self._limits.load_seconds, told_to_stop))
            _check(answer, checkpoint, [])
            said = [str(answer.header.get(name)) for name in ("device", "dtype", "attention")]
            self._placement, self._weights_hash = Placement(*said), checkpoint.weights_hash
        return self._placement

    def _replacing(self, ask: Callable[[], Answer]) -> Answer:
        """What this worker answers, or one that took its place."""
        failures = []
        with self._lock:
            for _ in range(ATTEMPTS):
                try:
                    return ask()
                except (WorkerDied, WorkerHung, WrongWeights, MalformedFrame) as error:
                    failures.append(f"{type(error).__name__}: {error}")
                    _log.warning("proof worker %s is replaced: %s", self._host.name, failures[-1])
                    self._placement = None
                    self._host.replace()
        raise ProofWorkerLost(
            f"proof worker {self._host.name} failed {ATTEMPTS} times at one question and was "
            f"replaced each time, the last time for {failures[-1]}. See its log; finished groups "
            "are kept, run the window again once it is mended"
        )


def _named(checkpoint: VerifiedCheckpoint) -> dict[str, str]:
    directory = str(checkpoint.directory.resolve())
    return {"directory": directory, "weights": checkpoint.weights_hash}


def _check(answer: Message, checkpoint: VerifiedCheckpoint, lengths: Sequence[int]) -> None:
    """Raises the error the worker reports, WrongWeights, or MalformedFrame."""
    header = answer.header
    if header.get("ok") is not True:
        raise _error(str(header.get("error")), str(header.get("message")))
    if header.get("weights") != checkpoint.weights_hash:
        raise WrongWeights(
            f"it answered with weights {header.get('weights')!s:.40}, not those of checkpoint "
            f"{checkpoint.metadata.window}, {checkpoint.weights_hash}"
        )
    shapes = [(array.dtype.name, len(array)) for array in answer.arrays]
    if shapes != [(kind, length) for length in lengths for kind in ("int32", "float32")]:
        raise MalformedFrame(f"{len(shapes)} arrays came back for {len(lengths)} sequences")


def _error(name: str, message: str) -> WindrowError:
    # Only where there is an error: the run itself may never need torch.
    from windrow.engine import forward
    from windrow.networks.grail.checkpoint import MalformedMetadata
    from windrow.resources.checkpoints import files as checkpoint_files
    from windrow.resources.models import config as model_config
    from windrow.resources.models import loading as models

    known: dict[str, Any] = {"MalformedMetadata": MalformedMetadata}
    for module in (forward, checkpoint_files, model_config, models):
        known |= vars(module)
    found = known.get(name)
    if isinstance(found, type) and issubclass(found, WindrowError):
        return found(message)
    return ProofWorkerError(f"{name:.80}: {message}")
