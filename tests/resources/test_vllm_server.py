"""vLLM's interface as it is documented, through a real local HTTP server."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.scripted_vllm import ScriptedVLLM
from tests.support.tiny_checkpoint import EOS_ID, make_tiny_checkpoint
from windrow.engine.ports import GenerationCancelled
from windrow.networks.grail.checkpoint import GenerationPolicy
from windrow.resources.checkpoints.files import VerifiedCheckpoint, verify_checkpoint
from windrow.resources.generation.client import Unauthorized
from windrow.resources.generation.launch import InvalidLaunch, ServerLaunch
from windrow.resources.generation.pool import GenerationFailed, GenerationServers, ServedGenerator
from windrow.resources.generation.requests import WrongWeights
from windrow.resources.generation.vllm_server import VLLMCommand, VLLMServer, served_name
from windrow.resources.secret import Secret

POLICY = GenerationPolicy(10, 0.7, 0.9, None, 1.1)
PROMPT = np.array([5, 6, 7], dtype=np.int32)
SEEDS = range(16)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> VerifiedCheckpoint:
    return verify_checkpoint(make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint")))


@pytest.fixture
def server(checkpoint: VerifiedCheckpoint) -> Iterator[ScriptedVLLM]:
    with ScriptedVLLM(served_name(checkpoint), eos=EOS_ID) as running:
        yield running


def generator_of(
    checkpoint: VerifiedCheckpoint, server: ScriptedVLLM, **given: Any
) -> ServedGenerator:
    servers = GenerationServers([VLLMServer(server.url, **given)], retry_pause=0.01)
    return servers.generator(checkpoint, EOS_ID)


def test_every_seed_is_a_request_that_leaves_nothing_open(
    checkpoint: VerifiedCheckpoint, server: ScriptedVLLM
) -> None:
    generator = generator_of(checkpoint, server)
    completions = generator.generate(PROMPT, SEEDS, POLICY)
    assert [len(each.tokens) for each in completions] == [
        min(3 + seed % 10, POLICY.max_new_tokens) for seed in SEEDS
    ]
    assert [each.finish_reason for each in completions] == [
        "length" if len(each.tokens) == POLICY.max_new_tokens else "stop" for each in completions
    ]
    assert sorted(body["seed"] for body in server.requests) == list(SEEDS)
    assert len({body["request_id"] for body in server.requests}) == 16
    body = server.requests[0]
    assert (body["prompt"], body["max_tokens"], body["n"]) == ([5, 6, 7], 10, 1)
    assert (body["temperature"], body["top_p"], body["top_k"]) == (0.7, 0.9, 0)
    assert (body["repetition_penalty"], body["min_p"]) == (1.1, 0.0)
    assert body["return_token_ids"] is True
    assert not generator.reproducible


def choice(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda document: document["choices"][0].update(changes)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda document: document.clear(), "no object with one choice"),
        (lambda document: document["choices"].append({}), "no object with one choice"),
        (lambda document: document.update(id="cmpl-other"), "is answered where"),
        (lambda document: document.update(model="windrow-0"), "WrongWeights"),
        (choice(finish_reason="abort"), "RequestAborted"),
        (choice(prompt_token_ids=[5, 6, 8]), "another prompt"),
        (choice(prompt_token_ids=None), "another prompt"),
        (choice(token_ids=None), "has None tokens"),
        (choice(token_ids=[600]), "no token of the vocabulary"),
        (choice(token_ids=[5], finish_reason="length"), "ends after 1 of 10 tokens"),
    ],
)
def test_answer_that_does_not_hold_up_is_refused(
    checkpoint: VerifiedCheckpoint,
    server: ScriptedVLLM,
    spoil: Callable[[dict[str, Any]], object],
    says: str,
) -> None:
    generator = generator_of(checkpoint, server)
    server.spoil = spoil
    with pytest.raises(GenerationFailed, match=says):
        generator.generate(PROMPT, [1], POLICY)


def test_other_weights_are_refused(checkpoint: VerifiedCheckpoint) -> None:
    with (
        ScriptedVLLM("windrow-of-another-window", eos=EOS_ID) as other,
        pytest.raises(WrongWeights, match=f"--served-model-name {served_name(checkpoint)}"),
    ):
        VLLMServer(other.url).load(checkpoint)


def test_key_is_sent(checkpoint: VerifiedCheckpoint, server: ScriptedVLLM) -> None:
    server.key = "k1"
    with pytest.raises(Unauthorized):
        VLLMServer(server.url).load(checkpoint)
    generator = generator_of(checkpoint, server, api_key=Secret("k1"))
    assert len(generator.generate(PROMPT, [1], POLICY)) == 1


def test_cancel_closes_every_connection(
    checkpoint: VerifiedCheckpoint, server: ScriptedVLLM
) -> None:
    generator = generator_of(checkpoint, server)
    server.hold.clear()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(generator.generate, PROMPT, SEEDS, POLICY)
        while len(server.requests) < 16:
            assert not call.done()
        generator.cancel()
        with pytest.raises(GenerationCancelled):
            call.result(timeout=20)
    assert all(server.gone.acquire(timeout=10) for _ in SEEDS)


def test_command_line_names_the_weights_and_shows_no_key(checkpoint: VerifiedCheckpoint) -> None:
    launch = ServerLaunch(
        Path("python"), 8000, gpus=("4", "5"), context_length=4096, max_running=512
    )
    command = VLLMCommand(launch, Secret("k1"))
    argv = command.argv(checkpoint)
    for option, value in (
        ("--served-model-name", served_name(checkpoint)),
        ("--tensor-parallel-size", "2"),
        ("--max-model-len", "4096"),
        ("--max-num-seqs", "512"),
    ):
        assert argv[argv.index(option) + 1] == value
    assert "k1" not in argv
    assert command.variables()["VLLM_API_KEY"] == "k1"
    assert command.variables()["CUDA_VISIBLE_DEVICES"] == "4,5"
    with pytest.raises(InvalidLaunch, match="--api-key"):
        VLLMCommand(ServerLaunch(Path("python"), 8000, options=("--api-key=x",)))
