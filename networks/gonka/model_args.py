"""How a model's arguments make server processes on a node's GPUs (§2.4)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from windrow import WindrowError

MOST_INSTANCES: Final = 128

_PARALLEL: Final = ("--tensor-parallel-size", "--pipeline-parallel-size")


class NoLayoutRecipe(WindrowError):
    """No arguments are known for this model on these cards, and no default would be safe."""


@dataclass(frozen=True)
class Layout:
    """How many GPUs one server takes, as the network reads it out of the arguments."""

    tensor_parallel: int
    pipeline_parallel: int

    @property
    def gpus(self) -> int:
        return self.tensor_parallel * self.pipeline_parallel


def network_layout(args: Sequence[str]) -> Layout:
    """1 where the size is missing or no number; `--name=value` is not understood."""
    sizes = (_following(args, name) for name in _PARALLEL)
    return Layout(*(int(size) if size.isdecimal() and size.isascii() else 1 for size in sizes))


def strict_layout(args: Sequence[str]) -> Layout:
    """`network_layout`, also of `--name=value`, as the server itself reads it."""
    return network_layout([part for arg in args for part in arg.split("=", 1)])


def merged_args(governance: Sequence[str], local: Sequence[str]) -> list[str]:
    """Governance's arguments, then the node's own whose key is not among those.

    A key that is left out takes its value with it. Keys are whole tokens: `--x=1` is not `--x`.
    """
    merged = list(governance)
    keys = {arg for arg in governance if arg.startswith("--")}
    index = 0
    while index < len(local):
        key = local[index]
        valued = index + 1 < len(local) and not local[index + 1].startswith("--")
        if key.startswith("--"):
            if key not in keys:
                merged += local[index : index + 1 + valued]
                keys.add(key)
            index += valued
        index += 1
    return merged


def instances(gpus: int, layout: Layout, most: int = MOST_INSTANCES) -> list[range]:
    """The devices of each server. At least one server is started, on devices there or not."""
    per = max(1, layout.gpus)
    count = min(most, max(1, max(1, gpus) // per))
    return [range(index * per, (index + 1) * per) for index in range(count)]


def recipe(
    rows: Sequence[Mapping[str, Any]], model: str, gpu: str, gpu_count: int
) -> Mapping[str, Any]:
    """The row for exactly this model on these cards; one without cards is for any.

    Raises NoLayoutRecipe.
    """
    for row in rows:
        if row["model"] == model and (row["gpu_type"], row["gpu_count"]) in (
            (gpu, gpu_count),
            (None, None),
        ):
            return row
    raise NoLayoutRecipe(
        f"{model} on {gpu_count} x {gpu}: no arguments are known; write them into the node's models"
    )


def _following(args: Sequence[str], name: str) -> str:
    try:
        return args[args.index(name) + 1]
    except (ValueError, IndexError):
        return ""
