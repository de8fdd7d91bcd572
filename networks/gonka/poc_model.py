"""The model of proof of compute v1: its sizes, and its weights out of a block's hash (§9.2, §9.3).

All weights are slices of one pool a twentieth of their number, so a machine that keeps them as
views needs 1.8 GB for the network's 17.8 G parameters, not 35.5 GB. Windrow does, on either side.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from windrow import WindrowError
from windrow.kernels.decoder import DecoderShape
from windrow.kernels.hashed_streams import generator

PARAMETER_SETS: Final[Mapping[str, DecoderShape]] = MappingProxyType(
    {
        "V2": DecoderShape(1792, 64, 64, 64, 8196, 10.0, 8192, 1e-5, 10000.0, 256),
        "V1": DecoderShape(1024, 32, 32, 32, 8196, 10.0, 2048, 1e-5, 10000.0, 128),
        "tiny": DecoderShape(64, 2, 4, 4, 128, 1.3, 32, 1e-5, 10000.0, 8),
    }
)
"""The network's two sets, and one of Windrow's own that any processor computes in no time."""

_LEAST_POOL: Final = 50_000
_CHUNK: Final = 1 << 24


class BadParameters(WindrowError):
    """Sizes that make no model, or none that the network can build."""


@dataclass(frozen=True)
class Placement:
    """Where a parameter is in the pool: from `offset` on, or, tiled, turned left by `offset`."""

    tiled: bool
    offset: int


def parse_shape(params: Mapping[str, Any]) -> DecoderShape:
    """The eleven fields of a request's `params`. Raises BadParameters."""
    if params.get("use_scaled_rope") is not False:
        raise BadParameters("use_scaled_rope is not false; the network cannot build such a model")
    fields = DecoderShape.__dataclass_fields__
    values: dict[str, Any] = {}
    for name, field in fields.items():
        value = params.get(name)
        kind = int if field.type is int else (int, float)
        if not isinstance(value, kind) or isinstance(value, bool) or not 0 < value < 1e9:
            raise BadParameters(f"{name} is {str(value)[:40]}; it is to be a positive number")
        values[name] = value if field.type is int else float(value)
    if params.keys() - fields.keys() - {"use_scaled_rope"}:
        raise BadParameters("there are parameters that no model has")
    shape = DecoderShape(**values)
    if shape.dim % (2 * shape.n_heads) or shape.n_heads % shape.n_kv_heads:
        raise BadParameters("heads do not divide the dimension into pairs, or KV heads the heads")
    return shape


def total_parameters(shape: DecoderShape) -> int:
    """Number of all parameters, the unused token embedding included."""
    return sum(math.prod(size) for size in shape.parameters().values())


def pool_size(shape: DecoderShape) -> int:
    """Number of values that all weights are slices of."""
    return max(_LEAST_POOL, math.floor(0.05 * total_parameters(shape)))


def draw_pool(block_hash: str, size: int) -> NDArray[np.float16]:
    """float16[size] out of the hash of a block: normal, 0.02 wide, drawn in float64."""
    stream = generator(block_hash, 4)
    pool = np.empty(size, np.float16)
    for start in range(0, size, _CHUNK):
        drawn = stream.normal(0.0, 0.02, min(_CHUNK, size - start))
        pool[start : start + _CHUNK] = drawn.astype(np.float32).astype(np.float16)
    return pool


def name_hash(block_hash: str, name: str) -> int:
    """The first 32 bits of the hash that places a parameter."""
    return int(hashlib.sha256(f"{block_hash}_{name}".encode()).hexdigest()[:8], 16)


def placement(block_hash: str, name: str, size: int, pool: int) -> Placement:
    """Where a parameter of `size` values is in a pool of `pool` values."""
    drawn = name_hash(block_hash, name)
    if size <= pool:
        return Placement(False, drawn % (pool - size + 1))
    return Placement(True, drawn % size)


def placed(pool: Tensor, where: Placement, size: tuple[int, ...]) -> Tensor:
    """A parameter: a view of the pool, or a copy where it is larger than the pool."""
    count = math.prod(size)
    if not where.tiled:
        return pool[where.offset : where.offset + count].view(size)
    tiled = pool.repeat(-(-count // len(pool)))[:count]
    return torch.roll(tiled, -where.offset).view(size)
