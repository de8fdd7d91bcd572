"""TOPLOC on the same hidden states: what its proofs tell apart, beside the sketches.

TOPLOC commits to the 128 largest activations of every 32 tokens as a polynomial in bfloat16, 258
bytes, where the network's sketch is one number a token. Log-probs, tokens and rewards are no part
of it.
"""

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.soundness.claims import ROWS
from benchmarks.soundness.forgeries.base import OtherModel, sibling
from benchmarks.soundness.world import Rollouts, World, with_eager_attention
from windrow.engine.forward import CausalModel, in_sub_batches, last_hidden_states
from windrow.networks.grail.constants import PROOF_BATCH

MINERS: Final = 4
TOKENS: Final = 32
TOP_K: Final = 128
MARGIN: Final = 4.0
LEAST: Final = np.array([1.0, 1.0, 1.0])
"""No limit is below one exponent, or one unit of the mantissa."""


@dataclass(frozen=True)
class Comparison:
    """What TOPLOC makes of n rollouts.

    limits: by number format, of (exponents that differ, mean and median difference of mantissas).
    honest, forged: accepted rollouts by name and limits.
    """

    trials: int
    limits: Mapping[str, NDArray[np.float64]]
    honest: Mapping[str, Mapping[str, int]]
    forged: Mapping[str, Mapping[str, int]]


def installed() -> bool:
    """Whether TOPLOC is here. Raises ImportError where it was compiled for another torch."""
    if importlib.util.find_spec("toploc") is None:
        return False
    importlib.import_module("toploc")
    return True


def compare(world: World, rollouts: Rollouts, others: Sequence[OtherModel]) -> Comparison | None:
    """Build and verify TOPLOC proofs for the first files; None where it is not installed."""
    if not installed():
        return None
    part = _first(rollouts, MINERS * ROWS)
    true = _states(world.loaded.model, part)
    half = _states(world.model_bfloat16, part)
    drift = {
        "float32 eager attention, float32 verifier": (
            _states(with_eager_attention(world.loaded.model), part),
            true,
        ),
        "bfloat16 eager attention, bfloat16 verifier": (
            _states(with_eager_attention(world.model_bfloat16), part),
            half,
        ),
        "float32 prover, bfloat16 verifier": (true, half),
    }
    errors = {name: _errors(claimed, own) for name, (claimed, own) in drift.items()}
    limits = {
        dtype: np.maximum(
            MARGIN
            * np.max(
                [e for name, e in errors.items() if name.endswith(f"{dtype} verifier")], axis=(0, 1)
            ),
            LEAST,
        )
        for dtype in ("float32", "bfloat16")
    }

    def accepted(found: NDArray[np.float64]) -> dict[str, int]:
        return {dtype: int((found <= limit).all(1).sum()) for dtype, limit in limits.items()}

    forged = {name: accepted(_errors(states, true)) for name, states in _forged(others, part, true)}
    return Comparison(
        trials=len(part),
        limits=limits,
        honest={name: accepted(found) for name, found in errors.items()},
        forged=forged,
    )


def _forged(
    others: Sequence[OtherModel], rollouts: Rollouts, true: Sequence[Tensor]
) -> Iterator[tuple[str, list[Tensor]]]:
    """Hidden states a forger commits to, under the names of the catalogue."""
    count = len(true)

    def each(make: Callable[[int, Tensor], Tensor]) -> list[Tensor]:
        return [make(at, states) for at, states in enumerate(true)]

    torch.manual_seed(0)
    yield "all zero", each(lambda _i, own: torch.zeros_like(own))
    yield "random, as large as true ones", each(lambda _i, own: own.std() * torch.randn_like(own))
    yield "of another prompt", each(lambda i, own: _resized(true[(i + ROWS) % count], len(own)))
    yield (
        "of another completion of the prompt",
        each(lambda i, own: _resized(true[sibling(rollouts, i)], len(own))),
    )
    yield "reversed", each(lambda _i, own: own.flip(0))
    yield "shifted by one token", each(lambda _i, own: own.roll(1, 0))
    yield (
        "every other one zero",
        each(lambda _i, own: own * (torch.arange(len(own)) % 2 == 0)[:, None]),
    )
    yield (
        "16 in a row zero",
        each(lambda _i, own: own * (torch.arange(len(own)) // 16 != 1)[:, None]),
    )
    for other in others:
        yield other.name, _states(other.model, rollouts)


def _errors(claimed: Sequence[Tensor], own: Sequence[Tensor]) -> NDArray[np.float64]:
    """float64 [n, 3]: worst of a rollout's proofs. Pairs of equal tensors are compared once."""
    known: dict[tuple[int, int], tuple[float, float, float]] = {}
    found = []
    for states, truth in zip(claimed, own, strict=True):
        pair = id(states), id(truth)
        if pair not in known:
            known[pair] = _compare(states, truth)
        found.append(known[pair])
    return np.array(found)


def _compare(claimed: Tensor, own: Tensor) -> tuple[float, float, float]:
    from toploc import build_proofs_bytes, verify_proofs_bytes

    setting: dict[str, Any] = {
        "decode_batching_size": TOKENS,
        "topk": TOP_K,
        "skip_prefill": True,
    }
    proofs = build_proofs_bytes(list(claimed.bfloat16()), **setting)
    results = verify_proofs_bytes(list(own.bfloat16()), proofs, **setting)
    return (
        max(float(r.exp_mismatches) for r in results),
        max(float(r.mant_err_mean) for r in results),
        max(float(r.mant_err_median) for r in results),
    )


@torch.inference_mode()
def _states(model: Any, rollouts: Rollouts) -> list[Tensor]:
    """Last hidden states [C, d] of every completion; equal sequences share one tensor."""
    causal = CausalModel.of(model)
    distinct = {s.tobytes(): s for s in rollouts.sequences}
    sequences = list(distinct.values())
    states = in_sub_batches(
        len(sequences), PROOF_BATCH, lambda a, b: last_hidden_states(causal, sequences[a:b])
    )
    prompts = {
        s.tobytes(): p for s, p in zip(rollouts.sequences, rollouts.prompt_lengths, strict=True)
    }
    by_tokens = {
        key: found[prompts[key] :].clone() for key, found in zip(distinct, states, strict=True)
    }
    return [by_tokens[sequence.tobytes()] for sequence in rollouts.sequences]


def _resized(states: Tensor, length: int) -> Tensor:
    return states[torch.arange(length) % len(states)]


def _first(rollouts: Rollouts, count: int) -> Rollouts:
    return Rollouts(**{n: getattr(rollouts, n)[:count] for n in rollouts.__annotations__})
