import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from windrow.kernels import sketch
from windrow.kernels.sketch import (
    SketchInputError,
    activation_sketches,
    bucket_thresholds,
    bucketize,
    sketch_margins,
)

Q = 2**31 - 1
COEFFICIENTS = torch.tensor([-127, 127, 3, -5, 0, 99, 1, -1, 64, -64, 7, 11, -90, 45, 2, 8]).to(
    torch.int8
)


def bucket(x: float) -> int:
    """The rule as grail-protocol §4.1 words it."""
    if math.isnan(x) or abs(x) < 1e-6:
        return 0
    magnitude = 7 if math.isinf(x) else min(7, math.trunc(math.log2(abs(x) + 1) * 0.8))
    return -magnitude if x < 0 else magnitude


def row_sketch(row: list[float]) -> int:
    """The rule as §4.2 words it, one row in plain Python."""
    ranked = sorted(range(len(row)), key=lambda i: (math.isnan(row[i]), abs(row[i])), reverse=True)
    largest = sorted(ranked[:16])
    return sum(bucket(row[i]) * r for i, r in zip(largest, COEFFICIENTS.tolist(), strict=True)) % Q


@pytest.mark.parametrize("k", range(1, 8))
def test_threshold_is_the_first_magnitude_of_its_bucket(k: int) -> None:
    edge = bucket_thresholds(8)[k - 1]
    neighbours = [edge]
    for _ in range(50):
        neighbours = [
            math.nextafter(neighbours[0], 0),
            *neighbours,
            math.nextafter(neighbours[-1], 1e9),
        ]
    assert (
        bucketize(torch.tensor(neighbours, dtype=torch.float64)).tolist() == [k - 1] * 50 + [k] * 51
    )
    assert [bucket(x) for x in neighbours] == [k - 1] * 50 + [k] * 51


def test_31_is_bucket_4() -> None:
    assert bucketize(torch.tensor([31.0, -31.0])).tolist() == [4, -4]


@given(st.lists(st.floats(width=64) | st.floats(-1000, 1000), min_size=1))
def test_buckets_follow_the_logarithm(values: list[float]) -> None:
    assert bucketize(torch.tensor(values, dtype=torch.float64)).tolist() == [
        bucket(x) for x in values
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_sketches_follow_the_scalar_rule(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(1)
    # Distinct magnitudes in every dtype: rounded powers that no row repeats.
    magnitudes = (1.06 ** torch.arange(0, 100)).to(dtype)
    assert len(magnitudes.unique()) == 100
    rows = torch.stack([magnitudes[torch.randperm(100, generator=generator)] for _ in range(40)])
    rows *= torch.randint(0, 2, rows.shape, generator=generator) * 2 - 1
    rows[3, 10], rows[4, 20], rows[5, 30] = torch.nan, torch.inf, -torch.inf
    monkeypatch.setattr(sketch, "CHUNK_ELEMENTS", 700)

    sketches = activation_sketches(rows, COEFFICIENTS)

    assert sketches.dtype == torch.int32
    assert sketches.tolist() == [row_sketch(row) for row in rows.tolist()]


@pytest.mark.parametrize("width", [16, 17, 200])
def test_a_sketch_stays_within_its_margin_and_changes_beyond(width: int) -> None:
    torch.manual_seed(4)
    hidden = torch.randn(300, width, dtype=torch.float64) * 30
    own = activation_sketches(hidden.float(), COEFFICIENTS)
    margins = sketch_margins(hidden.float()).double().unsqueeze(1)
    up = torch.rand_like(hidden) < 0.5
    changed = []
    for share in (0.99, 1.01):
        drift = torch.where(up, share * margins, -share * margins)
        for sign in (1, -1):
            moved = activation_sketches((hidden * (1 + sign * drift)).float(), COEFFICIENTS)
            changed.append(moved != own)
    assert not (changed[0] | changed[1]).any()
    assert (changed[2] | changed[3]).float().mean() > 0.4


def test_rows_at_an_edge_or_without_numbers_have_no_margin() -> None:
    rows = torch.randn(4, 40)
    rows[0] = 0.0
    rows[1, 7] = torch.nan
    rows[2, :20] = 100.0  # a tie at the cut
    margins = sketch_margins(rows)
    assert margins[:3].tolist() == [0.0, 0.0, 0.0]
    assert margins[3] > 0.0
    assert sketch_margins(rows.bfloat16()).dtype == torch.float32
    assert sketch_margins(rows[:0]).shape == (0,)


def test_nan_takes_the_place_of_a_number() -> None:
    row = torch.full((1, 17), 40.0)
    row[0, 16] = 500.0
    row[0, 0] = torch.nan
    row[0, 1] = 1e-3  # the one pushed out
    expected = sum(4 * int(r) for r in COEFFICIENTS[1:15]) + 7 * int(COEFFICIENTS[15])
    assert activation_sketches(row, COEFFICIENTS).tolist() == [expected % Q]


def test_no_rows() -> None:
    assert activation_sketches(torch.empty(0, 64), COEFFICIENTS).shape == (0,)


@pytest.mark.parametrize(
    ("hidden", "coefficients"),
    [
        (torch.zeros(4, 15), COEFFICIENTS),
        (torch.zeros(64), COEFFICIENTS),
        (torch.zeros(4, 64, dtype=torch.float64), COEFFICIENTS),
        (torch.zeros(4, 64), COEFFICIENTS.int()),
        (torch.zeros(4, 64), COEFFICIENTS[:8]),
    ],
)
def test_wrong_shapes_and_dtypes_are_named(
    hidden: torch.Tensor, coefficients: torch.Tensor
) -> None:
    with pytest.raises(SketchInputError):
        activation_sketches(hidden, coefficients)
