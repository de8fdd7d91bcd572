"""The hash challenge, set, solved and judged."""

import json
import random
from collections.abc import Callable

import pytest

from windrow.engine.fleet import hash_challenge
from windrow.engine.fleet.frames import to_json
from windrow.engine.fleet.tasks import BadRequest, answer


def draws(seed: int = 1) -> Callable[[int], int]:
    return random.Random(seed).randrange


def test_a_node_solves_what_it_is_asked() -> None:
    asked, password = hash_challenge.challenge(3, draws())
    data = answer("hash_challenge", hash_challenge.request(asked))
    assert json.loads(data)["password"] == password
    solved, gpu = hash_challenge.verify(asked, data, 1.0)
    assert solved.windrow_verdict
    assert solved.network_verdict
    assert gpu.windrow_verdict is False
    assert "shows no GPU" in gpu.reason


def test_challenges_differ_in_everything() -> None:
    one, other = (hash_challenge.challenge(3, draws(seed))[0] for seed in (1, 2))
    assert one.salt != other.salt
    assert one.chars != other.chars
    assert len(set(one.chars)) == hash_challenge.CHARACTERS


def test_a_long_password_found_in_time_shows_a_gpu() -> None:
    asked, password = hash_challenge.challenge(10, draws())
    checks = hash_challenge.verify(asked, to_json({"password": password}), 20.0)
    assert [check.windrow_verdict for check in checks] == [True, True]
    late = hash_challenge.verify(asked, to_json({"password": password}), 31.0)
    assert [check.windrow_verdict for check in late] == [False, False]


@pytest.mark.parametrize(
    "data", [b"", b"{}", b'{"password": 3}', b'{"password": "\\ud800"}', b"x" * 10_000, b"null"]
)
def test_a_bad_answer_is_not_solved(data: bytes) -> None:
    asked, _ = hash_challenge.challenge(3, draws())
    solved, gpu = hash_challenge.verify(asked, data, 1.0)
    assert solved.windrow_verdict is False
    assert solved.reason
    assert gpu.windrow_verdict is None


def test_too_much_for_a_processor_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hash_challenge.shutil, "which", lambda _: None)
    asked, _ = hash_challenge.challenge(12, draws())
    with pytest.raises(hash_challenge.Unsolved, match="install hashcat"):
        hash_challenge.answer(hash_challenge.request(asked))


@pytest.mark.parametrize("change", [{"length": 13}, {"length": 0}, {"chars": ""}, {"hash": 1}])
def test_a_challenge_beyond_bounds_is_refused(change: dict[str, object]) -> None:
    asked, _ = hash_challenge.challenge(3, draws())
    fields = json.loads(hash_challenge.request(asked)) | change
    with pytest.raises(BadRequest):
        hash_challenge.answer(json.dumps(fields).encode())
