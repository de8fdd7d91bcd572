import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.support.scripted_sglang import recorded
from windrow.networks.grail.checkpoint import GenerationPolicy
from windrow.resources.generation.client import MalformedAnswer
from windrow.resources.generation.requests import RequestAborted, SampleRequest, WrongWeights
from windrow.resources.generation.sglang_requests import (
    generate_body,
    read_completions,
    sampling_params,
)

EOS = 2
POLICY = GenerationPolicy(4, 0.7, 0.9, 50, 1.0)
REQUEST = SampleRequest(
    np.array([5, 6, 7], dtype=np.int32), (11, 12), POLICY, ("a" * 32, "b" * 32), 100, EOS
)


def answer(*ids: list[int]) -> list[dict[str, Any]]:
    """A whole answer to REQUEST, in the shape that a real server gave."""
    (item, _) = recorded("generate_batch_diff_params")[1]
    made = []
    for name, tokens in zip(REQUEST.names, ids, strict=True):
        each = copy.deepcopy(item)
        ended = tokens[-1] == EOS
        each["output_ids"] = tokens
        each["meta_info"] |= {
            "id": name,
            "completion_tokens": len(tokens),
            "weight_version": "v1",
            "weight_versions": [{"version": "v1", "start": 0, "end": len(tokens)}],
            "finish_reason": {"type": "stop", "matched": EOS}
            if ended
            else {"type": "length", "length": len(tokens)},
        }
        made.append(each)
    return made


def test_completions_keep_order_ids_and_reason() -> None:
    first, second = read_completions(answer([7, 8, 9, 10], [7, EOS]), REQUEST, "v1")
    assert (first.tokens.tolist(), first.finish_reason) == ([7, 8, 9, 10], "length")
    assert (second.tokens.tolist(), second.finish_reason) == ([7, EOS], "stop")
    assert first.tokens.dtype == np.int32


def test_end_of_sequence_at_the_limit_counts_as_stop() -> None:
    completions = read_completions(answer([7, 8, 9, EOS], [7, EOS]), REQUEST, "v1")
    assert [each.finish_reason for each in completions] == ["stop", "stop"]


def meta(**changes: Any) -> Callable[[list[Any]], None]:
    return lambda made: made[1]["meta_info"].update(changes)


def ids(*tokens: Any) -> Callable[[list[Any]], None]:
    return lambda made: made[1].update(output_ids=list(tokens))


@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        (list.reverse, MalformedAnswer, "is answered where"),
        (list.pop, MalformedAnswer, "no list of as many"),
        (lambda made: made.append(made[0]), MalformedAnswer, "no list of as many"),
        (lambda made: made[1].clear(), MalformedAnswer, "no object with meta_info"),
        (lambda made: made.__setitem__(1, 5), MalformedAnswer, "no object with meta_info"),
        (meta(id="c" * 32), MalformedAnswer, "is answered where"),
        (meta(completion_tokens=4), MalformedAnswer, "claims 4"),
        (meta(finish_reason=None), MalformedAnswer, "ends after 3 of 4 tokens"),
        (meta(finish_reason={"type": "length"}), MalformedAnswer, "ends after 3 of 4 tokens"),
        (meta(finish_reason={"type": "abort", "message": "m"}), RequestAborted, "gave up"),
        (ids(), MalformedAnswer, "0 tokens"),
        (ids(1, 2, 3, 4, 5), MalformedAnswer, "5 tokens"),
        (ids(7, 8, 100), MalformedAnswer, "holds 100, no token"),
        (ids(7, 8, -1), MalformedAnswer, "holds -1, no token"),
        (ids(7, 8, True), MalformedAnswer, "holds True, no token"),
        (ids(7, 8, 9.0), MalformedAnswer, "holds 9.0, no token"),
        (ids(7, 8, 10**400), MalformedAnswer, "no token of the vocabulary"),
        (ids(EOS, 8, 9), MalformedAnswer, "goes on after its end"),
        (meta(weight_version="v0"), WrongWeights, "'v0'"),
        (meta(weight_versions=[]), WrongWeights, "not with v1 throughout"),
        (meta(weight_versions=None), WrongWeights, "not with v1 throughout"),
        (
            meta(
                weight_versions=[
                    {"version": "v0", "start": 0, "end": 1},
                    {"version": "v1", "start": 1, "end": 3},
                ]
            ),
            WrongWeights,
            "not with v1 throughout",
        ),
        (
            meta(weight_versions=[{"version": "v1", "start": 1, "end": 3}]),
            WrongWeights,
            "not with v1 throughout",
        ),
    ],
)
def test_answer_that_does_not_hold_up_is_refused(
    spoil: Callable[[list[Any]], object], error: type[Exception], says: str
) -> None:
    made = answer([7, 8, 9, 10], [7, 8, 9])
    made[1]["meta_info"]["finish_reason"] = {"type": "stop", "matched": 9}
    assert len(read_completions(made, REQUEST, "v1")) == 2
    spoil(made)
    with pytest.raises(error, match=says):
        read_completions(made, REQUEST, "v1")


def test_recorded_abort_is_recognised() -> None:
    status, body = recorded("generate_aborted")
    assert status == 200
    request = replace(REQUEST, seeds=(11,), names=("abort-me",))
    with pytest.raises(RequestAborted, match="Aborted"):
        read_completions([body], request, "default")


def test_policy_is_sent_whole_and_seeds_only_where_they_count() -> None:
    body = generate_body(REQUEST, seeded=True)
    assert body["input_ids"] == [[5, 6, 7]] * 2
    assert body["rid"] == list(REQUEST.names)
    assert [params.pop("sampling_seed") for params in body["sampling_params"]] == [11, 12]
    assert body["sampling_params"] == generate_body(REQUEST, seeded=False)["sampling_params"]
    assert body["sampling_params"][0] == {
        "max_new_tokens": 4,
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 50,
        "repetition_penalty": 1.0,
        "stop_token_ids": [EOS],
    }


def test_top_p_of_zero_is_the_likeliest_token() -> None:
    params = sampling_params(replace(POLICY, top_p=0.0), None)
    assert (params["top_p"], params["top_k"]) == (1.0, 1)


def test_names_are_fresh_unique_and_of_one_length() -> None:
    requests = [
        SampleRequest.of(REQUEST.prompt, range(16), POLICY, vocab_size=100, eos_token_id=EOS)
    ]
    requests.append(requests[0].renamed())
    names = [name for request in requests for name in request.names]
    assert len(set(names)) == 32
    assert {len(name) for name in names} == {32}
