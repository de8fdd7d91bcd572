"""Honest provers and verifiers that differ as machines do."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.soundness.provers import Proofs, prove, prove_plainly, prove_while_decoding
from benchmarks.soundness.world import Rollouts, World, threads, with_eager_attention

ALONE = "one sequence a pass, no padding"


@dataclass(frozen=True)
class Drift:
    """An honest prover: how it differs from the verifier, whose format is `verifier`."""

    name: str
    verifier: str
    proofs: Proofs


def drifts(world: World, rollouts: Rollouts) -> Iterator[Drift]:
    """Proofs of the same rollouts by honest provers.

    The verifier runs the distinct sequences of a file 16 at a time, padded to the longest.
    """
    models = {"float32": world.loaded.model, "bfloat16": world.model_bfloat16}
    alone = prove(world, models["float32"], rollouts, sub_batches=_sized(1))
    yield Drift(ALONE, "float32", alone)
    for dtype, model in models.items():
        backwards = prove(world, model, rollouts, sub_batches=_sized(3), backwards=True)
        yield Drift("3 sequences a pass, last first", dtype, backwards)
        decoded = prove_while_decoding(world, model, rollouts)
        yield Drift("decoding token by token with a key-value cache", dtype, decoded)
        plain = prove_plainly(world, model, rollouts)
        yield Drift("one sequence a pass, torch's own log-softmax", dtype, plain)
        eager = prove(world, with_eager_attention(model), rollouts)
        yield Drift("eager attention instead of sdpa", dtype, eager)
    with threads(2):
        yield Drift(
            "two threads instead of one", "float32", prove(world, models["float32"], rollouts)
        )
    yield Drift("float32 prover, bfloat16 verifier", "bfloat16", alone)


def _sized(size: int) -> Callable[[int], list[int]]:
    def sizes(count: int) -> list[int]:
        return [size] * (count // size) + [count % size] * (count % size > 0)

    return sizes
