"""`GenerationServers` over SGLang's interface, spoken with real local HTTP servers that fail."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from tests.support import scripted_sglang as scripted
from tests.support.scripted_sglang import ScriptedSGLang
from tests.support.tiny_checkpoint import EOS_ID, make_tiny_checkpoint
from windrow.engine.ports import GenerationCancelled
from windrow.networks.grail.checkpoint import GenerationPolicy
from windrow.resources.checkpoints.files import VerifiedCheckpoint, verify_checkpoint
from windrow.resources.generation.client import RequestRefused, Unauthorized
from windrow.resources.generation.dispatch import NoServerLeft
from windrow.resources.generation.pool import GenerationFailed, GenerationServers, ServedGenerator
from windrow.resources.generation.prompt import InvalidPrompt, PromptTooLong
from windrow.resources.generation.requests import WrongWeights
from windrow.resources.generation.sglang_server import SGLangServer
from windrow.resources.generation.sglang_weights import WeightsNotLoaded
from windrow.resources.secret import Secret

POLICY = GenerationPolicy(10, 0.7, 0.9, 50, 1.0)
PROMPT = np.array([5, 6, 7], dtype=np.int32)
SEEDS = range(16)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> VerifiedCheckpoint:
    return verify_checkpoint(make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint")))


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> VerifiedCheckpoint:
    directory = tmp_path_factory.mktemp("later")
    return verify_checkpoint(make_tiny_checkpoint(directory, seed=1, window=30))


@pytest.fixture
def made() -> Iterator[Callable[..., ScriptedSGLang]]:
    """Makes servers that are gone with the test."""
    with ExitStack() as stack:
        yield lambda **given: stack.enter_context(ScriptedSGLang(eos=EOS_ID, **given))


def generator_of(
    checkpoint: VerifiedCheckpoint, *servers: ScriptedSGLang, **given: Any
) -> ServedGenerator:
    attached = [SGLangServer(server.url, request_seconds=20) for server in servers]
    return GenerationServers(attached, retry_pause=0.1, **given).generator(checkpoint, EOS_ID)


def sampled(generator: ServedGenerator, seeds: Any = SEEDS) -> list[list[int]]:
    return [each.tokens.tolist() for each in generator.generate(PROMPT, seeds, POLICY)]


def reference(seeds: Any = SEEDS) -> list[list[int]]:
    """What ScriptedSGLang makes of PROMPT."""
    rows = []
    for seed in seeds:
        length = min(3 + seed % 10, POLICY.max_new_tokens)
        row = [3 + (18 + place) % 100 for place in range(length)]
        rows.append([*row[:-1], EOS_ID] if length < POLICY.max_new_tokens else row)
    return rows


def test_group_is_one_request_with_a_seed_a_rollout(
    checkpoint: VerifiedCheckpoint, made: Callable[..., ScriptedSGLang]
) -> None:
    server = made()
    generator = generator_of(checkpoint, server, groups_in_flight=3)
    assert sampled(generator) == reference()
    (body,) = server.asked("/generate")
    assert [params["sampling_seed"] for params in body["sampling_params"]] == list(SEEDS)
    assert (generator.lanes, generator.reproducible) == (3, True)
    assert generator.generate(PROMPT, [], POLICY) == []


def test_server_that_ignores_seeds_is_sent_none_and_said_to(
    checkpoint: VerifiedCheckpoint, made: Callable[..., ScriptedSGLang]
) -> None:
    server = made(deterministic=False)
    generator = generator_of(checkpoint, server)
    sampled(generator)
    assert "sampling_seed" not in server.asked("/generate")[0]["sampling_params"][0]
    assert not generator.reproducible
    assert generator.weights_proof == "files"


def test_what_a_server_dies_of_is_never_sent(
    checkpoint: VerifiedCheckpoint, made: Callable[..., ScriptedSGLang]
) -> None:
    server = made(context=100)
    generator = generator_of(checkpoint, server)
    for bad in (600, -1):
        with pytest.raises(InvalidPrompt, match="outside the vocabulary of 600"):
            generator.generate(np.array([5, bad], dtype=np.int32), SEEDS, POLICY)
    with pytest.raises(PromptTooLong, match="context of 100"):
        generator.generate(np.ones(91, dtype=np.int32), SEEDS, POLICY)
    generator.generate(np.ones(90, dtype=np.int32), SEEDS, POLICY)
    assert len(server.asked("/generate")) == 1


def test_sequences_in_flight_stay_bounded(
    checkpoint: VerifiedCheckpoint, made: Callable[..., ScriptedSGLang]
) -> None:
    server = made()
    server.hold = True
    generator = generator_of(checkpoint, server, groups_in_flight=6, max_in_flight=40)
    with ThreadPoolExecutor(6) as pool:
        calls = [pool.submit(sampled, generator) for _ in range(6)]
        server.wait_until_running(32)
        server.release()
        assert [call.result() for call in calls] == [reference()] * 6
    assert server.most_running == 32


def test_group_larger_than_the_bound_is_sent_in_parts(
    checkpoint: VerifiedCheckpoint, made: Callable[..., ScriptedSGLang]
) -> None:
    server = made()
    generator = generator_of(checkpoint, server, max_in_flight=6)
    assert sampled(generator) == reference()
    assert sorted(len(body["rid"]) for body in server.asked("/generate")) == [4, 6, 6]
    assert server.most_running <= 6


def test_least_loaded_server_is_asked(
    checkpoint: VerifiedCheckpoint, made: Callable[..., ScriptedSGLang]
) -> None:
    servers = [made(), made()]
    generator = generator_of(checkpoint, *servers, groups_in_flight=4)
    for server in servers:
        server.hold = True
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(sampled, generator) for _ in range(4)]
        for server in servers:
            server.wait_until_running(32)
            server.release()
        assert [call.result() for call in calls] == [reference()] * 4


@pytest.mark.parametrize(
    "fault",
    [
        scripted.reset,
        scripted.truncated,
        scripted.endless,
        scripted.not_http,
        scripted.saying(200, []),
        scripted.saying(200, {"text": "?"}),
        scripted.saying(200, [{"meta_info": {"id": "x"}}] * 16),
        scripted.saying(500, "Internal Server Error"),
        scripted.saying(503, {"error": {"message": "The request queue is full."}}),
    ],
)
def test_another_server_takes_over(
    checkpoint: VerifiedCheckpoint, made: Callable[..., ScriptedSGLang], fault: Any
) -> None:
    servers = [made(), made()]
    generator = generator_of(checkpoint, *servers)
    servers[0].fail("/generate", fault)
    assert sampled(generator) == reference()
    first, second = (server.asked("/generate") for server in servers)
    assert (len(first), len(second)) == (1, 1)
    assert not set(first[0]["rid"]) & set(second[0]["rid"])


def test_reasons_of_every_attempt_are_told(
    checkpoint: VerifiedCheckpoint, made: Callable[..., ScriptedSGLang]
) -> None:
    server = made()
    generator = generator_of(checkpoint, server)
    server.fail(
        "/generate", scripted.saying(500, "first"), scripted.reset, scripted.saying(200, "third")
    )
    with pytest.raises(GenerationFailed) as raised:
        sampled(generator)
    for reason in ("500: first", "ServerUnreachable", "not JSON"):
        assert reason in str(raised.value)


@pytest.mark.parametrize("name", ["error_unknown_param", "max_new_tokens_exceeds_ctx"])
def test_refused_request_is_not_sent_again(
    checkpoint: VerifiedCheckpoint, made: Callable[..., ScriptedSGLang], name: str
) -> None:
    server = made()
    generator = generator_of(checkpoint, server)
    server.fail("/generate", scripted.saying(*scripted.recorded(name)))
    with pytest.raises(RequestRefused):
        sampled(generator)
    assert len(server.asked("/generate")) == 1
    assert sampled(generator) == reference()


def test_server_that_dies_is_left_and_mended_when_it_is_back(
    checkpoint: VerifiedCheckpoint, made: Callable[..., ScriptedSGLang]
) -> None:
    sick, well = made(), made()
    generator = generator_of(checkpoint, sick, well)
    sick.fail("/generate", scripted.reset)
    sick.healthy = False
    assert [sampled(generator) for _ in range(3)] == [reference()] * 3
    assert (len(sick.asked("/generate")), len(well.asked("/generate"))) == (1, 3)
    well.fail("/generate", scripted.reset)
    well.healthy = False
    with pytest.raises(NoServerLeft, match="no generation server is left"):
        sampled(generator)
    sick.healthy = well.healthy = True
    again = generator_of(checkpoint, sick, well)
    assert sampled(again) == reference()


def test_hung_server_is_told_from_a_slow_one(
    checkpoint: VerifiedCheckpoint, made: Callable[..., ScriptedSGLang]
) -> None:
    hung, well = made(), made()
    generator = generator_of(checkpoint, hung, well, probe_every=0.05)
    hung.hold = True
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(sampled, generator)
        hung.wait_until_running(16)
        threading.Event().wait(0.4)
        assert not call.done()  # slow, but it answers its health checks
        hung.healthy = False
        assert call.result(timeout=20) == reference()
    assert len(well.asked("/generate")) == 1
    assert {body["rid"] for body in hung.asked("/abort_request")} == set(
        hung.asked("/generate")[0]["rid"]
    )


def test_late_server_has_its_requests_aborted(
    checkpoint: VerifiedCheckpoint, made: Callable[..., ScriptedSGLang]
) -> None:
    server = made()
    attached = SGLangServer(server.url, request_seconds=0.3)
    generator = GenerationServers([attached], retry_pause=0.1).generator(checkpoint, EOS_ID)
    server.hold = True
    with pytest.raises(GenerationFailed, match="no whole answer within"):
        sampled(generator)
    names = [name for body in server.asked("/generate") for name in body["rid"]]
    assert (len(names), len(set(names))) == (48, 48)
    assert {body["rid"] for body in server.asked("/abort_request")} == set(names)


def test_cancel_ends_calls_in_flight_and_waiting_ones(
    checkpoint: VerifiedCheckpoint, made: Callable[..., ScriptedSGLang]
) -> None:
    server = made()
    generator = generator_of(checkpoint, server, groups_in_flight=3, max_in_flight=16)
    server.hold = True
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(sampled, generator) for _ in range(3)]
        server.wait_until_running(16)
        while len(generator._calls) < len(calls):  # cancel ends the calls that have begun
            threading.Event().wait(0.01)
        generator.cancel()
        for call in calls:
            with pytest.raises(GenerationCancelled):
                call.result(timeout=10)
    (body,) = server.asked("/generate")
    assert {each["rid"] for each in server.asked("/abort_request")} == set(body["rid"])
    server.release()
    assert sampled(generator) == reference()


def test_abort_by_someone_else_is_another_attempt(
    checkpoint: VerifiedCheckpoint, made: Callable[..., ScriptedSGLang]
) -> None:
    server = made()
    generator = generator_of(checkpoint, server)
    server.hold = True
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(sampled, generator)
        server.wait_until_running(16)
        SGLangServer(server.url)._control.post("/abort_request", {"abort_all": True}, seconds=5)
        server.hold = False
        assert call.result(timeout=20) == reference()


def test_keys_are_told_apart(
    checkpoint: VerifiedCheckpoint, made: Callable[..., ScriptedSGLang]
) -> None:
    server = made(key="k1")
    with pytest.raises(NoServerLeft, match=r"Unauthorized.*set the server's API key"):
        generator_of(checkpoint, server)
    keyed = SGLangServer(server.url, api_key=Secret("k1"))
    assert sampled(GenerationServers([keyed]).generator(checkpoint, EOS_ID)) == reference()
    server.fail("/generate", scripted.saying(*scripted.recorded("auth_generate_nokey")))
    with pytest.raises(Unauthorized):
        sampled(GenerationServers([keyed]).generator(checkpoint, EOS_ID))


def test_new_weights_are_loaded_in_place_with_proof(
    checkpoint: VerifiedCheckpoint, later: VerifiedCheckpoint, made: Callable[..., ScriptedSGLang]
) -> None:
    server = made()
    attached = SGLangServer(server.url)
    assert attached.load(checkpoint).proof == "files"
    first = attached.loaded
    assert attached.load(later).version == later.weights_hash
    assert first is not None
    assert attached.loaded is not None
    assert attached.loaded.checksums != first.checksums
    attached.load(later)
    assert len(server.asked("/update_weights_from_disk")) == 2


def test_weights_change_although_the_server_answers_an_error(
    checkpoint: VerifiedCheckpoint, made: Callable[..., ScriptedSGLang]
) -> None:
    server = made()

    def changed(handler: Any) -> None:
        # The version is the one thing that such a server does not take over.
        server.take({"model_path": str(checkpoint.directory), "weight_version": "default"})
        scripted.answer(handler, *scripted.recorded("update_weights_admin"))

    server.fail("/update_weights_from_disk", changed)
    server.fail("/flush_cache", scripted.saying(*scripted.recorded("flush_cache_busy")))
    attached = SGLangServer(server.url)
    assert attached.load(checkpoint).proof == "files"
    assert len(server.asked("/flush_cache")) == 2
    assert {"abort_all": True} in server.asked("/abort_request")


def test_weights_that_stay_the_old_ones_are_noticed(
    checkpoint: VerifiedCheckpoint, later: VerifiedCheckpoint, made: Callable[..., ScriptedSGLang]
) -> None:
    server = made()
    attached = SGLangServer(server.url)
    attached.load(checkpoint)
    server.fail(
        "/update_weights_from_disk", scripted.saying(*scripted.recorded("update_weights_missing"))
    )
    with pytest.raises(WeightsNotLoaded, match="keeps its old weights"):
        attached.load(later)
    assert attached.loaded is None

    def pretended(handler: Any) -> None:
        server.version = later.weights_hash
        scripted.answer(handler, *scripted.recorded("update_weights_from_disk"))

    server.fail("/update_weights_from_disk", pretended)
    with pytest.raises(WrongWeights, match="others than the checkpoint's"):
        attached.load(later)


def test_on_a_gpu_the_change_itself_is_the_proof(
    checkpoint: VerifiedCheckpoint, later: VerifiedCheckpoint, made: Callable[..., ScriptedSGLang]
) -> None:
    server = made(device="cuda")
    attached = SGLangServer(server.url)
    assert attached.load(checkpoint).proof == "change"
    assert SGLangServer(server.url).load(checkpoint).proof == "version"

    def pretended(handler: Any) -> None:
        server.version = later.weights_hash
        scripted.answer(handler, *scripted.recorded("update_weights_from_disk"))

    server.fail("/update_weights_from_disk", pretended)
    with pytest.raises(WrongWeights, match="still has those of"):
        attached.load(later)
    assert attached.load(checkpoint).version == checkpoint.weights_hash
    server.checksums = {"model.norm.weight": "f" * 16}
    with pytest.raises(WrongWeights, match="other tensors than when it last had"):
        attached.load(checkpoint)


def test_weights_swapped_behind_our_back_are_put_right(
    checkpoint: VerifiedCheckpoint, later: VerifiedCheckpoint, made: Callable[..., ScriptedSGLang]
) -> None:
    server = made()
    generator = generator_of(checkpoint, server)
    server.take({"model_path": str(later.directory), "weight_version": later.weights_hash})
    assert sampled(generator) == reference()
    assert server.version == checkpoint.weights_hash
    assert len(server.asked("/generate")) == 2


def test_checksums_that_are_none_prove_nothing(
    checkpoint: VerifiedCheckpoint, made: Callable[..., ScriptedSGLang]
) -> None:
    for body in ({}, {"ranks": []}, {"ranks": [{"checksums": {}}]}, {"ranks": [{"checksums": 1}]}):
        server = made()
        server.fail("/weights_checker", scripted.saying(200, body))
        with pytest.raises(NoServerLeft, match="gives no checksums"):
            generator_of(checkpoint, server)
