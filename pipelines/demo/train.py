"""Train the demo's checkpoint from nothing: ``python -m windrow.pipelines.demo.train``.

A Qwen2 of a million parameters learns arithmetic stories until it solves about half of what it
samples, as a model in reinforcement learning does. A few minutes on one CPU core.
"""

import logging
import math
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import Qwen2Config, Qwen2ForCausalLM

from windrow.pipelines.demo.corpus import (
    THINKING_MODE,
    Corpus,
    Example,
    train_tokenizer,
)
from windrow.pipelines.demo.evaluate import evaluate
from windrow.pipelines.demo.network import CHECKPOINT, CHECKPOINT_WINDOW
from windrow.resources.checkpoints.publishing import write_full_metadata

GENERATION_PARAMS = {
    "max_tokens": 160,
    "temperature": 1.0,
    "top_p": 0.95,
    "top_k": 20,
    "repetition_penalty": 1.0,
}
EVALUATED_GROUPS = 48
IGNORED = -100

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, together with the machine's arithmetic."""

    seed: int = 81
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    context: int = 1024
    initial_scale: float = 0.06
    steps: int = 2000
    batch: int = 16
    learning_rate: float = 3e-3
    warmup_steps: int = 50
    final_rate: float = 0.05
    weight_decay: float = 0.1
    gradient_norm: float = 1.0


def train(recipe: Recipe, directory: Path) -> None:
    """Write a complete FULL checkpoint into an empty directory."""
    torch.manual_seed(recipe.seed)
    tokenizer = train_tokenizer(recipe.seed)
    corpus = Corpus(tokenizer, recipe.seed + 1)
    model = _model(recipe, len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id)
    _log.info(
        "%.2f M parameters, %d tokens in the vocabulary, %d in the shared prompt",
        model.num_parameters() / 1e6,
        len(tokenizer),
        len(corpus.prefix),
    )
    _fit(model, corpus, recipe)
    model.to(torch.bfloat16).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    write_full_metadata(
        directory,
        window=CHECKPOINT_WINDOW,
        model_name="windrow/demo",
        env_id="gsm8k",
        env_params={"split": "train"},
        generation_params=GENERATION_PARAMS,
        thinking_mode=THINKING_MODE,
        created_at=time.time(),
        training_config=asdict(recipe),
    )


def _model(recipe: Recipe, vocabulary: int, pad: int, eos: int) -> Qwen2ForCausalLM:
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=vocabulary,
            hidden_size=recipe.hidden,
            intermediate_size=3 * recipe.hidden,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.heads,
            max_position_embeddings=recipe.context,
            initializer_range=recipe.initial_scale,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=eos,
            pad_token_id=pad,
        )
    )


def _fit(model: Qwen2ForCausalLM, corpus: Corpus, recipe: Recipe) -> None:
    optimizer = torch.optim.AdamW(
        model.parameters(), betas=(0.9, 0.98), weight_decay=recipe.weight_decay
    )
    batches = _batches(corpus, recipe)
    prefix = torch.tensor([corpus.prefix])
    started, recent = time.monotonic(), 0.0
    for step in range(1, recipe.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = _learning_rate(recipe, step)
        loss = example_loss(model, prefix, next(batches))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_norm)
        optimizer.step()
        recent = loss.item() if step == 1 else 0.98 * recent + 0.02 * loss.item()
        if step % 100 == 0:
            elapsed = time.monotonic() - started
            _log.info("step %d of %d, loss %.3f, %.0f s", step, recipe.steps, recent, elapsed)


def _learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then half a cosine down to `final_rate` of the peak."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
    share = recipe.final_rate + (1 - recipe.final_rate) * cosine
    return recipe.learning_rate * share * min(1.0, step / recipe.warmup_steps)


def _batches(corpus: Corpus, recipe: Recipe) -> Iterator[list[Example]]:
    """Batches of examples of nearly equal length, so that little is padded, in random order."""
    rng = random.Random(recipe.seed)  # noqa: S311 - repeatable on purpose
    while True:
        examples = corpus.take(32 * recipe.batch)
        examples.sort(key=lambda example: len(example.question) + len(example.completion))
        batches = [
            examples[start : start + recipe.batch]
            for start in range(0, len(examples), recipe.batch)
        ]
        rng.shuffle(batches)
        yield from batches


def example_loss(model: Qwen2ForCausalLM, prefix: Tensor, batch: list[Example]) -> Tensor:
    """Mean cross-entropy of the completion tokens.

    The prefix, int64 [1, P], is computed once a step and its keys and values are shared by the
    batch, which halves the work; padding comes last, where causal attention hides it.
    """
    longest = max(len(example.question) + len(example.completion) for example in batch)
    inputs = torch.full((len(batch), longest), model.config.pad_token_id)
    targets = torch.full((len(batch), longest), IGNORED)
    for row, example in enumerate(batch):
        asked, end = len(example.question), len(example.question) + len(example.completion)
        inputs[row, :end] = torch.tensor(example.question + example.completion)
        targets[row, asked - 1 : end - 1] = inputs[row, asked:end]
    cache = model.model(input_ids=prefix, use_cache=True).past_key_values
    cache.batch_repeat_interleave(len(batch))
    hidden = model.model(input_ids=inputs, past_key_values=cache, use_cache=True)
    counted = targets != IGNORED
    return cross_entropy(model.lm_head(hidden.last_hidden_state[counted]), targets[counted])


def main() -> None:
    """Replace the shipped checkpoint by a newly trained one, then measure it."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)  # sums then have one order, and weights repeat bit for bit
    with tempfile.TemporaryDirectory(dir=CHECKPOINT.parent, prefix=".checkpoint-") as scratch:
        trained = Path(scratch) / "trained"
        trained.mkdir()
        train(Recipe(), trained)
        if CHECKPOINT.exists():
            CHECKPOINT.rename(Path(scratch) / "replaced")
        trained.rename(CHECKPOINT)
    _log.info("%s", evaluate(CHECKPOINT, EVALUATED_GROUPS))


if __name__ == "__main__":
    main()
