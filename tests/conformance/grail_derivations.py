"""PRF, coefficients, challenge positions, token hash and seeds (grail-protocol §3)."""

import hashlib
import random
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from windrow import WindrowError
from windrow.networks.grail.prf import normalise_hex, open_indices, prf, sketch_coefficients
from windrow.networks.grail.seeds import problem_seed
from windrow.networks.grail.tokens import context_length, token_hash, tokens_valid, vocab_size

from .framework import Case, VectorFile, handles


def cases(file: VectorFile) -> Iterator[tuple[str, dict[str, Any]]]:
    for index, case in enumerate(file.load_json()["cases"]):
        yield f"case-{index}", case


@handles("grail/prf.json")
def prf_output(file: VectorFile) -> Iterator[Case]:
    for name, case in cases(file):
        yield Case(name, partial(check_prf, case))


def check_prf(case: dict[str, Any]) -> None:
    label = bytes.fromhex(case["label_hex"])
    parts = [bytes.fromhex(part) for part in case["parts_hex"]]
    if "error" in case:
        with pytest.raises(WindrowError):
            prf(label, parts, case["out_bytes"])
        return
    output = prf(label, parts, case["out_bytes"])
    assert len(output) == case["output_len"]
    assert hashlib.sha256(output).hexdigest() == case["output_sha256"]
    if len(output) <= 512:  # beyond, the file shows only the beginning
        assert output.hex() == case["output_hex"]


@handles("grail/r_vec.json")
def coefficients(file: VectorFile) -> Iterator[Case]:
    for name, case in cases(file):
        yield Case(name, partial(check_coefficients, case))


def check_coefficients(case: dict[str, Any]) -> None:
    randomness = case["randomness_hex"]
    if "error" in case:
        with pytest.raises(WindrowError):
            sketch_coefficients(randomness)
        return
    if "normalized_hex" in case:
        assert normalise_hex(randomness) == bytes.fromhex(case["normalized_hex"])
    if "stream_hex" in case:
        stream = bytes.fromhex(case["stream_hex"])
        assert prf(b"sketch", [normalise_hex(randomness)], len(stream)) == stream
    if "int16_be" in case:
        words = np.frombuffer(prf(b"sketch", [normalise_hex(randomness)], 32), ">i2")
        assert words.tolist() == case["int16_be"]
    vector = sketch_coefficients(randomness, case.get("topk", 16))
    assert vector.dtype == np.int8
    assert vector.tolist() == case["r_vec"]


@handles("grail/open_indices.json")
def challenge(file: VectorFile) -> Iterator[Case]:
    for name, case in cases(file):
        yield Case(name, partial(check_challenge, case))


def check_challenge(case: dict[str, Any]) -> None:
    tokens = case.get("tokens")
    if tokens is None:
        recipe = case["tokens_gen"]
        rng = random.Random(recipe["py_random_seed_str"])
        tokens = [rng.randrange(recipe["randrange"]) for _ in range(recipe["count"])]
    start = case["start"] if "start" in case else case["prompt_length"]
    length = case["end"] - start if "end" in case else case["completion_length"]
    if "error" in case:
        with pytest.raises(WindrowError):
            open_indices(tokens, start, length, case["randomness_hex"], case["k"])
        return
    digest = token_hash(tokens)
    if "tokens_sha256" in case:
        assert digest.hex() == case["tokens_sha256"]
    if "material_hex" in case:
        material = prf(b"open", [digest, normalise_hex(case["randomness_hex"])], 32)
        assert material.hex() == case["material_hex"]
    indices = open_indices(tokens, start, length, case["randomness_hex"], case["k"])
    assert indices == case["indices"]


@handles("grail/tokens_hash.json")
def hashes(file: VectorFile) -> Iterator[Case]:
    for name, case in cases(file):
        yield Case(name, partial(check_hash, case))


def check_hash(case: dict[str, Any]) -> None:
    assert token_hash(case["tokens"]).hex() == case["sha256"]


@handles("grail/verify_tokens.json")
def validity(file: VectorFile) -> Iterator[Case]:
    for name, case in cases(file):
        yield Case(name, partial(check_validity, case))


def check_validity(case: dict[str, Any]) -> None:
    config = case["config"]
    valid = tokens_valid(case["tokens"], vocab_size(config), context_length(config))
    assert valid == case["valid"]


@handles("grail/env_seed.json")
def seeds(file: VectorFile) -> Iterator[Case]:
    for name, case in cases(file):
        yield Case(name, partial(check_seed, case))


def check_seed(case: dict[str, Any]) -> None:
    seed = problem_seed(case["hotkey"], case["window_hash"], case["group_index"])
    assert seed == case["seed"]
