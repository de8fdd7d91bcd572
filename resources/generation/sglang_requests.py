"""SGLang's native requests and answers (grail-protocol §10.4), answers checked to the last id."""

from typing import Any

from windrow.engine.ports import Completion
from windrow.networks.grail.checkpoint import GenerationPolicy
from windrow.resources.generation.client import MalformedAnswer
from windrow.resources.generation.requests import (
    RequestAborted,
    SampleRequest,
    WrongWeights,
    checked_reason,
    checked_tokens,
)


def sampling_params(
    policy: GenerationPolicy, seed: int | None, eos_token_id: int | None = None
) -> dict[str, Any]:
    """A policy as SGLang's `sampling_params` (§10.4); a key it does not know would be refused.

    seed: None where the server would ignore it.
    eos_token_id: the tokenizer's, which must end a completion whatever the model's configuration
    says; None leaves it to the server.
    """
    params: dict[str, Any] = {
        "max_new_tokens": policy.max_new_tokens,
        "temperature": policy.temperature,
        "top_p": policy.top_p,
    }
    if policy.top_p == 0.0:  # the server refuses it; it means the likeliest token alone
        params |= {"top_p": 1.0, "top_k": 1}
    elif policy.top_k is not None:
        params["top_k"] = policy.top_k
    params["repetition_penalty"] = policy.repetition_penalty
    if seed is not None:
        params["sampling_seed"] = seed
    if eos_token_id is not None:
        params["stop_token_ids"] = [eos_token_id]
    return params


def generate_body(request: SampleRequest, *, seeded: bool) -> dict[str, Any]:
    """The body of POST /generate for all sequences of a request together."""
    return {
        "input_ids": [request.prompt.tolist()] * len(request.seeds),
        "sampling_params": [
            sampling_params(request.policy, seed if seeded else None, request.eos_token_id)
            for seed in request.seeds
        ],
        "rid": list(request.names),
    }


def read_completions(answer: object, request: SampleRequest, version: str) -> list[Completion]:
    """The completions of an answer of POST /generate, in the order of the seeds.

    version: the weight version that every token must have been sampled with.
    Raises MalformedAnswer, RequestAborted, WrongWeights.
    """
    if not isinstance(answer, list) or len(answer) != len(request.seeds):
        raise MalformedAnswer(
            f"{len(request.seeds)} completions were asked for, the answer is no list of as many"
        )
    return [
        _completion(item, name, request, version)
        for item, name in zip(answer, request.names, strict=True)
    ]


def _completion(item: object, name: str, request: SampleRequest, version: str) -> Completion:
    meta = item.get("meta_info") if isinstance(item, dict) else None
    if not isinstance(item, dict) or not isinstance(meta, dict):
        raise MalformedAnswer(f"completion {name} is no object with meta_info")
    if meta.get("id") != name:
        raise MalformedAnswer(f"{meta.get('id')!r:.80} is answered where {name} was asked")
    reason = meta.get("finish_reason")
    kind = reason.get("type") if isinstance(reason, dict) else None
    if isinstance(reason, dict) and kind == "abort":
        raise RequestAborted(f"the server gave up {name}: {reason.get('message')!r:.300}")
    tokens = checked_tokens(item.get("output_ids"), name, request)
    if meta.get("completion_tokens") != len(tokens):
        raise MalformedAnswer(
            f"completion {name} holds {len(tokens)} tokens and claims "
            f"{meta.get('completion_tokens')!r:.40}"
        )
    _check_version(meta, name, len(tokens), version)
    return Completion(tokens, checked_reason(kind, tokens, name, request))


def _check_version(meta: dict[str, Any], name: str, length: int, version: str) -> None:
    """Raises WrongWeights unless every token was sampled with the version, and none is missing."""
    spans = meta.get("weight_versions")
    if meta.get("weight_version") == version and isinstance(spans, list):
        covered: Any = 0
        for span in spans:
            if not isinstance(span, dict) or (span.get("version"), span.get("start")) != (
                version,
                covered,
            ):
                break
            covered = span.get("end")
        else:
            if covered == length:
                return
    raise WrongWeights(
        f"completion {name} was sampled with weights {meta.get('weight_version')!r:.80} "
        f"({spans!r:.300}), not with {version} throughout; load the checkpoint again"
    )
