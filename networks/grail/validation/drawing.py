"""Whether completions were drawn as the checkpoint's policy says: what proofs do not show.

Log-probs and sketches are as true of a text that was written, copied or chosen as of one that was
sampled. Two things tell: a token that top-k or top-p leaves out is never drawn, and equal
completions come only as often as the model is certain of them.
"""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from windrow.networks.grail.checkpoint import GenerationPolicy
from windrow.networks.grail.validation.verdicts import CheckResult, result

SLACK: Final = 0.5
"""Nats by which another token has to be better to count: a generator in bfloat16 and the proof's
model differ by up to that in a logit."""

SAMPLER_DRIFT: Final[Mapping[str, float]] = MappingProxyType({"float32": 0.05, "bfloat16": 0.5})
"""Nats by which the logits that were sampled from may differ from the verifier's, by its number
format, before honest completions can count as likelier equal than they were."""

CHANCE: Final = 1e-3
"""Share of honest groups, or files, in which completions come equal as often as is refused."""

COPIED: Final = (0.5, 0.95)
"""How often a forger might copy, the evidence being the mean over both."""


def least_kept(policy: GenerationPolicy) -> float:
    """Probability from which on no token is refused: fewer than 1/p others can be as likely."""
    of_count = 0.0 if policy.top_k is None else 1.0 / policy.top_k
    return max(of_count, 1.0 - most_better(policy))


def most_better(policy: GenerationPolicy) -> float:
    """Probability of better tokens beyond which top_p has clearly left a token out; 1 for never."""
    # A logit that is off by SLACK scales the odds by e^SLACK.
    rest = (1.0 - policy.top_p) * math.exp(-SLACK)
    return 1.0 - rest / (policy.top_p + rest)


def check_nucleus(better_count: int, better_mass: float, policy: GenerationPolicy) -> CheckResult:
    """Whether top-k and top-p keep every token of a completion, clearly.

    better_count, better_mass: tokens that are better than one of the completion's by more than
    SLACK, and their probability. measured, threshold: of that mass.
    """
    most = most_better(policy)
    reason = None
    if policy.top_k is not None and better_count >= policy.top_k:
        reason = f"a token was not among the best {policy.top_k}: {better_count} are better"
    elif policy.top_p < 1.0 and better_mass > most:
        reason = "a token was left out by top_p: better ones reach its share without it"
    return result(
        "within_nucleus",
        network_reason=None,
        windrow_reason=reason,
        measured=better_mass,
        threshold=most,
        margin=most - better_mass,
    )


def log_probability(draw_logprobs: NDArray[np.floating], drift: float) -> float:
    """Highest log-probability, in nats, that a sampler with that much drift gave a completion.

    draw_logprobs: [C], among the kept tokens. A logit that moves by s moves a log-prob by no more
    than 2s(1-p).
    """
    drawn = np.asarray(draw_logprobs, np.float64)
    return min(0.0, float(np.sum(drawn - 2.0 * drift * np.expm1(drawn))))


def repeat_evidence(completions: Sequence[bytes], log_probabilities: Sequence[float]) -> float:
    """Log of how much better copying explains a group's completions than drawing does.

    completions: one key each, in order. log_probabilities: of each under the sampler. In honest
    groups the odds are 1 in the mean, whatever the model, so that they reach 1,000 in at most one
    of a thousand (Markov's inequality): each completion is held against what came before it.
    """
    evidence = []
    for copied in COPIED:
        seen: dict[bytes, int] = {}
        total = 0.0
        for at, (key, logprob) in enumerate(zip(completions, log_probabilities, strict=True)):
            if at:
                share = seen.get(key, 0) / at
                copy = math.log(copied * share) - logprob if share else -math.inf
                total += float(np.logaddexp(math.log1p(-copied), copy))
            seen[key] = seen.get(key, 0) + 1
        evidence.append(total)
    return float(np.logaddexp.reduce(evidence)) - math.log(len(COPIED))


def check_repeats(evidence: float) -> CheckResult:
    """Whether equal completions come as a sampler draws them. evidence: `repeat_evidence`.

    For a file the evidence of its groups adds up.
    """
    limit = -math.log(CHANCE)
    return result(
        "repeated_completions",
        network_reason=None,
        windrow_reason=None
        if evidence <= limit
        else "completions are equal far more often than the model draws them so",
        measured=evidence,
        threshold=limit,
        margin=limit - evidence,
    )
