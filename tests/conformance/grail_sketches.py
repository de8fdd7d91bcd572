"""Buckets, sketches of given hidden states, and whole proofs of a tiny model."""

import struct
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from windrow.engine.ports import Proof
from windrow.engine.proving import ModelProver
from windrow.kernels.sketch import activation_sketches, bucketize
from windrow.networks.grail.commit import commit_binding
from windrow.networks.grail.commitments import commitments_hash
from windrow.networks.grail.constants import PROOF_VERSION
from windrow.networks.grail.prf import sketch_coefficients
from windrow.networks.grail.sketch import within_tolerance
from windrow.networks.grail.tokens import token_hash

from .framework import Case, VectorFile, assert_close, handles

LOGPROB_TOLERANCE = 2e-5
BUCKET_LISTS = (
    ("cases", "value_f64_be_hex", ">d", torch.float64),
    ("float32_cases", "value_f32_be_hex", ">f", torch.float32),
    ("bfloat16_cases", "value_bf16_be_hex", ">h", torch.bfloat16),
)


@handles("grail/bucketing.json")
def bucketing(file: VectorFile) -> Iterator[Case]:
    vectors = file.load_json()
    for key, field, form, dtype in BUCKET_LISTS:
        for index, case in enumerate(vectors.get(key, [])):
            (number,) = struct.unpack(form, bytes.fromhex(case[field]))
            value = torch.tensor(number, dtype=torch.int16).view(dtype) if form == ">h" else number
            buckets = {case["bucket"], case.get("bucket_vectorized", case["bucket"])}
            yield Case(f"{key}-{index}", partial(check_bucket, value, dtype, buckets))


def check_bucket(value: float | torch.Tensor, dtype: torch.dtype, buckets: set[int]) -> None:
    assert {bucketize(torch.as_tensor(value, dtype=dtype)).item()} == buckets


@handles("grail/sketches.json", uses=["grail/sketch_hidden_states.safetensors"])
def sketches(file: VectorFile) -> Iterator[Case]:
    for case in file.load_json()["cases"]:
        yield Case(
            case["tensor"],
            partial(
                check_sketches,
                file.folder / "sketch_hidden_states.safetensors",
                case["tensor"],
                case["randomness_hex"],
                case["sketches"],
                case["rows_with_tie_at_topk_boundary"],
            ),
        )
        yield Case(f"{case['tensor']}-listed", partial(check_listed, case))


def check_listed(case: dict[str, Any]) -> None:
    assert sketch_coefficients(case["randomness_hex"]).tolist() == case["r_vec"]
    one_by_one, together = np.array(case["sketches_scalar_path"]), np.array(case["sketches"])
    different = np.flatnonzero(one_by_one != together)
    assert set(different) <= set(case["rows_with_tie_at_topk_boundary"])


def check_sketches(
    tensors: Path, name: str, randomness: str, expected: list[int], inexact: list[int]
) -> None:
    with safe_open(tensors, "pt") as file:
        hidden = file.get_tensor(name)
    coefficients = torch.tensor(sketch_coefficients(randomness))
    assert_sketches(activation_sketches(hidden, coefficients).numpy(), expected, inexact)


def assert_sketches(actual: np.ndarray, expected: list[int], inexact: list[int]) -> None:
    """Equal, or within the protocol's tolerance at the rows a file marks as not exact."""
    assert len(actual) == len(expected)
    own = np.array(expected)
    assert set(np.flatnonzero(actual != own)) <= set(inexact)
    assert within_tolerance(own, actual, np.arange(len(own))).all()


@handles(
    "grail/model_commitments.json", uses=["grail/model_hidden_states.safetensors", "grail/model/*"]
)
def model_commitments(file: VectorFile) -> Iterator[Case]:
    vectors = file.load_json()
    tensors = file.folder / "model_hidden_states.safetensors"

    @cache
    def prover() -> ModelProver:
        model = AutoModelForCausalLM.from_pretrained(
            file.folder / vectors["model_dir"], dtype=torch.float32
        )
        return ModelProver(model)

    for number, batch in enumerate(padded_batches(vectors["cases"])):
        proofs = cache(partial(prove_batch, prover, batch))
        for case in batch:
            index = case["batch_index"]
            yield Case(f"batch-{number}-{index}-proof", partial(check_proof, case, proofs, index))
            check = partial(check_binding, case, vectors["layer_index"])
            yield Case(f"batch-{number}-{index}-binding", check)
            if case.get("hidden_tensor"):
                yield Case(
                    f"batch-{number}-{index}-hidden",
                    partial(
                        check_sketches,
                        tensors,
                        case["hidden_tensor"],
                        case["randomness_hex"],
                        case["sketches"],
                        case["fragile_positions"],
                    ),
                )


def padded_batches(cases: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The sequences proved in one call, in order; every batch counts from index 0."""
    batches: list[list[dict[str, Any]]] = []
    for case in cases:
        if case["batch_index"] == 0:
            batches.append([])
        batches[-1].append(case)
    for batch in batches:
        assert [len(case["tokens"]) for case in batch] == batch[0]["batch_lengths"]
        assert len({case["randomness_hex"] for case in batch}) == 1
    return batches


def prove_batch(prover: Callable[[], ModelProver], batch: list[dict[str, Any]]) -> list[Proof]:
    return prover().prove(
        [np.array(case["tokens"], np.int32) for case in batch],
        [case["prompt_length"] for case in batch],
        sketch_coefficients(batch[0]["randomness_hex"]),
    )


def check_proof(case: dict[str, Any], proofs: Callable[[], list[Proof]], index: int) -> None:
    proof = proofs()[index]
    assert_sketches(proof.sketches, case["sketches"], case["fragile_positions"])
    prompt = case["prompt_length"]
    assert not proof.logprobs[:prompt].any()
    assert_close(
        proof.logprobs[prompt:].tolist(),
        case["completion_logprobs"],
        rel=0.0,
        abs_=LOGPROB_TOLERANCE,
    )


def check_binding(case: dict[str, Any], layer: int) -> None:
    (digest,) = commitments_hash(pa.array([case["sketches"]], pa.list_(pa.int64())))
    assert digest.hex() == case["commitments_sha256"]
    binding = commit_binding(
        token_hash(case["tokens"]), case["randomness_hex"], case["model_name"], layer, digest
    )
    assert case["beacon"]["randomness"] == case["randomness_hex"]
    assert case["proof_version"] == PROOF_VERSION
    assert binding.hex() == case["binding_sha256"]
