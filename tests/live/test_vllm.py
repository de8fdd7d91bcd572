"""Generation by vLLM's own server with the demo model; VLLM_PYTHON names its interpreter.

No script installs it: vLLM publishes no wheel for the CPU. What is asserted here was seen with
0.32.0 as rebuilt for the CPU by others.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.real_sglang import demo_checkpoint, free_port
from windrow.engine.ports import GenerationCancelled
from windrow.resources.checkpoints.files import VerifiedCheckpoint
from windrow.resources.generation.client import ServerClient, Unauthorized, succeeded
from windrow.resources.generation.launch import ServerLaunch
from windrow.resources.generation.pool import GenerationServers, ServedGenerator
from windrow.resources.generation.transformers_generator import TransformersGenerator
from windrow.resources.generation.vllm_server import VLLMServer
from windrow.resources.models.loading import load_checkpoint
from windrow.resources.secret import Secret

pytestmark = pytest.mark.live

EOS = 1
PROMPT = np.array([2, 5, 6, 7, 100, 200, 301, 77], dtype=np.int32)
SEEDS = range(16)
KEY = Secret("a-key-for-requests")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> VerifiedCheckpoint:
    return demo_checkpoint(tmp_path_factory.mktemp("demo") / "0")


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> VerifiedCheckpoint:
    return demo_checkpoint(tmp_path_factory.mktemp("later") / "30", noise=0.3, window=30)


@pytest.fixture(scope="module")
def server(
    demo: VerifiedCheckpoint, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VLLMServer]:
    if "VLLM_PYTHON" not in os.environ:
        pytest.skip("not installed: vLLM (VLLM_PYTHON names its interpreter)")
    launch = ServerLaunch(
        Path(os.environ["VLLM_PYTHON"]),
        free_port(),
        dtype="float32",
        cuda_graphs=False,
        environment={
            "OMP_NUM_THREADS": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_TARGET_DEVICE": "cpu",
        },
        start_seconds=400.0,
    )
    started = VLLMServer.started(launch, tmp_path_factory.mktemp("home"), api_key=KEY)
    try:
        started.load(demo)
        yield started
    finally:
        started.stop()


def generator_of(server: VLLMServer, checkpoint: VerifiedCheckpoint) -> ServedGenerator:
    return GenerationServers([server]).generator(checkpoint, EOS)


def running_requests(server: VLLMServer) -> int:
    metrics = succeeded(ServerClient(server.name, KEY).get("/metrics", seconds=5), "metrics")
    lines = metrics.body.decode().splitlines()
    names = ("vllm:num_requests_running{", "vllm:num_requests_waiting{")
    return int(sum(float(line.split()[-1]) for line in lines if line.startswith(names)))


def test_group_is_sampled_by_the_policy(server: VLLMServer, demo: VerifiedCheckpoint) -> None:
    policy = demo.metadata.policy
    completions = generator_of(server, demo).generate(PROMPT, SEEDS, policy)
    assert len({each.tokens.tobytes() for each in completions}) > 8
    for each in completions:
        ended = each.tokens[-1] == EOS
        assert each.finish_reason == ("stop" if ended else "length")
        assert ended or len(each.tokens) == policy.max_new_tokens


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_likeliest_completion_is_that_of_transformers(
    server: VLLMServer, demo: VerifiedCheckpoint, penalty: float
) -> None:
    policy = replace(demo.metadata.policy, top_k=1, max_new_tokens=48, repetition_penalty=penalty)
    reference = TransformersGenerator(load_checkpoint(demo))
    ours, theirs = (
        each.generate(PROMPT, [1], policy)[0].tokens.tolist()
        for each in (generator_of(server, demo), reference)
    )
    assert ours == theirs


def test_whole_context_can_be_used(server: VLLMServer, demo: VerifiedCheckpoint) -> None:
    policy = replace(demo.metadata.policy, max_new_tokens=100, temperature=2.0, top_k=None)
    prompt = np.resize(PROMPT, server.max_context - 100)
    completions = generator_of(server, demo).generate(prompt, SEEDS, policy)
    assert max(len(each.tokens) for each in completions) == 100


def test_key_is_demanded(server: VLLMServer) -> None:
    with pytest.raises(Unauthorized):
        succeeded(ServerClient(server.name).get("/v1/models", seconds=5), "asked")


def test_cancel_frees_the_server(server: VLLMServer, demo: VerifiedCheckpoint) -> None:
    generator = generator_of(server, demo)
    policy = replace(demo.metadata.policy, max_new_tokens=900)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(generator.generate, PROMPT, SEEDS, policy)
        while running_requests(server) < 8:
            assert not call.done(), call.result()
        generator.cancel()
        with pytest.raises(GenerationCancelled):
            call.result(timeout=60)
    while running_requests(server) > 0:
        pass
    assert len(generator.generate(PROMPT, [1, 2], demo.metadata.policy)) == 2


def test_new_weights_are_a_new_start(
    server: VLLMServer, demo: VerifiedCheckpoint, later: VerifiedCheckpoint
) -> None:
    policy = replace(demo.metadata.policy, top_k=1, max_new_tokens=48)
    reference = TransformersGenerator(load_checkpoint(later))
    ours, theirs = (
        each.generate(PROMPT, [1], policy)[0].tokens.tolist()
        for each in (generator_of(server, later), reference)
    )
    assert ours == theirs
