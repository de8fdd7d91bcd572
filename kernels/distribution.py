"""Probabilities of chosen tokens as they were sampled, and of the end of a sequence
(grail-validation §8.5, §8.9).

A sampler divides the logits of tokens it has already seen by the repetition penalty (multiplies
where they are negative), then all logits by the temperature. Top-k and top-p are not applied.
"""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import torch
from torch import Tensor

from windrow import WindrowError
from windrow.kernels.linear import linear
from windrow.kernels.logprobs import ACCELERATOR_BLOCK, CPU_BLOCK, Block, row_totals

_UNSEEN: Final = torch.iinfo(torch.int64).max

LogitBlock = Callable[[slice, slice], Tensor]
"""Rows and vocabulary entries -> their logits, float32 [rows, entries]."""


class ChosenScores(NamedTuple):
    """What a model says of N chosen tokens, float32 [N] each.

    logprobs: at temperature 1 without a penalty (grail-protocol §6.3). totals: logsumexp of the
    logits they are taken from, whose size bounds how exactly they can be known. probabilities:
    when they were sampled.
    """

    logprobs: Tensor
    totals: Tensor
    probabilities: Tensor


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

    def block_of(rows: slice, entries: slice) -> Tensor:
        return logits[rows, entries].float()

    shape = (len(logits), logits.shape[-1])
    _check(shape, sequence, first, temperature, repetition_penalty)
    sampled = _Sampling(sequence, shape[1], first, temperature, repetition_penalty)
    block = block or _default_block(logits)
    (found,) = _chosen(block_of, shape, sampled, block, (sampled.scores,))
    return found[0].exp()


def chosen_scores(
    hidden: Tensor,
    head: Tensor,
    sequence: Tensor,
    first: int,
    *,
    temperature: float,
    repetition_penalty: float,
    bias: Tensor | None = None,
    block: Block | None = None,
) -> ChosenScores:
    """`chosen_probabilities` and temperature-1 log-probs straight from hidden states.

    One head product serves both, and the logits never exist at once.
    hidden: [N, d], row i precedes token first + i. head: [V, d] of the same dtype. bias: [V].
    """
    if hidden.dim() != 2 or head.dim() != 2 or hidden.shape[1] != head.shape[1]:
        raise DistributionInputError(
            f"hidden states {tuple(hidden.shape)} and output head {tuple(head.shape)} do not fit"
        )

    def block_of(rows: slice, entries: slice) -> Tensor:
        part = None if bias is None else bias[entries]
        return linear(hidden[rows], head[entries], part).float()

    shape = (len(hidden), len(head))
    _check(shape, sequence, first, temperature, repetition_penalty)
    sampled = _Sampling(sequence, shape[1], first, temperature, repetition_penalty)
    block = block or _default_block(hidden)
    if temperature == repetition_penalty == 1.0:
        ((logprobs, totals),) = _chosen(block_of, shape, sampled, block, (_raw,))
        return ChosenScores(logprobs, totals, logprobs.exp())
    transforms = (_raw, sampled.scores)
    (logprobs, totals), (as_sampled, _) = _chosen(block_of, shape, sampled, block, transforms)
    return ChosenScores(logprobs, totals, as_sampled.exp())


def sampler_scores(
    logits: Tensor, sequence: Tensor, at: Tensor, *, temperature: float, repetition_penalty: float
) -> Tensor:
    """Logits as a sampler ranks them, float32 [M, V].

    logits: [M, V], any floating dtype; row i is what the model said of token at[i]. sequence:
    int64 [L], prompt and completion. at: int64 [M]. All on one device.
    """
    scores = logits.float()
    if repetition_penalty != 1.0:
        seen = _first_seen(sequence, scores.shape[1])
        scores = _penalise(scores, seen, at, repetition_penalty)
    return scores if temperature == 1.0 else scores / temperature


class _Sampling:
    """How a sampler changes the logits of tokens `first` and later of a sequence."""

    def __init__(
        self, sequence: Tensor, vocabulary: int, first: int, temperature: float, penalty: float
    ) -> None:
        self.sequence, self.first = sequence, first
        self._temperature, self._penalty = temperature, penalty
        self._first_seen = _first_seen(sequence, vocabulary)

    def positions(self, rows: slice) -> Tensor:
        """Where in the sequence the tokens of these rows stand."""
        return torch.arange(
            self.first + rows.start, self.first + rows.stop, device=self.sequence.device
        )

    def scores(self, logits: Tensor, rows: slice, entries: slice) -> Tensor:
        """A block of logits as the sampler sees it; `logits` stays as it is."""
        if self._penalty != 1.0:
            seen = self._first_seen[entries]
            logits = _penalise(logits, seen, self.positions(rows), self._penalty)
        return logits if self._temperature == 1.0 else logits / self._temperature


Transform = Callable[[Tensor, slice, slice], Tensor]
"""A block of logits, its rows and its entries -> scores of the same shape."""


def _raw(logits: Tensor, _rows: slice, _entries: slice) -> Tensor:
    return logits


def _chosen(
    logits: LogitBlock,
    shape: tuple[int, int],
    sampled: _Sampling,
    block: Block,
    transforms: tuple[Transform, ...],
) -> list[Tensor]:
    """Log-softmax and logsumexp of each transform at the chosen tokens, float32 [2, N] each."""
    count, vocabulary = shape
    device = sampled.sequence.device
    found = [torch.empty((2, count), dtype=torch.float32, device=device) for _ in transforms]
    for rows in _slices(count, block.rows):
        targets = sampled.sequence[sampled.positions(rows)]
        totals: list[list[Tensor]] = [[] for _ in transforms]
        chosen = [torch.zeros(len(targets), device=device) for _ in transforms]
        for entries in _slices(vocabulary, block.vocabulary):
            own = logits(rows, entries)
            column = targets - entries.start
            inside = (column >= 0) & (column < own.shape[1])
            column = column.clamp(0, own.shape[1] - 1).unsqueeze(1)
            for index, transform in enumerate(transforms):
                scores = transform(own, rows, entries)
                totals[index].append(row_totals(scores))
                picked = scores.gather(1, column).squeeze(1)
                chosen[index] = torch.where(inside, picked, chosen[index])
        for index, (logprobs, total) in enumerate(found):
            total[rows] = torch.logsumexp(torch.stack(totals[index]), dim=0)
            logprobs[rows] = chosen[index] - total[rows]
    return found


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


def _first_seen(sequence: Tensor, vocabulary: int) -> Tensor:
    """Where each token of the vocabulary first stands in a sequence, int64 [vocabulary]."""
    first = torch.full((vocabulary,), _UNSEEN, device=sequence.device)
    positions = torch.arange(len(sequence), device=sequence.device)
    return first.scatter_reduce_(0, sequence, positions, "amin")


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
