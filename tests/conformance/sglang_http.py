"""What SGLang's server answers, and what is asked of it (grail-protocol §10.4)."""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from windrow.networks.grail.checkpoint import GenerationPolicy
from windrow.resources.generation.client import (
    Answer,
    GenerationServerError,
    Unauthorized,
    error_text,
    succeeded,
)
from windrow.resources.generation.prompt import InvalidPrompt, PromptTooLong, check_prompt
from windrow.resources.generation.requests import RequestAborted, SampleRequest
from windrow.resources.generation.sglang_requests import (
    generate_body,
    read_completions,
    sampling_params,
)
from windrow.resources.generation.sglang_weights import checksums_of

from .framework import Case, VectorFile, handles

NO_LIMIT = 2**62


@handles("grail/sglang_requests.json")
def requests(file: VectorFile) -> Iterator[Case]:
    for index, case in enumerate(file.load_json()["cases"]):
        yield Case(f"case-{index}", partial(check_requests, case))


def check_requests(case: dict[str, Any]) -> None:
    """What is asked of each prompt that fits; one that does not is no request of ours either."""
    # The published parameters always name a penalty (§7); 1 is what a server takes for none.
    unnamed = case["params"]["repetition_penalty"] is None
    policy = GenerationPolicy(**case["params"] | ({"repetition_penalty": 1.0} if unnamed else {}))
    seeds = case["seeds"] or [None] * len(case["prompts"])
    asked = [(r["body"]["input_ids"], r["body"]["sampling_params"]) for r in case["requests"]]
    wanted = []
    for prompt, seed, result in zip(case["prompts"], seeds, case["result"], strict=True):
        try:
            check_prompt(
                np.array(prompt),
                policy,
                vocab_size=max(prompt) + 1,
                max_context=case["max_model_len"] or NO_LIMIT,
                checkpoint_window=0,
            )
        except PromptTooLong:
            assert result["all_ids"] == prompt
            continue
        assert result["all_ids"][: len(prompt)] == prompt
        params = sampling_params(policy, seed)
        if unnamed:
            assert params.pop("repetition_penalty") == 1.0
        wanted.append((prompt, params))
    assert all(request in wanted for request in asked)
    assert all(request in asked for request in wanted)
    assert len(asked) == len(wanted) + case["server_failures_injected"]


@handles("sglang/auth_*.json")
@handles("sglang/error_*.json")
@handles("sglang/flush_cache*.json")
@handles("sglang/generate_*.json")
@handles("sglang/hidden_states_*.json")
@handles("sglang/max_new_tokens_exceeds_ctx.json")
@handles("sglang/update_*.json")
@handles("sglang/weights_checker_checksum.json")
def answers(file: VectorFile) -> Iterator[Case]:
    vector = file.load_json()
    if "response" not in vector:  # the request that a server dies of
        yield Case("never-sent", partial(check_never_sent, vector["request"]["json"]))
        return
    response = vector["response"]
    if "body" not in response:
        yield Case("stream", partial(check_never_streamed, vector["request"]["json"]))
        return
    path, status, body = vector["request"]["path"], response["status"], response["body"]
    if status != 200:
        yield Case("error", partial(check_error, status, body))
    elif path == "/generate" and not isinstance(body, str):
        for index, item in enumerate(body if isinstance(body, list) else [body]):
            yield Case(f"completion-{index}", partial(check_completion, vector, index, item))
    elif path == "/weights_checker":
        yield Case("checksums", partial(check_checksums, body))
    else:
        yield Case("accepted", partial(check_accepted, body))


def check_never_streamed(asked: dict[str, Any]) -> None:
    request = SampleRequest.of(
        np.array(asked["input_ids"], np.int32),
        [1],
        GenerationPolicy(asked["sampling_params"]["max_new_tokens"], 1.0, 1.0, None, 1.0),
        vocab_size=4096,
        eos_token_id=0,
    )
    assert asked["stream"] is True
    assert "stream" not in generate_body(request, seeded=True)


def check_never_sent(asked: dict[str, Any]) -> None:
    prompt, policy = np.array(asked["input_ids"]), GenerationPolicy(2, 1.0, 1.0, None, 1.0)
    with pytest.raises(InvalidPrompt):
        check_prompt(prompt, policy, vocab_size=4096, max_context=4096, checkpoint_window=0)


def check_checksums(body: dict[str, Any]) -> None:
    for rank in body["ranks"]:
        assert checksums_of(rank) == rank["checksums"]


def check_accepted(body: Any) -> None:
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    assert succeeded(Answer(200, content), "asked").body == content


def check_error(status: int, body: Any) -> None:
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    assert error_text(content)
    with pytest.raises(Unauthorized if status == 401 else GenerationServerError):
        succeeded(Answer(status, content), "asked")


def check_completion(vector: dict[str, Any], index: int, item: dict[str, Any]) -> None:
    asked, meta = vector["request"]["json"], item["meta_info"]
    if meta["finish_reason"]["type"] == "abort":
        with pytest.raises(RequestAborted):
            read_completions([item], _request({}, item), meta["weight_version"])
        return
    params = asked.get("sampling_params", {})
    params = params[index] if isinstance(params, list) else params
    request = _request(params, item)
    (completion,) = read_completions([item], request, meta["weight_version"])
    assert completion.tokens.tolist() == item["output_ids"]
    assert completion.finish_reason == meta["finish_reason"]["type"]


def _request(params: dict[str, Any], item: dict[str, Any]) -> SampleRequest:
    """What the answer is held against: the prompt is not part of it."""
    longest = params.get("max_new_tokens", 128)
    policy = GenerationPolicy(longest, 1.0, 1.0, None, 1.0)
    ended = item["meta_info"]["finish_reason"].get("matched")
    # No id of a completion that ran into its limit ends it.
    eos = ended if isinstance(ended, int) else -1
    prompt = np.zeros(1, np.int32)
    return SampleRequest(prompt, (0,), policy, (item["meta_info"]["id"],), 4096, eos)
