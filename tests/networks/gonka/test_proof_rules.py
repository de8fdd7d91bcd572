"""Shares of nonces, samples, artifacts, commitments: the strict siblings, and hostile input."""

import hashlib
import struct
from dataclasses import replace
from fractions import Fraction
from itertools import islice, product

import numpy as np
import pytest

from windrow.engine.fleet.poc_model import BlockModel
from windrow.networks.gonka import artifacts, sum_tree
from windrow.networks.gonka.poc_capacity import (
    BadPartition,
    collisions,
    dense_partition,
    network_partition,
)
from windrow.networks.gonka.poc_model import PARAMETER_SETS, BadParameters, parse_shape
from windrow.networks.gonka.poc_nonces import nonce_draws, nonce_input
from windrow.networks.gonka.sampling import network_sample, strict_sample, validator_slots
from windrow.networks.gonka.stages import EpochParams, poc_start
from windrow.networks.gonka.store_commits import (
    StoreCommit,
    commit_faults,
    early_share,
    too_late,
    weighted_median,
)


def test_dense_shares_never_meet_whatever_groups_nodes_have() -> None:
    groups = [2, 1, 3]
    shares = [
        dense_partition(node, 3, group, groups[node])
        for node in range(3)
        for group in range(groups[node])
    ]
    assert collisions(shares) == []
    together = sorted(n for share in shares for n in islice(share, 60) if n < 60)
    assert together == list(range(60))


def test_the_proof_of_collisions_is_what_counting_finds() -> None:
    shares = [network_partition(n, m, 0, g) for n, m, g in product((1, 2, 3), (1, 2, 3), (1, 2))]
    found = set(collisions(shares))
    for second, mine in enumerate(shares):
        for first, other in enumerate(shares[:second]):
            common = set(islice(mine, 200)) & set(islice(other, 200))
            assert ((first, second) in found) == bool(common)


def test_a_number_that_is_no_dense_index_is_refused() -> None:
    assert network_partition(3, 2) == replace(network_partition(1, 2), start=3)
    for index, group in ((2, 0), (-1, 0), (0, 1)):
        with pytest.raises(BadPartition):
            dense_partition(index, 2, group)


def test_a_strict_sample_is_a_set_of_indices_drawn_fairly() -> None:
    assert strict_sample(b"r", 5, 9) == [0, 1, 2, 3, 4]
    seen = np.zeros(20)
    for i in range(400):
        drawn = strict_sample(i.to_bytes(2, "big"), 20, 5)
        assert len(set(drawn)) == 5
        seen[drawn] += 1
    # 100 expected of each; 6 standard deviations is 52.
    assert seen.min() > 48
    assert seen.max() < 152


def test_the_network_s_sample_is_known_to_everybody() -> None:
    assert network_sample("k", "H", 7, 1000) == network_sample("k", "H", 7, 1000)
    with pytest.raises(ValueError, match="positive weight"):
        validator_slots("h", "a", "m", {"v": 0}, 2)


def test_only_models_the_network_can_build_are_read() -> None:
    tiny = PARAMETER_SETS["tiny"]
    params = {**tiny.__dict__, "use_scaled_rope": False}
    assert parse_shape(params) == tiny
    for name, value in (
        ("use_scaled_rope", True), ("dim", 65), ("dim", "64"), ("dim", True), ("n_kv_heads", 3),
        ("n_layers", 0), ("norm_eps", float("nan")), ("vocab_size", 10**10), ("more", 1),
    ):  # fmt: skip
        with pytest.raises(BadParameters):
            parse_shape(params | {name: value})


def test_missing_vectors_are_mismatches() -> None:
    vector = artifacts.encode(np.full(12, 0.25, np.float16))
    for received in ("", "!", vector[:-4], artifacts.encode(np.full(12, np.inf, np.float16))):
        assert artifacts.strict_mismatches([3], [vector], [received], 0.4) == [3]
    assert artifacts.network_mismatches([3], [vector], [""], 0.4) == []
    assert artifacts.strict_mismatches([3], [vector], [vector], 0.4) == []


def test_a_hidden_state_with_nan_has_no_vector() -> None:
    hidden = np.ones(24, np.float32)
    assert artifacts.artifact("H", "k", 0, hidden) is not None
    hidden[3] = np.nan
    assert artifacts.artifact("H", "k", 0, hidden) is None


def test_reflections_keep_lengths_and_undo_themselves() -> None:
    v = artifacts.layer_reflection("H", 2, 48)
    x = np.arange(96, dtype=np.float32).reshape(2, 48)
    once = artifacts.reflected(x, v)
    assert np.linalg.norm(once, axis=1) == pytest.approx(np.linalg.norm(x, axis=1), rel=1e-5)
    assert artifacts.reflected(once, v) == pytest.approx(x, abs=1e-3)


def test_only_the_opening_of_a_leaf_is_accepted() -> None:
    tree = sum_tree.SumTree({nonce: bytes([nonce]) * 24 for nonce in (3, 4, 9, 200)})
    opening, root = tree.open(2), tree.root

    def accepts(forged: sum_tree.Opening, claimed: sum_tree.Node = root) -> bool:
        return sum_tree.strict_accepts(forged, claimed, tree.depth, 24)

    assert (root.count, opening.nonce) == (4, 9)
    assert accepts(opening)
    assert not accepts(replace(opening, index=1))
    assert not accepts(replace(opening, index=4))
    assert not accepts(replace(opening, nonce=8))
    assert not accepts(replace(opening, nonce=-1))
    assert not accepts(replace(opening, vector=bytes(24)))
    assert not accepts(replace(opening, siblings=opening.siblings[1:]))
    assert not accepts(opening, replace(root, count=5))
    for count in (-1, 2**32 - 1, 2**40):
        grown = [replace(opening.siblings[0], count=count), *opening.siblings[1:]]
        assert not accepts(replace(opening, siblings=grown))
    with pytest.raises(sum_tree.BadTree):
        tree.open(4)
    with pytest.raises(sum_tree.BadTree):
        sum_tree.SumTree({2**32: b""})


def test_an_empty_tree_commits_to_nothing() -> None:
    tree = sum_tree.SumTree({})
    assert (tree.depth, tree.root.count) == (24, 0)


def test_a_nonce_deeper_than_the_tree_is_refused_strictly() -> None:
    tree = sum_tree.SumTree({5: b"v"})
    opening = replace(tree.open(0), nonce=5 + 2**24)
    assert not sum_tree.strict_accepts(opening, tree.root, 24, 1)


def test_gaps_between_nonces_are_noticed() -> None:
    assert not sum_tree.too_porous(999, 10)
    assert sum_tree.too_porous(1000, 10)
    assert sum_tree.too_porous(0, 0)


def test_commitments_grow_one_a_block_within_the_window() -> None:
    commits = [StoreCommit(301, 10, b""), StoreCommit(310, 30, b""), StoreCommit(350, 90, b"")]
    assert commit_faults(commits, 301, 365) == []
    assert len(commit_faults(commits, 302, 349)) == 2
    assert len(commit_faults([*commits, StoreCommit(350, 90, b"")], 301, 365)) == 2


def test_what_came_in_late_is_measured_against_the_median() -> None:
    early = [StoreCommit(315, 30, b""), StoreCommit(350, 90, b"")]
    late = [StoreCommit(340, 5, b""), StoreCommit(350, 90, b"")]
    shares = {"a": early_share(early, 300, 360), "b": early_share(late, 300, 360)}
    assert shares == {"a": Fraction(1, 3), "b": Fraction(0)}
    assert early_share([], 300, 360) == 0
    median = weighted_median(shares, {"a": 60, "b": 40})
    assert median == Fraction(1, 3)
    assert too_late(shares["b"], median)
    assert not too_late(Fraction(1, 6), median)


def test_epochs_start_where_constant_parameters_put_them() -> None:
    assert [poc_start(epoch) for epoch in range(3)] == [0, 300, 17580]
    assert poc_start(3, EpochParams(epoch_length=40, epoch_shift=0)) == 120


def rounded_twice(value: float) -> float:
    """To float32, then to float16, by the machine's C library instead of numpy."""
    (single,) = struct.unpack("<f", struct.pack("<f", value))
    (half,) = struct.unpack("<e", struct.pack("<e", single))
    return half


@pytest.mark.parametrize(("sequence", "dim"), [(4, 16), (128, 1024), (256, 1792)])
def test_inputs_of_any_shape_are_rounded_twice(sequence: int, dim: int) -> None:
    """The draws again from the text alone: SHA-256, SeedSequence, PCG64 (spec 9.1, 9.4)."""
    shape = replace(PARAMETER_SETS["tiny"], seq_len=sequence, dim=dim)
    block, key, nonce = "AB" * 32, "02" + "cd" * 32, 7
    text = f"{block}_{key}_nonce{nonce}"
    data = b"".join(hashlib.sha256(f"{text}_{i}".encode()).digest() for i in range(4))
    words = list(struct.unpack("<32I", data))
    stream = np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))
    draws = stream.normal(size=(1, sequence, dim))[0]
    assert np.array_equal(nonce_draws(block, key, nonce, shape), draws)
    expected = np.array([rounded_twice(value) for value in draws.ravel().tolist()])
    made = nonce_input(block, key, nonce, shape)
    assert made.dtype == np.float16
    assert np.array_equal(made.astype(np.float64).ravel(), expected)
    once = draws.astype(np.float16).astype(np.float64).ravel()
    # The difference is rare: a small shape does not show it.
    assert bool((once != expected).any()) == (once.size > 100_000)


def test_the_model_is_fed_what_the_network_feeds() -> None:
    model = BlockModel("AB" * 32, PARAMETER_SETS["tiny"])
    fed = model.inputs("02" + "cd" * 32, [3, 9])
    assert fed.dtype == np.float16
    one = nonce_input("AB" * 32, "02" + "cd" * 32, 9, model.shape)
    assert np.array_equal(fed[1], one)
