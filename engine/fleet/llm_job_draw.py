"""How a job's tokens are drawn: by a number for every seed, step and token, so it can be checked.

A token's score is its log-probability plus its Gumbel number; the best score among the tokens that
top-p keeps is drawn (the Gumbel-max trick, so tokens come as often as softmax says). Whoever knows
the seed can tell of a token how far it is from the one that should have been drawn, in nats, and
small errors in the logits move that by as little.
"""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from windrow.kernels.philox import BLOCK_BYTES, Key, philox_bytes_on

_WORDS: Final = BLOCK_BYTES // 4


def gumbels(key: Key, step: int, steps: int, vocabulary: int, device: torch.device) -> Tensor:
    """Gumbel numbers float64 [steps, V] of the steps that follow `step`."""
    blocks = -(-vocabulary // _WORDS)
    words = philox_bytes_on(key, step * blocks, steps * blocks, device).view(torch.int32)
    uniform = ((words.to(torch.int64) & 0xFFFFFFFF).double() + 0.5) * 2.0**-32
    return -torch.log(-torch.log(uniform)).view(steps, blocks * _WORDS)[:, :vocabulary]


def draw(
    logits: Tensor, keys: Sequence[Key], step: int, temperature: float, top_p: float
) -> Tensor:
    """The token each row draws at a step, int64 [B]. logits: float32 [B, V]."""
    scores = torch.log_softmax(logits.double() / temperature, 1)
    noise = torch.cat([gumbels(key, step, 1, logits.shape[1], logits.device) for key in keys])
    kept = scores.masked_fill(_mass_before(scores) >= top_p, -torch.inf)
    return (kept + noise).argmax(1)


def draw_gaps(
    logits: Tensor, tokens: Tensor, key: Key, temperature: float, top_p: float, slack: float
) -> Tensor:
    """Nats by which each token falls short of the one that its seed draws, float32 [L].

    logits: float32 [L, V] that predict tokens: int64 [L], from the first step on. slack: how much
    probability may tip a token over the edge of top-p, to either side. Infinite where a token
    could not have been drawn.
    """
    scores = torch.log_softmax(logits.double() / temperature, 1)
    before = _mass_before(scores)
    scores_and_noise = scores + gumbels(key, 0, len(tokens), logits.shape[1], logits.device)
    own = tokens[:, None]
    # The best token is kept whatever top-p is.
    surely = (before < top_p - slack) | (before == 0)
    best = scores_and_noise.masked_fill(~surely, -torch.inf).amax(1)
    gaps = (best - scores_and_noise.gather(1, own)[:, 0]).clamp(min=0)
    outside = before.gather(1, own)[:, 0] >= top_p + slack
    return gaps.masked_fill(outside, torch.inf).float()


def _mass_before(scores: Tensor) -> Tensor:
    """Probability of all tokens that rank above each one, [B, V]; 0 for the best."""
    ordered, order = scores.sort(dim=1, descending=True, stable=True)
    mass = ordered.exp()
    return torch.zeros_like(scores).scatter_(1, order, mass.cumsum(1) - mass)
