"""What a sampler with top-k and top-p could have drawn, and how likely each token was then.

A sampler keeps the k best tokens, then the fewest of those that together reach the mass p, and
draws among them in proportion to their probabilities (grail-protocol §7).
"""

import math
from typing import Final, NamedTuple

import torch
from torch import Tensor

from windrow import WindrowError

CHUNK_ELEMENTS: Final = 1 << 22
"""Scores that are ranked together: bounds the temporaries."""


class Better(NamedTuple):
    """Tokens that are clearly better than N drawn ones.

    tokens: int64 [N], how many. mass: float32 [N], their probability with no token left out.
    """

    tokens: Tensor
    mass: Tensor


class NucleusInputError(WindrowError):
    """Scores, tokens and sampling parameters that do not fit together."""


def clearly_better(scores: Tensor, targets: Tensor, slack: float) -> Better:
    """Tokens whose score is higher by more than `slack` nats than the drawn token's.

    scores: float32 [N, V], after penalty and temperature. targets: int64 [N].
    Raises NucleusInputError.
    """
    _check(scores, targets)
    logprobs = scores.log_softmax(1)
    better = logprobs > logprobs.gather(1, targets.unsqueeze(1)) + slack
    return Better(better.sum(1), (logprobs.exp() * better).sum(1))


def draw_logprobs(scores: Tensor, targets: Tensor, *, top_k: int | None, top_p: float) -> Tensor:
    """Log-probability of each drawn token among those the sampler keeps, float32 [N].

    scores, targets: as of `clearly_better`. top_k: at least 1, None for no limit. top_p: in
    [0, 1]; the best token is always kept. A token that is not kept counts as the last one that is.
    Raises NucleusInputError.
    """
    _check(scores, targets)
    if not (0.0 <= top_p <= 1.0 and (top_k is None or top_k >= 1)):
        raise NucleusInputError(f"top_p {top_p} and top_k {top_k}: a share, and at least 1")
    rows = max(1, CHUNK_ELEMENTS // max(1, scores.shape[1]))
    found = torch.empty(len(scores), dtype=torch.float32, device=scores.device)
    for start in range(0, len(scores), rows):
        part = slice(start, start + rows)
        found[part] = _draw_logprobs(scores[part], targets[part], top_k, top_p)
    return found


def _draw_logprobs(scores: Tensor, targets: Tensor, top_k: int | None, top_p: float) -> Tensor:
    width = scores.shape[1]
    best = scores.topk(min(top_k or width, width), dim=1).values
    mass = best.softmax(1)
    kept = mass.cumsum(1) - mass < top_p
    kept[:, 0] = True
    total = best.masked_fill(~kept, -math.inf).logsumexp(1)
    last = best.masked_fill(~kept, math.inf).amin(1)
    own = scores.gather(1, targets.unsqueeze(1)).squeeze(1)
    drawn: Tensor = torch.maximum(own, last) - total
    return drawn.clamp(max=0.0)


def _check(scores: Tensor, targets: Tensor) -> None:
    if scores.dim() != 2 or targets.shape != scores.shape[:1]:
        raise NucleusInputError(
            f"scores {tuple(scores.shape)} and targets {tuple(targets.shape)} do not fit: [N, V] "
            "and [N] are needed"
        )
