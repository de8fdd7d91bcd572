"""What changed between two checkpoints, and carrying it over (grail-protocol §9.5, §13 R9).

Weights are handled as bits: unsigned integers of a tensor's own width. So every tensor keeps its
type, bfloat16 needs no library, and -0.0 differs from +0.0 as it does in the weights hash.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import xxhash
from numpy.typing import NDArray

from windrow import WindrowError

ValueType = Literal["bfloat16", "float16", "float32"]
Bits = NDArray[np.unsignedinteger[Any]]

BITS: Final[Mapping[ValueType, np.dtype[np.unsignedinteger[Any]]]] = {
    "bfloat16": np.dtype("<u2"),
    "float16": np.dtype("<u2"),
    "float32": np.dtype("<u4"),
}
"""The unsigned integer that holds one value of a type."""

_INFINITY: Final[Mapping[ValueType, int]] = {
    "bfloat16": 0x7F80,
    "float16": 0x7C00,
    "float32": 0x7F800000,
}


class MalformedDelta(WindrowError):
    """A delta contradicts itself or its format; nobody can apply it."""


class DeltaMismatch(WindrowError):
    """A delta does not fit the weights it is to be applied to."""


class UnencodableDelta(WindrowError):
    """No delta can say what changed; a FULL checkpoint can."""


@dataclass(frozen=True)
class FloatTensor:
    """One tensor's values as bits, flat in row-major order. shape: () for a scalar."""

    shape: tuple[int, ...]
    dtype: ValueType
    bits: Bits


@dataclass(frozen=True)
class TensorDelta:
    """New values of one tensor at some flat row-major positions.

    positions: int64 [n], never falling, within the shape; values: bits [n], as new, not as
    differences. A position may be named twice, which no honest delta does and applying refuses.
    Raises MalformedDelta for anything else.
    """

    shape: tuple[int, ...]
    dtype: ValueType
    positions: NDArray[np.int64]
    values: Bits

    def __post_init__(self) -> None:
        positions, values = self.positions, self.values
        if positions.ndim != 1 or positions.shape != values.shape:
            raise MalformedDelta(
                f"a delta names {positions.size} positions and {values.size} values; it needs one "
                "value for each position"
            )
        if values.dtype != BITS[self.dtype]:
            raise MalformedDelta(f"values of type {values.dtype} are no bits of {self.dtype}")
        if not positions.size:
            return
        if (positions[1:] < positions[:-1]).any():
            raise MalformedDelta("the positions of a delta do not rise; it is damaged")
        size = math.prod(self.shape)
        if positions[0] < 0 or positions[-1] >= size:
            raise MalformedDelta(
                f"a delta names positions {positions[0]}..{positions[-1]} of a tensor of {size} "
                "values; it is damaged"
            )

    @classmethod
    def sorted_by_position(
        cls, shape: tuple[int, ...], dtype: ValueType, positions: NDArray[np.int64], values: Bits
    ) -> "TensorDelta":
        """A delta of positions in any order; equal ones keep theirs. Raises MalformedDelta."""
        if positions.shape != values.shape:
            return cls(shape, dtype, positions, values)
        order = np.argsort(positions, kind="stable")
        return cls(shape, dtype, positions[order], values[order])


def tensor_delta(
    base: FloatTensor, current: FloatTensor, *, signed_zeros: bool = True, threshold: float = 0.0
) -> TensorDelta:
    """The values of ``current`` wherever it differs from ``base``.

    signed_zeros: compare bit by bit. False compares as the network does, by value: a zero that
    changes its sign is lost, and with it the weights hash, while a NaN always counts (§13 R9).
    threshold: above 0, only differences larger than this count, in float32; also the network's.
    Raises UnencodableDelta for tensors of different shape or type.
    """
    if (base.shape, base.dtype) != (current.shape, current.dtype):
        raise UnencodableDelta(
            f"a tensor of {base.dtype} {list(base.shape)} became {current.dtype} "
            f"{list(current.shape)}, which no delta can say; publish a FULL checkpoint"
        )
    if threshold > 0:
        with np.errstate(invalid="ignore"):
            changed = np.abs(_float32(current) - _float32(base)) > np.float32(threshold)
    else:
        changed = base.bits != current.bits
        if not signed_zeros:
            magnitude = np.iinfo(current.bits.dtype).max >> 1
            changed &= ((base.bits | current.bits) & magnitude) != 0
            changed |= (current.bits & magnitude) > _INFINITY[current.dtype]
    positions = np.flatnonzero(changed).astype(np.int64, copy=False)
    return TensorDelta(current.shape, current.dtype, positions, current.bits[positions])


def check_fits(name: str, change: TensorDelta, shape: tuple[int, ...], dtype: str) -> None:
    """Raises DeltaMismatch unless a change is one of a tensor of this shape and type."""
    if change.shape != shape or change.dtype != dtype:
        raise DeltaMismatch(
            f"the delta changes {name} as {change.dtype} {list(change.shape)}, but the weights "
            f"hold it as {dtype} {list(shape)}; the delta is of another checkpoint"
        )
    if (change.positions[1:] == change.positions[:-1]).any():
        raise DeltaMismatch(f"the delta gives some position of {name} twice, which is ambiguous")


def apply_change(name: str, target: FloatTensor, change: TensorDelta) -> None:
    """Overwrite the changed values in ``target.bits``. Raises DeltaMismatch, then unchanged."""
    check_fits(name, change, target.shape, target.dtype)
    target.bits[change.positions] = change.values


def weights_digest(tensors: Mapping[str, Any]) -> str:
    """XXH3-128 hex over the raw little-endian bytes of all tensors, in order of name (§9.5).

    tensors: by name, anything that holds contiguous bytes; read one at a time. Scalars count like
    any tensor, though the network's own hashing fails on them (grail-validation §21).
    """
    digest = xxhash.xxh3_128()
    for name in sorted(tensors):
        digest.update(tensors[name])
    return digest.hexdigest()


def _float32(tensor: FloatTensor) -> NDArray[np.float32]:
    if tensor.dtype == "bfloat16":
        return (tensor.bits.astype(np.uint32) << 16).view(np.float32)
    return tensor.bits.view(np.float16 if tensor.dtype == "float16" else np.float32).astype(
        np.float32, copy=False
    )
