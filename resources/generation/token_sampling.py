"""One sampling step, as a checkpoint's generation policy prescribes it (grail-protocol §7).

The filters and their order are those of transformers: repetition penalty, temperature, top-k,
top-p, all in float32. The draw is ours: one uniform number per request and step, so that a
request's tokens do not depend on what else is in the batch.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from windrow import WindrowError
from windrow.networks.grail.checkpoint import GenerationPolicy


class NonFiniteLogits(WindrowError):
    """The model computed NaN or infinite logits."""


def uniforms(seeds: Sequence[int], steps: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), float64 [len(seeds), steps].

    Row i depends on seeds[i] alone and a longer row begins with the shorter one: the raw stream of
    Philox keyed by the seed (0 <= seed < 2^128), which numpy keeps stable across versions.
    """
    raw = np.stack([np.random.Philox(key=seed).random_raw(steps) for seed in seeds])
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def penalise_repetition(logits: torch.Tensor, seen: torch.Tensor, penalty: float) -> torch.Tensor:
    """Divide positive and multiply negative logits of the tokens already in the sequence.

    logits: float32 [B, V]; seen: bool [B, V], the tokens of prompt and completion so far.
    """
    penalised = torch.where(logits < 0, logits * penalty, logits / penalty)
    return torch.where(seen, penalised, logits)


def candidates(logits: torch.Tensor, policy: GenerationPolicy) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens that temperature, top-k and top-p leave, and their probabilities.

    logits: float32 [B, V], repetition penalty applied. Returns probabilities float32 [B, K] in
    descending order, zero for filtered tokens, and token ids int64 [B, K].
    Tokens tied with the k-th largest all stay, as in transformers.
    Raises NonFiniteLogits.
    """
    vocabulary = logits.shape[-1]
    kept = min(policy.top_k or vocabulary, vocabulary)
    values, ids = torch.topk(logits / policy.temperature, min(kept + 1, vocabulary))
    if not bool(values[:, 0].isfinite().all()):
        raise NonFiniteLogits(
            "the model computed NaN or infinite logits; its weights or its dtype do not suit it, "
            "load another checkpoint"
        )
    if kept < vocabulary:
        if bool((values[:, kept] == values[:, kept - 1]).any()):
            least = values[:, kept - 1 : kept]
            values, ids = torch.sort(logits / policy.temperature, descending=True)
            values = values.masked_fill(values < least, -torch.inf)
        else:
            values, ids = values[:, :kept], ids[:, :kept]
    if policy.top_p < 1.0:
        tail = values.flip(-1).softmax(-1).cumsum(-1).flip(-1)
        drop = tail <= 1 - policy.top_p
        drop[:, 0] = False
        values = values.masked_fill(drop, -torch.inf)
    return values.softmax(-1), ids


def draw(probabilities: torch.Tensor, ids: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """The token whose share of the cumulative distribution holds the uniform number.

    probabilities: float32 [B, K], filtered tokens zero; ids: int64 [B, K]; uniform: float64 [B] in
    [0, 1). Returns int64 [B].
    """
    cumulative = probabilities.double().cumsum(-1)
    below = cumulative <= uniform[:, None] * cumulative[:, -1:]
    last = (probabilities > 0).sum(-1) - 1
    return ids.gather(-1, torch.minimum(below.sum(-1), last)[:, None])[:, 0]
