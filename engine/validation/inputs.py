"""Everything a verdict depends on besides the file and the weights, so that it can be replayed."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Final

from windrow import WindrowError
from windrow.engine.ports import Environment
from windrow.engine.validation.measures import ForwardSetting
from windrow.engine.validation.proof_scores import Calibration
from windrow.networks.grail.checkpoint import GenerationPolicy

PACKAGES: Final = ("windrow", "torch", "transformers", "tokenizers", "numpy", "pyarrow", "sympy")
"""Whose versions can change a verdict."""

EVALUATION_SECONDS: Final = 120.0
"""Of evaluating one file's completions. The 64 rollouts the network samples take some seconds; each
that runs into the limit of 5 s in every one of three tests takes 15."""


class MalformedReplayInputs(WindrowError):
    """Stored replay inputs cannot be read."""


@dataclass(frozen=True)
class ValidationContext:
    """What a miner's file of one window is held against.

    hotkey: SS58 address of the file's owner. window, block_hash: first block and its hash, `0x`
    included. miner_randomness: R_m as hex, None where it is not known. validator_randomness: R_v.
    drand_round: the round in R_v, None without drand.
    checkpoint_window: of the loaded checkpoint, None where it does not say (§8.0.1).
    weights_hash: XXH3-128 of its weights as hex. vocabulary, max_context: of its model; vocabulary
    None where the configuration does not say. eos_token_id: of its tokenizer.
    calibration: limits of Windrow's own proof check, None for the number format's default.
    every_rollout: check all rows, not only those that the network samples.
    evaluation_seconds: once a file's evaluations took so long, its other rollouts are refused.
    """

    hotkey: str
    window: int
    block_hash: str
    miner_randomness: str | None
    validator_randomness: str
    drand_round: int | None
    checkpoint_window: int | None
    weights_hash: str | None
    vocabulary: int | None
    max_context: int
    eos_token_id: int | None
    policy: GenerationPolicy
    calibration: Calibration | None = None
    every_rollout: bool = False
    evaluation_seconds: float = EVALUATION_SECONDS


@dataclass(frozen=True)
class ReplayInputs:
    """What to run again, and on what, for a stored verdict's bits.

    sampled_groups: whose rollouts the network checks, ascending. forward, sub_batches: how the
    model ran; None and empty without a model. unevaluated: rows that the evaluation budget left
    out, ascending. versions: of PACKAGES, and
    of the Python that graded ("python") where an environment did.
    """

    context: ValidationContext
    sampled_groups: tuple[int, ...]
    forward: ForwardSetting | None
    sub_batches: tuple[int, ...]
    unevaluated: tuple[int, ...]
    versions: Mapping[str, str]

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "ReplayInputs":
        """Raises MalformedReplayInputs."""
        try:
            return cls._from_document(json.loads(text))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise MalformedReplayInputs(
                f"replay inputs cannot be read ({error!r:.120}); they were stored by another "
                "version, validate the file again"
            ) from error

    @classmethod
    def _from_document(cls, document: dict[str, Any]) -> "ReplayInputs":
        context, forward = document["context"], document["forward"]
        calibration = context.pop("calibration")
        policy = GenerationPolicy(**context.pop("policy"))
        return cls(
            context=ValidationContext(
                **context,
                policy=policy,
                calibration=calibration and Calibration(**calibration),
            ),
            sampled_groups=tuple(document["sampled_groups"]),
            forward=forward and ForwardSetting(**forward),
            sub_batches=tuple(document["sub_batches"]),
            unevaluated=tuple(document["unevaluated"]),
            versions=dict(document["versions"]),
        )


def versions_of(environment: Environment | None) -> dict[str, str]:
    """Installed versions of PACKAGES, and of the Python that grades where there is one."""
    versions = {name: version(name) for name in PACKAGES}
    return versions | ({"python": environment.python} if environment else {})
