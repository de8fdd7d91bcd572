"""What a sampler could have drawn, against the sampler of transformers."""

import pytest
import torch
from transformers import TopKLogitsWarper, TopPLogitsWarper

from windrow.kernels.nucleus import NucleusInputError, clearly_better, draw_logprobs


def scores_of(rows: int = 40, width: int = 60, spread: float = 3.0) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(2)) * spread


@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.3])
@pytest.mark.parametrize("top_k", [None, 5, 1, 1000])
def test_drawn_tokens_are_as_likely_as_transformers_draws_them(
    top_k: int | None, top_p: float
) -> None:
    scores = scores_of()
    kept = TopKLogitsWarper(top_k)(None, scores) if top_k else scores
    kept = TopPLogitsWarper(top_p)(None, kept) if top_p < 1.0 else kept
    expected = kept.log_softmax(1)
    targets = torch.multinomial(expected.exp(), 1, generator=torch.Generator().manual_seed(3))
    found = draw_logprobs(scores, targets.squeeze(1), top_k=top_k, top_p=top_p)
    torch.testing.assert_close(found, expected.gather(1, targets).squeeze(1), atol=1e-5, rtol=1e-4)


def test_a_token_that_is_not_kept_counts_as_the_last_one_that_is() -> None:
    scores = torch.tensor([[3.0, 2.0, 1.0, 0.0]])
    last, left = (draw_logprobs(scores, torch.tensor([t]), top_k=2, top_p=1.0) for t in (1, 3))
    assert left == last


def test_better_tokens_are_counted_beyond_the_slack() -> None:
    scores = torch.tensor([[3.0, 2.9, 1.0, 0.0]]).repeat(2, 1)
    better = clearly_better(scores, torch.tensor([1, 2]), slack=0.5)
    assert better.tokens.tolist() == [0, 2]
    assert better.mass[1].item() == pytest.approx(scores[0].softmax(0)[:2].sum().item())


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(NucleusInputError, match="do not fit"):
        draw_logprobs(scores_of(), torch.zeros(3, dtype=torch.int64), top_k=None, top_p=1.0)
    with pytest.raises(NucleusInputError, match="top_p"):
        draw_logprobs(scores_of(1), torch.zeros(1, dtype=torch.int64), top_k=0, top_p=1.0)
