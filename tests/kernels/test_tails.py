"""Tails against exact sums."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windrow.kernels.go_random import GoRandom
from windrow.kernels.tails import beta_regularised, binomial_tail, cap_distance, cap_fraction


@given(st.integers(1, 60), st.data())
def test_binomial_tails_are_exact_sums(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    p = Fraction(data.draw(st.integers(1, 999)), 1000)
    exact = sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))
    assert binomial_tail(n, k, float(p)) == pytest.approx(float(exact), rel=1e-9)


def test_ends_of_a_binomial() -> None:
    assert binomial_tail(0, 0, 0.5) == 1
    assert binomial_tail(5, 1, 0.0) == 0
    assert binomial_tail(5, 5, 1.0) == 1
    assert binomial_tail(1_000_000, 40, 1e-5) == pytest.approx(4.5e-13, rel=0.2)
    for n, k, p in ((3, 4, 0.5), (3, -1, 0.5), (3, 1, 1.5), (3, 1, math.nan)):
        with pytest.raises(ValueError, match="P\\[X"):
            binomial_tail(n, k, p)


def test_caps_of_the_ordinary_sphere() -> None:
    # In three dimensions a cap's share is its height over the diameter.
    for distance in (0.1, 1.0, math.sqrt(2), 1.9):
        assert cap_fraction(distance, 3) == pytest.approx(distance**2 / 4, rel=1e-12)
        assert cap_distance(distance**2 / 4, 3) == pytest.approx(distance, rel=1e-9)
    assert (cap_fraction(0, 9), cap_fraction(2, 9)) == (0, 1)
    for distance, dimensions in ((2.1, 3), (-0.1, 3), (1.0, 1)):
        with pytest.raises(ValueError, match="sphere"):
            cap_fraction(distance, dimensions)
    with pytest.raises(ValueError, match="share"):
        cap_distance(1.1, 3)


def test_small_caps_of_many_dimensions_keep_their_digits() -> None:
    # Distances found with 50 digits.
    for distance, dimensions, share in (
        (1.2238198817702695, 900, 1e-14),
        (1.3636691276374346, 8192, 1e-10),
        (1.340091551069075, 8192, 1e-20),
    ):
        assert cap_fraction(distance, dimensions) == pytest.approx(share, rel=1e-9)
        assert cap_distance(share, dimensions) == pytest.approx(distance, rel=1e-12)


def test_the_beta_function_is_defined_where_it_is() -> None:
    assert beta_regularised(0.3, 1, 1) == pytest.approx(0.3, rel=1e-14)
    with pytest.raises(ValueError, match="not defined"):
        beta_regularised(0.3, 0, 1)


def test_no_number_below_nothing() -> None:
    with pytest.raises(ValueError, match="from 0"):
        GoRandom(1).intn(0)
    large = GoRandom(3)
    assert all(0 <= large.intn(2**40 + 1) <= 2**40 for _ in range(50))
