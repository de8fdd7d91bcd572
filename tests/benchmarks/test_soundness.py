"""The study's own machinery, on one group of the demo's model."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.soundness.claims import Claims
from benchmarks.soundness.forgeries.sketches import chosen_randomness
from benchmarks.soundness.judging import judge, scores_of, within
from benchmarks.soundness.models import quantised
from benchmarks.soundness.provers import (
    Oracle,
    Proofs,
    as_proofs,
    prove,
    prove_plainly,
    prove_while_decoding,
)
from benchmarks.soundness.statistics import lower_bound, upper_bound
from benchmarks.soundness.world import World, with_eager_attention
from windrow.engine.validation.calibration import calibrate
from windrow.engine.validation.proof_scores import CONSERVATIVE
from windrow.networks.grail.constants import ROLLOUTS_PER_GROUP

LIMITS = CONSERVATIVE["float32"]


@pytest.fixture(scope="module")
def world() -> World:
    return World.load()


@pytest.fixture(scope="module")
def oracle(world: World) -> Oracle:
    return Oracle(world, world.loaded.model, [chosen_randomness()])


@pytest.fixture(scope="module")
def honest(world: World, oracle: Oracle) -> Claims:
    rollouts = world.sample([0], groups=[0])
    proofs = as_proofs(rollouts, oracle.own(rollouts, world.policy))
    return Claims(rollouts, *proofs, world.randomness, rollouts.miners)


@pytest.mark.parametrize("prover", [prove_while_decoding, prove_plainly])
def test_honest_rollouts_pass_however_they_are_proved(
    world: World, oracle: Oracle, honest: Claims, prover: Callable[..., Proofs]
) -> None:
    sketches, logprobs = prover(world, world.loaded.model, honest.rollouts)
    decoded = honest.changed(sketches=sketches, logprobs=logprobs)
    judged = judge(decoded, world, oracle)
    assert judged.network.all()
    assert judged.windrow.all()
    assert judged.windrow_files.all()
    assert within(scores_of(decoded, oracle.own(honest.rollouts, world.policy)), LIMITS).all()


@pytest.mark.parametrize("chosen_beacon", [False, True])
def test_the_network_accepts_zero_sketches_and_windrow_does_not(
    world: World, oracle: Oracle, honest: Claims, chosen_beacon: bool
) -> None:
    forged = honest.changed(sketches=tuple(np.zeros_like(s) for s in honest.sketches))
    if chosen_beacon:
        forged = replace(forged, randomness=chosen_randomness())
    judged = judge(forged, world, oracle)
    assert judged.network.all()
    assert judged.windrow.any() != chosen_beacon  # a beacon that is not the window's is enough
    assert not within(scores_of(forged, oracle.own(honest.rollouts, world.policy)), LIMITS).any()


def test_rounded_weights_are_refused_even_with_the_true_sketches_of_the_prompt(
    world: World, oracle: Oracle, honest: Claims
) -> None:
    limits = calibrate(
        world.loaded.model, honest.rollouts.sequences, honest.rollouts.prompt_lengths
    )
    rounded = quantised(world.loaded.model, 8)
    sketches, logprobs = prove(world, rounded, honest.rollouts)
    mixed = tuple(
        np.concatenate([true[:prompt], own[prompt:]])
        for true, own, prompt in zip(
            honest.sketches, sketches, honest.rollouts.prompt_lengths, strict=True
        )
    )
    forged = honest.changed(sketches=mixed, logprobs=logprobs)
    own = oracle.own(honest.rollouts, world.policy)
    assert not within(scores_of(forged, own), limits).any()
    eager = honest.changed(
        **dict(
            zip(
                ("sketches", "logprobs"),
                prove(world, with_eager_attention(world.loaded.model), honest.rollouts),
                strict=True,
            )
        )
    )
    assert within(scores_of(eager, own), limits).all()


def test_copies_of_one_rollout_are_refused_and_honest_groups_are_not(
    world: World, oracle: Oracle, honest: Claims
) -> None:
    own = oracle.own(honest.rollouts, world.policy)
    rarest = honest.rollouts.completions[int(np.argmin([m.logprobs.sum() for m in own]))]
    copies = world.rollouts([0], [0], [rarest] * ROLLOUTS_PER_GROUP)
    proofs = as_proofs(copies, oracle.own(copies, world.policy))
    forged = judge(Claims(copies, *proofs, world.randomness, copies.miners), world, oracle)
    assert forged.network.all()
    assert not forged.windrow.any()
    assert set(forged.windrow_refusals) == {"repeated_completions"}
    assert judge(honest, world, oracle).windrow.all()


def test_bounds_are_clopper_pearson() -> None:
    assert upper_bound(0, 3072) == pytest.approx(1 - 0.05 ** (1 / 3072))
    assert upper_bound(5, 100) == pytest.approx(0.10225, abs=1e-5)
    assert lower_bound(5, 100) == pytest.approx(0.01991, abs=1e-5)
    assert (upper_bound(7, 7), lower_bound(0, 7)) == (1.0, 0.0)
