"""Products with a layer's weights, by the faster of the two libraries that torch has on a CPU.

torch multiplies float32 matrices with MKL, which on processors of other makers than Intel does
about 100 GFLOP/s a core where oneDNN, in torch too, does over 200. Both accumulate in float32;
results differ in the last bits, as between two processors.
"""

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

LEAST_ROWS: Final = 16
"""A product with fewer rows is bound by reading the weights, and MKL starts faster."""


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """inputs @ weight.T + bias [..., out]: inputs [..., in], weight [out, in], bias [out].

    Equal inputs give equal bits on one machine with one number of threads.
    """
    if _better_by_onednn(inputs, weight):
        product: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
        return product
    return torch.nn.functional.linear(inputs, weight, bias)


class FasterLayers(TorchFunctionMode):
    """Within it, the linear layers of any module use `linear`."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is torch.nn.functional.linear:
            return linear(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _better_by_onednn(inputs: Tensor, weight: Tensor) -> bool:
    return (
        inputs.device.type == weight.device.type == "cpu"
        and inputs.dtype == weight.dtype == torch.float32
        and inputs.shape[:-1].numel() >= LEAST_ROWS
        and not torch.is_grad_enabled()  # the operator is made for inference
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    )
