"""Prompts made of a hash: 2^86 of them, so nobody has their answers in store."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_NAMES: Final = _words(
    "Ada Ben Cleo Dan Eva Finn Gus Hana Ivo Jun Kai Lena Mia Nils Omar Pia "
    "Quin Ravi Sia Tom Uma Vera Wim Xenia Yara Zoe Abel Bea Cyd Dora Emil Fay"
)
_THINGS: Final = _words(
    "apples books coins stamps cards shells lamps ropes maps keys boats kites drums pens tiles "
    "seeds bells cups nails jars belts ferns hats rings wheels bricks clocks scarves candles "
    "ladders baskets buttons"
)
_PLACES: Final = _words(
    "harbour mill market station garden library bakery forge stable chapel museum bridge cellar "
    "orchard quarry tower theatre workshop meadow school kitchen attic island valley barn tunnel "
    "square lighthouse archive greenhouse vineyard ferry"
)
_TASKS: Final = (
    "How many are there in all? Explain each step.",
    "Tell what happens next.",
    "Describe the place, and say how many are left.",
    "Write a short letter about it.",
    "Who has more of them, and by how many?",
    "Make a list of everything that is named.",
    "Say it again in other words, and add a number.",
    "What would a careful accountant ask?",
)


def distinct_prompts(digests: Iterator[bytes], count: int) -> tuple[str, ...]:
    """As many prompts, each once. digests: 32 bytes each, without end."""
    made: dict[str, None] = {}
    while len(made) < count:
        made[_prompt(next(digests))] = None
    return tuple(made)


def _prompt(digest: bytes) -> str:
    numbers: list[int] = np.frombuffer(digest, "<u2").tolist()

    def one(words: Sequence[str], place: int) -> str:
        # Every list has a power of two words, so that each is as likely.
        return words[numbers[place] % len(words)]

    first, second = one(_NAMES, 0), one(_NAMES, 1)
    return (
        f"At the {one(_PLACES, 2)} {first} counted {numbers[3]} {one(_THINGS, 4)} and "
        f"{numbers[5]} {one(_THINGS, 6)}; at the {one(_PLACES, 7)} {second} had {numbers[8]} "
        f"{one(_THINGS, 9)}. {one(_TASKS, 10)}"
    )
