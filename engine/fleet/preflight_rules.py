"""Every rule of the guides that a machine can be held against, with what mends it.

A rule that the network itself checks has its verdict; the guides' other rules have none.
"""

from windrow.engine.fleet import (
    preflight_address,
    preflight_gpus,
    preflight_machine,
    preflight_network,
)
from windrow.engine.fleet.checks import NodeCheck
from windrow.engine.fleet.preflight_looked import Looked


def preflight_checks(looked: Looked) -> list[NodeCheck]:
    """Every check that concerns the node, the passed ones too."""
    rules = (
        *preflight_machine.RULES,
        *preflight_address.RULES,
        *preflight_network.RULES,
        *preflight_gpus.RULES,
    )
    return [check for rule in rules for check in rule(looked)]
