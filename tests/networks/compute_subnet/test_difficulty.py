"""The difficulty of the next challenge, by an oracle of its own (spec 5)."""

import itertools
from fractions import Fraction

import pytest

from windrow.networks.compute_subnet.challenge_stats import next_difficulty


def oracle(successes: int, failed: int, mean: float | None, least: int, most: int) -> int:
    """Start at the minimum; only above 4 successes does anything else count."""
    level = least
    if successes > 4:
        if mean is not None:
            whole, rest = divmod(Fraction(mean), 1)
            level = int(whole) + (1 if rest else 0)
        share = Fraction(failed, 20)
        if share < Fraction(1, 10):
            level += 2
        elif share < Fraction(1, 5):
            level += 1
        elif share > Fraction(1, 4):
            level -= 1
    return sorted((least, level, most))[1]


@pytest.mark.parametrize(("least", "most"), [(7, 12), (6, 12)])
def test_every_neighbour(least: int, most: int) -> None:
    means = (None, 5.0, 6.0, 6.01, 7.0, 7.22, 8.0, 10.999, 11.0, 11.2, 12.0, 12.743)
    for successes, failed, mean in itertools.product(range(22), range(21), means):
        made = next_difficulty(successes, failed, mean, least=least, most=most)
        assert made == oracle(successes, failed, mean, least, most), (successes, failed, mean)


@pytest.mark.parametrize(
    ("failed", "expected"), [(0, 9), (1, 9), (2, 8), (3, 8), (4, 7), (5, 7), (6, 7), (20, 7)]
)
def test_successes_without_a_difficulty_on_record(failed: int, expected: int) -> None:
    assert next_difficulty(50, failed, None) == expected
    assert next_difficulty(4, failed, None) == 7
