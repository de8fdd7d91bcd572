"""Short arithmetic stories with worked solutions, in any number.

The shipped GSM8K-format rows and the demo model's training text both come from here, so a model
of a million parameters can learn what the demo asks of it: few words, small whole numbers, one to
three steps.
"""

import random
from dataclasses import dataclass

NAMES = ("Ann", "Ben", "Cara", "Dan", "Eva", "Finn", "Gwen", "Hugo")
ITEMS = ("apples", "books", "cards", "coins", "pens", "shells", "stamps", "stones")
LARGEST = 60
"""No number of a story, given or computed, exceeds this."""


@dataclass(frozen=True)
class WordProblem:
    """A story, its solution line by line ("7 + 5 = 12") and the whole-number answer."""

    question: str
    steps: tuple[str, ...]
    answer: int


@dataclass(frozen=True)
class _Event:
    clause: str
    step: str
    total: int


def word_problem(rng: random.Random) -> WordProblem:
    """One story; equal generator states give equal stories."""
    name, friend = rng.sample(NAMES, 2)
    item = rng.choice(ITEMS)
    count = rng.choices((1, 2, 3), weights=(9, 8, 3))[0]
    steps: list[str] = []

    if rng.random() < 0.25:
        boxes, each = rng.randint(2, 5), rng.randint(2, 9)
        total = boxes * each
        story = f"{name} has {boxes} boxes with {each} {item} in each."
        steps.append(f"{boxes} * {each} = {total}")
    else:
        total = rng.randint(3, 30)
        story = f"{name} has {total} {item}."

    clauses: list[str] = []
    while len(steps) < count:
        event = _event(rng, total, friend)
        clauses.append(event.clause)
        steps.append(event.step)
        total = event.total
    if clauses:
        story += f" {name} {' and then '.join(clauses)}."
    question = f"{story} How many {item} does {name} have{' now' if clauses else ''}?"
    return WordProblem(question, tuple(steps), total)


def _event(rng: random.Random, total: int, friend: str) -> _Event:
    """A change that keeps the total between 0 and LARGEST."""
    kinds = []
    if total < LARGEST:
        kinds.append("gain")
    if total > 0:
        kinds.append("lose")
    divisors = [parts for parts in (2, 3, 4, 5) if total >= parts and total % parts == 0]
    if divisors and rng.random() < 0.2:
        kinds = ["share"]
    match rng.choice(kinds):
        case "gain":
            amount = rng.randint(1, min(20, LARGEST - total))
            clause = rng.choice((f"finds {amount} more", f"buys {amount} more"))
            return _Event(clause, f"{total} + {amount} = {total + amount}", total + amount)
        case "lose":
            amount = rng.randint(1, min(20, total))
            clause = rng.choice((f"gives {amount} to {friend}", f"loses {amount}"))
            return _Event(clause, f"{total} - {amount} = {total - amount}", total - amount)
        case _:
            parts = rng.choice(divisors)
            rest = total // parts
            return _Event(
                f"splits them into {parts} equal piles and keeps one",
                f"{total} / {parts} = {rest}",
                rest,
            )
