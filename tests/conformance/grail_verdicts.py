"""The whole validator, model included, on commits and on window files (§8-§11)."""

import json
from collections import Counter
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from transformers import AutoModelForCausalLM

from windrow.engine.ports import Environment
from windrow.engine.validation.inputs import ValidationContext
from windrow.engine.validation.validator import FileVerdict, validate_file
from windrow.engine.validation.verification import ModelVerifier
from windrow.networks.grail.checkpoint import GenerationPolicy
from windrow.networks.grail.seeds import problem_seed
from windrow.networks.grail.tokens import context_length, vocab_size
from windrow.networks.grail.validation.gates import Gates
from windrow.networks.grail.validation.schema import check_schema
from windrow.networks.grail.validation.verdicts import HARD_CHECKS
from windrow.networks.grail.window_file import WindowFile, WindowHeader, read_window_file
from windrow.networks.grail.window_guards import WindowFileError
from windrow.networks.grail.window_schema import WIRE_SCHEMA, wire_to_read

from ._validation_values import load
from ._verdict_environments import (
    RecordedSat,
    group_prompts,
    stand_in_environment,
    tokenizer_of,
)
from .framework import Case, VectorFile, assert_close, handles

Data = dict[str, Any]

MODEL_CASES = (
    "grail/model/*",
    "grail/datasets.json",
)


@cache
def verifier(folder: Path) -> ModelVerifier:
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa"
    )
    return ModelVerifier(model, tokenizer_of(folder).eos_token_id)


def context(folder: Path, generation_params: Data, **values: Any) -> ValidationContext:
    config = json.loads((folder / "config.json").read_bytes())
    return ValidationContext(
        drand_round=None,
        weights_hash=None,
        vocabulary=vocab_size(config),
        max_context=context_length(config),
        eos_token_id=tokenizer_of(folder).eos_token_id,
        policy=GenerationPolicy.parse(generation_params),
        **values,
    )


def validated(
    source: Path | WindowFile, asked: ValidationContext, environment: Environment, model: Path
) -> FileVerdict:
    return validate_file(source, asked, environment=environment, measure=verifier(model).measure)


@handles("grail/verdicts_rollout.json", uses=MODEL_CASES)
def rollout_verdicts(file: VectorFile) -> Iterator[Case]:
    vectors = file.load_json()
    datasets = json.loads((file.folder / "datasets.json").read_bytes())
    for index, case in enumerate(vectors["cases"]):
        yield Case(f"case-{index}", partial(check_commit, file, vectors, datasets, case))


def check_commit(file: VectorFile, vectors: Data, datasets: Data, case: Data) -> None:
    model, expected = file.folder / "model", case["checks"]
    schema = check_schema(case["commit"])
    assert schema.network_verdict == expected["schema_valid"]
    window_file = one_row_file(vectors, case)
    if window_file is None:  # values no window file can hold; the network stops there as well
        assert not schema.network_verdict
        assert case["first_hard_failure"] == "schema_valid"
        return
    environment = stand_in_environment(
        datasets,
        vectors["env_id"],
        vectors["env_params"].get("split", "train"),
        vectors["thinking_mode"],
        model,
    )
    asked = context(
        model,
        case["generation_params"],
        hotkey=vectors["prover_address"],
        window=0,
        block_hash=vectors["window_hash"],
        miner_randomness=None,
        validator_randomness=vectors["challenge_randomness"],
        checkpoint_window=vectors["checkpoint_window"],
    )
    verdict = validated(window_file, asked, environment, model)
    rows = {row["check"]: row for row in verdict.verdicts.to_pylist() if row["row"] == 0}
    checks = {name: rows[name]["network_verdict"] for name in rows}
    assert {name: checks[name] for name in expected} == expected
    gates = Gates(1).after(checks)
    hard = (gates.reason or "").removeprefix("hard:") if gates.hard_failure else None
    assert hard == case["first_hard_failure"]
    assert (hard is None) == case["hard_valid"]
    if case["metadata"].get("logprob_median_dev") is not None:
        deviation = rows["logprobs_valid"]["measured"]
        assert_close([deviation], [case["metadata"]["logprob_median_dev"]], rel=1e-5, abs_=2e-5)


def one_row_file(vectors: Data, case: Data) -> WindowFile | None:
    """The commit as the only row of a window file; None where no column can hold a value of it."""
    commit = dict(case["commit"])
    for name in ("commitments", "beacon"):
        commit[name] = json.dumps(commit.get(name))
    row = {
        "window_start": 0,
        "block_hash": vectors["window_hash"],
        "nonce": 0,
        "rollout_group": case["group_index"],
        "checkpoint_window": (commit.get("model") or {}).get(
            "checkpoint_window", vectors["checkpoint_window"]
        ),
        "commit": commit,
    }
    try:
        wire = pa.RecordBatch.from_pylist([row], WIRE_SCHEMA)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return None
    rows, irregular = wire_to_read(wire)
    header = WindowHeader(vectors["prover_address"], 0, None, None, None, 1)
    return WindowFile(header, pa.Table.from_batches([rows]), tuple(irregular))


@handles("grail/verdicts_file.json", uses=("grail/windows/*.parquet", *MODEL_CASES))
def file_verdicts(file: VectorFile) -> Iterator[Case]:
    vectors = file.load_json()
    datasets = json.loads((file.folder / "datasets.json").read_bytes())
    for case in vectors["cases"]:
        name = Path(case["file"]).stem
        yield Case(f"{name}-validated", partial(check_file, file, vectors, datasets, case))


def check_file(file: VectorFile, vectors: Data, datasets: Data, case: Data) -> None:
    model = file.folder / "model"
    mode = vectors.get("thinking_mode", "instructed")
    environment = stand_in_environment(datasets, vectors["env_id"], "train", mode, model)
    asked = context(
        model,
        vectors["generation_params"],
        hotkey=case["miner_hotkey"],
        window=case["window"],
        block_hash=case["window_hash"],
        miner_randomness=None,
        validator_randomness=case["window_rand"],
        checkpoint_window=vectors["checkpoint_window"],
    )
    verdict = validated(file.folder / case["file"], asked, environment, model)
    assert_outcome(verdict, case)
    if case["num_digests"] is not None:
        assert verdict.completions is not None
        assert len(set(verdict.completions.to_pylist())) == case["num_digests"]
    assert verdict.network_accepts == (not case["rejected"])


def assert_outcome(verdict: FileVerdict, case: Data) -> None:
    outcome = verdict.outcome
    assert outcome is not None
    assert not verdict.faults
    assert vars(outcome.metrics) == case["metrics"]
    assert outcome.reason == case["failure_reason"]
    assert [
        outcome.pipelines,
        outcome.bad_signatures,
        outcome.hard_failures,
        outcome.errors,
    ] == case["processed_counts"][:4]
    assert outcome.metrics.total == case["total_inferences_in_file"]


@handles("grail-validation/end_to_end/expected.json", uses=("grail-validation/end_to_end/*",))
def end_to_end(file: VectorFile) -> Iterator[Case]:
    vectors = load(file)

    @cache
    def environment() -> RecordedSat:
        return recorded_environment(file, vectors)

    for case in vectors["cases"]:
        yield Case(case["name"], partial(check_end_to_end, file, vectors, environment, case))


def recorded_environment(file: VectorFile, vectors: Data) -> RecordedSat:
    """Prompts of every group of which an expectation says that some rollout begins with it."""
    assert vectors["env_id"] == "sat"
    prompts = {}
    for case in vectors["cases"]:
        rows = prompted_rows(case)
        if not rows:
            continue
        rollouts = read_window_file(file.folder / case["file"]).rollouts
        for group, ids in group_prompts(rollouts, rows).items():
            seed = problem_seed(vectors["miner_hotkey"], vectors["window_hash"], group)
            prompts[seed] = ids
    tokenizer = tokenizer_of(file.folder / "checkpoint")
    return RecordedSat(prompts, tokenizer, vectors["thinking_mode"])


def prompted_rows(case: Data) -> list[int]:
    """Rows whose prompt the case expects to be canonical: they got past that check."""
    looked_at = case["processed_counts"][0]
    before_or_at_prompt = HARD_CHECKS[: HARD_CHECKS.index("env_prompt_valid") + 1]
    if case["failure_reason"] in {f"hard:{name}" for name in before_or_at_prompt}:
        looked_at -= 1
    rows: list[int] = case["sampled_indices"][:looked_at]
    return rows + [
        rollout["index"]
        for rollout in case.get("per_rollout") or ()
        if rollout["checks"].get("env_prompt_valid")
    ]


def check_end_to_end(file: VectorFile, vectors: Data, environment: Any, case: Data) -> None:
    model = file.folder / "checkpoint"
    asked = context(
        model,
        vectors["generation_params"],
        hotkey=vectors["miner_hotkey"],
        window=vectors["window"],
        block_hash=vectors["window_hash"],
        miner_randomness=vectors["miner_randomness"],
        validator_randomness=case["window_randomness"],
        checkpoint_window=case["validator_checkpoint_window"],
        every_rollout="per_rollout" in case,
    )
    verdict = validated(file.folder / case["file"], asked, environment(), model)
    assert_outcome(verdict, case)
    if case["digest_counter"] is None:
        assert verdict.completions is None
    else:
        assert verdict.completions is not None
        digests = Counter(digest.hex() for digest in verdict.completions.to_pylist())
        assert digests == case["digest_counter"]
    assert verdict.replay.sampled_groups == sampled_groups(file.folder / case["file"], case)
    for rollout in case.get("per_rollout", ()):
        check_rollout(verdict, rollout)


def sampled_groups(path: Path, case: Data) -> tuple[int, ...]:
    try:
        groups = read_window_file(path).rollouts["rollout_group"].to_pylist()
    except WindowFileError:
        return ()
    return tuple(sorted({groups[row] for row in case["sampled_indices"]}))


def check_rollout(verdict: FileVerdict, expected: Data) -> None:
    rows = {
        row["check"]: row for row in verdict.verdicts.to_pylist() if row["row"] == expected["index"]
    }
    checks = {name: rows[name]["network_verdict"] for name in expected["checks"]}
    assert checks == expected["checks"]
    assert all(checks[name] for name in HARD_CHECKS) == expected["pipeline_valid"]
    deviation = rows["logprobs_valid"]["measured"]
    assert_close([deviation], [expected["logprob_median_dev"]], rel=1e-5, abs_=1e-5)
    broken = [name for name, holds in expected["distribution_reasons"].items() if holds]
    reason = rows["token_distribution_valid"]["reason"]
    assert reason == ("not as the model samples: " + ", ".join(broken) if broken else "")
