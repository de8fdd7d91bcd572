"""Proof throughput and memory: `ModelProver` against the plain way to prove the same rollouts.

64 rollouts (4 prompts x 16, 100 to 512 tokens), a random Qwen2 of hidden size 256, 4 layers and
32,768 tokens in float32, one thread. Both sides pad sub-batches of 16 in input order, sketch
every position, take the log-prob of every completion token and hash the commitments. The plain
way makes the log-softmax of every position, a dict per position and JSON text to hash.

Each side runs in a process of its own; memory is its peak resident size less what the process
held once the model was loaded.
"""

import gc
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from benchmarks.memory import resident
from benchmarks.ratio import Ratio
from windrow.engine.proving import ModelProver
from windrow.networks.grail.commitments import commitments_hash
from windrow.networks.grail.prf import sketch_coefficients

GROUPS, GROUP, LONGEST, VOCABULARY = 4, 16, 512, 32768
REPEATS = 2
COEFFICIENTS = sketch_coefficients("5eed")

Sequences = list[NDArray[np.int32]]
Proved = tuple[list[NDArray[np.int32]], list[NDArray[np.float32]], list[bytes]]


def make_model() -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        pad_token_id=0,
        eos_token_id=2,
    )
    model = Qwen2ForCausalLM(config).eval()
    with torch.no_grad():
        # Activations that reach every bucket, and still moderate logits.
        model.model.norm.weight.mul_(30)
        model.lm_head.weight.div_(10)
    return model


def make_rollouts() -> tuple[Sequences, list[int]]:
    rng = np.random.default_rng(0)
    sequences, prompts = [], []
    for prompt in rng.integers(50, 150, GROUPS):
        for length in rng.integers(prompt + 50, LONGEST, GROUP, endpoint=True):
            sequences.append(rng.integers(3, VOCABULARY, length).astype(np.int32))
            prompts.append(int(prompt))
    return sequences, prompts


def ours(model: Qwen2ForCausalLM, sequences: Sequences, prompts: list[int]) -> Proved:
    proofs = ModelProver(model).prove(sequences, prompts, COEFFICIENTS)
    sketches = [proof.sketches for proof in proofs]
    offsets = np.cumsum([0, *map(len, sketches)], dtype=np.int32)
    column = pa.ListArray.from_arrays(offsets, np.concatenate(sketches).astype(np.int64))
    return sketches, [proof.logprobs for proof in proofs], commitments_hash(column)


@torch.inference_mode()
def plain(model: Qwen2ForCausalLM, sequences: Sequences, prompts: list[int]) -> Proved:
    all_sketches, all_logprobs, digests = [], [], []
    for start in range(0, len(sequences), 16):
        batch = [torch.from_numpy(s).long() for s in sequences[start : start + 16]]
        tokens = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True, padding_value=0)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(s) for s in batch], True)
        hidden = model.model(tokens, attention_mask=mask, use_cache=False).last_hidden_state
        table = model.lm_head(hidden).float().log_softmax(-1)
        for row, sequence in enumerate(batch):
            sketches = plain_sketches(hidden[row, : len(sequence)]).tolist()
            commitments = [{"sketch": sketch} for sketch in sketches]
            text = json.dumps(commitments, sort_keys=True, separators=(",", ":"))
            digests.append(hashlib.sha256(text.encode()).digest())
            prompt = prompts[start + row]
            chosen = table[row, : len(sequence) - 1].gather(1, sequence[1:, None])[:, 0]
            logprobs = [0.0] * prompt + chosen[prompt - 1 :].tolist()
            all_sketches.append(np.array(sketches, np.int32))
            all_logprobs.append(np.array(logprobs, np.float32))
    return all_sketches, all_logprobs, digests


def plain_sketches(hidden: Tensor) -> Tensor:
    index = hidden.abs().topk(16, dim=1).indices.sort(dim=1).values
    values = hidden.gather(1, index).double()
    buckets = torch.trunc(torch.log2(values.abs() + 1) * 0.8).clamp(max=7) * values.sign()
    return (buckets @ torch.tensor(COEFFICIENTS).double()).long() % (2**31 - 1)


def measure(
    prove: Callable[[Qwen2ForCausalLM, Sequences, list[int]], Proved], results: Path
) -> None:
    """Run one side in this process and write its outputs, seconds and peak bytes."""
    torch.set_num_threads(1)
    model = make_model()
    sequences, prompts = make_rollouts()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading
    held = resident("VmRSS")
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        sketches, logprobs, digests = prove(model, sequences, prompts)
        seconds.append(time.perf_counter() - start)
    np.savez(
        results,
        seconds=min(seconds),
        peak=resident("VmHWM") - held,
        sketches=np.concatenate(sketches),
        logprobs=np.concatenate(logprobs),
        digests=np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32),
    )


def run() -> list[Ratio]:
    with tempfile.TemporaryDirectory() as folder:
        sides = []
        for side in ("ours", "plain"):
            results = Path(folder) / f"{side}.npz"
            subprocess.run([sys.executable, "-m", "benchmarks.proof", side, results], check=True)
            with np.load(results) as arrays:
                sides.append(dict(arrays))
    mine, theirs = sides
    assert_same_proofs(mine, theirs)
    tokens = len(mine["sketches"])
    speed = float(theirs["seconds"] / mine["seconds"])
    memory = float(mine["peak"] / theirs["peak"])
    return [
        Ratio(
            "proof throughput",
            tokens / float(mine["seconds"]),
            tokens / float(theirs["seconds"]),
            "tokens/s",
            speed,
            ">= 2x",
            speed >= 2,
        ),
        Ratio(
            "proof peak memory",
            float(mine["peak"]) / 2**20,
            float(theirs["peak"]) / 2**20,
            "MiB",
            memory,
            "<= 0.5x",
            memory <= 0.5,
        ),
    ]


def assert_same_proofs(mine: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    assert np.abs(mine["logprobs"] - theirs["logprobs"]).max() < 2e-5
    # Both run the same padded pass, so only float drift at a bucket edge may show.
    assert np.mean(mine["sketches"] == theirs["sketches"]) > 0.999
    if np.array_equal(mine["sketches"], theirs["sketches"]):
        assert np.array_equal(mine["digests"], theirs["digests"])


if __name__ == "__main__":
    measure({"ours": ours, "plain": plain}[sys.argv[1]], Path(sys.argv[2]))
