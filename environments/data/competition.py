r"""Competition-style problems with boxed answers, one template a kind, in MATH's columns."""

import math
import random
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import NamedTuple


class Statement(NamedTuple):
    """Problem and solution; the solution boxes the answer."""

    problem: str
    solution: str


def linear_equation(rng: random.Random) -> Statement:
    root, factor, shift = rng.randint(2, 12), rng.randint(2, 9), rng.randint(1, 20)
    total = factor * root + shift
    return Statement(
        f"Solve for $x$: ${factor}x + {shift} = {total}$.",
        f"Subtract {shift} to get ${factor}x = {total - shift}$, then divide by {factor}: "
        f"$x = \\boxed{{{root}}}$.",
    )


def product_of_binomials(rng: random.Random) -> Statement:
    a, b = rng.randint(1, 9), rng.randint(1, 9)
    return Statement(
        f"Expand $(x + {a})(x + {b})$.",
        f"The sum of the numbers is {a + b} and their product {a * b}, so the result is "
        f"$\\boxed{{x^2+{a + b}x+{a * b}}}$.",
    )


def committees(rng: random.Random) -> Statement:
    people, seats = rng.randint(5, 10), rng.randint(2, 4)
    return Statement(
        f"In how many ways can {seats} of {people} people form a committee?",
        f"Order does not matter: $\\binom{{{people}}}{{{seats}}} = "
        f"\\boxed{{{math.comb(people, seats)}}}$.",
    )


def two_dice(rng: random.Random) -> Statement:
    total = rng.randint(3, 11)
    ways = 6 - abs(total - 7)
    return Statement(
        f"Two fair dice are rolled. What is the probability that they sum to {total}?",
        f"There are {ways} ways out of 36: $\\boxed{{{_fraction(Fraction(ways, 36))}}}$.",
    )


def right_triangle(rng: random.Random) -> Statement:
    a, b = rng.randint(1, 9), rng.randint(1, 9)
    return Statement(
        f"The legs of a right triangle are {a} and {b}. How long is the hypotenuse?",
        f"Its square is ${a * a} + {b * b} = {a * a + b * b}$, so it is "
        f"$\\boxed{{{_root(a * a + b * b)}}}$.",
    )


def circle_area(rng: random.Random) -> Statement:
    radius = rng.randint(2, 15)
    return Statement(
        f"What is the area of a circle of radius {radius}?",
        f"The area is $\\pi r^2 = \\boxed{{{radius * radius}\\pi}}$.",
    )


def quadratic_roots(rng: random.Random) -> Statement:
    small, gap = rng.randint(1, 6), rng.randint(1, 6)
    large = small + gap
    return Statement(
        f"Find the larger root of $x^2 - {small + large}x + {small * large} = 0$.",
        f"It factors as $(x - {small})(x - {large})$, so the larger root is $\\boxed{{{large}}}$.",
    )


def complex_square(rng: random.Random) -> Statement:
    a = rng.randint(2, 9)
    b = rng.randint(1, a - 1)
    return Statement(
        f"Write $({a} + {b}i)^2$ in the form $a + bi$.",
        f"The square is ${a * a} + {2 * a * b}i - {b * b}$, which is "
        f"$\\boxed{{{a * a - b * b}+{2 * a * b}i}}$.",
    )


def common_divisor(rng: random.Random) -> Statement:
    divisor = rng.randint(2, 12)
    a, b = divisor * rng.randint(2, 9), divisor * rng.randint(2, 9)
    return Statement(
        f"What is the greatest common divisor of {a} and {b}?",
        f"Euclid's algorithm gives $\\boxed{{{math.gcd(a, b)}}}$.",
    )


def last_digit(rng: random.Random) -> Statement:
    base, exponent = rng.randint(2, 9), rng.randint(5, 40)
    return Statement(
        f"What is the last digit of ${base}^{{{exponent}}}$?",
        f"Last digits of powers repeat; this one ends in $\\boxed{{{pow(base, exponent, 10)}}}$.",
    )


def reduced_fraction(rng: random.Random) -> Statement:
    a, b, factor = rng.randint(1, 8), rng.randint(9, 15), rng.randint(2, 6)
    return Statement(
        f"Write $\\frac{{{a * factor}}}{{{b * factor}}}$ in lowest terms.",
        f"Divide by the common factors: $\\boxed{{{_fraction(Fraction(a, b))}}}$.",
    )


def percentage(rng: random.Random) -> Statement:
    percent, base = rng.choice((5, 10, 20, 25, 40, 50, 75)), 20 * rng.randint(1, 20)
    return Statement(
        f"What is {percent} percent of {base}?",
        f"It is $\\frac{{{percent}}}{{100}} \\cdot {base} = \\boxed{{{percent * base // 100}}}$.",
    )


def dot_product(rng: random.Random) -> Statement:
    a, b, c, d = (rng.randint(1, 9) for _ in range(4))
    return Statement(
        f"Find the dot product of $({a}, {b})$ and $({c}, {d})$.",
        f"It is ${a} \\cdot {c} + {b} \\cdot {d} = \\boxed{{{a * c + b * d}}}$.",
    )


def sine(rng: random.Random) -> Statement:
    degrees, value = rng.choice(
        (
            (30, "\\frac{1}{2}"),
            (45, "\\frac{\\sqrt{2}}{2}"),
            (60, "\\frac{\\sqrt{3}}{2}"),
            (90, "1"),
        )
    )
    turns = rng.randint(1, 5)
    return Statement(
        f"What is $\\sin {degrees + 360 * turns}^\\circ$?",
        f"Whole turns change nothing: $\\sin {degrees}^\\circ = \\boxed{{{value}}}$.",
    )


KINDS: dict[str, tuple[str, tuple[Callable[[random.Random], Statement], ...]]] = {
    "algebra": ("Algebra", (linear_equation, product_of_binomials)),
    "counting_and_probability": ("Counting & Probability", (committees, two_dice)),
    "geometry": ("Geometry", (right_triangle, circle_area)),
    "intermediate_algebra": ("Intermediate Algebra", (quadratic_roots, complex_square)),
    "number_theory": ("Number Theory", (common_divisor, last_digit)),
    "prealgebra": ("Prealgebra", (reduced_fraction, percentage)),
    "precalculus": ("Precalculus", (dot_product, sine)),
}


def math_rows(rng: random.Random, subset: str) -> Iterator[dict[str, str]]:
    """Endless rows of one subset; the harder kind of the two has the higher level."""
    title, kinds = KINDS[subset]
    while True:
        kind = rng.randrange(len(kinds))
        statement = kinds[kind](rng)
        yield {
            "problem": statement.problem,
            "level": f"Level {2 * kind + rng.randint(1, 2)}",
            "type": title,
            "solution": statement.solution,
        }


def _fraction(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"


def _root(square: int) -> str:
    r"""The square root in lowest terms: 12 -> 2\sqrt{3}."""
    outside = max(k for k in range(1, math.isqrt(square) + 1) if square % (k * k) == 0)
    inside = square // (outside * outside)
    factor = "" if outside == 1 and inside > 1 else str(outside)
    return factor if inside == 1 else f"{factor}\\sqrt{{{inside}}}"
