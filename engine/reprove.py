"""Proving rollouts that are already there, group by group."""

from collections.abc import Iterator

import pyarrow as pa

from windrow.engine.ports import Proof, Prover
from windrow.networks.grail.constants import PROOF_BATCH
from windrow.networks.grail.prf import sketch_coefficients


def prove_again(rollouts: pa.Table, prover: Prover, randomness: str) -> Iterator[Proof]:
    """A proof for every row, in order.

    rollouts: tokens list<int32> and prompt_length int32, whole groups of 16 in sequence, so that
    every forward pass sees the sixteen of one group (§6.2). randomness: R_m, plain hex.
    """
    coefficients = sketch_coefficients(randomness)
    tokens = rollouts["tokens"].combine_chunks()
    prompt_lengths = rollouts["prompt_length"].to_pylist()
    for start in range(0, rollouts.num_rows, PROOF_BATCH):
        rows = range(start, min(start + PROOF_BATCH, rollouts.num_rows))
        sequences = [tokens[row].values.to_numpy() for row in rows]
        yield from prover.prove(sequences, [prompt_lengths[row] for row in rows], coefficients)
