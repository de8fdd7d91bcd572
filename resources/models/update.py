"""Carrying a delta over to a model in memory, without loading it anew (grail-protocol §9.4)."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from windrow.networks.grail.delta import (
    BITS,
    DeltaMismatch,
    FloatTensor,
    TensorDelta,
    ValueType,
    apply_change,
    check_fits,
    weights_digest,
)
from windrow.resources.checkpoints.files import (
    CheckpointError,
    DamagedWeights,
    VerifiedCheckpoint,
    WrongHash,
    stored_tensors,
)
from windrow.resources.checkpoints.rebuilding import changed_type, kept_delta, wrong_hash
from windrow.resources.models.stored_tensors import FLOAT_TYPES, StoredTensor

TORCH_TYPES: Mapping[ValueType, torch.dtype] = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
}


class HalfUpdated(CheckpointError):
    """A model holds neither the old weights nor the new ones."""


def update(state: Mapping[str, Tensor], base_window: int, checkpoint: VerifiedCheckpoint) -> None:
    """Turn the tensors of the checkpoint of one window into those of the one rebuilt from it.

    state: as ``apply_in_place`` takes it. checkpoint: of the cache; of its folder only metadata,
    the weight files' headers and the delta are read. Raises as ``kept_delta`` and
    ``apply_in_place``; the tensors are unchanged then (but see HalfUpdated).
    """
    with kept_delta(checkpoint, base_window) as changes:
        apply_in_place(
            state,
            changes,
            stored=stored_tensors(checkpoint.directory),
            weights_hash=checkpoint.weights_hash,
            window=checkpoint.metadata.window,
        )


def apply_in_place(
    state: Mapping[str, Tensor],
    changes: Mapping[str, TensorDelta],
    *,
    stored: Mapping[str, StoredTensor],
    weights_hash: str | None,
    window: int,
) -> str:
    """Apply a delta to a model's tensors, after the result has been found to be right.

    state: tensors by name that share the model's memory, as state_dict gives them, of the stored
    type or a wider one. stored: the tensors of the checkpoint that was loaded: the weights hash
    covers these, so a head tied to the embedding counts only where it is stored. weights_hash:
    of the result; None skips the comparison. Returns the hash of the result.

    Takes the memory of one tensor more. Raises DeltaMismatch, DamagedWeights, WrongHash; the
    tensors are unchanged then. Raises HalfUpdated where a device fails at the very changes.
    """
    _check(state, changes, stored)
    digest = weights_digest(_Result(state, changes, stored))
    if weights_hash is not None and digest != weights_hash:
        raise WrongHash(f"{wrong_hash(window, digest, weights_hash)}. The model was not changed")
    with torch.no_grad():
        for name in changes:
            change = changes[name]
            flat = state[name].detach().view(-1)
            try:
                flat[torch.from_numpy(change.positions).to(flat.device)] = _values(change).to(
                    flat.device, flat.dtype
                )
            except RuntimeError as error:
                raise HalfUpdated(
                    f"the model was changed in part, up to {name}: {error}. Load checkpoint "
                    f"{window} whole before anything is proved with it"
                ) from error
    return digest


def _check(
    state: Mapping[str, Tensor],
    changes: Mapping[str, TensorDelta],
    stored: Mapping[str, StoredTensor],
) -> None:
    owners: dict[int, str] = {}
    for name, tensor in stored.items():
        held = state.get(name)
        dtype = FLOAT_TYPES.get(tensor.dtype)
        if held is None or dtype is None or tuple(held.shape) != tensor.shape:
            raise DeltaMismatch(f"the loaded model does not hold {name} as the checkpoint does")
        if torch.promote_types(held.dtype, TORCH_TYPES[dtype]) != held.dtype:
            raise DeltaMismatch(
                f"{name} is stored as {dtype} but loaded as {held.dtype}, which cannot hold every "
                "value; fetch and load the next checkpoint whole"
            )
        other = owners.setdefault(held.data_ptr(), name)
        if held.numel() and other != name and (name in changes or other in changes):
            raise DeltaMismatch(
                f"{other} and {name} are stored apart but share the model's memory; fetch and "
                "load the next checkpoint whole"
            )
    for name in changes:
        dtype, change = changed_type(name, stored), changes[name]
        check_fits(name, change, stored[name].shape, dtype)
        if not state[name].is_contiguous():
            raise DeltaMismatch(f"{name} is not contiguous in memory; load the checkpoint whole")
        if not bool(_values(change).isfinite().all()):
            raise DamagedWeights(
                f"the delta puts NaN or infinity into {name}; every proof over it would be "
                "refused, wait for the next checkpoint"
            )


class _Result(Mapping[str, Any]):
    """Raw bytes of each tensor as it will be, one at a time."""

    def __init__(
        self,
        state: Mapping[str, Tensor],
        changes: Mapping[str, TensorDelta],
        stored: Mapping[str, StoredTensor],
    ) -> None:
        self._state, self._changes, self._stored = state, changes, stored

    def __getitem__(self, name: str) -> Any:
        dtype = FLOAT_TYPES[self._stored[name].dtype]
        # A copy: what the model holds stays as it is until the hash is known.
        flat = self._state[name].detach().to("cpu", TORCH_TYPES[dtype], copy=True).flatten()
        bits = flat.view(torch.int32 if flat.itemsize == 4 else torch.int16).numpy()
        target = FloatTensor(self._stored[name].shape, dtype, bits.view(BITS[dtype]))
        if name in self._changes:
            apply_change(name, target, self._changes[name])
        return target.bits

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


def _values(change: TensorDelta) -> Tensor:
    signed = change.values.copy().view(f"i{change.values.itemsize}")
    return torch.from_numpy(signed).view(TORCH_TYPES[change.dtype])
