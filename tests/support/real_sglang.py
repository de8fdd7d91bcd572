"""SGLang's own server on this machine's CPU (windrow install sglang), and checkpoints for it."""

import os
import shutil
import socket
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from windrow.resources.checkpoints.files import VerifiedCheckpoint, verify_checkpoint
from windrow.resources.checkpoints.publishing import write_full_metadata
from windrow.resources.generation.launch import ServerLaunch

ROOT = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("SGLANG_PYTHON", ROOT / ".sglang/bin/python"))
DEMO = ROOT / "pipelines/demo/checkpoint"


def missing() -> str:
    """What is not installed, or nothing."""
    return "" if PYTHON.exists() else f"SGLang ({PYTHON}; make test-live installs it)"


def cpu_launch(port: int | None = None) -> ServerLaunch:
    """A small server for the demo model."""
    return ServerLaunch(
        PYTHON,
        port or free_port(),
        dtype="float32",
        memory_fraction=0.1,
        options=("--max-total-tokens", "40000"),
        environment={"OMP_NUM_THREADS": "1"},
        start_seconds=240.0,
    )


def demo_checkpoint(directory: Path, *, noise: float = 0.0, window: int = 0) -> VerifiedCheckpoint:
    """The demo model as a checkpoint; with noise, one of the same shape and other weights."""
    shutil.copytree(DEMO, directory)
    if noise:
        weights = load_file(directory / "model.safetensors")
        generator = torch.Generator().manual_seed(window)
        for name, tensor in weights.items():
            drift = torch.randn(tensor.shape, generator=generator) * noise * tensor.float().std()
            weights[name] = (tensor.float() + drift).to(tensor.dtype)
        save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
        demo = verify_checkpoint(DEMO).metadata.document
        write_full_metadata(
            directory,
            window=window,
            model_name="windrow/demo",
            env_id="gsm8k",
            env_params={"split": "train"},
            generation_params=demo["generation_params"],  # type: ignore[arg-type]
            thinking_mode="instructed",
            created_at=0.0,
        )
    return verify_checkpoint(directory)


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
