"""Proving rollouts that are already there, group by group."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from windrow.engine.ports import Proof, Prover
from windrow.networks.grail.constants import PROOF_BATCH
from windrow.networks.grail.prf import sketch_coefficients


def prove_again(rollouts: pa.Table, prover: Prover, randomness: str) -> Iterator[Proof]:
    """A proof for every row, in order, from as many groups at a time as the prover has lanes.

    rollouts: tokens list<int32> and prompt_length int32, whole groups of 16 in sequence, so that
    every forward pass sees the sixteen of one group (§6.2). randomness: R_m, plain hex.
    """
    coefficients = sketch_coefficients(randomness)
    tokens = rollouts["tokens"].combine_chunks()
    prompt_lengths = rollouts["prompt_length"].to_pylist()

    def proved(start: int) -> list[Proof]:
        rows = range(start, min(start + PROOF_BATCH, rollouts.num_rows))
        sequences = [tokens[row].values.to_numpy() for row in rows]
        return prover.prove(sequences, [prompt_lengths[row] for row in rows], coefficients)

    threads = ThreadPoolExecutor(prover.lanes, thread_name_prefix="proof")
    try:
        for group in threads.map(proved, range(0, rollouts.num_rows, PROOF_BATCH)):
            yield from group
    finally:
        prover.cancel()
        threads.shutdown(cancel_futures=True)
