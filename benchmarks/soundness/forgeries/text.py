"""Text that was not sampled, or not as prescribed, with a true proof."""

from collections.abc import Iterator

import numpy as np

from benchmarks.soundness.claims import ROWS
from benchmarks.soundness.forgeries.base import (
    Forgery,
    Material,
    graded,
    groups_of,
    miners_of,
    other_prompt,
)
from windrow.networks.grail.constants import ROLLOUTS_PER_GROUP


def text(m: Material) -> Iterator[Forgery]:
    world, rollouts = m.world, m.rollouts
    miners = miners_of(rollouts)
    tokenizer = world.loaded.tokenizer
    written = []
    for miner, group in groups_of(rollouts):
        answer = world.task(miner, group).answer
        text = (
            "<start_working_out>\n"
            "Let me read the story and count step by step, one change at a time.\n"
            f"The answer is {answer}.\n</end_working_out>\n<SOLUTION> {answer}</SOLUTION>"
        )
        ids = np.array([*tokenizer(text)["input_ids"], world.loaded.eos_token_id], np.int32)
        written += [ids] * ROLLOUTS_PER_GROUP
    yield Forgery(
        "written by a program, right answer, re-scored",
        "text",
        m.reproved(graded(m, written)),
        m.everywhere,
        False,
        "refused here because this model never answers without steps; text as the model writes it "
        "would pass",
    )
    greedy = world.sample(
        miners, policy=world.policy.__class__(**{**vars(world.policy), "top_k": 1}), alike=True
    )
    yield Forgery(
        "greedy instead of sampled",
        "text",
        m.reproved(greedy),
        m.everywhere,
        False,
        "where the model is certain, a sampler draws 16 equal ones too",
    )
    first = [rollouts.completions[at - at % ROLLOUTS_PER_GROUP] for at in range(len(rollouts))]
    yield Forgery(
        "one rollout 16 times in its group",
        "text",
        m.reproved(graded(m, first)),
        np.arange(len(rollouts)) % ROLLOUTS_PER_GROUP > 0,
        False,
        "where the model is certain, a sampler draws 16 equal ones too",
    )
    pasted = [
        rollouts.completions[at - at % ROWS + at % ROLLOUTS_PER_GROUP]
        for at in range(len(rollouts))
    ]
    yield Forgery(
        "replayed under another group's prompt, proved again",
        "text",
        m.reproved(graded(m, pasted)),
        other_prompt(rollouts, [at - at % ROWS for at in range(len(rollouts))]),
        False,
        "an answer that is likely under both prompts could have been sampled for both",
    )
    others = [rollouts.completions[(at + ROWS) % len(rollouts)] for at in range(len(rollouts))]
    yield Forgery(
        "another miner's completions under own prompts, proved again",
        "text",
        m.reproved(graded(m, others)),
        m.everywhere,
        False,
        "an answer that fits the other problem too passes; copy detection compares the miners of a "
        "window",
    )
