"""Attestation, both sides: honest work passes, anything else is named, nothing raises."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from windrow.engine.fleet import attestation
from windrow.engine.fleet.attestation import SESSIONS, answer_commit, answer_open
from windrow.engine.fleet.attestation_plan import (
    BadChallenge,
    Plan,
    challenge,
    opening_request,
    parse_challenge,
    parse_opening,
    plan_for,
    small_plan,
)
from windrow.engine.fleet.attestation_verify import (
    UNANSWERED,
    DeviceProof,
    Expectation,
    prove_devices,
    verify,
)
from windrow.engine.fleet.attestation_wire import commit_limit, opening_limit
from windrow.engine.fleet.frames import BadFrame, from_json, pack, to_json, unpack

PLAN = Plan(n=256, matrices=9, steps=40)
ASKED = challenge("node-1", "5Caller", bytes(range(32)), {"cpu": PLAN}, budget=1 << 26)
RANDOMNESS = bytes(32)
OPENING = opening_request(ASKED, RANDOMNESS)

Bodies = tuple[bytes, bytes]


@dataclass(frozen=True)
class Timed:
    body: bytes
    seconds: float


def ask() -> Bodies:
    return answer_commit(ASKED), answer_open(OPENING)


@pytest.fixture(scope="module")
def honest() -> Bodies:
    return ask()


@pytest.fixture(autouse=True)
def _leave_nothing() -> Iterator[None]:
    yield
    SESSIONS.drop()


def prove(bodies: tuple[bytes, bytes | None], **options: Any) -> DeviceProof:
    (proof,) = prove_devices(ASKED, OPENING, RANDOMNESS, *bodies, **options)
    return proof


def opened(body: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Any frame of a test's own making."""
    described = from_json(body.split(b"\n", 1)[0])["arrays"]
    expected = {name: (dtype, shape) for name, dtype, shape in described}
    return unpack(body, max_bytes=1 << 26, expected=expected)


def changed(body: bytes, name: str, change: Callable[[np.ndarray], Any]) -> bytes:
    header, arrays = opened(body)
    change(arrays[name])
    return pack(header, arrays)


def test_honest_work_is_sound(honest: Bodies) -> None:
    proof = prove(honest)
    assert (proof.committed, proof.resident, proof.walked) == ("", "", "")
    assert proof.sound
    assert not proof.recomputed
    assert proof.claimed is not None
    assert proof.claimed.way == "int8"
    assert 0.9 * 0.8**32 > proof.bounds.rows > 0.8**40


def test_every_row_and_every_step_is_sound(honest: Bodies) -> None:
    whole = opening_request(ASKED, RANDOMNESS, steps=1000)
    assert parse_opening(whole).steps["cpu"] == list(range(1, PLAN.steps + 1))
    bodies = honest[0], answer_open(whole)
    (proof,) = prove_devices(ASKED, whole, RANDOMNESS, *bodies, rows=1000)
    assert proof.sound
    assert proof.bounds.walk == 0
    assert proof.bounds.rows == 2.0**-60


def test_another_process_gives_the_same_bytes(honest: Bodies) -> None:
    header, arrays = opened(answer_open(OPENING))
    assert header["recomputed"]
    for name, array in opened(honest[1])[1].items():
        assert np.array_equal(array, arrays[name]), name
    assert prove((honest[0], pack(header, arrays))).recomputed


def test_answers_keep_their_limits(honest: Bodies) -> None:
    assert len(honest[0]) <= commit_limit(parse_challenge(ASKED))
    assert len(honest[1]) <= opening_limit(parse_opening(OPENING))


def first(array: np.ndarray) -> None:
    flat = array.reshape(-1)
    flat[0] ^= 1


def everywhere(array: np.ndarray) -> None:
    array ^= 1


@pytest.mark.parametrize(
    ("answer", "name", "change", "part"),
    [
        (0, "slices/0", first, "committed"),
        (0, "slices/0", everywhere, "committed"),
        (0, "walk/0", first, "committed"),
        (1, "sums/0", everywhere, "resident"),
        (1, "traces/0", first, "walked"),
        (1, "traces/0", everywhere, "walked"),
    ],
)
def test_any_change_is_found(
    honest: Bodies, answer: int, name: str, change: Callable[[np.ndarray], Any], part: str
) -> None:
    bodies = list(honest)
    bodies[answer] = changed(bodies[answer], name, change)
    proof = prove((bodies[0], bodies[1]))
    assert getattr(proof, part)
    assert not proof.sound


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0" * (1 << 20),
        pack({}, {}),
        pack({"session": "0" * 64, "devices": []}, {"slices/0": np.zeros((9, 256), np.uint8)}),
    ],
    ids=["empty", "large", "nothing", "part"],
)
def test_hostile_answers_are_named(honest: Bodies, body: bytes) -> None:
    assert prove((body, honest[1])).committed
    proof = prove((honest[0], body))
    assert (proof.committed, proof.sound) == ("", False)
    assert proof.resident
    assert proof.walked


@pytest.mark.parametrize(
    "header",
    [
        {"session": "0" * 64},
        {"devices": []},
        {"devices": None},
        {"devices": [{"uuid": "GPU-1"}]},
        {"fill_seconds": -1},
        {"fill_seconds": True},
        {"fill_seconds": 10**40},
        {"walk_seconds": "1"},
        {"memory_bytes": 2**80},
        {"memory_bytes": 1.5},
        {"backend": ["cuda"]},
        {"way": "x" * 1000},
    ],
    ids=str,
)
def test_hostile_headers_are_named(honest: Bodies, header: dict[str, Any]) -> None:
    fields, arrays = opened(honest[0])
    if header.keys() <= fields.keys():
        fields |= header
    else:
        fields["devices"][0] |= header
    assert prove((pack(fields, arrays), None)).committed


def test_shorter_arrays_are_refused(honest: Bodies) -> None:
    header, arrays = opened(honest[0])
    arrays["slices/0"] = arrays["slices/0"][:-1]
    assert "slices/0" in prove((pack(header, arrays), None)).committed


def test_a_silent_node_proves_nothing(honest: Bodies) -> None:
    proof = prove((honest[0], None))
    assert (proof.committed, proof.resident, proof.walked) == ("", UNANSWERED, UNANSWERED)


def test_checks_say_what_was_measured(honest: Bodies) -> None:
    history = (1.0, 1.01, 0.99, 1.02, 0.98)
    _, checks = verify(
        ASKED,
        OPENING,
        RANDOMNESS,
        Timed(honest[0], 5.0),
        Timed(honest[1], 0.1),
        expectations={"cpu": Expectation(memory=10**10, history=history)},
    )
    found = {check.check: check for check in checks}
    assert {name for name, check in found.items() if check.windrow_verdict} == {
        "attestation_fill",
        "attestation_residency",
        "attestation_walk",
        "attestation_residency_time",
        "attestation_claimed_time",
    }
    assert found["attestation_time"].windrow_verdict is False
    assert found["attestation_time"].measured == 5.0
    assert found["attestation_coverage"].windrow_verdict is False
    assert all(check.reason for check in checks if not check.windrow_verdict)


def test_a_node_cannot_have_worked_longer_than_it_took(honest: Bodies) -> None:
    fields, arrays = opened(honest[0])
    fields["devices"][0]["fill_seconds"] = 6.0
    _, checks = verify(
        ASKED, OPENING, RANDOMNESS, Timed(pack(fields, arrays), 5.0), None, expectations={}
    )
    (claimed,) = [check for check in checks if check.check == "attestation_claimed_time"]
    assert claimed.windrow_verdict is False


def test_the_seed_depends_on_who_asks_whom() -> None:
    made = parse_challenge(ASKED)
    others = [replace(made, node="node-2"), replace(made, caller="5Other")]
    others.append(replace(made, nonce="0" * 64))
    assert len({made.seed, *(other.seed for other in others)}) == 4


def test_secret_rows_are_not_in_what_is_sent() -> None:
    assert RANDOMNESS.hex() not in OPENING.decode()


@pytest.mark.parametrize(
    "change",
    [
        {"plans": {}},
        {"plans": {"cpu": {"n": 256}}},
        {"plans": {"../cpu": None}},
        {"nonce": "00"},
        {"node": "a\nb"},
        {"caller": 5},
        {"budget": -1},
        {"budget": 1e9},
        {"more": 1},
    ],
    ids=str,
)
def test_bad_challenges_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadChallenge):
        answer_commit(to_json(from_json(ASKED) | change))


@pytest.mark.parametrize(
    "sizes",
    [
        {"n": 2**40},
        {"n": 100},
        {"matrices": 0},
        {"matrices": 10**9},
        {"steps": -8},
        {"steps": 10**9},
        {"steps": True},
        {"n": 256.0},
    ],
    ids=str,
)
def test_plans_beyond_bounds_are_refused(sizes: dict[str, Any]) -> None:
    with pytest.raises(BadChallenge):
        replace(PLAN, **sizes)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": "zz"},
        {"last": 1},
        {"steps": []},
        {"steps": {"GPU-1": [1]}},
        {"steps": {"cpu": 1}},
        {"steps": {"cpu": []}},
        {"steps": {"cpu": [0]}},
        {"steps": {"cpu": [41]}},
        {"steps": {"cpu": [1] * 257}},
        {"steps": {"cpu": [True]}},
        {"more": 1},
    ],
    ids=str,
)
def test_bad_openings_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadChallenge):
        answer_open(to_json(from_json(OPENING) | change))
    with pytest.raises(BadFrame):
        answer_open(b"[")


def test_what_a_machine_lacks_is_named() -> None:
    made = from_json(ASKED)
    with pytest.raises(attestation.NotEnoughMemory, match="free or allowed"):
        answer_commit(to_json(made | {"budget": 1000}))
    made["plans"] = {"GPU-0": made["plans"]["cpu"]}
    with pytest.raises(attestation.NoSuchDevice, match="nvidia-smi"):
        answer_commit(to_json(made))


def test_a_device_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fall_off(_: object) -> None:
        raise RuntimeError("CUDA error: GPU is lost")

    monkeypatch.setattr(attestation.DeviceWork, "run", fall_off)
    with pytest.raises(attestation.DeviceFailed, match="GPU is lost"):
        answer_commit(ASKED)


def test_two_at_once_are_refused() -> None:
    with SESSIONS.busy, pytest.raises(attestation.AttestationBusy):
        answer_commit(ASKED)


def test_a_session_ends_by_itself() -> None:
    sessions = attestation.Sessions(0.01)
    sessions.keep("s", [])
    assert sessions.get("s") == []
    assert sessions.get("t") is None
    gone = threading.Event()
    for _ in range(500):
        if sessions.get("s") is None:
            break
        gone.wait(0.01)
    assert sessions.get("s") is None


def test_the_last_opening_ends_the_session() -> None:
    session = parse_challenge(ASKED).session
    answer_commit(ASKED)
    header, _ = opened(answer_open(opening_request(ASKED, b"again", last=False)))
    assert not header["recomputed"]
    assert SESSIONS.get(session) is not None
    answer_open(OPENING)
    assert SESSIONS.get(session) is None


@pytest.mark.parametrize("memory", [24 * 10**9, 80 * 2**30, 141 * 10**9])
def test_plans_fill_a_card(memory: int) -> None:
    plan = plan_for(memory)
    assert plan.n == (8192 if memory < 25 * 10**9 else 16384)
    assert plan.resident_bytes > 0.95 * memory - 1.2 * 2**30
    assert plan.needed_bytes < memory
    assert plan.steps == 2 * plan.matrices


def test_small_plans_keep_their_budget() -> None:
    for budget in (8 << 20, 256 << 20):
        assert small_plan(budget).needed_bytes <= budget
    with pytest.raises(BadChallenge, match="at least"):
        small_plan(1 << 20)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="not tested on a GPU: no CUDA device")
def test_every_gpu_attests_at_once() -> None:
    uuids = [
        str(torch.cuda.get_device_properties(index).uuid)
        for index in range(torch.cuda.device_count())
    ]
    asked = challenge("n", "c", bytes(32), dict.fromkeys(uuids, PLAN), budget=0)
    opening = opening_request(asked, RANDOMNESS)
    bodies = answer_commit(asked), answer_open(opening)
    proofs = prove_devices(asked, opening, RANDOMNESS, *bodies)
    assert [(proof.uuid, proof.sound) for proof in proofs] == [(u, True) for u in sorted(uuids)]
