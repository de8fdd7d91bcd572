"""Chosen-token probabilities against the rule as written, one token at a time."""

import pytest
import torch
from torch import Tensor

from windrow.kernels.distribution import (
    DistributionInputError,
    chosen_probabilities,
    chosen_scores,
    eos_probability,
    sampler_scores,
)
from windrow.kernels.logprobs import Block, chosen_logprobs

VOCABULARY, LENGTH, FIRST = 50, 40, 7


def by_the_rule(
    logits: Tensor, sequence: Tensor, first: int, temperature: float, penalty: float
) -> Tensor:
    found = []
    for row, at in enumerate(range(first, first + len(logits))):
        scores = logits[row].float().clone()
        for token in set(sequence[:at].tolist()):
            scores[token] = (
                scores[token] / penalty if scores[token] >= 0 else scores[token] * penalty
            )
        found.append(torch.softmax(scores / temperature, dim=0)[sequence[at]])
    return torch.stack(found)


@pytest.fixture
def case() -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states before tokens FIRST.., output head, sequence with many repeats."""
    generator = torch.Generator().manual_seed(5)
    hidden = torch.randn(LENGTH - FIRST, 16, generator=generator)
    head = torch.randn(VOCABULARY, 16, generator=generator)
    return hidden, head, torch.randint(0, VOCABULARY // 2, (LENGTH,), generator=generator)


@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.4])
@pytest.mark.parametrize("penalty", [1.0, 1.3, 0.8])
@pytest.mark.parametrize("block", [None, Block(5, 7), Block(1, 1)])
def test_equal_to_the_rule_in_any_blocks(
    case: tuple[Tensor, Tensor, Tensor], temperature: float, penalty: float, block: Block | None
) -> None:
    hidden, head, sequence = case
    sampling = {"temperature": temperature, "repetition_penalty": penalty}
    expected = by_the_rule(hidden @ head.T, sequence, FIRST, temperature, penalty)
    from_logits = chosen_probabilities(hidden @ head.T, sequence, FIRST, block=block, **sampling)
    from_hidden = chosen_scores(hidden, head, sequence, FIRST, block=block, **sampling)
    torch.testing.assert_close(from_logits, expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(from_hidden.probabilities, expected, rtol=1e-5, atol=1e-7)
    logprobs = chosen_logprobs(hidden, head, sequence[FIRST:])
    torch.testing.assert_close(from_hidden.logprobs, logprobs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(from_hidden.totals, (hidden @ head.T).logsumexp(1))


def test_some_rows_are_scored_as_all_of_them_are(case: tuple[Tensor, Tensor, Tensor]) -> None:
    hidden, head, sequence = case
    logits, at = hidden @ head.T, torch.tensor([30, 9, 22])
    scores = sampler_scores(
        logits[at - FIRST], sequence, at, temperature=0.7, repetition_penalty=1.3
    )
    expected = by_the_rule(logits, sequence, FIRST, 0.7, 1.3)[at - FIRST]
    found = scores.softmax(1).gather(1, sequence[at].unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_logits_are_left_as_they_were(case: tuple[Tensor, Tensor, Tensor]) -> None:
    hidden, head, sequence = case
    logits = hidden @ head.T
    before = logits.clone()
    chosen_probabilities(logits, sequence, FIRST, temperature=0.5, repetition_penalty=2.0)
    assert torch.equal(logits, before)


@pytest.mark.parametrize(
    ("first", "temperature", "penalty"),
    [(0, 1.0, 1.0), (8, 1.0, 1.0), (7, 0.0, 1.0), (7, 1.0, 0.0), (7, float("nan"), 1.0)],
)
def test_what_does_not_fit_is_refused(
    case: tuple[Tensor, Tensor, Tensor], first: int, temperature: float, penalty: float
) -> None:
    hidden, head, sequence = case
    with pytest.raises(DistributionInputError):
        chosen_probabilities(
            hidden @ head.T, sequence, first, temperature=temperature, repetition_penalty=penalty
        )


def test_tokens_outside_the_vocabulary_are_refused(case: tuple[Tensor, Tensor, Tensor]) -> None:
    hidden, head, sequence = case
    for token in (-1, VOCABULARY):
        sequence[3] = token
        with pytest.raises(DistributionInputError, match="vocabulary"):
            chosen_probabilities(
                hidden @ head.T, sequence, FIRST, temperature=1.0, repetition_penalty=1.0
            )
    with pytest.raises(DistributionInputError):
        eos_probability(torch.zeros(4), 4)
