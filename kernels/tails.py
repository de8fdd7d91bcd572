"""Tails of distributions: the regularised incomplete beta function, and what follows from it."""

import math
from typing import Final

_TINY: Final = 1e-300
_STEPS: Final = 10_000


def beta_regularised(x: float, a: float, b: float) -> float:
    """I_x(a, b) for 0 <= x <= 1 and positive a and b, by its continued fraction.

    Raises ValueError for other arguments, ArithmeticError where the fraction does not converge.
    """
    if not (0.0 <= x <= 1.0 and a > 0.0 and b > 0.0):
        raise ValueError(f"I_x(a, b) is not defined for x={x}, a={a}, b={b}")
    if x in (0.0, 1.0):
        return x
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - _by_fraction(1.0 - x, b, a)
    return _by_fraction(x, a, b)


def binomial_tail(n: int, k: int, p: float) -> float:
    """P[X >= k] of X ~ Binomial(n, p). Raises ValueError unless 0 <= k <= n and 0 <= p <= 1."""
    if not (0 <= k <= n and 0.0 <= p <= 1.0):
        raise ValueError(f"there is no P[X >= {k}] of {n} draws with probability {p}")
    return 1.0 if k == 0 else beta_regularised(p, float(k), float(n - k + 1))


def cap_fraction(distance: float, dimensions: int) -> float:
    """Share of the unit sphere that is closer than `distance` to one point of it.

    distance: Euclidean, 0 to 2. dimensions: of the space the sphere is in, at least 2.
    """
    if not (0.0 <= distance <= 2.0 and dimensions >= 2):
        raise ValueError(f"no two points of a sphere in {dimensions} dimensions are {distance} off")
    cosine = 1.0 - distance * distance / 2.0
    shape = (dimensions - 1) / 2.0
    # Near the equator 1 - cosine^2 would lose the cosine's digits; away from it the difference
    # from a half would lose the share's own.
    if cosine * cosine * (shape + 2.5) < 1.5:
        half = 0.5 - 0.5 * beta_regularised(cosine * cosine, 0.5, shape)
    else:
        half = 0.5 * beta_regularised((1.0 - cosine) * (1.0 + cosine), shape, 0.5)
    return half if cosine >= 0.0 else 1.0 - half


def cap_distance(fraction: float, dimensions: int) -> float:
    """The distance whose cap has this share of the sphere: the inverse of `cap_fraction`."""
    if not 0.0 <= fraction <= 1.0:
        raise ValueError(f"{fraction} is no share of a sphere")
    low, high = 0.0, 2.0
    while True:
        middle = (low + high) / 2.0
        if middle in (low, high):
            return middle
        if cap_fraction(middle, dimensions) < fraction:
            low = middle
        else:
            high = middle


def _by_fraction(x: float, a: float, b: float) -> float:
    """Lentz's method; converges fast where x < (a + 1) / (a + b + 2)."""
    front = math.exp(
        math.lgamma(a + b)
        - math.lgamma(a)
        - math.lgamma(b)
        + a * math.log(x)
        + b * math.log1p(-x)
        - math.log(a)
    )
    c, d = 1.0, 1.0 / _away(1.0 - (a + b) * x / (a + 1.0))
    value = d
    for m in range(1, _STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        d = 1.0 / _away(1.0 + even * d)
        c = _away(1.0 + even / c)
        value *= c * d
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        d = 1.0 / _away(1.0 + odd * d)
        c = _away(1.0 + odd / c)
        value *= c * d
        if abs(c * d - 1.0) < 1e-15:
            return front * value
    raise ArithmeticError(f"I_x(a, b) does not converge for x={x}, a={a}, b={b}")


def _away(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
