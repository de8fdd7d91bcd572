"""Gonka's proof of compute v2: hashes, vectors, their comparison, the commitment tree."""

import base64
import hashlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from windrow.kernels.hashed_streams import murmur, murmur_normal, murmur_uniform
from windrow.networks.gonka import artifacts, sum_tree
from windrow.networks.gonka.poc_batches import fraud_from_counts

from .framework import Case, VectorFile, assert_close, handles

Row = dict[str, Any]

FLOAT32 = 2e-6
FLOAT16 = 2e-3


@handles("gonka/17_poc_v2.json")
def vectors(file: VectorFile) -> Iterator[Case]:
    document = file.load_json()
    for index, case in enumerate(document["cases"]):
        yield Case(f"draws-{index}", partial(check_draws, case))
        for row in range(len(case["nonces"])):
            yield Case(f"vectors-{index}-{row}", partial(check_vectors, case, row))
    for index, case in enumerate(document.get("fraud", [])):
        yield Case(f"fraud-{index}", partial(check_fraud, case))
    for case in document.get("compare", []):
        yield Case(case["case"], partial(check_comparison, case))


LAST_HIDDEN = "last_hidden[i][j]=sin(i*hidden_size+j) in float32"


def check_draws(case: Row) -> None:
    name = (case["block_hash"], case["public_key"])
    hidden = case["hidden_size"]
    size = case["seq_len"] * hidden
    seeds = [artifacts.nonce_seed(*name, nonce) for nonce in case["nonces"]]
    assert seeds == case["nonce_seeds_u32"]
    keys = np.arange(len(case["murmur3_of_keys_0_5_seed0"]), dtype=np.uint32)
    assert murmur(keys, seeds[0]).tolist() == case["murmur3_of_keys_0_5_seed0"]
    expected = case["uniform_first4"]
    assert_close(murmur_uniform(seeds[0], len(expected)).tolist(), expected, rel=0, abs_=FLOAT32)
    expected = case["normal_first6_of_10"]
    drawn = murmur_normal(seeds[0], 10)[: len(expected)].tolist()
    assert_close(drawn, expected, rel=0, abs_=FLOAT32)
    for stronger, column in ((False, "inputs_f16_first6"), (True, "inputs_stronger_f16_first6")):
        drawn = artifacts.nonce_inputs(*name, case["nonces"][0], size, stronger=stronger)
        assert drawn.shape == (size,)
        expected = case[column]
        half = drawn[: len(expected)].astype(np.float16).tolist()
        assert_close(half, expected, rel=0, abs_=FLOAT16)
    expected = case["layer0_householder_first6"]
    reflection = artifacts.layer_reflection(name[0], 0, hidden)
    assert np.linalg.norm(reflection) == pytest.approx(1, abs=FLOAT32)
    assert_close(reflection[: len(expected)].tolist(), expected, rel=0, abs_=FLOAT32)


def check_vectors(case: Row, row: int) -> None:
    name = (case["block_hash"], case["public_key"], case["nonces"][row])
    hidden, k = case["hidden_size"], case["k_dim"]
    by_index = artifacts.picked(*name, hidden, k).tolist()
    assert by_index == case["pick_indices_sorted"][row]
    by_score = artifacts.picked(*name, hidden, k, order="score").tolist()
    assert set(by_score) == set(case["pick_indices_reference_order"][row])
    turned = artifacts.rotated(*name, np.array(case["haar_input"][row], np.float32))
    assert_close(turned.tolist(), case["haar_output"][row], rel=0, abs_=FLOAT32)
    assert case["pipeline_last_hidden_rule"] == LAST_HIDDEN
    last_hidden = np.sin((row * hidden + np.arange(hidden)).astype(np.float32))
    for order in ("index", "score"):
        vector = artifacts.artifact(*name, last_hidden, k, order=order)
        assert vector is not None
        expected = case[f"pipeline_vectors_f16_picks_in_{order}_order"][row]
        assert_close(vector.tolist(), expected, rel=0, abs_=FLOAT16)
    # The reference's own vector, in an order nobody defined: only its encoding can be held to.
    expected = case["pipeline_vectors_f16"][row]
    text = case["pipeline_vector_b64"][row]
    assert artifacts.decode(text, k).tolist() == expected
    assert artifacts.encode(np.array(expected, np.float16)) == text


def check_fraud(case: Row) -> None:
    given = ("n_total", "n_mismatch", "p_mismatch", "fraud_threshold")
    test = fraud_from_counts(*(case[name] for name in given))
    assert_close([test.probability_honest], [case["p_value"]])
    assert test.fraud == case["fraud_detected"]


def check_comparison(case: Row) -> None:
    threshold, computed, received = (
        case["dist_threshold"],
        case["computed_b64"],
        case["received_b64"],
    )
    found = artifacts.network_mismatches([1], [computed], [received], threshold)
    assert found == case["mismatch_nonces"]
    assert len(found) == case["n_mismatch"]


@handles("gonka/18_smst.json")
def trees(file: VectorFile) -> Iterator[Case]:
    def check(case: Row) -> None:
        leaves = {int(nonce): bytes.fromhex(text) for nonce, text in case["leaves"].items()}
        tree = sum_tree.SumTree(leaves)
        assert tree.depth == case["depth"] >= case["default_depth"] == sum_tree.LEAST_DEPTH
        assert (tree.root.hash.hex(), tree.root.count) == (case["root_hex"], case["count"])
        for row in case["proofs"]:
            opening = tree.open(row["dense_index"])
            assert (opening.nonce, opening.vector.hex()) == (row["nonce"], row["vector_hex"])
            proof = [sibling.to_bytes() for sibling in opening.siblings]
            assert len(proof) == row["proof_len"]
            assert hashlib.sha256(b"".join(proof)).hexdigest() == row["proof_sha256"]
            shown = [base64.b64encode(sibling).decode() for sibling in proof[:2]]
            assert shown == row["proof_b64_first2"]
            assert sum_tree.network_accepts(opening, tree.root)
            length = len(opening.vector)
            assert sum_tree.strict_accepts(opening, tree.root, tree.depth, length)

    for index, case in enumerate(file.load_json()["cases"]):
        yield Case(f"case-{index}", partial(check, case))
