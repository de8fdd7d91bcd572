"""Gonka's proof of compute v1: random streams, weights, distances, difficulty, the fraud test."""

import hashlib
import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from windrow.engine.fleet.poc_model import BlockModel
from windrow.kernels.hashed_streams import entropy, generator
from windrow.networks.gonka import poc_model, poc_nonces
from windrow.networks.gonka.poc_batches import (
    P_MISMATCH,
    ProofBatch,
    ReceivedAboveTarget,
    Recomputing,
    merge,
    network_fraud_test,
    smallest_flagged,
)

from .framework import Case, VectorFile, assert_close, handles, number

Row = dict[str, Any]


def floats(texts: list[str]) -> list[float]:
    return [float.fromhex(text) for text in texts]


def digest(array: NDArray[Any], dtype: str) -> str:
    return hashlib.sha256(array.astype(dtype).tobytes()).hexdigest()


@handles("gonka/01_seed_rng.json")
def streams(file: VectorFile) -> Iterator[Case]:
    def check(case: Row) -> None:
        text, hashes = case["seed_string"], case["num_hashes"]
        assert entropy(text, hashes).tolist() == case["entropy_uint32"]
        state = generator(text, hashes).bit_generator.state["state"]
        assert {name: str(value) for name, value in state.items()} == case["pcg64_state"]
        expected = floats(case["standard_normal_hex"])
        assert generator(text, hashes).standard_normal(len(expected)).tolist() == expected
        expected = floats(case["normal_0_0.02_hex"])
        assert generator(text, hashes).normal(0, 0.02, len(expected)).tolist() == expected
        assert generator(text, hashes).permutation(17).tolist() == case["permutation_17"]

    for index, case in enumerate(file.load_json()["cases"]):
        yield Case(f"case-{index}", partial(check, case))


@handles("gonka/02_inputs_permutations_target.json")
def inputs(file: VectorFile) -> Iterator[Case]:
    def check(case: Row) -> None:
        name = (case["block_hash"], case["public_key"])
        sizes = {"dim": case["dim"], "seq_len": case["seq_len"]}
        shape = poc_model.DecoderShape(
            n_layers=1, n_heads=1, n_kv_heads=1, vocab_size=case["vocab_size"], multiple_of=1,
            ffn_dim_multiplier=1.0, norm_eps=1e-5, rope_theta=1e4, **sizes,
        )  # fmt: skip
        drawn = np.stack([poc_nonces.nonce_draws(*name, n, shape) for n in case["nonces"]])
        assert list(drawn.shape) == case["inputs_shape"]
        assert drawn.ravel()[:8].tolist() == floats(case["inputs_f64_first8_hex"])
        half = np.stack([poc_nonces.nonce_input(*name, n, shape) for n in case["nonces"]])
        assert half.ravel()[:8].tolist() == case["inputs_f16_first8"]
        assert digest(half, "<f2") == case["inputs_f16_le_sha256"]
        orders = np.stack(
            [poc_nonces.nonce_permutation(*name, n, case["vocab_size"]) for n in case["nonces"]]
        )
        assert orders[:, :8].tolist() == case["permutations_first8"]
        assert digest(orders, "<i8") == case["permutations_i64_le_sha256"]
        target = poc_nonces.block_target(name[0], case["vocab_size"])
        assert target[:8].tolist() == floats(case["target_first8_hex"])
        assert digest(target, "<f8") == case["target_f64_le_sha256"]
        assert np.linalg.norm(target) == pytest.approx(case["target_norm"], rel=1e-12)

    for index, case in enumerate(file.load_json()["cases"]):
        yield Case(f"case-{index}", partial(check, case))


@handles("gonka/04_model_init.json")
def weights(file: VectorFile) -> Iterator[Case]:
    def check(case: Row) -> None:
        block_hash, shape = case["block_hash"], poc_model.parse_shape(case["params"])
        assert poc_model.total_parameters(shape) == case["total_params"]
        size = poc_model.pool_size(shape)
        assert size == case["pool_size"]
        wide = generator(block_hash, 4).normal(0, 0.02, 4).astype(np.float32)
        assert wide.tolist() == floats(case["pool_f32_first4_hex"])
        pool = poc_model.draw_pool(block_hash, size)
        assert digest(pool, "<f2") == case["pool_f16_le_sha256"]
        model = BlockModel(block_hash, shape, dtype=torch.float16, pool=pool)
        assert list(shape.parameters()) == [row["name"] for row in case["parameters"]]
        for row in case["parameters"]:
            name, count = row["name"], row["numel"]
            where = poc_model.placement(block_hash, name, count, size)
            assert poc_model.name_hash(block_hash, name) == row["name_hash"]
            mode = "tile_roll" if where.tiled else "slice"
            assert (mode, where.offset) == (row["mode"], row["offset"])
            value = model.parameter(name).numpy()
            assert list(value.shape) == row["shape"]
            assert value.ravel()[:4].tolist() == row["first4_f16"]
            assert digest(value, "<f2") == row["f16_le_sha256"]

    for case in file.load_json()["cases"]:
        yield Case(case["config_name"], partial(check, case))


@handles("gonka/05_tiny_distances.json")
def distances(file: VectorFile) -> Iterator[Case]:
    def check(case: Row, dtype: torch.dtype, column: str) -> None:
        shape = poc_model.parse_shape(case["params"])
        model = BlockModel(case["block_hash"], shape, dtype=dtype)
        key, nonces = case["public_key"], case["nonces"]
        found = model.distances(key, nonces, batch_size=32)
        assert_close(found.tolist(), case[column], rel=0, abs_=case["suggested_abs_tolerance"])
        unsure = set(case["borderline_nonces_ignore_if_mismatch"])
        batch = ProofBatch(nonces=tuple(nonces), distances=tuple(found.tolist()))
        accepted = set(batch.below(case["r_target"]).nonces)
        assert accepted - unsure == set(case["accepted_nonces"]) - unsure
        logits = model.logits(model.inputs(key, nonces[:1]))[0, :6].tolist()
        expected = case["nonce0_last_logits_first6_fp16path"]
        assert_close(logits, expected, rel=0, abs_=case["suggested_abs_tolerance"])
        order = poc_nonces.nonce_permutation(case["block_hash"], key, nonces[0], shape.vocab_size)
        assert order[:6].tolist() == case["nonce0_permutation_first6"]

    for case in file.load_json()["cases"]:
        name = case["config_name"]
        half = partial(check, case, torch.float16, "dist_fp16_reference")
        yield Case(f"{name}-float16", half)
        single = partial(check, case, torch.float32, "dist_fp32_upcast_same_weights")
        yield Case(f"{name}-float32", single)


@handles("gonka/06_fraud_test.json")
def fraud_test(file: VectorFile) -> Iterator[Case]:
    def check(case: Row) -> None:
        computed = [2.0] * case["n_invalid"] + [1.0] * (case["n"] - case["n_invalid"])
        test = network_fraud_test(computed, [1.0] * case["n"], 1.4, case["fraud_threshold"])
        assert_close([test.probability_honest], [case["probability_honest"]])
        assert case["p_mismatch"] == P_MISMATCH
        assert (test.invalid, test.fraud) == (case["n_invalid"], case["fraud_detected"])

    def check_smallest(case: Row) -> None:
        found = smallest_flagged(case["n"], case["fraud_threshold"])
        assert found == case["smallest_n_invalid_flagged"]

    def check_edge(given: Row, result: Row | str) -> None:
        def run() -> Any:
            return network_fraud_test(
                [number(dist) for dist in given["dist"]],
                [number(dist) for dist in given["received_dist"]],
                given["r_target"],
                given["fraud_threshold"],
            )

        if isinstance(result, str):
            assert result.startswith("AssertionError")
            with pytest.raises(ReceivedAboveTarget):
                run()
            return
        test = run()
        assert (test.invalid, test.fraud) == (result["n_invalid"], result["fraud_detected"])
        assert_close([test.probability_honest], [result["probability_honest"]])

    document = file.load_json()
    for index, case in enumerate(document["cases"]):
        yield Case(f"case-{index}", partial(check, case))
    for case in document.get("minimum_flagging", []):
        yield Case(f"smallest-{case['n']}", partial(check_smallest, case))
    for case in document.get("edge_cases", []):
        yield Case(case["case"], partial(check_edge, case["input"], case["result"]))


@handles("gonka/07_proof_batch_ops.json")
def batches(file: VectorFile) -> Iterator[Case]:
    def of(row: Row, **names: Any) -> ProofBatch:
        rows = {"nonces": tuple(row["nonces"]), "distances": tuple(row.get("dist", ()))}
        return ProofBatch(**rows, **names)

    def check(case: Row) -> None:
        batch = of(case)
        assert batch.below(case["r_target"]) == of(case["sub_batch"])
        parts = batch.split(3)
        assert parts == [of(part) for part in case["split_3"]]
        assert batch.sorted() == of(case["sort_by_nonce"])
        merged = merge(parts[:2])
        assert list(merged.nonces) == case["merge_of_first_two_splits"]["nonces"]

    def check_empty(expected: Row) -> None:
        body = merge([]).body()
        assert {name: body[name] for name in expected} == expected
        assert (body["nonces"], body["dist"]) == ([], [])

    def check_readiness(expected: Row) -> None:
        # The file gives what came of three nonces received out of order; a stranger's result,
        # then each of them, one at a time.
        order = expected["validated_dist_order"]
        mine = {"public_key": "k", "block_hash": "H", "block_height": 7}
        nonces = tuple(range(len(order)))
        waiting = Recomputing(ProofBatch(nonces=nonces, distances=(1.0,) * len(order), **mine))
        ready = [waiting.ready]
        stranger = mine | {"block_hash": "other"}
        waiting.take(ProofBatch(nonces=nonces, distances=(0.5,) * len(order), **stranger))
        ready.append(waiting.ready)
        by_distance = sorted(nonces, key=order.__getitem__)
        first, rest = by_distance[0], by_distance[1:]
        for some in ([first], rest):
            found = tuple(order[nonce] for nonce in some)
            waiting.take(ProofBatch(nonces=tuple(some), distances=found, **mine))
            ready.append(waiting.ready)
        assert ready == expected["ready_sequence"]
        assert waiting.distances() == order

    document = file.load_json()
    for index, case in enumerate(document["cases"]):
        yield Case(f"case-{index}", partial(check, case))
    yield Case("empty-merge", partial(check_empty, document["empty_merge"]))
    yield Case("in-validation", partial(check_readiness, document["in_validation"]))


@handles("gonka/09_r_target.json")
def difficulty(file: VectorFile) -> Iterator[Case]:
    def check(case: Row) -> None:
        expected = case["analytic_success_probability_uniform_sphere"]
        found = poc_nonces.success_probability(case["r_target"], case["vocab_size"])
        assert math.isclose(found, expected, rel_tol=1e-6)

    def check_inverse(case: Row) -> None:
        found = poc_nonces.r_target_for(case["success_probability"], case["vocab_size"])
        assert math.isclose(found, case["r_target"], rel_tol=1e-6)

    document = file.load_json()
    for index, case in enumerate(document["cases"]):
        yield Case(f"case-{index}", partial(check, case))
    for index, case in enumerate(document.get("inverse", [])):
        yield Case(f"inverse-{index}", partial(check_inverse, case))
