"""Sampling throughput: `TransformersGenerator` against transformers' own `generate`.

One prompt, 16 completions of 128 tokens, a random Qwen2 of hidden size 256, 4 layers and 4,096
tokens in float32, one thread; no completion ends early, which is generate's best case.
"""

import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.ratio import Ratio
from tests.support.tiny_checkpoint import make_tiny_checkpoint
from windrow.resources.checkpoints.files import verify_checkpoint
from windrow.resources.generation.transformers_generator import TransformersGenerator
from windrow.resources.models.loading import load_checkpoint

ROWS, STEPS, REPEATS = 16, 128, 5


def run() -> list[Ratio]:
    torch.set_num_threads(1)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        directory = make_tiny_checkpoint(
            Path(folder), hidden=256, layers=4, vocab=4096, max_tokens=STEPS
        )
        checkpoint = load_checkpoint(verify_checkpoint(directory))
    policy, generator = checkpoint.metadata.policy, TransformersGenerator(checkpoint)
    prompt = np.array(checkpoint.tokenizer("Mia has 11 books and buys 4 more.").input_ids)
    batch = torch.from_numpy(prompt).repeat(ROWS, 1)

    def ours() -> int:
        completions = generator.generate(prompt, range(ROWS), policy)
        return sum(len(completion.tokens) for completion in completions)

    def plain() -> int:
        output = checkpoint.model.generate(
            batch,
            attention_mask=torch.ones_like(batch),
            do_sample=True,
            temperature=policy.temperature,
            top_p=policy.top_p,
            top_k=policy.top_k,
            max_new_tokens=policy.max_new_tokens,
        )
        return output[:, len(prompt) :].numel()

    best = {ours: 0.0, plain: 0.0}
    for _ in range(REPEATS):
        for side in best:
            best[side] = max(best[side], _tokens_per_second(side))
    ratio = best[ours] / best[plain]
    return [
        Ratio(
            "sampling 16 completions of one prompt, seeded each",
            best[ours],
            best[plain],
            "tok/s",
            ratio,
            ">= 1x",
            ratio >= 1,
        )
    ]


def _tokens_per_second(side: Callable[[], int]) -> float:
    start = time.perf_counter()
    return side() / (time.perf_counter() - start)
