"""Log-probs that are not the model's."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.soundness.forgeries.base import Forgery, Material, stream


def logprobs(m: Material) -> Iterator[Forgery]:
    prompts = m.rollouts.prompt_lengths

    def forged(
        name: str, make: Callable[[NDArray[np.float32], np.random.Generator], Any]
    ) -> Forgery:
        rng = stream(name)
        made = tuple(
            np.concatenate([np.zeros(p, np.float32), make(found.logprobs.copy(), rng)])
            for p, found in zip(prompts, m.own, strict=True)
        )
        return Forgery(name, "log-probs", m.honest.changed(logprobs=made), m.everywhere, True)

    def at_random(
        row: NDArray[np.float32], rng: np.random.Generator, count: int, value: float
    ) -> NDArray[np.float32]:
        row[rng.choice(len(row), count, replace=False)] = value
        return row

    yield forged("all zero", lambda row, _r: np.zeros_like(row))
    yield forged("their mean everywhere", lambda row, _r: np.full_like(row, row.mean()))
    yield forged("a third arbitrary", lambda row, r: at_random(row, r, len(row) // 3, -9.0))
    yield forged("one off by 3 nats", lambda row, r: _shifted(row, r))
    yield forged("noise of 0.05 nats", lambda row, r: row - r.exponential(0.05, len(row)))
    yield forged("one NaN", lambda row, r: at_random(row, r, 1, np.nan))
    yield forged("a third minus infinity", lambda row, r: at_random(row, r, len(row) // 3, -np.inf))


def _shifted(row: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    row[rng.integers(len(row))] -= 3.0
    return row
