"""compute-subnet: hash challenges, hash trees, and the GPU proof."""

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from windrow.kernels.row_tree import root_from, row_hashes, row_proof, tree_levels
from windrow.networks.compute_subnet import gpu_models, gpu_proof
from windrow.networks.compute_subnet import hash_challenge as hashes

from .framework import Case, VectorFile, assert_close, each, handles

Row = dict[str, Any]


def floats(text: str) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(text), "<f4")


@handles("compute-subnet/hash_challenge_*.json")
def hash_challenges(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Row) -> None:
        length = len(given["mask"]) // 2
        challenge = hashes.HashChallenge(
            given["hash"], given["salt"], given["mode"], given["chars"], length
        )
        assert challenge.mask == given["mask"]
        made = hashes.challenge_of(
            out["password"], bytes.fromhex(given["salt"]), given["chars"], given["mode"]
        )
        assert made == challenge
        assert hashes.solves(out["password"], challenge)
        if "hashcat_stdout" in given:
            parsed = hashes.network_answer(given["hashcat_stdout"], challenge)
            assert parsed == out["parsed_from_stdout"]
            assert hashes.solves(out["password"], challenge) == out["accepts_password"]
            assert hashes.solves(given["wrong_answer"], challenge) == out["accepts_wrong"]

    return each(file, check)


@handles("compute-subnet/merkle_rows.json")
def merkle_rows(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Row) -> None:
        matrix = floats(given["matrix_float32_le_b64"]).reshape(given["rows"], given["cols"])
        leaves = row_hashes(matrix)
        levels = tree_levels(leaves)
        root = levels[-1][0]
        assert root.hex() == out["root"]
        assert sum(len(level) for level in levels) == out["tree_nodes"]
        # The file lists the first leaves only.
        assert [leaf.hex() for leaf in leaves[: len(out["leaves"])]] == out["leaves"]
        for opened in out["proofs"]:
            check_proof(leaves, levels, opened, root)

    return each(file, check)


def check_proof(leaves: list[bytes], levels: list[list[bytes]], opened: Row, root: bytes) -> None:
    index = opened["row_index"]
    proof = row_proof(levels, index)
    assert [sibling.hex() for sibling in proof] == opened["proof"]
    assert (root_from(leaves[index], index, proof) == root) == opened["valid"]
    tampered = leaves[index][:-1] + bytes([leaves[index][-1] ^ 1])
    assert (root_from(tampered, index, proof) == root) == opened["valid_tampered_row"]
    assert (root_from(leaves[index], index ^ 1, proof) == root) == opened["valid_wrong_index"]
    far = index + 2 ** len(proof)
    assert (root_from(leaves[index], far, proof) == root) == opened["valid_index_plus_2^len"]
    if proof:
        zeroed = [bytes(32), *proof[1:]]
        valid = root_from(leaves[index], index, zeroed) == root
        assert valid == opened["valid_zeroed_first_sibling"]


@handles("compute-subnet/pog_identify_gpu.json")
def identify_gpu(file: VectorFile) -> Iterator[Case]:
    tables = file.load_json()["meta"]["tables"]

    def check_table() -> None:
        columns = ("GPU_TFLOPS_FP16", "GPU_TFLOPS_FP32", "GPU_AVRAM")
        for model, measured in gpu_models.MODELS.items():
            assert tuple(measured) == tuple(tables[column][model] for column in columns)
        assert dict(gpu_models.ALIKE) == tables["gpu_tolerance_pairs"]

    def check(given: Row, out: Row) -> None:
        measured = gpu_models.Measured(
            given["fp16_tflops"], given["fp32_tflops"], given["avram_gb"]
        )
        made = gpu_models.network_model(measured, given["reported_name"])
        assert made == out["gpu_name"]

    yield Case("tables", check_table)
    yield from each(file, check)


@handles("compute-subnet/pog_matrix_size.json")
def matrix_size(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Row) -> None:
        made = gpu_proof.matrix_size(
            given["vram_gb"], given["element_size"], given["buffer_factor"]
        )
        assert made == out["n"]

    return each(file, check)


@handles("compute-subnet/pog_parse_benchmark.json")
def parse_benchmark(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Row) -> None:
        if not out["ok"]:
            with pytest.raises(gpu_proof.BadProofOutput):
                gpu_proof.parse_benchmark(given["stdout"])
            return
        made = gpu_proof.parse_benchmark(given["stdout"])
        names = ("num_gpus", "vram", "size_fp16", "time_fp16", "size_fp32", "time_fp32")
        values = [made.gpus, made.vram, made.size16, made.time16, made.size32, made.time32]
        assert_close(values, [out[name] for name in names])
        assert_close([made.tflops16, made.tflops32], [out["fp16_tflops"], out["fp32_tflops"]])

    return each(file, check)


@handles("compute-subnet/pog_parse_merkle.json")
def parse_proof(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Row) -> None:
        if not out["ok"]:
            with pytest.raises(gpu_proof.BadProofOutput):
                gpu_proof.parse_proof(given["stdout"])
            return
        made = gpu_proof.parse_proof(given["stdout"])
        assert [list(entry) for entry in made.roots] == out["roots"]
        assert [list(entry) for entry in made.timings] == out["timings"]

    return each(file, check)


@handles("compute-subnet/pog_prng.json")
def generator(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Row) -> None:
        index = np.arange(given["n"])
        sums = index[:, None] + index[None, :]
        assert gpu_proof.states(given["seed"], sums).tolist() == out["state_uint32"]
        validator = gpu_proof.validator_cells(given["seed"], sums)
        assert validator.tolist() == out["validator_float64"]
        miner = gpu_proof.miner_matrix(given["seed"], given["n"])
        assert miner.tobytes() == base64.b64decode(out["miner_float32_b64"])

    return each(file, check)


@handles("compute-subnet/pog_verify.json")
def verify(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Row) -> None:
        right = {}
        for gpu in given["gpus"]:
            opened = gpu_proof.OpenedRow(
                gpu["seed_a"],
                gpu["seed_b"],
                tuple(gpu["index"]),
                bytes.fromhex(gpu["root"]),
                floats(gpu["row_float32_le_b64"]),
                [bytes.fromhex(sibling) for sibling in gpu["proof"]],
            )
            right[str(gpu["gpu_id"])] = gpu_proof.network_accepts_row(opened, given["n"])
        assert right == out["per_gpu"]
        needed = gpu_proof.gpus_needed(len(right))
        assert (sum(right.values()) >= needed) == out["passed"]

    return each(file, check)


@handles("compute-subnet/pog_job_flow.json")
def job_flow(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Row) -> None:
        expected = None if out["gpu_name"] is None else (out["gpu_name"], out["num_gpus"])
        try:
            benchmark = gpu_proof.parse_benchmark(given["benchmark_stdout"])
        except gpu_proof.BadProofOutput:
            assert expected is None
            return
        gpus = given["reported"]["num_gpus"]
        report = gpu_proof.JobReport(
            given["script_hash_matches"],
            given["reported"]["gpu_names"],
            benchmark,
            given["compute_elapsed_s"],
            [given["reported_multiplication_time_s"]] * gpus,
            [given["matrix_correct"]] * gpus,
        )
        assert gpu_proof.network_job_result(report) == expected

    return each(file, check)
