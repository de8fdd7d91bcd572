"""Go's `math/rand`, number for number: an additive lagged Fibonacci generator (gonka §10.2)."""

from collections.abc import MutableSequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_LENGTH: Final = 607
_TAP: Final = 273
_MODULUS: Final = 2**31 - 1
_TABLE_STEPS: Final = 7_800_000_000_000


class GoRandom:
    """The generator of one seed."""

    def __init__(self, seed: int) -> None:
        """seed: a signed 64-bit integer."""
        words = _seeded(seed, 40, 20) ^ _table()
        self._words = [int(word) for word in words]
        self._tap = 0
        self._feed = _LENGTH - _TAP

    def uint64(self) -> int:
        """0 to 2**64 - 1."""
        self._tap = (self._tap - 1) % _LENGTH
        self._feed = (self._feed - 1) % _LENGTH
        value = (self._words[self._feed] + self._words[self._tap]) & (2**64 - 1)
        self._words[self._feed] = value
        return value

    def int63(self) -> int:
        """0 to 2**63 - 1."""
        return self.uint64() & (2**63 - 1)

    def intn(self, n: int) -> int:
        """0 to n - 1. Raises ValueError for n < 1, where Go panics."""
        if n < 1:
            raise ValueError(f"there is no number from 0 to {n} - 1")
        draw, bits = (self._int31, 31) if n <= _MODULUS else (self.int63, 63)
        if n & (n - 1) == 0:
            return draw() & (n - 1)
        most = 2**bits - 1 - 2**bits % n
        value = draw()
        while value > most:
            value = draw()
        return value % n

    def perm(self, n: int) -> list[int]:
        """A permutation of 0 to n - 1."""
        order = [0] * n
        for i in range(n):
            j = self.intn(i + 1)
            order[i] = order[j]
            order[j] = i
        return order

    def shuffle(self, items: MutableSequence[Any]) -> None:
        """Shuffle in place. Raises ValueError for 2**31 items and more."""
        if len(items) > _MODULUS:
            raise ValueError(f"{len(items)} items are more than are shuffled here")
        for i in range(len(items) - 1, 0, -1):
            j = self._reduced(i + 1)
            items[i], items[j] = items[j], items[i]

    def _int31(self) -> int:
        return self.int63() >> 32

    def _reduced(self, n: int) -> int:
        """0 to n - 1 by multiplying 32 bits and taking the high ones."""
        product = (self.int63() >> 31) * n
        least = 2**32 % n
        while product & (2**32 - 1) < least:
            product = (self.int63() >> 31) * n
        return product >> 32


def _seeded(seed: int, high: int, middle: int) -> NDArray[np.uint64]:
    x = seed % _MODULUS or 89482311

    def step() -> int:
        nonlocal x
        x = 48271 * x % _MODULUS
        return x

    for _ in range(20):
        step()
    words = [((step() << high) ^ (step() << middle) ^ step()) & (2**64 - 1) for _ in range(_LENGTH)]
    return np.array(words, np.uint64)


@lru_cache(maxsize=1)
def _table() -> NDArray[np.uint64]:
    """The words every seeded state is combined with: a state far down the generator's own run.

    Output n is output n - 607 plus output n - 273, so x**steps modulo x**607 - x**334 - 1 says
    which of the first 607 values add up to a later one.
    """
    sequence = np.empty(2 * _LENGTH - 1, np.uint64)
    sequence[:_LENGTH] = _seeded(1, 20, 10)[_place(np.arange(_LENGTH))]
    for k in range(_LENGTH, len(sequence)):
        sequence[k] = sequence[k - _LENGTH] + sequence[k - _TAP]
    jump = _power_of_x(_TABLE_STEPS)
    latest = np.array([(jump * sequence[j : j + _LENGTH]).sum() for j in range(_LENGTH)], np.uint64)
    table = np.empty(_LENGTH, np.uint64)
    table[_place(np.arange(_TABLE_STEPS, _TABLE_STEPS + _LENGTH))] = latest
    return table


def _place(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the state keeps the values of these numbers: it is filled downwards."""
    return (_LENGTH - _TAP - 1 - values) % _LENGTH


def _power_of_x(exponent: int) -> NDArray[np.uint64]:
    """Coefficients of x**exponent modulo x**607 - x**334 - 1 and 2**64, lowest first."""
    value = np.zeros(_LENGTH, np.uint64)
    value[0] = 1
    for bit in bin(exponent)[2:]:
        product = np.zeros(2 * _LENGTH, np.uint64)
        for degree, coefficient in enumerate(value):
            product[degree : degree + _LENGTH] += coefficient * value
        if bit == "1":
            product[1:] = product[:-1].copy()
            product[0] = 0
        for end in range(2 * _LENGTH, _LENGTH, -_TAP):
            start = max(_LENGTH, end - _TAP)
            high = product[start:end]
            product[start - _LENGTH : end - _LENGTH] += high
            product[start - _TAP : end - _TAP] += high
        value = product[:_LENGTH]
    return value
