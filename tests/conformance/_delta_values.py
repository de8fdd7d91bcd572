"""Weights as the delta vectors store them, as the bits that Windrow works on, and back."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from windrow.networks.grail.delta import BITS, FloatTensor, TensorDelta, ValueType

TYPES: dict[ValueType, torch.dtype] = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
}
NAMES = {dtype: name for name, dtype in TYPES.items()}
SIGNED = {2: torch.int16, 4: torch.int32}


def load(path: Path) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def bits(tensor: Tensor) -> FloatTensor:
    """A tensor of a float type as flat bits; a copy."""
    flat = tensor.clone().contiguous().flatten()
    name = NAMES[tensor.dtype]
    return FloatTensor(
        tuple(tensor.shape), name, flat.view(SIGNED[tensor.itemsize]).numpy().view(BITS[name])
    )


def tensor(values: FloatTensor | TensorDelta) -> Tensor:
    """Bits as a tensor: of its shape, or the changed values of a delta."""
    raw = values.bits if isinstance(values, FloatTensor) else values.values
    flat = torch.from_numpy(raw.copy().view(f"i{raw.itemsize}")).view(TYPES[values.dtype])
    return flat.reshape(values.shape) if isinstance(values, FloatTensor) else flat


def raw(tensors: Mapping[str, Tensor]) -> dict[str, bytes]:
    """The bytes that a weights hash runs over."""
    return {
        # An empty tensor cannot be viewed as bytes.
        name: value.contiguous().flatten().view(torch.uint8).numpy().tobytes()
        if value.numel()
        else b""
        for name, value in tensors.items()
    }


def coordinates(delta: TensorDelta) -> list[list[int]]:
    """Rows and columns of the positions, as the network's decoder returns them."""
    width = int(torch.tensor(delta.shape[1:]).prod()) if len(delta.shape) > 1 else 1
    return [(delta.positions // width).tolist(), (delta.positions % width).tolist()]
