"""What an S3 server's answer means: its code first, then its status, and never a guess."""

import re
import time

import pytest

from windrow.networks.s3_answers import REMEDIES, Meaning, clock_words, read_answer


def body(code: str, message: str = "", more: str = "") -> str:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code>'
        f"<Message>{message}</Message>{more}</Error>"
    )


@pytest.mark.parametrize(
    ("status", "code", "meaning"),
    [
        (400, "RequestTimeout", "retry"),
        (400, "IncompleteBody", "retry"),
        (400, "BadDigest", "retry"),
        (400, "ExpiredToken", "credentials"),
        (400, "InvalidToken", "credentials"),
        (400, "AuthorizationHeaderMalformed", "place"),
        (400, "EntityTooLarge", "too large"),
        (400, "MalformedXML", "invalid"),
        (400, "XMinioAdminBucketQuotaExceeded", "full"),
        (301, "PermanentRedirect", "place"),
        (307, "TemporaryRedirect", "retry"),
        (403, "AccessDenied", "refused"),
        (403, "AllAccessDisabled", "refused"),
        (403, "InvalidAccessKeyId", "credentials"),
        (403, "SignatureDoesNotMatch", "credentials"),
        (403, "RequestTimeTooSkewed", "clock"),
        (403, "QuotaExceeded", "full"),
        (404, "NoSuchBucket", "no bucket"),
        (404, "NoSuchKey", "missing"),
        (404, "NoSuchUpload", "no upload"),
        (405, "MethodNotAllowed", "unsupported"),
        (409, "ConditionalRequestConflict", "retry"),
        (409, "OperationAborted", "retry"),
        (411, "MissingContentLength", "invalid"),
        (412, "PreconditionFailed", "condition"),
        (416, "InvalidRange", "changed"),
        (500, "InternalError", "retry"),
        (501, "NotImplemented", "unsupported"),
        (503, "SlowDown", "retry"),
        # A server's own status for a code that others send with another one.
        (400, "SlowDown", "retry"),
        (507, "XMinioStorageFull", "full"),
        # Without a code the status decides, and a code nobody knows decides nothing.
        *[(status, "", "retry") for status in (307, 408, 409, 425, 429, 500, 502, 503, 504, 522)],
        *[(status, "", "refused") for status in (402, 403, 451)],
        *[(status, "", "invalid") for status in (400, 407, 411, 417, 431)],
        *[(status, "Whatever", "retry") for status in (500, 503, 599)],
        (401, "", "credentials"),
        (404, "", "missing"),
        (413, "", "too large"),
        (501, "", "unsupported"),
        (505, "", "retry"),
        (403, "Whatever", "refused"),
    ],
)
def test_code_then_status_decides(status: int, code: str, meaning: str) -> None:
    answer = read_answer(status, body(code, "words") if code else "")
    assert answer.meaning == meaning
    assert answer.code == code
    assert answer.remedy.endswith((".", "chronyd."))


def test_every_meaning_has_a_remedy() -> None:
    assert REMEDIES.keys() == set(Meaning)


@pytest.mark.parametrize(
    ("message", "code", "meaning"),
    [
        ("Request has expired", "RequestExpired", "refused"),
        ("Request is not valid yet", "RequestInTheFuture", "clock"),
        ("Cannot upload files, storage cap exceeded.", "QuotaExceeded", "full"),
        ("Access Denied", "AccessDenied", "refused"),
    ],
)
def test_some_servers_say_the_reason_in_words_only(message: str, code: str, meaning: str) -> None:
    answer = read_answer(403, body("AccessDenied", message))
    assert (answer.code, answer.meaning) == (code, meaning)


@pytest.mark.parametrize(
    "page",
    [
        "<html>\n<head><title>502 Bad Gateway</title></head></html>",
        "Forbidden by your administrator",
        "<Error><Code>" + "A" * 65 + "</Code></Error>",
        "<Error><Code>has blanks</Code></Error>",
        '{"code": "AccessDenied"}',
    ],
)
def test_a_body_that_is_not_s3_is_not_taken_for_it(page: str) -> None:
    answer = read_answer(403, page)
    assert answer.strange
    assert (answer.code, answer.meaning, answer.text) == ("", "refused", "HTTP 403")
    assert "proxy" in answer.remedy


def test_a_huge_body_costs_little_and_shows_little() -> None:
    began = time.perf_counter()
    answer = read_answer(500, body("InternalError", "word " * 2000) + "<a>" * 10_000_000)
    assert time.perf_counter() - began < 1.0
    assert len(answer.text) < 300
    assert read_answer(500, "<A>" * 3000).strange


def test_a_message_stays_in_one_line() -> None:
    text = read_answer(503, body("SlowDown", "one\n\x1b[31m two\r\n three")).text
    assert re.fullmatch(r"HTTP 503 SlowDown: one \S+ two three", text)
    assert "\n" not in text


@pytest.mark.parametrize(
    ("server", "skew"),
    [
        ("2026-12-01T00:00:00Z", 3600.0),
        ("2026-12-01T02:00:00.500Z", -3600.5),
        ("2026-12-01T00:00:00", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_how_far_a_clock_is_off(server: str, skew: float | None) -> None:
    more = f"<ServerTime>{server}</ServerTime>" if server else ""
    answer = read_answer(403, body("RequestTimeTooSkewed", "", more))
    now = 1796083200.0 + 3600.0  # 2026-12-01T01:00:00Z
    assert answer.skew(now) == skew


def test_a_clock_in_words() -> None:
    assert "3,600 s ahead of" in clock_words(3600.0)
    assert "3,600 s behind" in clock_words(-3600.0)
    assert "by more than" in clock_words(None)
    assert "by 2 s only" in clock_words(2.0)
