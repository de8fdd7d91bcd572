"""Verifying a window's sampled rollouts: `ModelVerifier` and whole-array checks against the plain
way of the same rules.

64 rollouts (4 prompts x 16, up to 512 tokens), random Qwen2 models with 32,768 tokens in float32,
one small and one in which the model passes weigh most, temperature 0.7 and repetition penalty 1.1,
one thread. Both sides come to the four verdicts that need the model: proof, termination, log-probs
and distribution. The plain way pads sub-batches of 16 in row order, keeps the logits of every
position of all rows in memory, makes a log-softmax for each challenged log-prob and a softmax for
each token of the distribution, and compares sketches position by position out of dicts
(grail-validation §7, §26.13). Ours runs sequences of like length together, multiplies with the
faster of torch's two libraries, and walks the head once, over completions alone.

Each side runs in a process of its own. Seconds are of processor time, which one thread on a busy
machine does not spend waiting; memory is its peak resident size less what the process
held once the model was loaded.
"""

import gc
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from benchmarks.memory import resident
from benchmarks.proof import GROUP, VOCABULARY, make_rollouts, plain_sketches
from benchmarks.ratio import Ratio
from windrow.engine.proving import ModelProver
from windrow.engine.validation.verification import ModelVerifier, Question
from windrow.networks.grail.checkpoint import GenerationPolicy
from windrow.networks.grail.prf import open_indices, sketch_coefficients
from windrow.networks.grail.validation.distribution import check_distribution
from windrow.networks.grail.validation.logprobs import check_logprobs
from windrow.networks.grail.validation.sketches import check_sketches
from windrow.networks.grail.validation.termination import check_termination

EOS = 2
RANDOMNESS = "7a" * 32
COEFFICIENTS = sketch_coefficients("5eed")  # as the plain sketches of benchmarks.proof
POLICY = GenerationPolicy(512, temperature=0.7, top_p=1.0, top_k=None, repetition_penalty=1.1)
REPEATS = 2

SHAPES = {"small": (64, 2), "model-heavy": (256, 4)}
"""Hidden size and layers by name."""

Verdicts = list[tuple[bool, bool, bool, bool]]


@dataclass(frozen=True)
class Rollout:
    """One sampled row. commitments: as the plain way holds them."""

    tokens: np.ndarray
    prompt: int
    sketches: np.ndarray
    commitments: list[dict[str, int]]
    logprobs: np.ndarray


def make_model(hidden: int, layers: int) -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        pad_token_id=0,
        eos_token_id=EOS,
    )
    model = Qwen2ForCausalLM(config).eval()
    with torch.no_grad():
        # Activations that reach every bucket, and still moderate logits.
        model.model.norm.weight.mul_(30)
        model.lm_head.weight.div_(10 * (hidden / 64) ** 0.5)
    return model


def make_window(model: Qwen2ForCausalLM) -> list[Rollout]:
    """Proved rollouts; in every fourth the log-probs, in every fifth the sketches are forged."""
    sequences, prompts = make_rollouts()
    for sequence in sequences[::2]:
        sequence[-1] = EOS
    proofs = ModelProver(model).prove(sequences, prompts, COEFFICIENTS)
    rollouts = []
    for row, (tokens, prompt, proof) in enumerate(zip(sequences, prompts, proofs, strict=True)):
        sketches = (proof.sketches.astype(np.int64) + 20_000 * (row % 5 == 0)) % (2**31 - 1)
        logprobs = proof.logprobs + np.float32(0.5 * (row % 4 == 0))
        commitments = [{"sketch": int(sketch)} for sketch in sketches]
        rollouts.append(Rollout(tokens, prompt, sketches, commitments, logprobs))
    return rollouts


def ours(model: Qwen2ForCausalLM, rollouts: list[Rollout]) -> Verdicts:
    questions = [Question(r.tokens, r.prompt, (COEFFICIENTS,)) for r in rollouts]
    measured = ModelVerifier(model, EOS).measure(questions, POLICY)
    verdicts = []
    for rollout, found in zip(rollouts, measured.rollouts, strict=True):
        if found is None:
            raise AssertionError("the benchmark's model gives finite numbers")
        tokens, prompt = rollout.tokens, rollout.prompt
        length = len(tokens) - prompt
        opened = open_indices(tokens, prompt, length, RANDOMNESS)
        at = np.array(opened)
        checks = (
            check_sketches(found.sketches[0][at], rollout.sketches[at], at),
            check_termination(tokens, length, POLICY.max_new_tokens, EOS, found.eos_probability),
            check_logprobs(
                rollout.logprobs,
                len(tokens),
                length,
                opened,
                {p: float(found.logprobs[p - prompt]) for p in opened},
            ),
            check_distribution(found.probabilities),
        )
        proof, termination, logprobs, distribution = (c.network_verdict for c in checks)
        verdicts.append((proof, termination, logprobs, distribution))
    return verdicts


@torch.inference_mode()
def plain(model: Qwen2ForCausalLM, rollouts: list[Rollout]) -> Verdicts:
    hidden, logits = [], []
    for start in range(0, len(rollouts), GROUP):
        batch = [torch.from_numpy(r.tokens).long() for r in rollouts[start : start + GROUP]]
        tokens = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True, padding_value=0)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(s) for s in batch], True)
        states = model.model(tokens, attention_mask=mask, use_cache=False).last_hidden_state
        scores = model.lm_head(states)
        for row, sequence in enumerate(batch):
            hidden.append(states[row, : len(sequence)].clone())
            logits.append(scores[row, : len(sequence)].clone())
    return [
        (
            plain_proof(rollout, states),
            plain_termination(rollout, scores),
            plain_logprobs(rollout, scores),
            plain_distribution(rollout, scores),
        )
        for rollout, states, scores in zip(rollouts, hidden, logits, strict=True)
    ]


def opened(rollout: Rollout) -> list[int]:
    length = len(rollout.tokens) - rollout.prompt
    return open_indices(rollout.tokens, rollout.prompt, length, RANDOMNESS)


def plain_proof(rollout: Rollout, states: Tensor) -> bool:
    for position in opened(rollout):
        own = int(plain_sketches(states[position : position + 1])[0])
        apart = abs(own - rollout.commitments[position]["sketch"])
        if min(apart, 2**31 - 1 - apart) > int(6000 + 5 * math.sqrt(position)):
            return False
    return True


def plain_termination(rollout: Rollout, logits: Tensor) -> bool:
    length = len(rollout.tokens) - rollout.prompt
    if length >= POLICY.max_new_tokens:
        return length == POLICY.max_new_tokens
    return bool(rollout.tokens[-1] == EOS and logits[-2].softmax(-1)[EOS] >= 0.02)


def plain_logprobs(rollout: Rollout, logits: Tensor) -> bool:
    deviations = []
    for position in opened(rollout):
        table = logits[position - 1].float().log_softmax(-1)
        own = float(table[int(rollout.tokens[position])])
        deviations.append(math.exp(abs(own - float(rollout.logprobs[position]))) - 1)
    return statistics.median(deviations) <= 0.10


def plain_distribution(rollout: Rollout, logits: Tensor) -> bool:
    penalty, tokens, found = POLICY.repetition_penalty, rollout.tokens.tolist(), []
    for position in range(rollout.prompt, len(tokens)):
        scores = logits[position - 1].float().clone()
        seen = torch.tensor(sorted(set(tokens[:position])))
        own = scores[seen]
        scores[seen] = torch.where(own >= 0, own / penalty, own * penalty)
        found.append(float((scores / POLICY.temperature).softmax(-1)[tokens[position]]))
    if len(found) < 30:
        return False
    low = [np.quantile(found, 0.1), np.quantile(found[:50], 0.1)]
    return bool(np.median(found) > 0.30 and min(found) > 1e-5 and min(low) > 0.025)


def measure(
    verify: Callable[[Qwen2ForCausalLM, list[Rollout]], Verdicts],
    shape: tuple[int, int],
    results: Path,
) -> None:
    """Run one side in this process and write its verdicts, seconds and peak bytes."""
    torch.set_num_threads(1)
    model = make_model(*shape)
    rollouts = make_window(model)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    held = resident("VmRSS")
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        verdicts = verify(model, rollouts)
        seconds.append(time.process_time() - start)
    peak = resident("VmHWM") - held
    tokens = sum(len(rollout.tokens) for rollout in rollouts)
    results.write_text(
        json.dumps({"seconds": min(seconds), "peak": peak, "verdicts": verdicts, "tokens": tokens})
    )


def run() -> list[Ratio]:
    return [ratio for name in SHAPES for ratio in compared(name)]


def compared(name: str) -> list[Ratio]:
    """Both sides on a model of one shape."""
    with tempfile.TemporaryDirectory() as folder:
        sides = []
        for side in ("ours", "plain"):
            results = Path(folder) / f"{side}.json"
            command = [sys.executable, "-m", "benchmarks.verification", side, name, str(results)]
            subprocess.run(command, check=True)
            sides.append(json.loads(results.read_text()))
    mine, theirs = sides
    assert mine["verdicts"] == theirs["verdicts"], "both sides must come to the same verdicts"
    speed = theirs["seconds"] / mine["seconds"]
    memory = mine["peak"] / theirs["peak"]
    hidden, layers = SHAPES[name]
    return [
        Ratio(
            f"verifying sampled rollouts, d={hidden}, {layers} layers",
            mine["tokens"] / mine["seconds"],
            theirs["tokens"] / theirs["seconds"],
            "tokens/s",
            speed,
            ">= 3x",
            speed >= 3,
        ),
        Ratio(
            f"verification peak memory, d={hidden}, {layers} layers",
            mine["peak"] / 2**20,
            theirs["peak"] / 2**20,
            "MiB",
            memory,
            "<= 0.5x",
            memory <= 0.5,
        ),
    ]


if __name__ == "__main__":
    measure({"ours": ours, "plain": plain}[sys.argv[1]], SHAPES[sys.argv[2]], Path(sys.argv[3]))
