"""Tokens changed after sampling."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.soundness.forgeries.base import Forgery, Material, graded, stream

TRUNCATED: Final = 40


def tokens(m: Material) -> Iterator[Forgery]:
    rollouts = m.rollouts
    eos, vocabulary = m.world.loaded.eos_token_id, m.world.loaded.vocab_size

    def with_completions(
        name: str,
        make: Callable[[NDArray[np.int32], np.random.Generator], NDArray[np.int32]],
        *,
        proved: bool = True,
        note: str = "",
    ) -> Forgery:
        # A stream for each completion keeps equal rollouts equal, which are then measured once.
        made = [make(own.copy(), stream(name, own.tobytes())) for own in rollouts.completions]
        changed = graded(m, made)
        claims = m.reproved(changed)
        if not proved:
            claims = claims.changed(sketches=m.honest.sketches, logprobs=m.honest.logprobs)
        return Forgery(name, "tokens", claims, m.everywhere, False, note)

    def swapped(share: float) -> Callable[[NDArray[np.int32], np.random.Generator], Any]:
        def swap(row: NDArray[np.int32], rng: np.random.Generator) -> NDArray[np.int32]:
            count = max(1, round(share * len(row)))
            at = rng.choice(len(row) - 1, count, replace=False)
            # Any other token but EOS, which is checked by itself.
            row[at] = (row[at] + rng.integers(1, vocabulary, count)) % vocabulary
            row[at] = np.where(row[at] == eos, (eos + 1) % vocabulary, row[at])
            return row

        return swap

    yield with_completions("one swapped, not proved again", swapped(0.0), proved=False)
    yield with_completions(
        "one swapped, proved again",
        swapped(0.0),
        note="a few tokens in a thousand are ones a sampler might have drawn itself",
    )
    yield with_completions("10 % swapped, proved again", swapped(0.10))
    yield with_completions("truncated to 40", lambda row, _r: row[:TRUNCATED])
    yield with_completions(
        "truncated, EOS forced", lambda row, _r: np.append(row[: TRUNCATED - 1], np.int32(eos))
    )
    longest = m.world.policy.max_new_tokens
    yield with_completions("padded to the limit after EOS", lambda row, _r: np.resize(row, longest))
    yield with_completions(
        "padded to the limit, EOS removed", lambda row, _r: np.resize(row[:-1], longest)
    )
