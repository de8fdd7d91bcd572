"""How likely a validator's sample of a file meets what is wrong with it (grail-validation §6, §9).

Groups are drawn without regard to their content, so that over R_v every sample of a file is equally
likely, and counting those that pass is exact.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

from windrow.networks.grail.constants import ROLLOUTS_PER_GROUP
from windrow.networks.grail.sampling import CHECK_ALL_ROWS, group_sample_size
from windrow.networks.grail.validation.gates import soft_cutoff
from windrow.networks.grail.validation.verdicts import SOFT_CHECKS


@dataclass(frozen=True)
class GroupFaults:
    """What the network finds wrong with one group, if it looks.

    fatal: whether anything fails the file alone. soft: rollouts that fail each of SOFT_CHECKS, in
    its order.
    """

    fatal: bool
    soft: tuple[int, ...]


def chance_of_refusal(groups: Sequence[GroupFaults]) -> float:
    """Probability over R_v that the sampled groups fail the file, in [0, 1].

    groups: of all groups of the file, each of 16 rollouts; others fail before any is drawn (§5).
    """
    if not groups:
        return 0.0
    everything = len(groups) * ROLLOUTS_PER_GROUP <= CHECK_ALL_ROWS
    drawn = len(groups) if everything else group_sample_size(len(groups))
    planned = drawn * ROLLOUTS_PER_GROUP
    cutoffs = [soft_cutoff(share, planned) for share in SOFT_CHECKS.values()]
    # Samples by size and soft failures so far, of which no gate closes yet.
    passing = Counter({(0, *(0 for _ in cutoffs)): 1})
    for soft, members in Counter(group.soft for group in groups if not group.fatal).items():
        extended: Counter[tuple[int, ...]] = Counter()
        for (taken, *failures), ways in passing.items():
            for more in range(min(members, drawn - taken) + 1):
                total = [a + more * b for a, b in zip(failures, soft, strict=True)]
                if all(count < cutoff for count, cutoff in zip(total, cutoffs, strict=True)):
                    extended[(taken + more, *total)] += ways * comb(members, more)
        passing = extended
    passed = sum(ways for (taken, *_), ways in passing.items() if taken == drawn)
    return 1.0 - passed / comb(len(groups), drawn)
