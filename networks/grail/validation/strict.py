"""What the network never asks of a file, and Windrow does (grail-validation §26, §27).

Besides the rules of `submission_checks` that are marked strict: these three look at a file as a
whole, or need its rewards evaluated again.
"""

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from windrow.networks.grail.columns import RolloutColumns, is_null, plain
from windrow.networks.grail.violations import Severity, Violations

MIN_GROUP_DENSITY: Final = 0.5
"""Groups are numbered as their problems are tried, and dropping one leaves a gap. A miner that
picks the easiest of k problems leaves 1/k of the numbers used."""

CHANCE: Final = -20.0
"""Log-prob in nats above which a completion may be sampled twice. At this one, two rollouts of one
problem are equal twice in 10^9."""


def check_group_numbers(groups: pa.Array, found: Violations) -> None:
    """Whether a file's groups are numbered from 0 with few gaps. groups: int64 [n]."""
    numbers = np.unique(plain(groups.drop_null()))
    if not len(numbers):
        return
    span = int(numbers[-1]) + 1  # beyond 64 bits only as a Python integer
    density = len(numbers) / span if numbers[0] >= 0 else 0.0
    if density < MIN_GROUP_DENSITY:
        found.of_file(
            "group_numbers",
            Severity.STRICT,
            "problems were passed over: few of the group numbers up to the highest are used",
            measured=density,
            threshold=MIN_GROUP_DENSITY,
        )


def check_duplicates(rollouts: RolloutColumns, digests: pa.Array, found: Violations) -> None:
    """Completions that an earlier group of the file has too, though hardly any sampler would.

    digests: of the completions [n]. A short and certain completion comes twice by chance, where
    two groups draw the same problem or problems with the same steps.
    """
    codes = plain(pc.dictionary_encode(digests).indices)
    first = np.zeros(int(codes.max(initial=-1)) + 1, np.int64)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    groups = plain(rollouts.column("rollout_group"))
    repeated = (groups != groups[first[codes]]) & ~is_null(digests)
    logprobs = rollouts.completion_logprobs()
    found.rollouts(
        repeated & ~(logprobs > CHANCE),
        "duplicate_completion",
        Severity.STRICT,
        "another group of the file has the same completion, too unlikely to be sampled twice",
        measured=logprobs,
        threshold=CHANCE,
    )


def check_successes(claimed: pa.Array, evaluated: NDArray[np.bool_], found: Violations) -> None:
    """Claimed success flags against evaluated ones, bool [n]; a null claim is a wrong one."""
    found.rollouts(
        is_null(claimed) | (plain(claimed) != evaluated),
        "success_matches",
        Severity.STRICT,
        "the claimed success is not the evaluated one",
    )
