"""The language-model job: honest answers pass whole, and nothing else does."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from windrow.engine.fleet import llm_job
from windrow.engine.fleet.frames import BadFrame
from windrow.engine.fleet.llm_job_answers import (
    Answered,
    BadAnswer,
    Loaded,
    pack_answers,
    read_answers,
    read_loaded,
    read_scores,
)
from windrow.engine.fleet.llm_job_model import (
    MODELS_FOLDER,
    LocalModel,
    UnknownModel,
    UnusableModel,
    stored_dtype,
)
from windrow.engine.fleet.llm_job_plan import Job
from windrow.engine.fleet.llm_job_requests import (
    MAX_PROMPTS,
    BadJob,
    LoadRequest,
    ScoreRequest,
    VolumeRequest,
    read_request,
)
from windrow.engine.fleet.tasks import answer as do
from windrow.networks.compute_horde.volumes import FilePut, SingleFile

DEMO = Path(__file__).parents[3] / "pipelines" / "demo" / "checkpoint"
JOB = Job(
    "7f4f14bd-bee7-497c-8b2b-992f4fc209ed",
    "node-1",
    "demo",
    "ab" * 32,
    prompts=6,
    max_tokens=12,
)
REQUEST = JOB.request()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    (folder / "demo").symlink_to(DEMO)
    return folder


@pytest.fixture(autouse=True)
def _models(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODELS_FOLDER, str(models))


@dataclass(frozen=True)
class Done:
    answer: bytes
    answered: tuple[Answered, ...]


@pytest.fixture(scope="module")
def honest(models: Path) -> Done:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MODELS_FOLDER, str(models))
        data = do("llm_job", llm_job.challenge(JOB))
    return Done(data, read_answers(data, REQUEST).answered)


def score(data: bytes) -> bytes:
    return do("llm_job", llm_job.score_request(JOB, data))


def test_an_honest_answer_passes_either_way(honest: Done) -> None:
    again = do("llm_job", llm_job.challenge(JOB))
    assert not llm_job.needs_score(JOB, again, honest.answer)
    same = llm_job.verify(JOB, again, 2.0, trusted=honest.answer)
    assert (same.passed, same.equal) == (True, 6)
    assert [check.network_verdict for check in same.checks] == [True, True]

    scored = llm_job.verify(JOB, honest.answer, 2.0, score=score(honest.answer))
    assert scored.passed
    assert scored.logprob_error is not None
    assert scored.logprob_error < 1e-4
    assert scored.draw_gap == pytest.approx(0, abs=1e-4)
    assert scored.tokens == sum(len(one.tokens) for one in honest.answered)


def test_a_prompts_answer_depends_on_no_other_prompt(honest: Done, models: Path) -> None:
    model = LocalModel(models / "demo", "cpu")
    alone, _ = model.answer(replace(REQUEST, prompts=REQUEST.prompts[:1]))
    assert alone[0].tokens.tolist() == honest.answered[0].tokens.tolist()
    assert np.allclose(alone[0].logprobs, honest.answered[0].logprobs, atol=1e-4)


def test_without_a_trusted_node_nothing_is_said(honest: Done) -> None:
    verdict = llm_job.verify(JOB, honest.answer, 2.0)
    assert verdict.checks[0].windrow_verdict is None
    assert not verdict.passed


def changed(honest: Done, row: int, change: Callable[[Answered], Answered]) -> bytes:
    answered = list(honest.answered)
    answered[row] = change(answered[row])
    return pack_answers(REQUEST, answered, 1.0)


def invented(one: Answered) -> Answered:
    return replace(one, text="I am sure it is fine.")


def other_last_token(one: Answered) -> Answered:
    tokens = one.tokens.copy()
    tokens[-1] = (tokens[-1] + 7) % 600 + 3
    return replace(one, tokens=tokens)


def cut(one: Answered) -> Answered:
    return replace(one, tokens=one.tokens[:-1], logprobs=one.logprobs[:-1])


def surer(one: Answered) -> Answered:
    return replace(one, logprobs=one.logprobs + np.float32(0.01))


def unknown_token(one: Answered) -> Answered:
    return replace(one, tokens=np.full_like(one.tokens, 2**31 - 1))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (invented, "not the text"),
        (other_last_token, "not what the seed draws"),
        (cut, "stop"),
        (surer, "log-probability"),
        (unknown_token, "not what the seed draws"),
    ],
)
def test_one_wrong_answer_of_many_fails_all(
    honest: Done, change: Callable[[Answered], Answered], words: str
) -> None:
    row = (JOB.known() + 1) % len(REQUEST.prompts)
    data = changed(honest, row, change)
    verdict = llm_job.verify(JOB, data, 2.0, score=score(data))
    assert not verdict.passed
    assert words in verdict.checks[0].reason
    if change is invented:
        compared = llm_job.verify(JOB, data, 2.0, trusted=honest.answer)
        assert compared.checks[0].network_verdict is True
        assert compared.checks[0].windrow_verdict is False
        assert "1 of 6" in compared.checks[0].reason


def test_the_network_sees_only_the_prompt_it_knows(honest: Done) -> None:
    data = changed(honest, JOB.known(), invented)
    verdict = llm_job.verify(JOB, data, 2.0, trusted=honest.answer)
    assert verdict.checks[0].network_verdict is False


def test_likely_tokens_that_the_seed_does_not_draw_fail(honest: Done, models: Path) -> None:
    model = LocalModel(models / "demo", "cpu")
    other = replace(REQUEST, seed="00" * 16)
    answered, seconds = model.answer(other)
    data = pack_answers(REQUEST, answered, seconds)
    verdict = llm_job.verify(JOB, data, 2.0, score=score(data))
    assert verdict.logprob_error is not None
    assert verdict.logprob_error < 1e-3
    assert "not what the seed draws" in verdict.checks[0].reason


def test_sixteen_bits_pass_where_they_are_allowed_for(models: Path) -> None:
    job = replace(JOB, max_tokens=32)
    request = job.request()
    model = LocalModel(models / "demo", "cpu", dtype=torch.bfloat16)
    answered, seconds = model.answer(request)
    data = pack_answers(request, answered, seconds)
    scores = do("llm_job", llm_job.score_request(job, data))

    def problem(tolerance: llm_job.Tolerance) -> str:
        return llm_job.verify(job, data, 2.0, score=scores, tolerance=tolerance).checks[0].reason

    assert "log-probability" in problem(llm_job.Tolerance())
    assert problem(llm_job.LOW_PRECISION) == ""

    answered[0] = replace(answered[0], tokens=np.full_like(answered[0].tokens, 5))
    data = pack_answers(request, answered, seconds)
    scores = do("llm_job", llm_job.score_request(job, data))
    assert "1 of 6 answers" in problem(llm_job.LOW_PRECISION)


def test_times_are_the_askers(honest: Done) -> None:
    def time(elapsed: float, claimed: float = 1.0) -> Any:
        data = pack_answers(REQUEST, honest.answered, claimed)
        return llm_job.verify(JOB, data, elapsed, trusted=honest.answer).checks[1]

    assert time(2.0).windrow_verdict
    late = time(48.5)
    assert (late.network_verdict, late.windrow_verdict) == (False, False)
    forged = time(2.0, claimed=3.0)
    assert (forged.network_verdict, forged.windrow_verdict) == (True, False)
    assert not time(0.0).windrow_verdict


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}\n",
        b"\xff" * 100,
        b'{"arrays":[],"header":{}}\n',
        b"[" * 100_000,
    ],
)
def test_what_is_no_answer_is_a_finding(honest: Done, data: bytes) -> None:
    assert not llm_job.needs_score(JOB, data, honest.answer)
    verdict = llm_job.verify(JOB, data, 1.0, trusted=honest.answer)
    assert verdict.checks[0].windrow_verdict is False
    assert verdict.checks[0].reason


def test_answers_to_other_jobs_or_some_prompts_are_refused(honest: Done) -> None:
    other = replace(JOB, secret="cd" * 32)
    assert not set(other.texts()) & set(JOB.texts())
    with pytest.raises(BadAnswer, match="no answer"):
        read_answers(honest.answer, other.request())
    with pytest.raises(BadAnswer, match="another job"):
        read_answers(honest.answer, replace(REQUEST, model="other"))
    fewer = replace(REQUEST, prompts=REQUEST.prompts[:2])
    with pytest.raises(BadAnswer, match="4 of 6"):
        read_answers(pack_answers(fewer, honest.answered[:2], 1.0), REQUEST)
    nan = changed(honest, 0, lambda one: replace(one, logprobs=one.logprobs * np.nan))
    with pytest.raises(BadAnswer, match="no numbers"):
        read_answers(nan, REQUEST)
    for seconds in (-1.0, 1e12):
        with pytest.raises(BadAnswer, match="took"):
            read_answers(pack_answers(REQUEST, honest.answered, seconds), REQUEST)


def test_scores_of_other_tokens_are_not_taken(honest: Done) -> None:
    mine = score(honest.answer)
    rows = [one.tokens for one in honest.answered]
    read_scores(mine, REQUEST, rows)
    other = [other_last_token(one).tokens for one in honest.answered]
    with pytest.raises(BadAnswer, match="not of the answer"):
        read_scores(mine, REQUEST, other)
    with pytest.raises(BadFrame):
        read_scores(honest.answer, REQUEST, rows)


def test_a_commitment_binds_the_whole_job() -> None:
    assert Job.from_json(JOB.to_json()) == JOB
    changes: list[dict[str, Any]] = [{"secret": "cd" * 32}, {"node": "node-2"}, {"top_p": 0.9}]
    found = {replace(JOB, **change).commitment() for change in changes} | {JOB.commitment()}
    assert len(found) == 4
    assert JOB.secret not in llm_job.challenge(JOB).decode()


@pytest.mark.parametrize(
    "change",
    [
        {"job_id": 7},
        {"job_id": "hello"},
        {"node": "../x"},
        {"secret": None},
        {"prompts": 10**12},
        {"prompts": True},
        {"limit_seconds": "48"},
        {"limit_seconds": 0},
        {"temperature": 1e9},
        {"bits": 8},
        {"bits": "16"},
        {"bits": True},
    ],
)
def test_jobs_that_cannot_be_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadJob):
        Job.from_json(json.dumps(json.loads(JOB.to_json()) | change).encode())


def test_a_full_job_fits_a_request() -> None:
    full = replace(JOB, prompts=MAX_PROMPTS, max_tokens=256)
    request = full.request()
    assert len(set(request.prompts)) == MAX_PROMPTS
    tokens = tuple(np.full(256, 151_000, np.int32) for _ in range(MAX_PROMPTS))
    assert len(ScoreRequest(request, tokens).to_json()) < 1 << 20


@pytest.mark.parametrize("name", ["../demo", "demo/..", "", "nobody", "a" * 97, "/etc", "demo\0"])
def test_models_are_found_by_name_alone(name: str) -> None:
    with pytest.raises((UnknownModel, BadJob)):
        do("llm_job", LoadRequest(name).to_json())


def test_a_model_is_loaded_before_its_job() -> None:
    told = do("llm_job", LoadRequest("demo").to_json())
    assert read_loaded(told, "demo") == Loaded("demo", stored="bfloat16", computes="float32")
    for other in (
        b"{}",
        b'{"model":"demo"}',
        told.replace(b"demo", b"x"),
        told.replace(b"b", b"/"),
    ):
        with pytest.raises((BadAnswer, BadFrame)):
            read_loaded(other, "demo")


def test_files_that_do_not_say_what_they_are_in_are_looked_at(tmp_path: Path) -> None:
    assert stored_dtype(DEMO) == "bfloat16"
    config = json.loads((DEMO / "config.json").read_text())
    del config["dtype"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").symlink_to(DEMO / "model.safetensors")
    assert stored_dtype(tmp_path) == "bfloat16"
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UnusableModel):
        LocalModel(tmp_path, "cpu")


@pytest.mark.parametrize(
    ("stored", "computes", "gpus", "bits"),
    [
        ("bfloat16", "float32", False, 32),
        ("bfloat16", "float32", True, 16),
        ("float16", "float16", False, 16),
        ("float32", "float32", True, 32),
        ("float8_e4m3fn", "float32", True, 16),
    ],
)
def test_what_a_job_allows_for_follows_the_files(
    stored: str, computes: str, gpus: bool, bits: int
) -> None:
    assert llm_job.bits(Loaded("demo", stored, computes), gpus) == bits
    allowed = {16: llm_job.LOW_PRECISION, 32: llm_job.Tolerance()}
    assert llm_job.tolerance_of(replace(JOB, bits=bits)) == allowed[bits]


@pytest.mark.parametrize(
    "change",
    [
        {"prompts": []},
        {"prompts": ["a", "a"]},
        {"prompts": [["a"]]},
        {"prompts": "abc"},
        {"prompts": ["x" * 2001]},
        {"max_tokens": 257},
        {"max_tokens": True},
        {"max_tokens": 1.5},
        {"temperature": 0},
        {"temperature": "1"},
        {"top_p": 2},
        {"seed": "zz"},
        {"model": "a/b"},
        {"job_id": 7},
        {"do": "run"},
        {"tokens": [[1]]},
        {"do": "score", "tokens": [[1]]},
        {"do": "score", "tokens": [[]] * 6},
        {"do": "score", "tokens": [[-1]] * 6},
        {"do": "score", "tokens": [[1] * 13] * 6},
        {"more": 1},
    ],
)
def test_requests_that_ask_for_something_else_are_refused(change: dict[str, Any]) -> None:
    asked = json.loads(llm_job.challenge(JOB)) | change
    with pytest.raises(BadJob):
        read_request(json.dumps(asked).encode())


def test_prompts_that_do_not_fit_the_model_are_refused() -> None:
    long = replace(REQUEST, prompts=("word and number 12345 " * 90,))
    with pytest.raises(BadJob, match="do not fit"):
        do("llm_job", long.to_json())


def test_requests_with_addresses_are_read_with_care() -> None:
    url = "https://example.com/x?secret"
    volume = SingleFile(url=url, relative_path="prompts.txt")
    upload = FilePut(url=url, relative_path="answer.frame")
    asked = VolumeRequest.of(REQUEST, volume, upload)
    sent = json.loads(asked.to_json())
    assert read_request(asked.to_json()) == asked
    assert "secret" not in repr(asked)
    assert not [prompt for prompt in JOB.texts() if prompt in json.dumps(sent)]
    changes: list[dict[str, Any]] = [
        {"size": 0},
        {"size": 1 << 21},
        {"size": True},
        {"sha256": "00"},
        {"seed": "zz"},
        {"max_tokens": 10**9},
        {"volume": url},
        {"volume": {"url": 7, "relative_path": "prompts.txt"}},
        {"volume": sent["volume"] | {"relative_path": "../prompts.txt"}},
        {"volume": sent["volume"] | {"url": "https://example.com/" + "x" * 5000}},
        {"upload": sent["volume"]},
        {"upload": sent["upload"] | {"signed_headers": {"Host": "other"}}},
        {"prompts": ["a"]},
        {"tokens": [[1]]},
    ]
    for change in changes:
        with pytest.raises(BadJob) as failure:
            read_request(json.dumps(sent | change).encode())
        assert "secret" not in str(failure.value)
    with pytest.raises(BadJob, match="line"):
        VolumeRequest.of(replace(REQUEST, prompts=("a\nb",)), volume, upload)
