"""Turning a proof worker to the next checkpoint: by its delta, against copying every tensor.

A random Qwen2 of 109 million bfloat16 weights, 218 MB, held in float32 on one thread of the
processor; one weight in a hundred changes. Both sides end with the same hash of what is in memory.
What comes before, rebuilding and verifying the checkpoint on disk, is the same for both.
"""

import logging
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from bittensor_core import Keypair
from safetensors.torch import load_file, save_file

from benchmarks.ratio import Ratio
from tests.support.tiny_checkpoint import make_tiny_checkpoint
from windrow.networks.grail.checkpoint import CheckpointMetadata
from windrow.resources.checkpoints.cache import CheckpointCache
from windrow.resources.checkpoints.delta_publishing import publish_delta
from windrow.resources.checkpoints.files import (
    KEPT_DELTA,
    METADATA,
    VerifiedCheckpoint,
    verify_checkpoint,
)
from windrow.resources.checkpoints.publishing import publish_full, write_full_metadata
from windrow.resources.proof_pool.worker_model import WorkerModel
from windrow.resources.storage.object_store import open_bucket

REPEATS, BASE, NEXT = 5, 300, 330
CHANGED = 0.01
"""Share of the weights that change."""


def run() -> list[Ratio]:
    torch.set_num_threads(1)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        base, by_delta = _rebuilt(Path(folder))
        copied = Path(folder) / "copied"
        shutil.copytree(by_delta.directory, copied)
        shutil.rmtree(copied / KEPT_DELTA)
        by_copy = replace(by_delta, directory=copied)
        best = {"ours": float("inf"), "plain": float("inf")}
        for _ in range(REPEATS):
            for side, target in (("ours", by_delta), ("plain", by_copy)):
                best[side] = min(best[side], _seconds(base, target))
    ratio = best["plain"] / best["ours"]
    return [
        Ratio(
            "a worker's turn to the next checkpoint",
            best["ours"],
            best["plain"],
            "s",
            ratio,
            ">= 1.3x",
            ratio >= 1.3,
        )
    ]


def _seconds(base: VerifiedCheckpoint, target: VerifiedCheckpoint) -> float:
    worker = WorkerModel("cpu")
    worker.turn_to(base.directory, base.weights_hash)
    start = time.perf_counter()
    worker.turn_to(target.directory, target.weights_hash)
    return time.perf_counter() - start


def _rebuilt(folder: Path) -> tuple[VerifiedCheckpoint, VerifiedCheckpoint]:
    """A checkpoint, and the next one as a miner's cache rebuilds it from a delta."""
    make_tiny_checkpoint(folder / "base", hidden=1024, layers=8, vocab=16384)
    before = _described(folder / "base", BASE, changed=0)
    shutil.copytree(folder / "base", folder / "next")
    after = _described(folder / "next", NEXT, changed=CHANGED)
    store, trainer = open_bucket(folder / "bucket"), Keypair.create_from_uri("//Trainer")
    publish_full(store, before, ready_window=BASE, sign=trainer.sign)
    publish_delta(store, before, after, anchor_window=BASE, ready_window=NEXT, sign=trainer.sign)
    cache = CheckpointCache(store, folder / "cache", trainer.ss58_address)
    return cache.fetch(BASE), cache.fetch(NEXT)


def _described(directory: Path, window: int, changed: float) -> VerifiedCheckpoint:
    """The folder's weights in bfloat16, some of them changed, as a checkpoint of a window."""
    path, generator = directory / "model.safetensors", torch.Generator().manual_seed(window)
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(path).items()}
    for tensor in tensors.values():
        flat = tensor.view(-1)
        chosen = torch.randint(len(flat), (int(len(flat) * changed),), generator=generator)
        flat[chosen] += flat[chosen] * 0.01 + 1e-3
    save_file(tensors, path)
    old = CheckpointMetadata.parse((directory / METADATA).read_bytes()).document
    names = ("model_name", "env_id", "env_params", "generation_params", "thinking_mode")
    kept = {name: old[name] for name in names}
    write_full_metadata(directory, window=window, created_at=float(window), **kept)
    return verify_checkpoint(directory)
