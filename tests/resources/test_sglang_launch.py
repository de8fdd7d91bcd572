import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.tiny_checkpoint import make_tiny_checkpoint
from windrow.resources.checkpoints.files import VerifiedCheckpoint, verify_checkpoint
from windrow.resources.generation.launch import InvalidLaunch, ServerLaunch
from windrow.resources.generation.sglang_launch import SGLangCommand
from windrow.resources.secret import Secret


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> VerifiedCheckpoint:
    return verify_checkpoint(make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint")))


def test_command_line_of_the_miner_guides_eight_gpus(
    checkpoint: VerifiedCheckpoint, tmp_path: Path
) -> None:
    launch = ServerLaunch(
        Path("python"),
        30000,
        gpus=("0", "1", "2", "3"),
        memory_fraction=0.88,
        context_length=4096,
        max_running=512,
        cuda_graphs=False,
        deterministic=True,
    )
    command = SGLangCommand(launch, tmp_path)
    argv = command.argv(checkpoint)
    for option, value in (
        ("--model-path", str(checkpoint.directory)),
        ("--weight-version", checkpoint.weights_hash),
        ("--tp-size", "4"),
        ("--mem-fraction-static", "0.88"),
        ("--context-length", "4096"),
        ("--max-running-requests", "512"),
        ("--dtype", "bfloat16"),
    ):
        assert argv[argv.index(option) + 1] == value
    assert {"--disable-cuda-graph", "--enable-deterministic-inference"} <= set(argv)
    assert "--trust-remote-code" not in argv
    assert command.variables()["CUDA_VISIBLE_DEVICES"] == "0,1,2,3"


def test_keys_are_in_a_file_of_ones_own_while_it_starts(
    checkpoint: VerifiedCheckpoint, tmp_path: Path
) -> None:
    command = SGLangCommand(ServerLaunch(Path("python"), 1), tmp_path, Secret("k1"), Secret("k2"))
    argv = command.argv(checkpoint)
    assert not {"k1", "k2"} & set(argv)
    path = Path(argv[argv.index("--config") + 1])
    with command.sealed():
        assert json.loads(path.read_text()) == {"api-key": "k1", "admin-api-key": "k2"}
        assert path.stat().st_mode & 0o077 == 0
    assert not path.exists()


def test_penalty_is_sampled_exactly(checkpoint: VerifiedCheckpoint, tmp_path: Path) -> None:
    command = SGLangCommand(ServerLaunch(Path("python"), 1), tmp_path)
    policy = replace(checkpoint.metadata.policy, repetition_penalty=1.1)
    penalised = replace(checkpoint, metadata=replace(checkpoint.metadata, policy=policy))
    assert "--disable-overlap-schedule" in command.argv(penalised)
    assert "--disable-overlap-schedule" not in command.argv(checkpoint)
    assert command.kept(penalised) != command.kept(checkpoint)


@pytest.mark.parametrize("option", ["--api-key", "--model_path=x", "--port"])
def test_option_that_windrow_sets_is_refused(tmp_path: Path, option: str) -> None:
    with pytest.raises(InvalidLaunch, match=option.split("=")[0]):
        SGLangCommand(ServerLaunch(Path("python"), 1, options=(option, "1")), tmp_path)
