"""Proof workers on threads of this process."""

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from windrow.engine.ports import Proof, ProofCancelled
from windrow.resources.checkpoints.files import VerifiedCheckpoint
from windrow.resources.proof_pool.client import Placement

if TYPE_CHECKING:
    from windrow.engine.proving import ModelProver
    from windrow.resources.models.loading import LoadedCheckpoint


class LocalModels:
    """One model a device, of the checkpoint last asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loaded: dict[str, tuple[str, LoadedCheckpoint, ModelProver]] = {}

    def get(
        self, checkpoint: VerifiedCheckpoint, device: str
    ) -> "tuple[LoadedCheckpoint, ModelProver]":
        """Raises as `load_checkpoint`."""
        from windrow.engine.proving import ModelProver
        from windrow.resources.models.loading import load_checkpoint

        with self._lock:
            held = self._loaded.get(device)
            if held is None or held[0] != checkpoint.weights_hash:
                self._loaded.pop(device, None)  # two models at once may not fit
                del held
                loaded = load_checkpoint(checkpoint, device=device)
                self._loaded[device] = (checkpoint.weights_hash, loaded, ModelProver(loaded.model))
            _, loaded, prover = self._loaded[device]
            return loaded, prover


class LocalWorker:
    """One lane of proofs on a device."""

    def __init__(self, models: LocalModels, device: str) -> None:
        self._models = models
        self._device = device

    def load(self, checkpoint: VerifiedCheckpoint, told_to_stop: threading.Event) -> Placement:
        """Raises as `load_checkpoint`, ProofCancelled."""
        if told_to_stop.is_set():
            raise ProofCancelled("told to stop before a model was loaded")
        loaded, _ = self._models.get(checkpoint, self._device)
        dtype = str(loaded.dtype).removeprefix("torch.")
        return Placement(str(loaded.device), dtype, loaded.attention)

    def prove(
        self,
        checkpoint: VerifiedCheckpoint,
        sequences: Sequence[NDArray[np.int32]],
        prompt_lengths: Sequence[int],
        coefficients: NDArray[np.int8],
        told_to_stop: threading.Event,
    ) -> list[Proof]:
        """As `ModelProver.prove`; a batch that has begun is not stopped, it takes seconds."""
        if told_to_stop.is_set():
            raise ProofCancelled("told to stop before a batch was begun")
        _, prover = self._models.get(checkpoint, self._device)
        return prover.prove(sequences, prompt_lengths, coefficients)
