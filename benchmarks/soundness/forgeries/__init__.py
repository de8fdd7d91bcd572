"""The catalogue: what a miner might upload instead of honest work, a module for each kind.

Every forgery is a file that the miner signs with its own key, unless its point is that it cannot.
"""

from collections.abc import Iterator

from benchmarks.soundness.forgeries.base import Forgery, Material
from benchmarks.soundness.forgeries.identity import identity
from benchmarks.soundness.forgeries.logprobs import logprobs
from benchmarks.soundness.forgeries.numbers import numbers
from benchmarks.soundness.forgeries.sketches import sketches
from benchmarks.soundness.forgeries.text import text
from benchmarks.soundness.forgeries.tokens import tokens
from benchmarks.soundness.forgeries.weights import weights


def catalogue(material: Material) -> Iterator[Forgery]:
    """Every forgery, one after the other: each holds claims for all rollouts."""
    for kind in (sketches, weights, logprobs, tokens, text, numbers, identity):
        yield from kind(material)
