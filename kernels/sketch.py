"""Activation sketches: one small integer per position of a last hidden state (grail-protocol §4).

The torch path runs on any device. On CUDA a fused Triton kernel takes its place
(`windrow.kernels.sketch_triton`); the torch path is its oracle in the tests.
"""

import math
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor

from windrow import WindrowError

BUCKETS_PER_OCTAVE: Final = 0.8
"""Buckets a doubling of |x|+1 is worth (§4.1)."""

CHUNK_ELEMENTS: Final = 1 << 20
"""Hidden-state elements the torch path looks at together: bounds its temporaries."""


class SketchInputError(WindrowError):
    """Hidden states or coefficients of a shape or dtype no sketch is defined for."""


@lru_cache
def bucket_thresholds(buckets: int) -> tuple[float, ...]:
    """Least float64 magnitude of each bucket 1 .. buckets-1, exact to the last bit (§4.1).

    The bucket of x is trunc(log2(|x|+1) * 0.8), so the rounding of that float64 expression
    decides at an edge. Comparing with the first value past each edge gives the same
    bucket without a logarithm, and in every narrower dtype too.
    """

    def bucket(magnitude: float) -> int:
        return math.trunc(math.log2(magnitude + 1.0) * BUCKETS_PER_OCTAVE)

    thresholds = []
    for k in range(1, buckets):
        edge = 2.0 ** (k / BUCKETS_PER_OCTAVE) - 1.0
        while bucket(edge) >= k:
            edge = math.nextafter(edge, 0.0)
        while bucket(edge) < k:
            edge = math.nextafter(edge, math.inf)
        thresholds.append(edge)
    return tuple(thresholds)


def bucketize(values: Tensor, buckets: int = 8) -> Tensor:
    """Signed log-magnitude bucket of every value (§4.1).

    values: any floating dtype and shape; NaN gives 0, infinities the outermost buckets.
    Returns int32 in [1-buckets, buckets-1], same shape. Magnitudes under 1e-6, which the
    protocol sends to 0, lie far below the first threshold.
    """
    exact = values.double()
    edges = torch.tensor(bucket_thresholds(buckets), dtype=torch.float64, device=values.device)
    magnitude_bucket = (exact.abs().unsqueeze(-1) >= edges).sum(-1, dtype=torch.int32)
    return torch.where(exact < 0, -magnitude_bucket, magnitude_bucket)


def activation_sketches(
    hidden: Tensor,
    coefficients: Tensor,
    *,
    top_k: int = 16,
    buckets: int = 8,
    modulus: int = 2**31 - 1,
) -> Tensor:
    """Sketch of every row of hidden, all positions at once (§4.2).

    hidden: float32, float16 or bfloat16 [N, d] with d >= top_k; coefficients: int8 [top_k].
    Returns int32 [N] in [0, modulus) on the device of hidden.

    A row's top_k largest magnitudes, compared in its own dtype with NaN the largest, are
    bucketed in ascending index order and multiplied with the coefficients. Which of several
    equal magnitudes at the cut is taken is implementation-defined; §4.4 tolerates it.
    Raises SketchInputError for other shapes and dtypes.
    """
    _check(hidden, coefficients, top_k)
    coefficients = coefficients.to(hidden.device)
    if hidden.is_cuda:
        # Triton comes with the CUDA builds of torch only.
        from windrow.kernels.sketch_triton import fused_sketches

        return fused_sketches(hidden, coefficients, bucket_thresholds(buckets), modulus)
    return torch_sketches(hidden, coefficients, top_k, buckets, modulus)


def sketch_margins(hidden: Tensor, *, top_k: int = 16, buckets: int = 8) -> Tensor:
    """Least relative change of single activations that can change each row's sketch, float32 [N].

    hidden: as of `activation_sketches`. The sketch of a row depends on which activations are its
    largest and on their buckets: this is how near, in shares of a magnitude, the nearest of them
    is to the edge of a bucket, or the two at the cut are to their mean. Rows with a tie at the
    cut have 0; so have rows of zeros or with NaN. Raises SketchInputError.
    """
    _check_shape(hidden, top_k)
    edges = torch.tensor(bucket_thresholds(buckets), dtype=torch.float32, device=hidden.device)
    margins = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
    rows = max(1, CHUNK_ELEMENTS // hidden.shape[1])
    for start in range(0, len(hidden), rows):
        chunk = hidden[start : start + rows].abs()
        largest = chunk.topk(min(top_k + 1, chunk.shape[1]), dim=1).values.float()
        taken, left = largest[:, :top_k], largest[:, top_k:]
        to_edge = (taken.unsqueeze(-1) - edges).abs().amin(-1) / taken
        last = taken[:, -1:]
        to_cut = (last - left) / (last + left)  # no column where all are taken
        nearest = torch.cat([to_edge, to_cut], dim=1).amin(1)
        margins[start : start + rows] = nearest.nan_to_num(nan=0.0, posinf=0.0)
    return margins


def torch_sketches(
    hidden: Tensor, coefficients: Tensor, top_k: int, buckets: int, modulus: int
) -> Tensor:
    """`activation_sketches` in plain torch, in row chunks of bounded size, on any device."""
    sketches = torch.empty(len(hidden), dtype=torch.int32, device=hidden.device)
    rows = max(1, CHUNK_ELEMENTS // hidden.shape[1])
    for start in range(0, len(hidden), rows):
        chunk = hidden[start : start + rows]
        # topk ranks NaN above infinity, as the protocol does.
        largest = chunk.abs().topk(top_k, dim=1, sorted=False).indices.sort(dim=1).values
        products = bucketize(chunk.gather(1, largest), buckets) * coefficients
        sketches[start : start + rows] = torch.remainder(products.sum(1), modulus)
    return sketches


def _check(hidden: Tensor, coefficients: Tensor, top_k: int) -> None:
    _check_shape(hidden, top_k)
    if hidden.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise SketchInputError(
            f"hidden states of dtype {hidden.dtype}: "
            "sketches are defined for float32, float16 and bfloat16"
        )
    if coefficients.dtype != torch.int8 or coefficients.shape != (top_k,):
        raise SketchInputError(
            f"coefficients of dtype {coefficients.dtype} and shape {tuple(coefficients.shape)}: "
            f"int8 [{top_k}] is needed; derive them with sketch_coefficients"
        )


def _check_shape(hidden: Tensor, least_width: int) -> None:
    if hidden.dim() != 2 or hidden.shape[1] < least_width:
        raise SketchInputError(
            f"hidden states of shape {tuple(hidden.shape)}: a sketch needs [positions, width] "
            f"with a width of at least {least_width}"
        )
