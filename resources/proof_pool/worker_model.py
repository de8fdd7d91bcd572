"""The one model of a proof worker: loaded whole at first, changed in place from then on."""

import gc
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from windrow.engine.proving import ModelProver
from windrow.networks.grail.checkpoint import CheckpointMetadata
from windrow.resources.checkpoints.files import (
    METADATA,
    DamagedWeights,
    MissingCheckpointFile,
    VerifiedCheckpoint,
    WrongHash,
    stored_tensors,
)
from windrow.resources.models.config import read_config
from windrow.resources.models.loading import LoadedCheckpoint, load_checkpoint
from windrow.resources.models.stored_tensors import StoredTensor
from windrow.resources.models.update import apply_in_place

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
        is hashed again, so a folder that changed since is found out.
        Raises as `load_checkpoint`, MissingCheckpointFile, MalformedMetadata and WrongHash.
        """
        if self._loaded is None or self._loaded.checkpoint.weights_hash != weights_hash:
            # While the weights change, none are loaded: whatever fails, the next try starts anew.
            before, self._loaded = self._loaded, None
            after = self._replaced(before, directory) if before is not None else None
            if after is None:
                del before
                after = _read_whole(directory, self.device)
            self._loaded = _hashed(after, directory, weights_hash)
        return self._loaded.checkpoint

    @property
    def prover(self) -> ModelProver:
        """Over the model in memory. Raises ValueError before the first checkpoint."""
        if self._loaded is None:
            raise ValueError("no checkpoint is loaded")
        return self._loaded.prover

    def _replaced(self, before: _Loaded, directory: Path) -> _Loaded | None:
        """The same model with a folder's weights; None where the folder's model is another."""
        stored, metadata = stored_tensors(directory), _metadata(directory)
        if read_config(directory) != before.config or _shapes(stored) != before.shapes:
            return None
        state = before.checkpoint.model.state_dict()
        with torch.no_grad():
            for path in {tensor.path for tensor in stored.values()}:
                with safe_open(path, framework="pt") as file:
                    for name in file.keys():  # noqa: SIM118
                        values = file.get_tensor(name)
                        if not bool(values.isfinite().all()):
                            raise DamagedWeights(
                                f"tensor {name} of {directory} holds NaN or infinity; every proof "
                                "over it would be refused, wait for the next checkpoint"
                            )
                        state[name].copy_(values)
        name = metadata.model_name or str(directory)
        before.checkpoint.model.name_or_path = name
        loaded = replace(
            before.checkpoint, metadata=metadata, checkpoint_window=metadata.window, model_name=name
        )
        self.reloads_in_place += 1
        return replace(before, checkpoint=loaded, prover=ModelProver(loaded.model))


def _read_whole(directory: Path, device: str) -> _Loaded:
    gc.collect()
    if device != "cpu":
        torch.cuda.empty_cache()
    verified = VerifiedCheckpoint(directory, _metadata(directory), "", ("verified by the run",))
    loaded = load_checkpoint(verified, device=device)
    shapes = _shapes(stored_tensors(directory))
    return _Loaded(loaded, ModelProver(loaded.model), read_config(directory), shapes)


def _hashed(loaded: _Loaded, directory: Path, expected: str) -> _Loaded:
    """With the hash of what is in memory. Raises WrongHash unless it is the expected one."""
    digest = apply_in_place(
        loaded.checkpoint.model.state_dict(),
        {},
        stored=stored_tensors(directory),
        weights_hash=None,
        window=loaded.checkpoint.checkpoint_window,
    )
    if digest != expected:
        raise WrongHash(
            f"the weights of {directory} hash to {digest} in memory, the run verified {expected}; "
            "the folder was changed since, delete it to have the checkpoint fetched again"
        )
    _log.info("checkpoint %d is loaded, weights %s", loaded.checkpoint.checkpoint_window, digest)
    return replace(loaded, checkpoint=replace(loaded.checkpoint, weights_hash=digest))


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
