"""Sketches and log-probs by another model for the same tokens."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from benchmarks.soundness import models
from benchmarks.soundness.forgeries.base import Forgery, Material, OtherModel
from benchmarks.soundness.provers import prove
from benchmarks.soundness.world import World

INT4: Final = "quantised to int4"
INT8: Final = "quantised to int8"
LAST_STEP: Final = "one AdamW step, rate 1.5e-4 (its trainer's last)"


def other_models(world: World) -> list[OtherModel]:
    """Other weights a miner might prove with."""
    model, lesson = world.loaded.model, models.Lesson.of(world.loaded.tokenizer)

    def step(rate: float, *, adam: bool = True) -> Any:
        return models.fine_tuned(model, lesson, rate=rate, adam=adam)

    return [
        OtherModel("another seed", models.untrained(model)),
        OtherModel("smaller: 2 of 4 layers", models.without_layers(model, 2)),
        OtherModel("last layer left out", models.without_layers(model, 3)),
        OtherModel(INT4, models.quantised(model, 4)),
        OtherModel(INT8, models.quantised(model, 8)),
        OtherModel("50 % of weights pruned", models.pruned(model, 0.5)),
        OtherModel("10 % of weights pruned", models.pruned(model, 0.1)),
        OtherModel("one AdamW step, rate 1e-3", step(1e-3)),
        OtherModel(LAST_STEP, step(1.5e-4)),
        OtherModel("one AdamW step, rate 1e-5", step(1e-5)),
        OtherModel("one AdamW step, rate 1e-6", step(1e-6), SMALL_STEP),
        OtherModel("one SGD step, rate 1e-2", step(1e-2, adam=False), SMALL_STEP),
        OtherModel("bfloat16 arithmetic instead of float32", world.model_bfloat16),
    ]


SMALL_STEP: Final = (
    "so small a step leaves the confident rollouts as they were; a file of 64 shows it"
)


def weights(m: Material) -> Iterator[Forgery]:
    for other in m.others:
        sketches, logprobs = prove(m.world, other.model, m.rollouts)
        claims = m.honest.changed(sketches=sketches, logprobs=logprobs)
        yield Forgery(other.name, "weights", claims, m.everywhere, True, other.note)
        if other.name in (INT8, LAST_STEP):
            mixed = tuple(
                np.concatenate([true[:prompt], made[prompt:]])
                for true, made, prompt in zip(
                    m.honest.sketches, sketches, m.rollouts.prompt_lengths, strict=True
                )
            )
            yield Forgery(
                f"{other.name}, the prompt's sketches by the true model",
                "weights",
                claims.changed(sketches=mixed),
                m.everywhere,
                True,
            )
        if other.name == INT4:
            yield Forgery(
                "of another model (int4)",
                "log-probs",
                m.honest.changed(logprobs=logprobs),
                m.everywhere,
                True,
            )
