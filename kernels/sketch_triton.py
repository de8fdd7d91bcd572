"""Fused activation sketches for CUDA: one program reads one row once (grail-protocol §4.2).

Its oracle is `windrow.kernels.sketch.torch_sketches`; tests/kernels/sketch_triton_cases.py
compares the two on a GPU, or in the interpreter without one. So far it has run in the
interpreter and been compiled for sm_90, not run on a device.
"""

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor


def fused_sketches(
    hidden: Tensor, coefficients: Tensor, thresholds: tuple[float, ...], modulus: int
) -> Tensor:
    """Sketch of every row, int32 [N]; of equal magnitudes at the cut the lowest index is taken.

    hidden: float32, float16 or bfloat16 [N, d], d >= len(coefficients); coefficients: int8 [k];
    thresholds: float64 bucket edges, ascending.
    """
    rows, width = hidden.shape
    sketches = torch.empty(rows, dtype=torch.int32, device=hidden.device)
    if rows == 0:
        return sketches
    block = triton.next_power_of_2(width)
    with torch.cuda.device(hidden.get_device()):
        _sketch_row[(rows,)](
            hidden.contiguous(),
            coefficients.contiguous(),
            _float32_at_or_above(thresholds).to(hidden.device),
            sketches,
            width,
            modulus,
            TOP_K=len(coefficients),
            EDGES=len(thresholds),
            BLOCK=block,
            num_warps=min(max(block // 512, 1), 8),
        )
    return sketches


def _float32_at_or_above(thresholds: tuple[float, ...]) -> Tensor:
    """Least float32 not under each edge: comparing a float32 with it equals the float64 test."""
    rounded = np.array(thresholds, np.float32)
    above = np.nextafter(rounded, np.float32(np.inf))
    return torch.from_numpy(np.where(rounded.astype(np.float64) < thresholds, above, rounded))


@triton.jit  # type: ignore[untyped-decorator]
def _sketch_row(
    hidden: tl.tensor,
    coefficients: tl.tensor,
    edges: tl.tensor,
    sketches: tl.tensor,
    width: tl.tensor,
    modulus: tl.tensor,
    TOP_K: tl.constexpr,  # noqa: N803
    EDGES: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
) -> None:
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    values = tl.load(hidden + row * width + columns, mask=inside, other=0.0).to(tl.float32)

    # Bits of a float32 without its sign order like its magnitude, and NaN above infinity.
    keys = tl.where(inside, values.to(tl.int32, bitcast=True) & 0x7FFFFFFF, -1)
    # The greatest key that TOP_K entries reach, found bit by bit.
    cut = tl.full((), 0, tl.int32)
    for bit in range(31):
        candidate = cut | (1 << (30 - bit))
        reaching = tl.sum((keys >= candidate).to(tl.int32), axis=0)
        cut = tl.where(reaching >= TOP_K, candidate, cut)
    above = keys > cut
    tied = keys == cut
    places_left = TOP_K - tl.sum(above.to(tl.int32), axis=0)
    taken = above | (tied & (tl.cumsum(tied.to(tl.int32), axis=0) <= places_left))

    magnitudes = tl.abs(values)
    buckets = tl.zeros([BLOCK], dtype=tl.int32)
    for edge in tl.static_range(EDGES):
        buckets += (magnitudes >= tl.load(edges + edge)).to(tl.int32)
    buckets = tl.where(values < 0, -buckets, buckets)
    rank = tl.cumsum(taken.to(tl.int32), axis=0) - 1
    factors = tl.load(coefficients + rank, mask=taken, other=0).to(tl.int32)
    rest = tl.sum(buckets * factors, axis=0) % modulus
    tl.store(sketches + row, tl.where(rest < 0, rest + modulus, rest))
