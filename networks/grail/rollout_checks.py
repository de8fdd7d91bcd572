"""What a validator asks of a rollout's values, as far as no forward pass is needed
(grail-protocol §11.4), and what it should ask besides (§13).

Every check runs over the columns of a whole window; none loops over tokens.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from windrow import WindrowError
from windrow.networks.grail.columns import RolloutColumns, equals, is_null, matches, plain
from windrow.networks.grail.constants import (
    ACCEPTED_PROOF_VERSIONS,
    CHALLENGE_POSITIONS,
    COEFFICIENT_RANGE,
    LAYER_INDEX,
    MAX_COMPLETION_TOKENS,
    REWARD_ABS_TOLERANCE,
    REWARD_REL_TOLERANCE,
    SKETCH_BUCKETS,
    SKETCH_MODULUS,
    SKETCH_TOP_K,
)
from windrow.networks.grail.violations import Severity, Violations
from windrow.networks.grail.window_schema import IrregularText

LARGEST_SKETCH: Final = SKETCH_TOP_K * (SKETCH_BUCKETS - 1) * COEFFICIENT_RANGE
"""No hidden state has a sketch of larger magnitude (§4.2)."""

_NEVER_NULL: Final = (
    "proof_version",
    "model_name",
    "layer_index",
    "commit_signature",
    "success",
    "total_reward",
    "advantage",
    "prompt_length",
    "completion_length",
)


class MissingReference(WindrowError):
    """A rollout cannot be checked because what it must be compared with was not given."""


def check_schema(
    rollouts: RolloutColumns, irregular: Sequence[IrregularText], found: Violations
) -> None:
    """C1: every field there, of its type, and of the right length."""
    check = "schema_valid"
    tokens, sketches = rollouts.tokens, rollouts.sketches
    prompt, completion = rollouts.prompt_lengths, rollouts.completion_lengths
    _check_irregular(irregular, len(tokens.lengths), found)
    explained = np.zeros(len(tokens.lengths), np.bool_)
    explained[[text.row for text in irregular if text.column == "sketches"]] = True
    for name in _NEVER_NULL:
        found.rollouts(is_null(rollouts.column(name)), check, Severity.BAN, f"{name} is null")
    for name, column in (("tokens", tokens), ("token_logprobs", rollouts.logprobs)):
        holes = column.rows_with(column.missing)
        found.rollouts(holes, check, Severity.BAN, f"{name} holds nulls")
    for broken, reason, measured, threshold in (
        (
            tokens.lengths < CHALLENGE_POSITIONS,
            "too few tokens",
            tokens.lengths,
            CHALLENGE_POSITIONS,
        ),
        (
            ~explained & (sketches.lengths != tokens.lengths),
            "not one sketch for each token",
            sketches.lengths,
            tokens.lengths,
        ),
        (sketches.rows_with(sketches.missing), "sketches hold nulls", None, None),
        (prompt < 0, "prompt_length is negative", prompt, 0),
        (completion < 1, "completion_length is below one", completion, 1),
        (
            completion > MAX_COMPLETION_TOKENS,
            "completion_length is above the protocol's cap",
            completion,
            MAX_COMPLETION_TOKENS,
        ),
        (
            prompt + completion != tokens.lengths,
            "prompt_length and completion_length do not add up to the tokens",
            prompt + completion,
            tokens.lengths,
        ),
        (
            ~matches(rollouts.column("beacon_randomness"), r"\A[0-9a-fA-F]+\z"),
            "beacon randomness is not plain hex (no 0x)",
            None,
            None,
        ),
    ):
        found.rollouts(broken, check, Severity.BAN, reason, measured=measured, threshold=threshold)


def check_tokens(
    rollouts: RolloutColumns, vocab_size: int, max_context: int, found: Violations
) -> None:
    """C2: every id in the vocabulary, every sequence within the model's context."""
    tokens = rollouts.tokens
    outside = tokens.rows_with((tokens.values < 0) | (tokens.values >= vocab_size))
    check = "tokens_valid"
    found.rollouts(
        outside, check, Severity.BAN, "a token id is not in the vocabulary", threshold=vocab_size
    )
    found.rollouts(
        tokens.lengths > max_context,
        check,
        Severity.BAN,
        "longer than the model's context",
        measured=tokens.lengths,
        threshold=max_context,
    )


def check_prompts(
    rollouts: RolloutColumns, prompts: Mapping[int, NDArray[np.integer]], found: Violations
) -> None:
    """C3: every rollout begins with its group's canonical prompt.

    prompts: token ids by rollout_group. Raises MissingReference for a group that is not there.
    """
    tokens = rollouts.tokens
    differs = np.zeros(len(tokens.lengths), np.bool_)
    wanted_length = np.zeros(len(tokens.lengths), np.int64)
    for row, group in enumerate(rollouts.column("rollout_group").to_pylist()):
        if group is None:
            continue
        if group not in prompts:
            raise MissingReference(f"no canonical prompt was given for group {group} (row {row})")
        prompt = prompts[group]
        wanted_length[row] = len(prompt)
        differs[row] = not np.array_equal(tokens.row(row)[: len(prompt)], prompt)
    check = "env_prompt_valid"
    found.rollouts(
        rollouts.prompt_lengths != wanted_length,
        check,
        Severity.BAN,
        "prompt_length is not the canonical prompt's",
        measured=rollouts.prompt_lengths,
        threshold=wanted_length,
    )
    found.rollouts(differs, check, Severity.BAN, "the prompt differs from the canonical prompt")


def check_proof_fields(rollouts: RolloutColumns, found: Violations) -> None:
    """C4 without signature and model: version, layer, length; and sketches in their range."""
    check = "proof_valid"
    version = rollouts.column("proof_version")
    accepted = np.logical_or.reduce([equals(version, v) for v in sorted(ACCEPTED_PROOF_VERSIONS)])
    found.rollouts(~accepted, check, Severity.BAN, "proof_version is not accepted")
    layer = rollouts.column("layer_index")
    found.rollouts(
        ~equals(layer, LAYER_INDEX),
        check,
        Severity.BAN,
        "layer_index is not the last layer",
        measured=plain(layer),
        threshold=LAYER_INDEX,
    )
    found.rollouts(
        rollouts.completion_lengths < CHALLENGE_POSITIONS,
        check,
        Severity.BAN,
        "the completion has fewer tokens than a challenge opens",
        measured=rollouts.completion_lengths,
        threshold=CHALLENGE_POSITIONS,
    )
    values = rollouts.sketches.values
    possible = ((values >= 0) & (values <= LARGEST_SKETCH)) | (
        (values >= SKETCH_MODULUS - LARGEST_SKETCH) & (values < SKETCH_MODULUS)
    )
    found.rollouts(
        rollouts.sketches.rows_with(~possible),
        "sketch_range",
        Severity.STRICT,
        "a sketch is larger than any hidden state's",
        threshold=LARGEST_SKETCH,
    )


def check_termination(
    rollouts: RolloutColumns, eos_token_id: int, max_new_tokens: int, found: Violations
) -> None:
    """C5 without the probability: a completion ends with EOS or has exactly max_new_tokens."""
    tokens, completion = rollouts.tokens, rollouts.completion_lengths
    check = "termination_valid"
    found.rollouts(
        completion > max_new_tokens,
        check,
        Severity.BAN,
        "the completion is longer than the checkpoint allows",
        measured=completion,
        threshold=max_new_tokens,
    )
    last = np.full(len(completion), -1, np.int64)
    filled = tokens.lengths > 0
    last[filled] = tokens.values[(tokens.starts + tokens.lengths - 1)[filled]]
    found.rollouts(
        (completion < max_new_tokens) & (last != eos_token_id),
        check,
        Severity.BAN,
        "a completion below the greatest length does not end with EOS",
        measured=last,
        threshold=eos_token_id,
    )


def check_logprobs(rollouts: RolloutColumns, found: Violations) -> None:
    """C8 without the model: one finite log-prob for each token."""
    logprobs = rollouts.logprobs
    check = "logprobs_valid"
    found.rollouts(
        logprobs.lengths != rollouts.tokens.lengths,
        check,
        Severity.BAN,
        "not one log-prob for each token",
        measured=logprobs.lengths,
        threshold=rollouts.tokens.lengths,
    )
    in_completion = logprobs.within(rollouts.prompt_lengths)
    not_a_number = np.isnan(logprobs.values) & in_completion
    found.rollouts(
        logprobs.rows_with(not_a_number),
        check,
        Severity.BAN,
        "a completion log-prob is nan, which fails where a challenge opens it",
    )
    found.rollouts(
        logprobs.rows_with(~np.isfinite(logprobs.values) & ~not_a_number),
        "logprobs_finite",
        Severity.STRICT,
        "a log-prob is not a finite number",
    )


def check_rewards(
    rollouts: RolloutColumns, rewards: NDArray[np.float64], found: Violations
) -> None:
    """C7: claimed rewards close to re-evaluated ones (float64 [n])."""
    claimed = plain(rollouts.column("total_reward"))
    if rewards.shape != claimed.shape:
        raise MissingReference(f"{rewards.shape} rewards were given for {len(claimed)} rollouts")
    apart = np.abs(claimed - rewards)
    allowed = np.maximum(
        REWARD_REL_TOLERANCE * np.maximum(np.abs(claimed), np.abs(rewards)), REWARD_ABS_TOLERANCE
    )
    same = (apart <= allowed) & np.isfinite(claimed) & np.isfinite(rewards)
    found.rollouts(
        ~(same | (claimed == rewards)),
        "reward_valid",
        Severity.SOFT,
        "the claimed reward is not the re-evaluated one",
        measured=apart,
        threshold=allowed,
    )
    found.rollouts(
        ~np.isfinite(claimed), "reward_finite", Severity.STRICT, "the reward is no finite number"
    )


def _check_irregular(irregular: Sequence[IrregularText], count: int, found: Violations) -> None:
    """Texts that honest writers do not make: the network works with them or gives up the file."""
    for severity in (Severity.IGNORED, Severity.STRICT):
        reasons = {
            text.row: f"{text.column}: {text.json.reason}"
            for text in irregular
            if text.json.is_json == (severity is Severity.STRICT)
        }
        rows = np.zeros(count, np.bool_)
        rows[list(reasons)] = True
        found.rollouts(rows, "json_text", severity, [reasons[row] for row in sorted(reasons)])
