"""The local validator on a recorded window: every check, the outcome, hostile rows, replay."""

import io
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.conformance._verdict_environments import RecordedSat, group_prompts, tokenizer_of
from windrow.engine.forward import ForwardOutOfMemory
from windrow.engine.validation.inputs import (
    MalformedReplayInputs,
    ReplayInputs,
    ValidationContext,
)
from windrow.engine.validation.refusals import refusals
from windrow.engine.validation.replay import ReplayMismatch, replay
from windrow.engine.validation.validator import FileVerdict, validate_file
from windrow.engine.validation.verification import Measured, ModelVerifier
from windrow.environments.errors import EnvironmentUnavailable
from windrow.environments.evaluation import Evaluation
from windrow.environments.tasks import Task
from windrow.networks.grail.checkpoint import GenerationPolicy
from windrow.networks.grail.seeds import problem_seed
from windrow.networks.grail.validation.verdicts import HARD_CHECKS, VERDICT_SCHEMA
from windrow.networks.grail.window_file import WindowFile, read_window_file
from windrow.networks.grail.window_schema import FLAT_SCHEMA

FOLDER = Path(__file__).parents[1] / "vectors/grail-validation/end_to_end"
RECORDED = json.loads((FOLDER / "expected.json").read_bytes())
GENERAL = {name: case for case in RECORDED["cases"] if (name := case["name"])}


def context_of(name: str, **changes: object) -> ValidationContext:
    return replace(
        ValidationContext(
            hotkey=RECORDED["miner_hotkey"],
            window=RECORDED["window"],
            block_hash=RECORDED["window_hash"],
            miner_randomness=RECORDED["miner_randomness"],
            validator_randomness=GENERAL[name]["window_randomness"],
            drand_round=7,
            checkpoint_window=RECORDED["checkpoint_window"],
            weights_hash="ab" * 16,
            vocabulary=512,
            max_context=2048,
            eos_token_id=2,
            # The recorded completions keep to neither top_p nor top_k.
            policy=replace(
                GenerationPolicy.parse(RECORDED["generation_params"]), top_p=1.0, top_k=None
            ),
        ),
        **changes,
    )


def load_verifier(dtype: torch.dtype = torch.float32) -> ModelVerifier:
    model = AutoModelForCausalLM.from_pretrained(
        FOLDER / "checkpoint", dtype=dtype, attn_implementation="sdpa"
    )
    return ModelVerifier(model, eos_token_id=2)


verifier = cache(load_verifier)


@cache
def window(name: str = "honest_1_group") -> WindowFile:
    return read_window_file(FOLDER / f"{name}.parquet")


@cache
def environment() -> RecordedSat:
    prompts = {}
    for name in ("honest_1_group", "honest_3_groups"):
        rollouts = window(name).rollouts
        for group, ids in group_prompts(rollouts, range(rollouts.num_rows)).items():
            seed = problem_seed(RECORDED["miner_hotkey"], RECORDED["window_hash"], group)
            prompts[seed] = ids
    return RecordedSat(prompts, tokenizer_of(FOLDER / "checkpoint"), "instructed")


def validated(
    source: WindowFile | bytes, name: str = "honest_1_group", **changes: object
) -> FileVerdict:
    return validate_file(
        source,
        context_of(name, **changes),
        environment=environment(),
        measure=verifier().measure,
    )


def altered(rows: dict[int, dict[str, object]], name: str = "honest_1_group") -> WindowFile:
    """The window with some values of some rows replaced; signatures stay as they are."""
    found = window(name).rollouts.to_pylist()
    for row, values in rows.items():
        found[row] |= values
    return replace(window(name), rows=pa.Table.from_pylist(found, FLAT_SCHEMA))


def failing(verdict: FileVerdict, column: str = "network_verdict") -> set[tuple[int | None, str]]:
    return {
        (row["row"], row["check"])
        for row in verdict.verdicts.to_pylist()
        if not row[column] and row["severity"] != "soft"
    }


def test_an_honest_file_is_accepted_with_every_check_of_every_rollout() -> None:
    verdict = validated(window())
    assert verdict.network_accepts
    assert verdict.windrow_accepts
    assert not verdict.skipped + verdict.faults
    assert verdict.verdicts.schema == VERDICT_SCHEMA
    assert set(verdict.verdicts["python"].to_pylist()) == {environment().python}
    rows = verdict.verdicts.to_pylist()
    for row in range(16):
        checks = {found["check"] for found in rows if found["row"] == row}
        assert checks >= {*HARD_CHECKS, "sketches_agree", "logprobs_agree", "success_matches"}
    assert all(np.isfinite(r["margin"]) for r in rows if r["margin"] is not None)


def test_all_failures_are_told_and_the_outcome_is_the_networks_first() -> None:
    tokens = window().rollouts["tokens"].to_pylist()
    verdict = validated(
        altered(
            {
                5: {"token_logprobs": [-3.0] * len(tokens[5]), "proof_version": "v3"},
                9: {"signature": "00" * 64, "completion_length": 39},
                12: {"checkpoint_window": 11970, "total_reward": 9.0},
            }
        )
    )
    assert verdict.outcome is not None
    assert verdict.outcome.reason == "hard:proof_valid"
    assert verdict.outcome.metrics.checked == 6
    assert failing(verdict) >= {
        (5, "proof_valid"),
        (5, "logprobs_valid"),
        (9, "outer_signature"),
        (9, "schema_valid"),
        (12, "checkpoint_window"),
        (12, "proof_valid"),
        (None, "group_advantages"),
    }
    assert not {row for row, _ in failing(verdict)} - {5, 9, 12, None}


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("sketch_all_zero_is_accepted", "sketches_agree"),
        ("sketch_offset_1000_ok", "sketches_agree"),
        ("beacon_randomness_noncanonical", "proof_valid"),
        ("logprobs_shifted_0.05_ok", "logprobs_agree"),
        ("outer_signature_by_other_hotkey", "row_hotkey"),
        ("arbitrary_challenge_text", "challenge"),
        ("advantage_nan", "group_advantages"),
    ],
)
def test_what_the_network_lets_pass_is_refused_beside_its_verdict(name: str, check: str) -> None:
    verdict = validated(window(name), name)
    assert verdict.network_accepts
    assert not verdict.windrow_accepts
    assert not failing(verdict)
    assert check in {found for _, found in failing(verdict, "windrow_verdict")}


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("reward_wrong_3_of_16_tolerated", "reward_valid"),
        ("success_flag_flipped", "success_matches"),
        ("advantage_nan", "group_advantages"),
        ("outer_signature_by_other_hotkey", "row_hotkey"),
    ],
)
def test_what_can_be_checked_exactly_has_no_tolerance(name: str, check: str) -> None:
    verdict = validated(window(name), name)
    assert verdict.network_accepts
    assert not verdict.windrow_accepts
    assert check in refusals(verdict.verdicts)["check"].to_pylist()


@pytest.mark.parametrize("rewards", [1, 16])
def test_a_single_wrong_reward_is_refused(rewards: int) -> None:
    """The network tolerates one of sixteen; all of them it does not."""
    claimed = window().rollouts["total_reward"].to_pylist()
    verdict = validated(altered({r: {"total_reward": claimed[r] + 0.5} for r in range(rewards)}))
    found = [r for r in refusals(verdict.verdicts).to_pylist() if r["check"] == "reward_valid"]
    assert [row["row"] for row in found] == list(range(rewards))
    assert not verdict.windrow_accepts
    of_rollouts = [r for r in verdict.verdicts.to_pylist() if r["check"] == "reward_valid"]
    assert sum(not row["network_verdict"] for row in of_rollouts) == rewards


@pytest.mark.parametrize(("wrong", "accepted"), [(0, True), (1, True), (8, True), (9, False)])
def test_only_the_statistical_check_has_a_tolerance(wrong: int, accepted: bool) -> None:
    """So many of a check's 16 rows made to fail in the verdict of an honest file."""
    honest = validated(window())

    def failed(check: str) -> FileVerdict:
        at = honest.verdicts["check"].to_pylist()
        of_check = [index for index, name in enumerate(at) if name == check]
        assert len(of_check) == 16
        values = honest.verdicts["windrow_verdict"].to_pylist()
        for place, index in enumerate(of_check):
            values[index] = place >= wrong
        column = honest.verdicts.schema.get_field_index("windrow_verdict")
        changed = honest.verdicts.set_column(column, "windrow_verdict", pa.array(values))
        return replace(honest, verdicts=changed)

    assert failed("token_distribution_valid").windrow_accepts is accepted
    for check in ("reward_valid", "success_matches", "tokens_valid", "sketches_agree"):
        assert failed(check).windrow_accepts is (wrong == 0)


def test_an_honest_file_may_hold_unlikely_tokens() -> None:
    name = "distribution_8_of_16_tolerated"
    verdict = validated(window(name), name)
    failed = {r["check"] for r in verdict.verdicts.to_pylist() if not r["windrow_verdict"]}
    assert "token_distribution_valid" in failed
    assert "token_distribution_valid" not in refusals(verdict.verdicts)["check"].to_pylist()


def test_all_rollouts_are_checked_when_asked_for_and_the_outcome_stays() -> None:
    name = "honest_3_groups"
    sample = validated(window(name), name)
    everything = validated(window(name), name, every_rollout=True)
    assert everything.outcome == sample.outcome
    assert everything.replay.sampled_groups == sample.replay.sampled_groups
    assert set(sample.verdicts["row"].to_pylist()) - {None} == set(range(16))
    assert set(everything.verdicts["row"].to_pylist()) - {None} == set(range(48))


def test_without_a_model_or_an_environment_the_rest_is_checked() -> None:
    verdict = validate_file(
        altered({3: {"proof_version": "v3"}, 4: {"signature": "junk"}}),
        context_of("honest_1_group"),
    )
    assert set(verdict.skipped) > {"proof_valid", "env_prompt_valid", "logprobs_valid"}
    assert (4, "outer_signature") in failing(verdict)
    assert not verdict.network_accepts
    assert verdict.replay.forward is None
    assert verdict.verdicts["python"].null_count == verdict.verdicts.num_rows


class OneRaises(RecordedSat):
    """Raises for one completion, as a parser might for text it never met."""

    def evaluate(self, task: Task, completions: list[np.ndarray]) -> list[Evaluation]:
        hostile = window().rollouts["tokens"][6].as_py()
        if any(completion.tolist() == hostile[-len(completion) :] for completion in completions):
            raise RecursionError("maximum recursion depth exceeded")
        return super().evaluate(task, completions)


class Broken(RecordedSat):
    def evaluate(self, task: Task, completions: list[np.ndarray]) -> list[Evaluation]:
        raise EnvironmentUnavailable("the sandbox stopped; restart it")


def test_a_completion_the_environment_cannot_take_fails_alone() -> None:
    verdict = validate_file(
        window(),
        context_of("honest_1_group"),
        environment=OneRaises(**vars(environment())),
        measure=verifier().measure,
    )
    assert failing(verdict) == {(6, "env_eval_valid")}
    assert verdict.outcome is not None
    assert verdict.outcome.reason == "hard:env_eval_valid"


def test_what_this_machine_cannot_do_is_a_fault_and_no_failure() -> None:
    def full(*_: object) -> Measured:
        raise ForwardOutOfMemory("sequence 0 alone does not fit")

    verdict = validate_file(
        window(),
        context_of("honest_1_group"),
        environment=Broken(**vars(environment())),
        measure=full,
    )
    assert len(verdict.faults) == 2
    assert not failing(verdict)
    assert set(verdict.skipped) > {"env_eval_valid", "proof_valid"}


UNCHECKED = {"block", "timestamp", "use_drand"}

HOSTILE: list[dict[str, object]] = [
    {name: None}
    for name in FLAT_SCHEMA.names
    if name != "rollout_group"
] + [
    {"tokens": []},
    {"tokens": [-1] * 316},
    {"tokens": [2**31 - 1] * 316},
    {"tokens": [5, None] * 158},
    {"tokens": [3] * 40_000, "prompt_length": 39_000, "completion_length": 1000},
    {"prompt_length": -1},
    {"prompt_length": 0, "completion_length": 316},
    {"prompt_length": 2**31 - 1, "completion_length": 1},
    {"completion_length": 2**31 - 1},
    {"sketches": [2**63 - 1] * 316},
    {"sketches": []},
    {"token_logprobs": [float("nan")] * 316},
    {"token_logprobs": [float("-inf")] * 316},
    {"token_logprobs": [None] * 316},
    {"total_reward": float("nan"), "advantage": float("inf")},
    {"hotkey": "\u0000", "challenge": "\u0000"},
    {"beacon_randomness": "zz"},
    {"beacon_randomness": "0" * 10_001},
    {"layer_index": -(2**31)},
    {"rollout_group": 2**63 - 1},
    {"nonce": -(2**63)},
]  # fmt: skip


@pytest.mark.parametrize("values", HOSTILE, ids=lambda values: "-".join(values))
def test_a_hostile_row_leaves_verdicts_and_nothing_else(values: dict[str, object]) -> None:
    verdict = validated(altered({7: values}))
    failed = {row for row, _ in failing(verdict, "windrow_verdict")}
    assert failed & {7, None} or values.keys() <= UNCHECKED
    assert failed <= {7, None}
    assert not verdict.faults
    rows = verdict.verdicts.to_pylist()
    assert not any("raised" in row["reason"] for row in rows if row["row"] != 7)


def test_an_unreadable_file_is_banned_for_or_ignored() -> None:
    damaged = validated(b"PAR1" + b"\0" * 300)
    assert damaged.outcome is not None
    assert damaged.outcome.reason == "file:corrupt_parquet"
    stream = io.BytesIO()
    metadata = {"window_start": "x"}
    pq.write_table(pa.table({"rollout_group": [1]}).replace_schema_metadata(metadata), stream)
    ignored = validated(stream.getvalue())
    assert ignored.outcome is None
    assert not ignored.network_accepts


def test_a_group_of_any_size_is_cut_to_what_the_network_would_look_at() -> None:
    crowd = replace(window(), rows=pa.concat_tables([window().rollouts] * 6))
    verdict = validate_file(crowd, context_of("honest_1_group"))
    assert verdict.outcome is not None
    assert verdict.outcome.reason == "file:duplicate_nonce"
    looked_at = [r for r in verdict.verdicts.to_pylist() if r["check"] == "schema_valid"]
    assert [row["row"] for row in looked_at] == list(range(64))


def stored(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return sink.getvalue().to_pybytes()


def test_replaying_a_stored_verdict_gives_the_same_bits() -> None:
    name = "honest_3_groups"
    threads = torch.get_num_threads()
    first = validated(window(name), name, every_rollout=True)
    text = first.replay.to_json()

    inputs = ReplayInputs.from_json(text)
    assert inputs == first.replay
    torch.set_num_threads(threads + 1)
    try:
        again = replay(
            FOLDER / f"{name}.parquet",
            inputs,
            environment=environment(),
            verifier=load_verifier(),
            weights_hash="ab" * 16,
        )
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)

    assert stored(again.verdicts) == stored(first.verdicts)
    assert again.replay.to_json() == text
    assert again.outcome == first.outcome


def test_a_replay_that_would_compute_something_else_is_refused() -> None:
    inputs = validated(window()).replay

    def attempt(changed: ReplayInputs = inputs, **given: object) -> FileVerdict:
        options = {"verifier": verifier(), "weights_hash": "ab" * 16} | given
        return replay(window(), changed, environment=environment(), **options)

    for given in ({"weights_hash": "cd" * 16}, {"verifier": None}):
        with pytest.raises(ReplayMismatch):
            attempt(**given)
    with pytest.raises(ReplayMismatch, match="dtype float32, here it is bfloat16"):
        attempt(verifier=load_verifier(torch.bfloat16))
    with pytest.raises(ReplayMismatch, match=r"torch 1\.0"):
        attempt(replace(inputs, versions={**inputs.versions, "torch": "1.0"}))
    for text in ("[]", "{}", "nonsense", inputs.to_json().replace("policy", "polity")):
        with pytest.raises(MalformedReplayInputs):
            ReplayInputs.from_json(text)
