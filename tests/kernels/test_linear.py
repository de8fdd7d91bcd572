import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear as of_torch
from torch.utils._python_dispatch import TorchDispatchMode

from windrow.kernels.linear import LEAST_ROWS, FasterLayers, linear

NAME = "mkldnn::_linear_pointwise"


class Calls(TorchDispatchMode):
    """Names of the operators that are called within it."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names.append(func.name().split(".")[0])
        return func(*args, **(kwargs or {}))


def operands(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    width = shape[-1]
    return torch.randn(shape).to(dtype), torch.randn(37, width).to(dtype), torch.randn(37).to(dtype)


@pytest.mark.parametrize("shape", [(1, 48), (LEAST_ROWS, 48), (3, 29, 48), (700, 8)])
@pytest.mark.parametrize("biased", [True, False])
@torch.inference_mode()
def test_products_are_those_of_torch(shape: tuple[int, ...], biased: bool) -> None:
    inputs, weight, bias = operands(*shape)
    given = bias if biased else None
    exact = of_torch(inputs.double(), weight.double(), bias.double() if biased else None)
    found = linear(inputs, weight, given)
    assert found.shape == exact.shape
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)
    assert torch.equal(found, linear(inputs, weight, given))


@torch.inference_mode()
def test_parts_of_larger_tensors_are_read_where_they_lie() -> None:
    inputs, weight, bias = operands(90, 64)
    for rows, columns in ((inputs[7:60], weight[3:20]), (inputs[::2], weight[::3])):
        expected = of_torch(rows.double(), columns.double())
        torch.testing.assert_close(linear(rows, columns).double(), expected, rtol=1e-5, atol=1e-5)
    turned = inputs.t()[:, :64]
    expected = of_torch(turned.double(), weight.double(), bias.double())
    torch.testing.assert_close(
        linear(turned, weight, bias).double(), expected, rtol=1e-5, atol=1e-5
    )


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
def test_onednn_is_used_for_float32_inference_alone() -> None:
    layer = torch.nn.Linear(48, 37)
    inputs, *_ = operands(LEAST_ROWS, 48)
    with torch.inference_mode(), Calls() as calls:
        plain = layer(inputs)
        assert NAME not in calls.names
        with FasterLayers():
            faster = layer(inputs)
        assert NAME in calls.names
    torch.testing.assert_close(faster, plain, rtol=1e-5, atol=1e-5)
    with torch.inference_mode(), Calls() as calls, FasterLayers():
        layer(inputs[: LEAST_ROWS - 1])
        half, weight, bias = operands(LEAST_ROWS, 48, dtype=torch.bfloat16)
        assert torch.equal(linear(half, weight, bias), of_torch(half, weight, bias))
    assert NAME not in calls.names
    with FasterLayers():
        layer(inputs).sum().backward()
    assert layer.weight.grad is not None
