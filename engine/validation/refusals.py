"""What Windrow refuses a file for: one failed check is enough, unless chance can bring it about."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from windrow.networks.grail.validation.gates import soft_cutoff
from windrow.networks.grail.validation.verdicts import SOFT_CHECKS

TOLERATED: Final[Mapping[str, float]] = MappingProxyType(
    {"token_distribution_valid": SOFT_CHECKS["token_distribution_valid"]}
)
"""Statistical checks, and the share of the rollouts looked at from which on they fail a file.

How likely a model finds its own tokens is a matter of chance: an honest rollout may hold a token
of probability 1e-5 or be unsure throughout (grail-validation §8.9). The share is the network's own.
No other check has one. Rewards, success flags, advantages, tokens, prompts, lengths and signatures
follow from the file and its window alone, so an honest miner's are right in every rollout, and the
limits of `sketches_agree` and `logprobs_agree` have the room for honest drift in them already.
"""


def refusals(verdicts: pa.Table) -> pa.Table:
    """The rows, of one file's VERDICT_SCHEMA, for which Windrow refuses the file; none if sound."""
    failed = verdicts.filter(pc.invert(verdicts["windrow_verdict"]))
    for check, share in TOLERATED.items():
        looked_at = pc.sum(pc.equal(verdicts["check"], check)).as_py() or 0
        of_check = pc.equal(failed["check"], check)
        if (pc.sum(of_check).as_py() or 0) < soft_cutoff(share, looked_at):
            failed = failed.filter(pc.invert(of_check))
    return failed
