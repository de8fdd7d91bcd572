"""Each rule broken in one place, and found there alone."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from tests.support.window_rollouts import (
    CONTEXT,
    KEY,
    PROMPT,
    altered,
    signed,
    window_rollouts,
)
from windrow.networks.grail.commitments import check_spaced
from windrow.networks.grail.constants import MAX_FILE_BYTES, MIN_FILE_BYTES
from windrow.networks.grail.rollout_checks import LARGEST_SKETCH, MissingReference
from windrow.networks.grail.submission_checks import (
    SubmissionContext,
    check_file_size,
    check_submission,
)
from windrow.networks.grail.window_schema import FLAT_SCHEMA, IrregularText

ROW = 5
PROMPTS = {0: PROMPT, 1: PROMPT}
OTHER_KEY = type(KEY).create_from_uri("//Bob")


@pytest.fixture(scope="module")
def good() -> pa.Table:
    return window_rollouts()


def broken(
    rollouts: pa.Table,
    context: SubmissionContext = CONTEXT,
    irregular: tuple[IrregularText, ...] = (),
) -> list[dict[str, object]]:
    rewards = rollouts["total_reward"].fill_null(0.0).to_numpy()
    violations = check_submission(
        rollouts, context, prompts=PROMPTS, rewards=rewards, irregular=irregular
    )
    return violations.to_pylist()


def found(violations: list[dict[str, object]]) -> set[tuple[object, ...]]:
    """What was found and where: scope, row, check, severity."""
    return {(v["scope"], v["row"], v["check"], v["severity"]) for v in violations}


def values(good: pa.Table, name: str, **at: object) -> list[object]:
    """One row's list with some positions replaced: values(good, "tokens", p3=9)."""
    row = good[name][ROW].as_py()
    for position, value in at.items():
        row[int(position[1:])] = value
    return row


def test_rollouts_that_break_no_rule_have_no_violation(good: pa.Table) -> None:
    assert broken(good) == []
    shuffled = good.take(np.random.default_rng(0).permutation(good.num_rows))
    assert broken(shuffled) == []


BAN_BY_VALUE = {
    "proof_version": ("v3", "proof_valid"),
    "layer_index": (0, "proof_valid"),
    "checkpoint_window": (61170, "checkpoint_window"),
    "window_start": (61290, "window_start_mismatch"),
    "signature": ("00" * 64, "outer_signature"),
    "commit_signature": ("00" * 64, "proof_valid"),
    "beacon_randomness": ("0x" + "ab" * 32, "schema_valid"),
}


@pytest.mark.parametrize("name", BAN_BY_VALUE)
def test_a_wrong_value_bans(good: pa.Table, name: str) -> None:
    value, check = BAN_BY_VALUE[name]
    assert ("rollout", ROW, check, "ban") in found(broken(altered(good, ROW, **{name: value})))


@pytest.mark.parametrize(
    ("name", "value", "check"),
    [
        ("nonce", 1000, "nonce"),
        ("rollout_index", 16, "nonce"),
        ("total_in_group", 15, "total_in_group"),
        ("challenge", "|0xab|5", "challenge"),
        ("randomness", "cd" * 32, "row_randomness"),
    ],
)
def test_what_the_network_overlooks_is_strict(
    good: pa.Table, name: str, value: object, check: str
) -> None:
    rollouts = signed(altered(good, ROW, **{name: value}))
    violations = broken(rollouts)
    assert ("rollout", ROW, check, "strict") in found(violations)
    assert {v["severity"] for v in violations} == {"strict"}


def test_another_keys_row_is_strict(good: pa.Table) -> None:
    challenge = good["challenge"][ROW].as_py()
    rollouts = altered(
        good,
        ROW,
        hotkey=OTHER_KEY.ss58_address,
        signature=OTHER_KEY.sign(challenge.encode()).hex(),
    )
    assert found(broken(rollouts)) == {("rollout", ROW, "row_hotkey", "strict")}


def test_another_windows_randomness_is_strict(good: pa.Table) -> None:
    other = {"beacon_randomness": "12" * 32, "randomness": "12" * 32}
    assert found(broken(signed(altered(good, ROW, **other)))) == {
        ("rollout", ROW, "beacon_randomness", "strict")
    }
    anyones = replace(CONTEXT, randomness=None)
    assert broken(signed(altered(good, ROW, **other)), anyones) == []


def test_a_commit_signed_by_another_key_bans(good: pa.Table) -> None:
    other = replace(CONTEXT, hotkey=OTHER_KEY.ss58_address)
    violations = found(broken(good, other))
    assert {("rollout", row, "proof_valid", "ban") for row in range(32)} <= violations


@pytest.mark.parametrize(
    "name",
    [
        "tokens",
        "sketches",
        "proof_version",
        "model_name",
        "layer_index",
        "commit_signature",
        "beacon_randomness",
        "total_reward",
        "advantage",
        "success",
        "prompt_length",
        "completion_length",
    ],
)
def test_a_null_in_the_commit_bans(good: pa.Table, name: str) -> None:
    violations = found(broken(altered(good, ROW, **{name: None})))
    assert ("rollout", ROW, "schema_valid", "ban") in violations
    assert {row for _, row, _, _ in violations} <= {ROW, None}


@pytest.mark.parametrize("name", ["tokens", "sketches", "token_logprobs"])
def test_a_null_inside_a_list_bans(good: pa.Table, name: str) -> None:
    violations = broken(altered(good, ROW, **{name: values(good, name, p3=None)}))
    assert ("rollout", ROW, "schema_valid", "ban") in found(violations)


@pytest.mark.parametrize("token", [-1, CONTEXT.vocab_size, 2**31 - 1])
def test_a_token_outside_the_vocabulary_bans(good: pa.Table, token: int) -> None:
    rollouts = signed(altered(good, ROW, tokens=values(good, "tokens", p20=token)))
    if token < 0:
        assert ("rollout", ROW, "tokens_valid", "ban") in found(broken(rollouts))
    else:
        assert found(broken(rollouts)) == {("rollout", ROW, "tokens_valid", "ban")}


def test_a_sequence_beyond_the_context_bans(good: pa.Table) -> None:
    lengths = [len(tokens) for tokens in good["tokens"].to_pylist()]
    context = replace(CONTEXT, max_context=max(lengths) - 1)
    rows = {row for row, length in enumerate(lengths) if length == max(lengths)}
    assert found(broken(good, context)) == {("rollout", r, "tokens_valid", "ban") for r in rows}


def test_another_prompt_bans(good: pa.Table) -> None:
    rollouts = signed(altered(good, ROW, tokens=values(good, "tokens", p6=9)))
    (violation,) = broken(rollouts)
    assert violation["check"] == "env_prompt_valid"
    assert "differs" in str(violation["reason"])
    # The lengths still add up, but one token of the prompt is counted as completion.
    length = good["completion_length"][ROW].as_py()
    shifted = altered(good, ROW, prompt_length=6, completion_length=length + 1)
    checks = {v["check"]: v for v in broken(shifted)}
    assert (checks["env_prompt_valid"]["measured"], checks["env_prompt_valid"]["threshold"]) == (
        6,
        7,
    )


def test_a_group_without_a_prompt_to_compare_is_not_passed_over(good: pa.Table) -> None:
    with pytest.raises(MissingReference, match="group 1"):
        check_submission(good, CONTEXT, prompts={0: PROMPT}, rewards=None)


@pytest.mark.parametrize(
    ("prompt", "completion", "reason"),
    [
        (-1, 40, "prompt_length is negative"),
        (7, 0, "completion_length is below one"),
        (7, 8193, "above the protocol's cap"),
        (7, 20, "do not add up"),
    ],
)
def test_lengths_that_contradict_the_tokens_ban(
    good: pa.Table, prompt: int, completion: int, reason: str
) -> None:
    violations = broken(altered(good, ROW, prompt_length=prompt, completion_length=completion))
    reasons = [str(v["reason"]) for v in violations if v["check"] == "schema_valid"]
    assert any(reason in found_reason for found_reason in reasons)


def test_a_short_completion_bans(good: pa.Table) -> None:
    cut = 7 + 31
    short = {name: good[name][ROW].as_py()[:cut] for name in ("sketches", "token_logprobs")}
    tokens = [*good["tokens"][ROW].as_py()[: cut - 1], CONTEXT.eos_token_id]
    rollouts = signed(altered(good, ROW, tokens=tokens, completion_length=31, **short))
    (violation,) = broken(rollouts)
    assert violation["check"] == "proof_valid"
    assert (violation["measured"], violation["threshold"]) == (31, 32)


def row_of_length(good: pa.Table, full: bool) -> int:
    lengths = good["completion_length"].to_pylist()
    return next(r for r, n in enumerate(lengths) if (n == CONTEXT.max_new_tokens) == full)


def test_an_end_without_eos_bans_below_the_greatest_length_only(good: pa.Table) -> None:
    row = row_of_length(good, full=False)
    tokens = [*good["tokens"][row].as_py()[:-1], 77]
    (violation,) = broken(signed(altered(good, row, tokens=tokens)))
    assert (violation["check"], violation["row"]) == ("termination_valid", row)
    assert (violation["measured"], violation["threshold"]) == (77, CONTEXT.eos_token_id)
    longest = max(good["completion_length"].to_pylist())
    allowed = replace(CONTEXT, max_new_tokens=longest)
    assert broken(good, allowed) == []


def test_a_completion_beyond_the_policy_bans(good: pa.Table) -> None:
    shortened = replace(CONTEXT, max_new_tokens=40)
    lengths = good["completion_length"].to_pylist()
    too_long = {r for r, n in enumerate(lengths) if n > 40}
    assert {v["row"] for v in broken(good, shortened)} >= too_long


@pytest.mark.parametrize(
    ("value", "check", "severity"),
    [
        (float("nan"), "logprobs_valid", "ban"),
        (float("inf"), "logprobs_finite", "strict"),
        (float("-inf"), "logprobs_finite", "strict"),
    ],
)
def test_log_probs_that_are_no_numbers(
    good: pa.Table, value: float, check: str, severity: str
) -> None:
    rollouts = altered(good, ROW, token_logprobs=values(good, "token_logprobs", p30=value))
    assert found(broken(rollouts)) == {("rollout", ROW, check, severity)}


def test_missing_log_probs_ban(good: pa.Table) -> None:
    for logprobs in (None, [], good["token_logprobs"][ROW].as_py()[:-1]):
        violations = found(broken(altered(good, ROW, token_logprobs=logprobs)))
        assert violations == {("rollout", ROW, "logprobs_valid", "ban")}


@pytest.mark.parametrize(
    ("sketch", "possible"),
    [
        (LARGEST_SKETCH, True),
        (2**31 - 1 - LARGEST_SKETCH, True),
        (LARGEST_SKETCH + 1, False),
        (2**31 - 1, False),
        (-1, False),
        (10**12, False),
    ],
)
def test_sketches_no_hidden_state_has_are_strict(
    good: pa.Table, sketch: int, possible: bool
) -> None:
    rollouts = signed(altered(good, ROW, sketches=values(good, "sketches", p9=sketch)))
    expected = set() if possible else {("rollout", ROW, "sketch_range", "strict")}
    assert found(broken(rollouts)) == expected


def test_a_missing_sketch_bans(good: pa.Table) -> None:
    rollouts = signed(altered(good, ROW, sketches=good["sketches"][ROW].as_py()[:-1]))
    (violation,) = broken(rollouts)
    assert violation["reason"] == "not one sketch for each token"


def test_an_inflated_reward_is_soft(good: pa.Table) -> None:
    rewards = good["total_reward"].to_numpy().copy()
    rewards[ROW] += 0.5
    violations = check_submission(good, CONTEXT, prompts=PROMPTS, rewards=rewards)
    (violation,) = violations.to_pylist()
    assert (violation["row"], violation["check"], violation["severity"]) == (
        ROW,
        "reward_valid",
        "soft",
    )
    assert violation["measured"] == pytest.approx(0.5)
    assert check_submission(good, CONTEXT, prompts=PROMPTS, rewards=None).num_rows == 0
    with pytest.raises(MissingReference):
        check_submission(good, CONTEXT, prompts=PROMPTS, rewards=rewards[1:])


def test_wrong_advantages_ban_their_group(good: pa.Table) -> None:
    advantage = good["advantage"][ROW].as_py()
    (violation,) = broken(altered(good, ROW, advantage=advantage + 0.05))
    assert (violation["scope"], violation["rollout_group"]) == ("group", 0)
    assert (violation["check"], violation["severity"]) == ("group_advantages", "ban")
    assert violation["measured"] == pytest.approx(0.05)


@pytest.mark.parametrize("name", ["advantage", "total_reward"])
def test_values_that_are_nan_are_not_passed_over(good: pa.Table, name: str) -> None:
    violations = found(broken(altered(good, ROW, **{name: float("nan")})))
    assert ("group", None, "group_advantages", "strict") in violations


def test_structure_is_reported_once_for_each_place(good: pa.Table) -> None:
    violations = broken(altered(good, ROW, rollout_group=1, nonce=6))
    assert {
        ("rollout", 6, "duplicate_nonce", "ban"),
        ("group", None, "invalid_group_size", "ban"),
    } <= found(violations)
    sizes = [v for v in violations if v["check"] == "invalid_group_size"]
    assert {(v["rollout_group"], v["measured"]) for v in sizes} == {(0, 15), (1, 17)}


def test_irregular_commitments_are_judged_by_their_text(good: pa.Table) -> None:
    sketches = good["sketches"][ROW].as_py()
    entries = ", ".join(f'{{"sketch": {s}, "x": 1}}' for s in sketches)
    problem = check_spaced(pa.array([f"[{entries}]"])).irregular[0]
    irregular = (IrregularText(ROW, "sketches", problem),)
    # The signature covers the sketches alone, so it fails for the text with other keys.
    assert found(broken(good, irregular=irregular)) == {
        ("rollout", ROW, "json_text", "strict"),
        ("rollout", ROW, "proof_valid", "ban"),
    }
    undecodable = check_spaced(pa.array(["["])).irregular[0]
    rollouts = altered(good, ROW, sketches=None)
    violations = found(broken(rollouts, irregular=(IrregularText(ROW, "sketches", undecodable),)))
    assert ("rollout", ROW, "json_text", "ignored") in violations


def test_rows_that_are_null_throughout_do_not_stop_the_check(good: pa.Table) -> None:
    nothing = {name: None for name in FLAT_SCHEMA.names if name != "rollout_group"}
    violations = broken(altered(good, ROW, **nothing))
    assert {v["row"] for v in violations} <= {ROW, None}
    assert len(violations) > 20


def test_a_window_without_rollouts_is_refused() -> None:
    empty = FLAT_SCHEMA.empty_table()
    (violation,) = check_submission(empty, CONTEXT, prompts={}, rewards=None).to_pylist()
    assert (violation["scope"], violation["check"]) == ("file", "empty_window")


@pytest.mark.parametrize(
    ("size", "fits"),
    [
        (MIN_FILE_BYTES - 1, False),
        (MIN_FILE_BYTES, True),
        (MAX_FILE_BYTES, True),
        (MAX_FILE_BYTES + 1, False),
    ],
)
def test_file_size(size: int, fits: bool) -> None:
    violations = check_file_size(size).to_pylist()
    assert [v["severity"] for v in violations] == ([] if fits else ["ignored"])
