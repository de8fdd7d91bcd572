import numpy as np
import pytest
import torch
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from windrow.networks.grail.checkpoint import GenerationPolicy
from windrow.resources.generation.token_sampling import (
    NonFiniteLogits,
    candidates,
    draw,
    penalise_repetition,
    uniforms,
)

VOCABULARY = 500


def policy(
    temperature: float = 0.7,
    top_p: float = 0.9,
    top_k: int | None = 50,
    penalty: float = 1.0,
) -> GenerationPolicy:
    return GenerationPolicy(64, temperature, top_p, top_k, penalty)


def distribution(logits: torch.Tensor, rule: GenerationPolicy) -> torch.Tensor:
    """Our probabilities in vocabulary order."""
    probabilities, ids = candidates(logits, rule)
    return torch.zeros_like(logits).scatter(1, ids, probabilities)


def expected(logits: torch.Tensor, rule: GenerationPolicy, sequence: torch.Tensor) -> torch.Tensor:
    """The processors of transformers in the order its generate applies them."""
    processors = LogitsProcessorList(
        [
            RepetitionPenaltyLogitsProcessor(rule.repetition_penalty),
            TemperatureLogitsWarper(rule.temperature),
        ]
    )
    if rule.top_k is not None:
        processors.append(TopKLogitsWarper(rule.top_k))
    if rule.top_p < 1.0:
        processors.append(TopPLogitsWarper(rule.top_p))
    return processors(sequence, logits.clone()).softmax(-1)


@pytest.mark.parametrize("temperature", [0.01, 0.7, 2.0])
@pytest.mark.parametrize("top_p", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("top_k", [None, 1, 50, VOCABULARY, 1000])
def test_filters_keep_what_transformers_keeps(
    temperature: float, top_p: float, top_k: int | None
) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = 4 * torch.randn(32, VOCABULARY, generator=generator)
    rule = policy(temperature, top_p, top_k)

    ours = distribution(logits, rule)
    theirs = expected(logits, rule, torch.zeros(32, 1, dtype=torch.long))
    assert torch.equal(ours > 0, theirs > 0)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("top_p", [0.5, 1.0])
def test_ties_at_the_boundary_all_stay(top_p: float) -> None:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(32, VOCABULARY, generator=generator).mul(4).round()
    rule = policy(top_p=top_p, top_k=10)
    theirs = expected(logits, rule, torch.zeros(32, 1, dtype=torch.long))
    assert ((theirs > 0).sum(-1) > 10).any() or top_p < 1.0
    ours = distribution(logits, rule)
    # Which of equal tokens top-p drops is up to the sort; how many is not.
    torch.testing.assert_close(ours.sort(-1).values, theirs.sort(-1).values, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("penalty", [1.1, 2.0])
def test_repetition_penalty_counts_prompt_and_completion(penalty: float) -> None:
    generator = torch.Generator().manual_seed(3)
    logits = 4 * torch.randn(8, VOCABULARY, generator=generator)
    sequence = torch.randint(VOCABULARY, (8, 40), generator=generator)
    seen = torch.zeros(8, VOCABULARY, dtype=torch.bool).scatter(1, sequence, True)
    rule = policy(penalty=penalty)
    ours = distribution(penalise_repetition(logits, seen, penalty), rule)
    theirs = expected(logits, rule, sequence)
    assert torch.equal(ours > 0, theirs > 0)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_draws_follow_the_distribution() -> None:
    generator = torch.Generator().manual_seed(4)
    row = 2 * torch.randn(1, VOCABULARY, generator=generator)
    rule = policy()
    probabilities, ids = candidates(row, rule)
    count = 20_000
    uniform = torch.from_numpy(uniforms([5], count)[0])
    tokens = draw(probabilities.expand(count, -1), ids.expand(count, -1), uniform)

    observed = torch.bincount(tokens, minlength=VOCABULARY) / count
    wanted = distribution(row, rule)[0]
    # Five standard deviations of a frequency.
    assert ((observed - wanted).abs() <= 5 * (wanted * (1 - wanted) / count).sqrt()).all()


def test_draw_at_the_ends_stays_among_kept_tokens() -> None:
    probabilities = torch.tensor([[0.5, 0.5, 0.0]]).expand(3, -1)
    ids = torch.tensor([[7, 8, 9]]).expand(3, -1)
    uniform = torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)
    assert draw(probabilities, ids, uniform).tolist() == [7, 8, 8]


def test_uniforms_depend_on_their_seed_and_step_alone() -> None:
    numbers = uniforms([3, 2**64, 3], 1000)
    assert np.array_equal(numbers[0], numbers[2])
    assert np.array_equal(uniforms([3], 10)[0], numbers[0, :10])
    assert not np.any(numbers[0] == numbers[1])
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 0.05


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_logits_are_named(value: float) -> None:
    logits = torch.zeros(2, VOCABULARY)
    logits[1, 3] = value
    with pytest.raises(NonFiniteLogits, match="NaN or infinite"):
        candidates(logits, policy())
