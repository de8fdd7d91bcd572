"""Probabilities of chosen tokens as they were sampled, and of the end of a sequence
(grail-validation §8.5, §8.9).

A sampler divides the logits of tokens it has already seen by the repetition penalty (multiplies
where they are negative), then all logits by the temperature. Top-k and top-p are not applied.
"""

from collections.abc import Callable, Iterator
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import linear

from windrow import WindrowError
from windrow.kernels.logprobs import ACCELERATOR_BLOCK, CPU_BLOCK, Block

_UNSEEN: Final = torch.iinfo(torch.int64).max

LogitBlock = Callable[[slice, slice], Tensor]
"""Rows and vocabulary entries -> their logits, float32 [rows, entries]."""


class DistributionInputError(WindrowError):
    """Logits, sequence and sampling parameters that do not fit together."""


def eos_probability(logits: Tensor, eos_token_id: int) -> float:
    """softmax(logits)[eos] in the dtype of the logits, as the network computes it (§8.5).

    logits: [V], any floating dtype. bfloat16 logits give a probability rounded to bfloat16.
    Raises DistributionInputError for an id outside the vocabulary.
    """
    if logits.dim() != 1 or not 0 <= eos_token_id < len(logits):
        raise DistributionInputError(
            f"EOS token {eos_token_id} needs logits [vocabulary], not {tuple(logits.shape)}"
        )
    return float(torch.softmax(logits, dim=-1)[eos_token_id])


def chosen_probabilities(
    logits: Tensor,
    sequence: Tensor,
    first: int,
    *,
    temperature: float,
    repetition_penalty: float,
    block: Block | None = None,
) -> Tensor:
    """Probability of each token of sequence[first : first + N] when it was sampled, float32 [N].

    logits: [N, V], any floating dtype; row i is what the model said of token first + i.
    sequence: int64 [L], prompt and completion, on the device of logits; first >= 1.
    Only one float32 block exists at a time. Raises DistributionInputError.
    """
    return _probabilities(
        lambda rows, entries: logits[rows, entries].float(),
        (len(logits), logits.shape[-1]),
        sequence,
        first,
        temperature,
        repetition_penalty,
        block or _default_block(logits),
    )


def chosen_probabilities_from_hidden(
    hidden: Tensor,
    head: Tensor,
    sequence: Tensor,
    first: int,
    *,
    temperature: float,
    repetition_penalty: float,
    bias: Tensor | None = None,
    block: Block | None = None,
) -> Tensor:
    """`chosen_probabilities` straight from hidden states; the logits never exist at once.

    hidden: [N, d], row i precedes token first + i. head: [V, d] of the same dtype. bias: [V].
    """
    if hidden.dim() != 2 or head.dim() != 2 or hidden.shape[1] != head.shape[1]:
        raise DistributionInputError(
            f"hidden states {tuple(hidden.shape)} and output head {tuple(head.shape)} do not fit"
        )

    def logits(rows: slice, entries: slice) -> Tensor:
        part = None if bias is None else bias[entries]
        return linear(hidden[rows], head[entries], part).float()

    return _probabilities(
        logits,
        (len(hidden), len(head)),
        sequence,
        first,
        temperature,
        repetition_penalty,
        block or _default_block(hidden),
    )


def _probabilities(
    logits: LogitBlock,
    shape: tuple[int, int],
    sequence: Tensor,
    first: int,
    temperature: float,
    penalty: float,
    block: Block,
) -> Tensor:
    count, vocabulary = shape
    _check(shape, sequence, first, temperature, penalty)
    first_seen = torch.full((vocabulary,), _UNSEEN, device=sequence.device)
    positions = torch.arange(len(sequence), device=sequence.device)
    first_seen.scatter_reduce_(0, sequence, positions, "amin")
    probabilities = torch.empty(count, dtype=torch.float32, device=sequence.device)
    for rows in _slices(count, block.rows):
        at = torch.arange(first + rows.start, first + rows.stop, device=sequence.device)
        totals, chosen = [], torch.zeros(len(at), device=sequence.device)
        for entries in _slices(vocabulary, block.vocabulary):
            scores = logits(rows, entries)
            if penalty != 1.0:
                scores = _penalise(scores, first_seen[entries], at, penalty)
            if temperature != 1.0:
                scores = scores / temperature
            totals.append(torch.logsumexp(scores, dim=1))
            column = sequence[at] - entries.start
            inside = (column >= 0) & (column < scores.shape[1])
            column = column.clamp(0, scores.shape[1] - 1)
            picked = scores.gather(1, column.unsqueeze(1)).squeeze(1)
            chosen = torch.where(inside, picked, chosen)
        probabilities[rows] = (chosen - torch.logsumexp(torch.stack(totals), dim=0)).exp()
    return probabilities


def _penalise(scores: Tensor, first_seen: Tensor, at: Tensor, penalty: float) -> Tensor:
    """Scores with the penalty on every token that stands before position `at` of its row.

    Only columns of tokens that occur at all are touched, which are few.
    """
    columns = (first_seen < _UNSEEN).nonzero().squeeze(1)
    if not len(columns):
        return scores
    own = scores[:, columns]
    penalised = torch.where(own >= 0, own / penalty, own * penalty)
    seen = first_seen[columns].unsqueeze(0) < at.unsqueeze(1)
    return scores.index_copy(1, columns, torch.where(seen, penalised, own))


def _slices(length: int, size: int) -> Iterator[slice]:
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))


def _default_block(tensor: Tensor) -> Block:
    return CPU_BLOCK if tensor.device.type == "cpu" else ACCELERATOR_BLOCK


def _check(
    shape: tuple[int, int], sequence: Tensor, first: int, temperature: float, penalty: float
) -> None:
    count, vocabulary = shape
    if sequence.dim() != 1 or first < 1 or first + count > len(sequence):
        raise DistributionInputError(
            f"{count} rows from token {first} on do not fit a sequence {tuple(sequence.shape)}; "
            "the first token has nothing before it"
        )
    if len(sequence) and (int(sequence.min()) < 0 or int(sequence.max()) >= vocabulary):
        raise DistributionInputError(f"a token lies outside the vocabulary of {vocabulary}")
    if not (temperature > 0.0 and penalty > 0.0):
        raise DistributionInputError(
            f"temperature {temperature} and repetition penalty {penalty} must be positive"
        )
