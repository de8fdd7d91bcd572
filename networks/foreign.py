"""What declarations of other tools have in common: names, texts and refusals."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from windrow import WindrowError

Say = Callable[[str], None]
"""Called with one line for everything that an import does not take. No line quotes a value."""


class BadImport(WindrowError):
    """A declaration in another tool's format that cannot be read; `faults` names every fault."""

    def __init__(self, what: str, faults: Sequence[str]) -> None:
        more = f"; and {len(faults) - 20} more" if len(faults) > 20 else ""
        super().__init__(f"{what} cannot be imported: {'; '.join(faults[:20])}{more}")
        self.faults = tuple(faults)


def ignore(_line: str) -> None:
    """For callers that do not want to know what is not taken."""


def node_name(text: str) -> str:
    """The name of a node in Windrow: a label of a host name, made of what another tool calls it.

    Letters become lower case, and every run of other characters one '-': ML_Node.1 is ml-node-1.
    Empty if nothing is left, and cut after 63 characters.
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63].strip("-")


def quoted(text: object, most: int = 80) -> str:
    """A stranger's text in quotes, without control characters and at most so long."""
    shown = str(text)
    return ascii(shown if len(shown) <= most else f"{shown[:most]}…").replace("\\u2026", "...")


def name_faults(what: str, names: Sequence[str]) -> list[str]:
    """What is wrong with the names of one file: none is left of them, or two become the same."""
    faults, taken = [], dict[str, str]()
    for name in names:
        mine = node_name(name)
        if not mine:
            faults.append(f"{what} {quoted(name)} has no letter or digit to name a node by")
        elif mine in taken:
            faults.append(
                f"{what} {quoted(name)} and {what} {quoted(taken[mine])} would both be node {mine}"
            )
        taken[mine] = name
    return faults


def whole_number(value: Any, least: int, most: int) -> bool:
    """Whether a value is a whole number in this range; true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
