"""C1 and C2 on one commit object: its structure, and whether the model can read its tokens.

The network validates a commit leniently (grail-validation §8.1): numbers may come as text, "yes"
is a boolean. pydantic's lax mode is that leniency; its strict mode is what Windrow asks for. For
rollouts in typed columns the same rules are operations on columns (`rollout_checks.check_schema`).
"""

import math
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError, ValidationInfo, field_validator

from windrow.networks.grail.constants import CHALLENGE_POSITIONS, MAX_COMPLETION_TOKENS
from windrow.networks.grail.tokens import DEFAULT_CONTEXT, Tokens, tokens_valid
from windrow.networks.grail.validation.verdicts import CheckResult, result

_MAX_PATHS = 5


class _Model(BaseModel):
    name: str
    layer_index: int


class _Beacon(BaseModel):
    randomness: Annotated[str, Field(pattern=r"^[0-9a-fA-F]+$")]


class _Environment(BaseModel):
    id: str
    seed: int


class _Rollout(BaseModel):
    prompt_length: Annotated[int, Field(ge=0)]
    completion_length: Annotated[int, Field(ge=1, le=MAX_COMPLETION_TOKENS)]
    success: bool
    total_reward: float
    advantage: float
    token_logprobs: list[float] | None = None


class _Commit(BaseModel):
    tokens: Annotated[list[int], Field(min_length=CHALLENGE_POSITIONS)]
    commitments: list[dict[str, Any]]
    proof_version: str
    model: _Model
    signature: str
    beacon: _Beacon
    rollout: _Rollout
    env: _Environment | None = None

    @field_validator("commitments")
    @classmethod
    def _one_a_token(
        cls, commitments: list[dict[str, Any]], info: ValidationInfo
    ) -> list[dict[str, Any]]:
        if len(commitments) != len(info.data.get("tokens", ())):
            raise ValueError("not one commitment for each token")
        return commitments

    @field_validator("rollout")
    @classmethod
    def _lengths_add_up(cls, rollout: _Rollout, info: ValidationInfo) -> _Rollout:
        if rollout.prompt_length + rollout.completion_length != len(info.data.get("tokens", ())):
            raise ValueError("prompt_length and completion_length do not add up to the tokens")
        return rollout


def schema_errors(commit: object, *, strict: bool = False) -> list[str]:
    """Dotted paths of the fields that are missing or wrong, sorted (§8.1).

    strict: no coercion between types.
    """
    try:
        _Commit.model_validate(commit, strict=strict)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        return sorted({".".join(map(str, detail["loc"])) for detail in details})
    return []


def check_schema(commit: object) -> CheckResult:
    """C1 (§8.1). Windrow also refuses values of a wrong type that the network converts, and
    rewards, advantages and log-probs that are not finite."""
    lenient = schema_errors(commit)
    if lenient:
        return result("schema_valid", network_reason=f"missing or wrong: {_listed(lenient)}")
    mistyped = schema_errors(commit, strict=True)
    windrow_reason = f"of another type: {_listed(mistyped)}" if mistyped else None
    rollout = _Commit.model_validate(commit).rollout
    if not math.isfinite(rollout.total_reward) or not math.isfinite(rollout.advantage):
        windrow_reason = "the reward or the advantage is no finite number"
    elif not all(map(math.isfinite, rollout.token_logprobs or ())):
        windrow_reason = "a log-prob is no finite number"
    return result("schema_valid", network_reason=None, windrow_reason=windrow_reason)


def check_tokens(
    tokens: Tokens, vocabulary: int | None, context: int = DEFAULT_CONTEXT
) -> CheckResult:
    """C2 (§8.2). vocabulary: size, None where the configuration does not say. measured: length."""
    valid = tokens_valid(tokens, vocabulary, context)
    return result(
        "tokens_valid",
        network_reason=None
        if valid
        else f"empty, longer than {context}, or an id outside the vocabulary of {vocabulary}",
        measured=len(tokens),
        threshold=context,
        margin=context - len(tokens),
    )


def _listed(paths: list[str]) -> str:
    more = len(paths) - _MAX_PATHS
    return ", ".join(paths[:_MAX_PATHS]) + (f" and {more} more" if more > 0 else "")
