from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from windrow.kernels.logprobs import Block, LogprobInputError, chosen_logprobs, row_totals


def random_case(
    rows: int = 37, width: int = 24, vocabulary: int = 101, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    hidden = torch.randn(rows, width, generator=generator).to(dtype)
    head = torch.randn(vocabulary, width, generator=generator).to(dtype)
    return hidden, head, torch.randint(0, vocabulary, (rows,), generator=generator)


def plain(
    hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    logits = torch.nn.functional.linear(hidden, head, bias).float()
    return logits.log_softmax(dim=1).gather(1, targets[:, None])[:, 0]


@pytest.mark.parametrize("block", [Block(1, 1), Block(10, 33), Block(37, 101), Block(512, 1024)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_blocking_gives_the_log_softmax(block: Block, dtype: torch.dtype) -> None:
    hidden, head, targets = random_case(dtype=dtype)
    bias = torch.linspace(-3, 3, len(head)).to(dtype)
    for b in (None, bias):
        logprobs = chosen_logprobs(hidden, head, targets, bias=b, block=block)
        assert logprobs.dtype == torch.float32
        # Rounding of a bfloat16 product may depend on its shape, a float32 one's by 1e-6.
        tolerance = 1e-5 if dtype == torch.float32 else 0.3
        torch.testing.assert_close(
            logprobs, plain(hidden, head, targets, b), rtol=0, atol=tolerance
        )


def test_large_logits_do_not_overflow() -> None:
    hidden, head, targets = random_case()
    logprobs = chosen_logprobs(hidden * 300, head, targets, block=Block(8, 16))
    torch.testing.assert_close(logprobs, plain(hidden * 300, head, targets, None))


def test_logits_never_exist_all_at_once() -> None:
    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                self.elements = max(self.elements, result.untyped_storage().nbytes() // 4)
            return result

    hidden, head, targets = random_case(rows=100, width=8, vocabulary=1000)
    with Largest() as largest:
        chosen_logprobs(hidden, head, targets, block=Block(20, 50))
    assert largest.elements == len(head) * 8  # the head itself; all logits would be 100,000


def test_repeats_bit_for_bit_and_no_rows() -> None:
    case = random_case()
    assert torch.equal(chosen_logprobs(*case), chosen_logprobs(*case))
    hidden, head, targets = case
    assert chosen_logprobs(hidden[:0], head, targets[:0]).shape == (0,)


def test_misfits_are_named() -> None:
    hidden, head, targets = random_case()
    for wrong in (
        (hidden[:, :5], head, targets),
        (hidden, head, targets[:3]),
        (hidden, head, targets + len(head)),
        (hidden, head, targets - len(head)),
    ):
        with pytest.raises(LogprobInputError):
            chosen_logprobs(*wrong)


def test_row_totals_are_logsumexp_whatever_the_magnitudes() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(60, 300, generator=generator) * torch.logspace(-3, 4, 60)[:, None]
    logits[3, 7] = logits[4, :] = -torch.inf
    expected = torch.logsumexp(logits.double(), dim=1).float()
    torch.testing.assert_close(row_totals(logits), expected, rtol=1e-6, atol=2e-6)
    assert row_totals(torch.tensor([[1.0, torch.nan], [torch.inf, 0.0]])).isfinite().sum() == 0
