"""Generation by SGLang's own server, on the CPU, with the demo model."""

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from tests.support.real_sglang import cpu_launch, demo_checkpoint, missing
from tests.support.tiny_checkpoint import make_tiny_checkpoint
from windrow.engine.ports import GenerationCancelled
from windrow.networks.grail.checkpoint import GenerationPolicy
from windrow.resources.checkpoints.files import VerifiedCheckpoint, verify_checkpoint
from windrow.resources.generation.client import (
    GenerationServerError,
    ServerClient,
    Unauthorized,
    succeeded,
)
from windrow.resources.generation.pool import GenerationServers, ServedGenerator
from windrow.resources.generation.sglang_server import SGLangServer
from windrow.resources.generation.sglang_weights import WeightsNotLoaded
from windrow.resources.generation.transformers_generator import TransformersGenerator
from windrow.resources.models.loading import load_checkpoint
from windrow.resources.secret import Secret

pytestmark = pytest.mark.live

EOS = 1
VOCABULARY = 611
PROMPT = np.array([2, 5, 6, 7, 100, 200, 301, 77], dtype=np.int32)
SEEDS = range(16)
LIKELIEST_TOKENS = 48
KEY, ADMIN = Secret("a-key-for-requests"), Secret("a-key-for-control")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> VerifiedCheckpoint:
    return demo_checkpoint(tmp_path_factory.mktemp("demo") / "0")


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> VerifiedCheckpoint:
    return demo_checkpoint(tmp_path_factory.mktemp("later") / "30", noise=0.3, window=30)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def server(demo: VerifiedCheckpoint, home: Path) -> Iterator[SGLangServer]:
    if missing():
        pytest.skip(f"not installed: {missing()}")
    started = SGLangServer.started(cpu_launch(), home, api_key=KEY, admin_key=ADMIN)
    try:
        started.load(demo)
        yield started
    finally:
        started.stop()


def attached(server: SGLangServer) -> SGLangServer:
    """The same server, as one that Windrow did not start."""
    return SGLangServer(server.name, api_key=KEY, admin_key=ADMIN)


def generator_of(server: SGLangServer, checkpoint: VerifiedCheckpoint) -> ServedGenerator:
    servers = GenerationServers([server], groups_in_flight=2, probe_every=2, retry_pause=0.1)
    return servers.generator(checkpoint, EOS)


def greedy(policy: GenerationPolicy) -> GenerationPolicy:
    return replace(policy, top_k=1, max_new_tokens=LIKELIEST_TOKENS)


def likeliest(generator: Any, policy: GenerationPolicy) -> list[int]:
    (completion,) = generator.generate(PROMPT, [1], greedy(policy))
    return completion.tokens.tolist()  # type: ignore[no-any-return]


def main_process(home: Path) -> psutil.Process:
    (state,) = home.glob("sglang-*.json")
    return psutil.Process(int(state.read_text().split('"pid": ')[1].split(",")[0]))


def running_requests(server: SGLangServer) -> int:
    answer = succeeded(ServerClient(server.name, KEY).get("/v1/loads", seconds=5), "loads")
    (load,) = answer.document()["loads"]
    return int(load["num_running_reqs"] + load["num_waiting_reqs"])


def begun(
    pool: ThreadPoolExecutor, server: SGLangServer, generator: ServedGenerator
) -> Future[Any]:
    """A call of `generate` that the server is at work on."""
    policy = replace(generator.checkpoint.metadata.policy, max_new_tokens=900)
    call = pool.submit(generator.generate, PROMPT, SEEDS, policy)
    while running_requests(server) < 8:
        assert not call.done(), call.result()
    return call


def test_weights_are_proved_by_the_files(server: SGLangServer, demo: VerifiedCheckpoint) -> None:
    loaded = server.load(demo)
    assert (loaded.version, loaded.proof) == (demo.weights_hash, "files")
    assert not server.reproducible


def test_group_is_sampled_by_the_policy(server: SGLangServer, demo: VerifiedCheckpoint) -> None:
    policy = demo.metadata.policy
    completions = generator_of(server, demo).generate(PROMPT, SEEDS, policy)
    assert len(completions) == 16
    assert len({each.tokens.tobytes() for each in completions}) > 8
    for each in completions:
        assert each.tokens.max() < VOCABULARY
        ended = each.tokens[-1] == EOS
        assert each.finish_reason == ("stop" if ended else "length")
        assert ended or len(each.tokens) == policy.max_new_tokens


def test_likeliest_completion_is_that_of_transformers(
    server: SGLangServer, demo: VerifiedCheckpoint
) -> None:
    reference = TransformersGenerator(load_checkpoint(demo))
    assert likeliest(generator_of(server, demo), demo.metadata.policy) == likeliest(
        reference, demo.metadata.policy
    )


def test_completion_is_never_shorter_than_the_context_allows(
    server: SGLangServer, demo: VerifiedCheckpoint
) -> None:
    prompt = np.resize(PROMPT, server.max_context - 100)
    generator = generator_of(server, demo)
    policy = replace(demo.metadata.policy, max_new_tokens=100, top_k=None, temperature=2.0)
    longest = max(len(each.tokens) for each in generator.generate(prompt, SEEDS, policy))
    assert longest == 100
    # One token more, and the server says that it is done a token early.
    body = {
        "input_ids": [5, *prompt.tolist()],
        "sampling_params": {"max_new_tokens": 100, "ignore_eos": True},
    }
    answer = ServerClient(server.name, KEY).post("/generate", body, seconds=60)
    assert succeeded(answer, "asked").document()["meta_info"]["finish_reason"]["length"] == 99


def test_repetition_penalty_comes_a_token_late(
    server: SGLangServer, demo: VerifiedCheckpoint
) -> None:
    """SGLang prepares a step before it knows the last one's token, so that one goes unpenalised."""
    policy = replace(demo.metadata.policy, repetition_penalty=1.3)
    model = load_checkpoint(demo).model
    sampled = likeliest(generator_of(server, demo), policy)
    assert sampled == penalised(model, 1.3, late=1)
    exact = likeliest(TransformersGenerator(load_checkpoint(demo)), policy)
    assert exact == penalised(model, 1.3, late=0)
    assert sampled != exact


def penalised(model: Any, penalty: float, *, late: int) -> list[int]:
    """The likeliest completion when the penalty counts all tokens but the last `late` ones."""
    tokens = PROMPT.tolist()
    while len(tokens) < len(PROMPT) + LIKELIEST_TOKENS and tokens[-1] != EOS:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([tokens])).logits[0, -1].float()
        known = list({*PROMPT.tolist(), *tokens[: len(tokens) - late]})
        chosen = logits[known]
        logits[known] = torch.where(chosen < 0, chosen * penalty, chosen / penalty)
        tokens.append(int(logits.argmax()))
    return tokens[len(PROMPT) :]


def test_keys_are_demanded_and_on_no_command_line(server: SGLangServer, home: Path) -> None:
    for key in (None, Secret("a-wrong-key")):
        client = ServerClient(server.name, key)
        with pytest.raises(Unauthorized):
            succeeded(client.get("/model_info", seconds=5), "asked")
    flush = ServerClient(server.name, KEY).post("/flush_cache", None, seconds=5)
    with pytest.raises(Unauthorized):
        succeeded(flush, "asked")
    main = main_process(home)
    lines = [each.cmdline() for each in [main, *main.children(recursive=True)]]
    assert any("--config" in line for line in lines)
    assert not any(key.reveal() in part for key in (KEY, ADMIN) for line in lines for part in line)
    assert not list(home.glob("*.yaml"))
    assert all(path.stat().st_mode & 0o077 == 0 for path in home.glob("*.log"))


def test_next_run_finds_the_server(
    server: SGLangServer, demo: VerifiedCheckpoint, home: Path
) -> None:
    pid = main_process(home).pid
    port = int(server.name.rsplit(":", 1)[1])
    other = SGLangServer.started(cpu_launch(port), home, api_key=KEY, admin_key=ADMIN)
    assert other.load(demo).proof == "files"
    assert main_process(home).pid == pid


def test_weights_are_exchanged_in_place_and_back(
    server: SGLangServer, demo: VerifiedCheckpoint, later: VerifiedCheckpoint, home: Path
) -> None:
    pid, policy = main_process(home).pid, demo.metadata.policy
    first = likeliest(generator_of(server, demo), policy)
    second = likeliest(generator_of(server, later), policy)
    assert server.loaded is not None
    assert (server.loaded.version, server.loaded.proof) == (later.weights_hash, "files")
    assert second == likeliest(TransformersGenerator(load_checkpoint(later)), policy)
    assert second != first
    assert likeliest(generator_of(server, demo), policy) == first
    assert main_process(home).pid == pid


def test_weights_are_exchanged_while_requests_run(
    server: SGLangServer, demo: VerifiedCheckpoint, later: VerifiedCheckpoint, home: Path
) -> None:
    pid, generator = main_process(home).pid, generator_of(server, demo)
    with ThreadPoolExecutor(1) as pool:
        call = begun(pool, server, generator)
        loaded = attached(server).load(later)
        generator.cancel()
        with pytest.raises(GenerationCancelled):
            call.result(timeout=60)
    assert (loaded.version, loaded.proof) == (later.weights_hash, "files")
    assert server.load(demo).proof == "files"
    assert main_process(home).pid == pid


def test_refused_weights_leave_the_old_ones(
    server: SGLangServer, demo: VerifiedCheckpoint, later: VerifiedCheckpoint, tmp_path: Path
) -> None:
    server.load(demo)
    other = attached(server)
    with pytest.raises(WeightsNotLoaded, match="keeps its old weights"):
        other.load(replace(later, directory=tmp_path / "gone"))
    assert other.load(demo).proof == "files"


def test_cancel_frees_the_server(server: SGLangServer, demo: VerifiedCheckpoint) -> None:
    generator = generator_of(server, demo)
    with ThreadPoolExecutor(1) as pool:
        call = begun(pool, server, generator)
        generator.cancel()
        with pytest.raises(GenerationCancelled):
            call.result(timeout=60)
    deadline = threading.Event()
    for _ in range(100):
        if running_requests(server) == 0:
            break
        deadline.wait(0.1)
    assert running_requests(server) == 0
    assert len(generator.generate(PROMPT, [1, 2], demo.metadata.policy)) == 2


def test_killed_server_is_started_again_and_the_group_finished(
    server: SGLangServer, demo: VerifiedCheckpoint, home: Path
) -> None:
    generator = generator_of(server, demo)
    with ThreadPoolExecutor(1) as pool:
        call = begun(pool, server, generator)
        killed = main_process(home)
        members = [killed, *killed.children(recursive=True)]
        killed.send_signal(signal.SIGKILL)
        assert len(call.result(timeout=300)) == 16
    assert main_process(home).pid != killed.pid
    assert not any(psutil.pid_exists(each.pid) for each in members)
    assert server.loaded is not None
    assert server.loaded.proof == "files"


def test_stopped_scheduler_is_noticed_and_the_server_started_again(
    server: SGLangServer, demo: VerifiedCheckpoint, home: Path
) -> None:
    generator = generator_of(server, demo)
    with ThreadPoolExecutor(1) as pool:
        call = begun(pool, server, generator)
        main = main_process(home)
        for each in [main, *main.children(recursive=True)]:
            os.kill(each.pid, signal.SIGSTOP)
        assert len(call.result(timeout=400)) == 16
    assert main_process(home).pid != main.pid


def test_checkpoint_of_another_shape_kills_it_and_a_new_start_takes_it(
    server: SGLangServer, demo: VerifiedCheckpoint, tmp_path: Path, home: Path
) -> None:
    other = verify_checkpoint(make_tiny_checkpoint(tmp_path / "other", window=60))
    with pytest.raises(GenerationServerError):
        attached(server).load(other)
    assert server.load(other).proof == "files"
    policy = replace(other.metadata.policy, max_new_tokens=8)
    completions = GenerationServers([server]).generator(other, 2).generate(PROMPT, SEEDS, policy)
    assert len(completions) == 16
