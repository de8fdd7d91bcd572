"""Exact products of int8 matrices in int32: the same integers from every backend.

torch multiplies int8 directly on CPUs and on CUDA, but cards differ in the layouts they take, and
some versions of cuBLAS gave wrong numbers for some. So a way is chosen once a device by trying
each on a product whose result is known, and a way that fails or errs is not used.
"""

from collections.abc import Callable
from functools import cache
from typing import Final

import torch
from torch import Tensor

from windrow import WindrowError

DEPTH_LIMIT: Final = 1 << 14
"""Most terms a sum may have: int8 times a nibble then stays within 2^24, which float32 holds."""

Product = Callable[[Tensor, Tensor], Tensor]


class NoExactProduct(WindrowError):
    """A device multiplies int8 matrices in no way that is exact, or matrices do not fit."""


def exact_product(left: Tensor, right: Tensor) -> Tensor:
    """left @ right, int32 [M, N] from int8 [M, K] and int8 [K, N].

    Exact in int32 for any int8. The last resort, a float32 product, is exact while every sum of
    magnitudes stays within 2^24: K at most 2^14 where one side holds nibbles of -8 to 7.
    Off the CPU, M must exceed 16 and K and N be multiples of 8. Raises NoExactProduct.
    """
    if left.shape[1] != right.shape[0] or left.shape[1] > DEPTH_LIMIT:
        raise NoExactProduct(
            f"no product of {tuple(left.shape)} and {tuple(right.shape)}: inner sizes must agree "
            f"and be at most {DEPTH_LIMIT}"
        )
    return _way(left.device)(left, right)


def way_of(device: torch.device) -> str:
    """Name of the way a device multiplies, for the record. Raises NoExactProduct."""
    return _way(device).__name__.removeprefix("_")


def _int8(left: Tensor, right: Tensor) -> Tensor:
    return torch._int_mm(left, right)


def _int8_by_columns(left: Tensor, right: Tensor) -> Tensor:
    """The only layout that all of cuBLAS takes: both sides contiguous along the sum."""
    return torch._int_mm(left.contiguous(), right.t().contiguous().t())


def _float32(left: Tensor, right: Tensor) -> Tensor:
    return (left.float() @ right.float()).to(torch.int32)


WAYS: Final[tuple[Product, ...]] = (_int8, _int8_by_columns, _float32)


@cache
def _way(device: torch.device) -> Product:
    for way in WAYS:
        if is_exact(way, device):
            return way
    raise NoExactProduct(f"{device} multiplies int8 matrices in no exact way known; leave it out")


def is_exact(way: Product, device: torch.device) -> bool:
    """Whether a way gives the right integers for the shapes and the extremes that are asked for."""
    generator = torch.Generator().manual_seed(0)
    for rows, depth, columns in ((32, DEPTH_LIMIT, 64), (512, 1024, 1024), (64, 512, 8)):
        left = torch.randint(-128, 128, (rows, depth), dtype=torch.int8, generator=generator)
        right = torch.randint(-8, 8, (depth, columns), dtype=torch.int8, generator=generator)
        left[0], right[:, 0] = -128, -8
        expected = (left.double() @ right.double()).to(torch.int32)
        try:
            found = way(left.to(device), right.to(device)).cpu()
        except (RuntimeError, NotImplementedError):  # the layout or the type is not supported
            return False
        if not torch.equal(found, expected):
            return False
    return True
