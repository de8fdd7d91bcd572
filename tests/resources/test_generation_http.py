import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support import scripted_sglang as scripted
from tests.support.scripted_sglang import ScriptedSGLang
from windrow import WindrowError
from windrow.resources.generation.client import (
    AnswerTooLarge,
    Flight,
    GenerationServerError,
    InvalidServerAddress,
    MalformedAnswer,
    RequestRefused,
    ServerClient,
    ServerFailed,
    ServerTimedOut,
    ServerUnreachable,
    Unauthorized,
    error_text,
    succeeded,
)
from windrow.resources.secret import Secret


@pytest.fixture
def server() -> Iterator[ScriptedSGLang]:
    with ScriptedSGLang(eos=2) as running:
        yield running


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (scripted.reset, ServerUnreachable),
        (scripted.truncated, ServerUnreachable),
        (scripted.endless, AnswerTooLarge),
        (scripted.dripping, ServerTimedOut),
        (scripted.not_http, MalformedAnswer),
        (scripted.saying(200, "<html>"), MalformedAnswer),
        (scripted.saying(200, "[" * 100_000), MalformedAnswer),
        (scripted.saying(302, ""), MalformedAnswer),
        (scripted.saying(400, {"error": "no"}), RequestRefused),
        (scripted.saying(429, {"error": "later"}), ServerFailed),
        (scripted.saying(503, ""), ServerFailed),
        (scripted.saying(401, {"error": "Unauthorized"}), Unauthorized),
    ],
)
def test_failure_of_a_server_has_a_name(
    server: ScriptedSGLang, fault: Callable[[Any], None], error: type[GenerationServerError]
) -> None:
    server.fail("/model_info", fault)
    client = ServerClient(server.url)
    with pytest.raises(error):
        succeeded(
            client.call("GET", "/model_info", None, seconds=0.5, most=1 << 20), "asked"
        ).document()
    answer = succeeded(client.get("/model_info", seconds=5), "asked")
    assert answer.document() == {"weight_version": "default"}


def test_server_that_is_not_there_is_unreachable() -> None:
    with ScriptedSGLang(eos=2) as gone:
        url = gone.url
    with pytest.raises(ServerUnreachable, match="ConnectionRefused"):
        ServerClient(url).get("/health", seconds=5)


def test_call_is_cut_short_from_another_thread(server: ScriptedSGLang) -> None:
    server.hold = True
    flight, reason = Flight(), WindrowError("enough")
    body = {"input_ids": [[5]], "rid": ["a"], "sampling_params": [{"max_new_tokens": 4}]}
    raised: list[BaseException] = []

    def call() -> None:
        try:
            ServerClient(server.url).call("POST", "/generate", body, seconds=60, flight=flight)
        except WindrowError as error:
            raised.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    server.wait_until_running(1)
    flight.cut(reason)
    flight.cut(WindrowError("too late to matter"))
    caller.join(timeout=10)
    assert raised == [reason]


def test_flight_cut_before_it_starts_never_waits(server: ScriptedSGLang) -> None:
    flight, reason = Flight(), WindrowError("enough")
    flight.cut(reason)
    with pytest.raises(WindrowError) as raised:
        ServerClient(server.url).call("GET", "/model_info", None, seconds=60, flight=flight)
    assert raised.value is reason


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("error_bad_temperature", "temperature must be a non-negative finite number, got -1."),
        ("error_unknown_param", "unknown field `bogus`, expected one of `max_new_tokens`"),
        ("error_bad_json_type", "1 validation error:"),
        ("update_weights_missing", "Failed to get weights iterator"),
        ("auth_generate_nokey", "Unauthorized"),
        ("flush_cache_busy", "Flush cache failed."),
    ],
)
def test_every_shape_of_error_is_read(server: ScriptedSGLang, name: str, says: str) -> None:
    server.fail("/generate", scripted.saying(*scripted.recorded(name)))
    answer = ServerClient(server.url).post("/generate", {}, seconds=5)
    assert error_text(answer.body).startswith(says)
    with pytest.raises(GenerationServerError, match=f"status {answer.status}"):
        succeeded(answer, "asked")


def test_error_of_a_server_is_fit_for_a_log() -> None:
    body = '{"error": {"message": "a\\u001b[31m\\nb' + "x" * 9000 + '"}}'
    assert error_text(body.encode()) == ("a [31m b" + "x" * 9000)[:300]


def test_key_is_sent_and_never_shown(server: ScriptedSGLang) -> None:
    server.key = "correct-key"
    assert (
        ServerClient(server.url, Secret("correct-key")).get("/model_info", seconds=5).status == 200
    )
    with pytest.raises(Unauthorized, match="set the server's API key"):
        succeeded(ServerClient(server.url).get("/model_info", seconds=5), "asked")
    with pytest.raises(InvalidServerAddress) as raised:
        ServerClient(server.url, Secret("two\r\nlines"))
    assert "lines" not in str(raised.value).split("holds")[0]


@pytest.mark.parametrize(
    "url",
    ["ftp://host:1", "host:1", "http://", "http://u:p@host:1", "http://h:99999", "http://h?a"],
)
def test_url_that_is_no_server_is_refused(url: str) -> None:
    with pytest.raises(InvalidServerAddress) as raised:
        ServerClient(url)
    assert "u:p" not in str(raised.value)
