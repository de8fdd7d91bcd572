"""The one model of a proof worker: loaded whole at first, changed in place from then on."""

import gc
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open
from torch import Tensor

from windrow.engine.proving import ModelProver
from windrow.networks.grail.checkpoint import CheckpointMetadata, MalformedMetadata
from windrow.networks.grail.delta import DeltaMismatch, MalformedDelta
from windrow.resources.checkpoints.files import (
    METADATA,
    CheckpointError,
    DamagedWeights,
    MissingCheckpointFile,
    VerifiedCheckpoint,
    WrongHash,
    stored_tensors,
)
from windrow.resources.models.config import read_config
from windrow.resources.models.loading import LoadedCheckpoint, load_checkpoint
from windrow.resources.models.stored_tensors import StoredTensor
from windrow.resources.models.update import apply_in_place, update

_NO_DELTA: Final = (CheckpointError, MalformedMetadata, MalformedDelta, DeltaMismatch, OSError)
"""Reasons to copy a checkpoint rather than to apply its delta."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Loaded:
    checkpoint: LoadedCheckpoint
    prover: ModelProver
    config: dict[str, Any]
    shapes: dict[str, tuple[str, tuple[int, ...]]]


class WorkerModel:
    """Proves with whichever checkpoint it is asked to. Only one model is ever in memory."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._loaded: _Loaded | None = None
        self.reloads_in_place = 0

    @property
    def weights_hash(self) -> str | None:
        """Of the weights in memory; None before the first checkpoint."""
        return self._loaded.checkpoint.weights_hash if self._loaded else None

    def turn_to(self, directory: Path, weights_hash: str) -> LoadedCheckpoint:
        """Have the checkpoint of a folder in memory.

        weights_hash: that the folder had when the run verified it. What is in memory in the end
        has this hash, so a folder that changed since is found out.
        Raises as `load_checkpoint`, MissingCheckpointFile, MalformedMetadata and WrongHash.
        """
        if self._loaded is None or self._loaded.checkpoint.weights_hash != weights_hash:
            verified = ("verified by the run",)
            wanted = VerifiedCheckpoint(directory, _metadata(directory), weights_hash, verified)
            # While the weights change, none are loaded: whatever fails, the next try starts anew.
            before, self._loaded = self._loaded, None
            after = self._changed(before, wanted) if before is not None else None
            if after is None:
                del before
                after = _hashed(_read_whole(wanted, self.device), wanted)
            self._loaded = after
            _log.info("checkpoint %d is loaded: %s", wanted.metadata.window, weights_hash)
        return self._loaded.checkpoint

    @property
    def prover(self) -> ModelProver:
        """Over the model in memory. Raises ValueError before the first checkpoint."""
        if self._loaded is None:
            raise ValueError("no checkpoint is loaded")
        return self._loaded.prover

    def _changed(self, before: _Loaded, wanted: VerifiedCheckpoint) -> _Loaded | None:
        """The same model with a checkpoint's weights; None where that one's model is another.

        By the delta that the checkpoint was made with, where it leads on from what is in memory;
        else, or where anything is wrong with it, by copying every tensor.
        """
        directory, stored = wanted.directory, stored_tensors(wanted.directory)
        if read_config(directory) != before.config or _shapes(stored) != before.shapes:
            return None
        model = before.checkpoint.model
        model.name_or_path = wanted.metadata.model_name or str(directory)
        loaded = replace(
            before.checkpoint,
            metadata=wanted.metadata,
            checkpoint_window=wanted.metadata.window,
            model_name=model.name_or_path,
            weights_hash=wanted.weights_hash,
        )
        after = replace(before, checkpoint=loaded, prover=ModelProver(model))
        try:
            update(model.state_dict(), before.checkpoint.checkpoint_window, wanted)
        except _NO_DELTA as error:
            _log.info("checkpoint %d is copied whole: %s", wanted.metadata.window, error)
            _copy(wanted, model.state_dict())
            after = _hashed(after, wanted)
        self.reloads_in_place += 1
        return after


def _copy(wanted: VerifiedCheckpoint, state: Mapping[str, Tensor]) -> None:
    """Overwrite every tensor of a model with the one that a folder holds. Raises DamagedWeights."""
    with torch.no_grad():
        for path in {tensor.path for tensor in stored_tensors(wanted.directory).values()}:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118
                    values = file.get_tensor(name)
                    if not bool(values.isfinite().all()):
                        raise DamagedWeights(
                            f"tensor {name} of {wanted.directory} holds NaN or infinity; every "
                            "proof over it would be refused, wait for the next checkpoint"
                        )
                    state[name].copy_(values)


def _read_whole(wanted: VerifiedCheckpoint, device: str) -> _Loaded:
    gc.collect()
    if device != "cpu":
        torch.cuda.empty_cache()
    loaded = load_checkpoint(wanted, device=device)
    shapes = _shapes(stored_tensors(wanted.directory))
    return _Loaded(loaded, ModelProver(loaded.model), read_config(wanted.directory), shapes)


def _hashed(loaded: _Loaded, wanted: VerifiedCheckpoint) -> _Loaded:
    """The same, once what is in memory has the hash it must. Raises WrongHash."""
    digest = apply_in_place(
        loaded.checkpoint.model.state_dict(),
        {},
        stored=stored_tensors(wanted.directory),
        weights_hash=None,
        window=wanted.metadata.window,
    )
    if digest != wanted.weights_hash:
        raise WrongHash(
            f"the weights of {wanted.directory} hash to {digest} in memory, the run verified "
            f"{wanted.weights_hash}; the folder was changed since, delete it to have the "
            "checkpoint fetched again"
        )
    return loaded


def _metadata(directory: Path) -> CheckpointMetadata:
    path = directory / METADATA
    if not path.is_file():
        raise MissingCheckpointFile(
            f"{path} is not on this machine; a proof worker reads checkpoints from the same folder "
            "as the run: share it, or fetch the checkpoint again"
        )
    return CheckpointMetadata.parse(path.read_bytes())


def _shapes(stored: dict[str, StoredTensor]) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: (tensor.dtype, tensor.shape) for name, tensor in stored.items()}
