"""Sketches that are not of these tokens, this model and this window."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.soundness.forgeries.base import Forgery, Material, sibling, stream
from benchmarks.soundness.provers import as_proofs
from benchmarks.soundness.world import STALE_BLOCK_HASH
from windrow.networks.grail.constants import SKETCH_BUCKETS, SKETCH_MODULUS, TOLERANCE_BASE
from windrow.networks.grail.prf import sketch_coefficients
from windrow.networks.grail.windows import miner_randomness

HUGE: Final = 10**12

Row = NDArray[np.int64]


def stale_randomness() -> str:
    """R_m of an earlier window."""
    return miner_randomness(STALE_BLOCK_HASH, None)


def chosen_randomness() -> str:
    """A beacon under which no sketch is larger than the network's tolerance."""
    for number in range(1000):
        randomness = f"{number:064x}"
        bound = np.abs(sketch_coefficients(randomness).astype(int)).sum() * (SKETCH_BUCKETS - 1)
        if bound <= TOLERANCE_BASE:
            return randomness
    raise LookupError("none of a thousand beacons bounds all sketches")


def sketches(m: Material) -> Iterator[Forgery]:
    """Forged over the completion; those of the prompt, which many rollouts share, stay true."""
    prompts = m.rollouts.prompt_lengths
    whole = [found.sketches[0].astype(np.int64) for found in m.own]
    own = [row[prompt:] for row, prompt in zip(whole, prompts, strict=True)]
    pool = np.concatenate(own)
    count = len(own)

    def forged(name: str, make: Callable[[int, Row, np.random.Generator], Any]) -> Forgery:
        rng = stream(name)
        made = [make(i, row, rng) for i, row in enumerate(own)]
        differs = np.array([not np.array_equal(a, b) for a, b in zip(made, own, strict=True)])
        sketches = tuple(
            np.concatenate([true[:prompt], np.asarray(row, np.int64)])
            for true, prompt, row in zip(whole, prompts, made, strict=True)
        )
        return Forgery(name, "sketches", m.honest.changed(sketches=sketches), differs, True)

    yield forged("all zero", lambda _i, row, _r: np.zeros_like(row))
    yield forged("uniform modulo Q", lambda _i, row, r: r.integers(0, SKETCH_MODULUS, len(row)))
    yield forged("random, as large as true ones", lambda _i, row, r: r.choice(pool, len(row)))
    yield forged("one constant", lambda _i, row, _r: np.full_like(row, 120))
    yield forged("10^12", lambda _i, row, _r: np.full_like(row, HUGE))
    yield forged("minus one", lambda _i, row, _r: np.full_like(row, -1))
    yield forged(
        "true ones, not reduced modulo Q",
        lambda _i, row, _r: np.where(row > SKETCH_MODULUS // 2, row - SKETCH_MODULUS, row),
    )
    yield forged("of another prompt", lambda i, row, _r: np.resize(own[(i + 64) % count], len(row)))
    yield forged(
        "of another completion of the prompt",
        lambda i, row, _r: np.resize(own[sibling(m.rollouts, i)], len(row)),
    )
    yield forged("reversed", lambda _i, row, _r: row[::-1])
    yield forged("shifted by one token", lambda _i, row, _r: np.roll(row, 1))
    yield forged(
        "every other one zero", lambda _i, row, _r: np.where(np.arange(len(row)) % 2, 0, row)
    )
    yield forged(
        "16 in a row zero", lambda _i, row, _r: np.where(np.arange(len(row)) // 16 == 1, 0, row)
    )
    yield forged(
        "noise on each, a third of its size",
        lambda _i, row, r: (row + r.integers(-150, 151, len(row))) % SKETCH_MODULUS,
    )
    measures = m.oracle.own(m.rollouts, m.world.policy, randomness=stale_randomness())
    stale, _ = as_proofs(m.rollouts, measures)
    yield Forgery(
        "for another window's randomness",
        "sketches",
        m.honest.changed(sketches=stale),
        m.everywhere,
        True,
    )
    yield Forgery(
        "stale beacon, honest sketches for it",
        "sketches",
        m.honest.changed(sketches=stale, randomness=stale_randomness()),
        m.everywhere,
        True,
    )
    yield Forgery(
        "all zero under a chosen beacon",
        "sketches",
        m.honest.changed(
            sketches=tuple(np.zeros_like(s) for s in m.honest.sketches),
            randomness=chosen_randomness(),
        ),
        m.everywhere,
        True,
    )
