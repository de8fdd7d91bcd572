"""The fused kernel against torch; test_sketch_triton.py runs these on the device there is."""

import os

import pytest
import torch

from windrow.kernels.sketch import bucket_thresholds, torch_sketches
from windrow.kernels.sketch_triton import fused_sketches

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
THRESHOLDS = bucket_thresholds(8)
Q = 2**31 - 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("width", [16, 64, 896, 3584])
def test_fused_equals_torch(dtype: torch.dtype, width: int) -> None:
    generator = torch.Generator().manual_seed(width)
    scale = torch.logspace(-2, 2.5, 24).unsqueeze(1)
    hidden = (torch.randn(24, width, generator=generator) * scale).to(dtype).to(DEVICE)
    hidden[0, 3], hidden[1, 5], hidden[2, 7] = torch.nan, torch.inf, -torch.inf
    coefficients = torch.randint(-127, 128, (16,), generator=generator).to(torch.int8).to(DEVICE)

    fused = fused_sketches(hidden, coefficients, THRESHOLDS, Q)

    # Rows whose 16th and 17th magnitudes are equal depend on the tie rule.
    ranked = hidden.abs().sort(dim=1, descending=True).values
    tie_free = ranked[:, 15] != ranked[:, 16] if width > 16 else torch.full((24,), True)
    assert tie_free.sum() >= 12
    expected = torch_sketches(hidden, coefficients, 16, 8, Q)
    assert torch.equal(fused[tie_free], expected[tie_free])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_fused_buckets_are_exact_at_every_edge(dtype: torch.dtype) -> None:
    edges = torch.tensor(THRESHOLDS, dtype=torch.float64).to(dtype)
    values = [edges]
    for direction in (0.0, torch.inf):
        towards = torch.full_like(edges, direction)
        values.append(torch.nextafter(edges.float(), towards.float()).to(dtype))
        values.append(
            (
                edges.view(torch.int16 if dtype.itemsize == 2 else torch.int32)
                + (1 if direction else -1)
            ).view(dtype)
        )
    hidden = torch.zeros(len(values) * 7, 16, dtype=dtype)
    hidden[:, 4] = torch.cat(values)
    hidden[:, 9] = -torch.cat(values)
    coefficients = torch.zeros(16, dtype=torch.int8)
    coefficients[4], coefficients[9] = 100, 1
    hidden, coefficients = hidden.to(DEVICE), coefficients.to(DEVICE)

    fused = fused_sketches(hidden, coefficients, THRESHOLDS, Q)

    assert torch.equal(fused, torch_sketches(hidden, coefficients, 16, 8, Q))


def test_fused_takes_exactly_16_of_equal_magnitudes() -> None:
    hidden = torch.full((1, 40), -100.0, device=DEVICE)
    coefficients = torch.arange(1, 17, dtype=torch.int8, device=DEVICE)
    assert fused_sketches(hidden, coefficients, THRESHOLDS, Q).tolist() == [Q - 5 * 136]
