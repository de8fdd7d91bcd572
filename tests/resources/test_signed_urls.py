"""Signed addresses: one object, one verb, a short time, and never in a text."""

import time
import urllib.error
import urllib.request

import pytest

from tests.conftest import S3Place
from windrow.resources.storage.objects import InvalidKey


def asked(method: str, url: str, body: bytes | None = None) -> tuple[int, bytes]:
    request = urllib.request.Request(url, body, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_whoever_has_an_address_can_use_it_for_that_alone(s3: S3Place) -> None:
    bucket = s3.direct()
    put = bucket.signed_url("a b/x+y.txt", "PUT", 60)
    get = bucket.signed_url("a b/x+y.txt", "GET", 60)
    assert repr(put) == str(put) == "Secret(hidden)"
    assert asked("GET", get.reveal())[0] == 404
    assert asked("PUT", put.reveal(), b"data")[0] == 200
    assert asked("GET", get.reveal()) == (200, b"data")
    assert bucket.get("a b/x+y.txt") == b"data"

    assert asked("GET", put.reveal())[0] == 403
    assert asked("PUT", get.reveal(), b"other")[0] == 403
    assert asked("PUT", put.reveal().replace("x%2By", "z"), b"other")[0] == 403
    assert asked("PUT", put.reveal().replace("Expires=60", "Expires=600"), b"other")[0] == 403
    assert [info.size for info in bucket.list()] == [4]


def test_an_address_ends(s3: S3Place) -> None:
    bucket = s3.direct()
    put = bucket.signed_url("x", "PUT", 1)
    time.sleep(2.5)
    assert asked("PUT", put.reveal(), b"data")[0] == 403
    assert bucket.head("x") is None
    with pytest.raises(InvalidKey):
        bucket.signed_url("../x", "PUT", 1)
