"""Cards as they are declared, held against those that a machine has."""

import re
from collections.abc import Sequence
from typing import Final

from windrow.engine.fleet.checks import WINDROW, NodeCheck
from windrow.engine.fleet.inventory import Node
from windrow.engine.fleet.stages import NETWORK_OF
from windrow.networks.chutes.gpus import CARDS, card_of

CHECK: Final = "cards"
"""Row of a step that a node's cards should have answered: no verdict where they did not."""
NO_CARD: Final = "no card"


def is_same_card(declared: str, name: str) -> bool:
    """Whether a product name, or another reference, is of the declared card.

    A card of Chutes' table is known by its pattern; another one by the words of its reference,
    all of which the name must have.
    """
    card = card_of(name)
    if declared == name or (card is not None and card.short_ref == declared):
        return True
    if declared in CARDS:
        return False
    return _words(declared) <= _words(name)


def needs_cards(node: Node) -> bool:
    """Whether a processor's answer proves nothing of a node.

    So it is where it declares cards, or a network whose proofs are asked of cards.
    """
    return node.gpu is not None or not set(node.networks).isdisjoint(NETWORK_OF.values())


def cards_check(node: Node, answered: Sequence[str]) -> NodeCheck:
    """Whether the cards that a node needs answered. answered: product names of those that did.

    There is no verdict where they did not: nothing is shown, which is not the same as wrong. The
    reason begins with what a table says, up to its colon.
    """
    needed = max(node.gpu_count, 1)
    right = [name for name in answered if node.gpu is None or is_same_card(node.gpu, name)]
    shown = len(right) >= needed
    reason = ""
    if not shown:
        declared = (
            f"{node.gpu_count} x {node.gpu} declared" if node.gpu else "its networks need one"
        )
        if not answered:
            reason = f"{NO_CARD}: the processor answered in its place, on small sizes; {declared}"
        elif not right:
            kinds = ", ".join(sorted({name or "a card without a name" for name in answered}))[:200]
            reason = f"other card: {declared}, and {kinds} answered"
        else:
            reason = f"{len(right)} of {needed}: the other cards did not answer; {declared}"
    return NodeCheck(
        CHECK,
        WINDROW,
        None,
        True if shown else None,
        measured=float(len(right)),
        needed=float(needed),
        unit="cards",
        reason=reason,
        remedy=""
        if shown
        else "On the node, nvidia-smi -L lists the cards that the driver sees. Fix the driver or "
        "the card, or correct gpu and gpu_count in fleet.yaml",
    )


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", text.lower()))
