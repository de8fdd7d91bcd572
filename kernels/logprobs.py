"""Log-probabilities of chosen tokens straight from hidden states (grail-protocol §6.3)."""

import math
from typing import Final, NamedTuple

import torch
from torch import Tensor

from windrow import WindrowError
from windrow.kernels.linear import linear


class Block(NamedTuple):
    """How many rows and vocabulary entries of the logits exist at a time."""

    rows: int
    vocabulary: int


CPU_BLOCK: Final = Block(rows=512, vocabulary=1024)
"""2 MiB of float32 logits, so that a block is still in the cache when it is summed."""

ACCELERATOR_BLOCK: Final = Block(rows=4096, vocabulary=8192)
"""128 MiB of float32 logits: matrix products large enough for a GPU. Plain matmul is all
there is to gain there, since the head product dwarfs the sum over its result."""


_LOG2_E: Final = math.log2(math.e)


class LogprobInputError(WindrowError):
    """Hidden states, head and targets that do not fit together."""


def chosen_logprobs(
    hidden: Tensor,
    head: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    block: Block | None = None,
) -> Tensor:
    """log_softmax(hidden @ head.T + bias)[targets] at temperature 1, float32 [N] (§6.3).

    hidden: [N, d] in the model's dtype; head: [V, d] of the same dtype; targets: int64 [N],
    each in [0, V); bias: [V].
    Logits are made in the model's dtype, as its lm_head would, and cast to float32 before the
    softmax. Only one block of them exists at a time (`CPU_BLOCK`, `ACCELERATOR_BLOCK` unless
    given). Equal inputs and block give equal bits.
    Raises LogprobInputError for shapes that do not fit or targets outside the vocabulary.
    """
    _check(hidden, head, targets)
    block = block or (CPU_BLOCK if hidden.device.type == "cpu" else ACCELERATOR_BLOCK)
    logprobs = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
    for start in range(0, len(hidden), block.rows):
        rows = slice(start, start + block.rows)
        logprobs[rows] = _row_logprobs(hidden[rows], head, targets[rows], bias, block.vocabulary)
    return logprobs


def _row_logprobs(
    hidden: Tensor, head: Tensor, targets: Tensor, bias: Tensor | None, width: int
) -> Tensor:
    totals = []
    chosen = torch.empty(targets.shape, dtype=torch.float32, device=hidden.device)
    for start in range(0, len(head), width):
        part = slice(start, start + width)
        logits = linear(hidden, head[part], None if bias is None else bias[part]).float()
        totals.append(row_totals(logits))
        column = targets - start
        inside = (column >= 0) & (column < logits.shape[1])
        picked = logits.gather(1, column.clamp(0, logits.shape[1] - 1).unsqueeze(1)).squeeze(1)
        chosen = torch.where(inside, picked, chosen)
    # Joining all blocks at once rounds once; a running logsumexp would round at every block.
    return chosen - torch.logsumexp(torch.stack(totals), dim=0)


def row_totals(logits: Tensor) -> Tensor:
    """logsumexp of every row, float32 [N] from float32 [N, V].

    Powers of two are several times faster than powers of e on a CPU; they round differently by
    less than 1e-6 in a log-prob.
    """
    highest = logits.amax(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).min)
    powers = (logits - highest).mul_(_LOG2_E).exp2_()
    return powers.sum(dim=1).log_() + highest.squeeze(1)


def _check(hidden: Tensor, head: Tensor, targets: Tensor) -> None:
    if hidden.dim() != 2 or head.dim() != 2 or hidden.shape[1] != head.shape[1]:
        raise LogprobInputError(
            f"hidden states {tuple(hidden.shape)} and output head {tuple(head.shape)} do not "
            "fit: [N, d] and [V, d] are needed"
        )
    if targets.shape != hidden.shape[:1]:
        raise LogprobInputError(
            f"targets {tuple(targets.shape)}: one token per hidden state [{len(hidden)}] is needed"
        )
    if len(targets) and (int(targets.min()) < 0 or int(targets.max()) >= len(head)):
        raise LogprobInputError(
            f"a target lies outside the vocabulary of {len(head)} tokens; "
            "check that the tokens were made for this model"
        )
