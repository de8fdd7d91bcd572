"""The language-model job: series, workloads, and what of an answer is compared (§5.4, §5.2)."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

SERIES_PROMPTS: Final = 240
WORKLOAD_PROMPTS: Final = 240
MAX_TOKENS: Final = 256
TEMPERATURE: Final = 0.5
TOP_P: Final = 0.8
TIMEOUT_SECONDS: Final = 48

NO_ANSWER: Final = "result does not contain all answers"
OTHER_ANSWER: Final = "results does not match expected answers"


@dataclass(frozen=True)
class Sample:
    """A prompt that was picked of a series."""

    series: str
    prompt: str


@dataclass(frozen=True)
class Workload:
    """Samples that the trusted node answers with one seed, which is also the nodes'."""

    seed: int
    samples: tuple[Sample, ...]


def workloads(
    series: Mapping[str, Sequence[str]],
    chance: random.Random,
    *,
    size: int = WORKLOAD_PROMPTS,
    per_series: int = 1,
    seed: int | None = None,
) -> list[Workload]:
    """Workloads of prompts picked by chance, series in random order (§5.4 step 2).

    A series with no more prompts than are picked of it is passed over, and so are the prompts that
    fill no workload. seed: one for all of them, as the network has it, which whoever has seen one
    workload knows; None draws a fresh one for each.
    """
    order = sorted(series)
    chance.shuffle(order)
    picked = [
        Sample(name, prompt)
        for name in order
        if len(series[name]) > per_series
        for prompt in chance.sample(list(series[name]), per_series)
    ]
    return [
        Workload(
            chance.getrandbits(32) if seed is None else seed, tuple(picked[start : start + size])
        )
        for start in range(0, len(picked) - size + 1, size)
    ]


def network_verify(expected: Mapping[str, str], answers: Mapping[str, str]) -> tuple[bool, str]:
    """Whether the known prompts are answered, word for word; the others are not looked at.

    expected: by prompt the trusted node's answer, of 1 in 240. Returns the reason as well.
    """
    if not expected.keys() <= answers.keys():
        return False, NO_ANSWER
    if any(answers[prompt] != text for prompt, text in expected.items()):
        return False, OTHER_ANSWER
    return True, ""


def strict_verify(expected: Mapping[str, str], answers: Mapping[str, str]) -> tuple[bool, str]:
    """Whether every answer equals the trusted node's; for engines that give equal texts.

    expected: all of the job's prompts.
    """
    if expected.keys() != answers.keys():
        missing, more = expected.keys() - answers.keys(), answers.keys() - expected.keys()
        return False, f"{len(missing)} prompts without an answer, {len(more)} that none asked for"
    wrong = sum(answers[prompt] != text for prompt, text in expected.items())
    return not wrong, f"{wrong} of {len(expected)} answers are not the trusted node's" * bool(wrong)


def job_score(
    finished: bool, seconds: float | None, correct: bool, timeout: float
) -> tuple[float, bool]:
    """Score of a synthetic job and whether it succeeded (§5.2, versions 3 and 4).

    seconds: from sending the job to its result, by the validator's clock.
    """
    done = finished and correct and seconds is not None and 0 < seconds <= timeout
    return (1.0, True) if done else (0.0, False)
