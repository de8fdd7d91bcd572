"""ComputeHorde: classes, messages, logins, signed requests, flows of jobs, their answers."""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from windrow.networks.compute_horde import (
    classes,
    hash_jobs,
    job_flow,
    llm_samples,
    logins,
    messages,
    requests,
)
from windrow.networks.compute_horde.messages import Timing, read_message
from windrow.networks.compute_horde.signing import MalformedSignature, signed_by

from .framework import Case, VectorFile, each, handles

Row = dict[str, Any]
REFUSED = "exception:"


def refused(out: object) -> bool:
    return isinstance(out, str) and out.startswith(REFUSED)


@handles("compute-horde/class_value_maps.json")
def class_value_maps(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Row) -> None:
        assert classes.network_weights(given["text"]) == out["weights"]
        assert classes.network_limits(given["text"]) == out["limits"]

    return each(file, check)


@handles("compute-horde/wire_messages.json")
def wire_messages(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Any) -> None:
        text = json.dumps(given["message"])
        if refused(out):
            with pytest.raises(messages.MalformedMessage):
                read_message(given["direction"], text)
        else:
            message = read_message(given["direction"], text)
            made = message.model_dump(mode="json")
            assert made["message_type"] == out["type"]
            assert made == out["normal"]

    return each(file, check)


@handles("compute-horde/validator_miner_auth.json")
def validator_miner_auth(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Row) -> None:
        login = logins.ValidatorLogin(**given["message"])
        assert login.text() == out["blob"]
        arguments = (
            login,
            given["miner_own_hotkey"],
            given["url_validator_hotkey"],
            given["now"],
        )
        strict = logins.strict_login(*arguments)
        if refused(out["result"]):
            with pytest.raises(MalformedSignature):
                logins.network_login(*arguments)
            assert not strict[0]
        else:
            made = logins.network_login(*arguments)
            assert list(made) == out["result"]
            if login.timestamp <= given["now"] + logins.MAX_AGE_SECONDS:
                assert strict == made
            else:
                assert not strict[0]

    return each(file, check)


@handles("compute-horde/facilitator_auth.json")
def facilitator_auth(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Row) -> None:
        assert logins.facilitator_login(given["public_key"], given["signature"]) == out["ok"]
        assert logins.facilitator_address(given["public_key"]) == out["ss58_address"]

    return each(file, check)


@handles("compute-horde/streaming_ready_blob.json")
def streaming_ready_blob(file: VectorFile) -> Iterator[Case]:
    for case in file.load_json()["cases"]:
        yield Case(case["id"], partial(check_streaming, case))


def check_streaming(case: Row) -> None:
    text = logins.streaming_ready_text(**case["in"])
    assert text == case["out"]["blob"]
    if "example_signature" in case:
        assert signed_by(case["example_signer"], text, case["example_signature"])


@handles("compute-horde/request_signature.json")
def request_signature(file: VectorFile) -> Iterator[Case]:
    errors = {
        "exception:SignatureInvalidException": requests.InvalidSignature,
        "exception:SignatureTimeoutException": requests.SignatureTooOld,
    }

    def check(given: Row, out: Row) -> None:
        signature = requests.RequestSignature(**given["signature"])
        made = requests.digest(signature.timestamp_ns, given["payload"])
        assert made.hex() == out["blake2b512_hex"]
        if refused(out["result"]):
            with pytest.raises(errors[out["result"]]):
                requests.verify(signature, given["payload"], given["newer_than_unix"])
        else:
            requests.verify(signature, given["payload"], given["newer_than_unix"])

    return each(file, check)


@handles("compute-horde/request_headers.json")
def request_headers(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Row) -> None:
        made = requests.http_payload(given["method"], given["url"], given["json"])
        assert made == out["payload"]
        if refused(out["parsed"]):
            with pytest.raises(requests.NoSignature):
                requests.signature_in(given["headers"])
        else:
            signature = requests.signature_in(given["headers"])
            assert vars(signature) == out["parsed"]
            assert requests.headers_of(signature).items() >= given["headers"].items()

    return each(file, check)


@handles("compute-horde/job_request_signed_fields.json")
def job_request_signed_fields(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Row) -> None:
        text = requests.network_signed_fields(requests.JobRequest(**given["request"]))
        assert text == out["signed_fields_text"]
        assert json.dumps(text) == out["digest_input_is_json_string_of_that_text"]

    return each(file, check)


@handles("compute-horde/organic_job_flow.json")
def organic_job_flow(file: VectorFile) -> Iterator[Case]:
    data = file.load_json()
    for case in data["cases"]:
        yield Case(
            case["id"], partial(check_flow, case["in"], case["out"], data["meta"]["tolerance"])
        )


def check_flow(given: Row, out: Row, tolerance: float) -> None:
    timing = given["timing"]
    terms = job_flow.JobTerms(
        given["job_uuid"],
        given["executor_class"],
        None if timing is None else Timing(**timing),
        given["allowance_job_value"],
        tuple(given["allowance_blocks"]),
        given["streaming"],
        given["total_job_timeout"],
        given["reservation_time_limit"],
        given["executor_startup_time_limit"],
    )
    arrivals = [
        job_flow.Arrival(one["at"], read_message("miner_to_validator", json.dumps(one["message"])))
        for one in given["miner_messages"]
    ]
    made = job_flow.network_flow(terms, arrivals)
    assert made.result == out["result"]
    assert made.at == pytest.approx(out["at"], abs=tolerance)
    for name in ("reason", "stage", "stdout"):
        assert getattr(made, name) == out.get(name, ""), name
    sent = out["validator_messages"]
    assert [one.type for one in made.sent] == [one["type"] for one in sent]
    for mine, theirs in zip(made.sent, sent, strict=True):
        assert mine.at == pytest.approx(theirs["at"], abs=tolerance)
        assert mine.ttl == theirs.get("ttl", theirs.get("started_receipt_ttl"))
        assert mine.score == theirs.get("score_str")
        assert list(mine.blocks) == theirs.get("block_numbers", [])
    strict = job_flow.strict_flow(terms, arrivals)
    assert float(strict.sent[-1].score or 0) <= float(made.sent[-1].score or 0)
    assert strict.result in (made.result, job_flow.OUT_OF_ORDER)


@handles("compute-horde/llm_verify.json")
def llm_verify(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Row) -> None:
        expected = {one["prompt"]: one["answer"] for one in given["expected"]}
        answers = given["miner_answers"]
        correct, comment = llm_samples.network_verify(expected, answers)
        assert (correct, comment) == (out["correct"], out["comment"])
        assert float(correct) == out["score"]
        assert llm_samples.strict_verify(expected, answers)[0] == (expected == answers)

    return each(file, check)


@handles("compute-horde/synthetic_job_outcome.json")
def synthetic_job_outcome(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Row) -> None:
        made = llm_samples.job_score(
            given["response"] == "finished",
            given["seconds_between_send_and_response"],
            given["answers_correct"],
            given["timeout_seconds"],
        )
        assert made == (out["score"], out["success"])

    return each(file, check)


@handles("compute-horde/hash_jobs.json")
def hash_job(file: VectorFile) -> Iterator[Case]:
    return each(file, check_hash_job)


def check_hash_job(given: Row, out: Row) -> None:
    if given["version"] == 0:
        stage = hash_jobs.Stage(
            given["payload"], given["hash_type"], given["num_letters"], given["num_digits"]
        )
        assert hash_jobs.solve([stage]) == [[out["answer"]]]
        assert hash_jobs.ALGORITHMS[given["hash_type"]].upper() == given["algorithm"]
        assert hash_jobs.oldest_arguments(stage) == out["docker_args"]
        return
    stages = [
        hash_jobs.Stage(*parts)
        for parts in zip(
            given["payloads"],
            given["algorithms"],
            given["num_letters"],
            given["num_digits"],
            strict=True,
        )
    ]
    assert len(stages) == given["n"]
    assert [stage.mask for stage in stages] == given["masks"]
    solved = hash_jobs.solve(stages, given["first_password"])
    assert solved == out["passwords"]
    assert hash_jobs.is_answer(f" {hash_jobs.answer(solved)}\n", out["answer"])
    assert hash_jobs.arguments(given["first_password"]) == out["docker_args"]
