"""SAT: an assignment that satisfies every clause (grail-validation §12.5).

Grading only. How the network draws an instance from a problem seed is not documented, so no
checkpoint that asks for this environment can be served; a recorded instance can be graded.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from windrow.environments.evaluation import Evaluation
from windrow.environments.parsing import ParsedCompletion, parse_completion


@dataclass(frozen=True)
class Instance:
    """A formula in conjunctive normal form: literals are ±variable, variables count from 1."""

    variables: int
    clauses: tuple[tuple[int, ...], ...]


def difficulty(seed: int) -> float:
    """The difficulty a problem seed asks for, in [0.3, 0.696]."""
    return 0.3 + (seed % 100) / 250


def assignment(parsed: ParsedCompletion, variables: int) -> list[bool]:
    """The answer's bits in order, whatever lies between; variables it leaves out are false.

    Empty without an answer.
    """
    if not parsed.has_answer:
        return []
    values = [bit == "1" for bit in parsed.content if bit in "01"][:variables]
    return values + [False] * (variables - len(values))


def satisfied(instance: Instance, values: Sequence[bool]) -> bool:
    """Whether every clause holds a true literal."""
    return all(
        any(values[abs(literal) - 1] is (literal > 0) for literal in clause)
        for clause in instance.clauses
    )


def grade(instance: Instance, completion: str, mode: str) -> Evaluation:
    """Reward (at most 1.135) and success of one decoded completion.

    Anything after the answer makes it malformed, the end-of-sequence text included.
    """
    parsed = parse_completion(completion, mode)
    complete = sum(character in "01" for character in parsed.content) == instance.variables
    only_bits = re.fullmatch(r"[01\s]+", parsed.content) is not None
    well_formed = only_bits and complete and parsed.trailing == 0
    success = well_formed and satisfied(instance, assignment(parsed, instance.variables))
    components = {
        "correctness": float(success) if well_formed else -0.2,
        "strict_format": 0.3 if well_formed else 0.0,
        "answer": 0.2 if parsed.has_answer else 0.0,
        "bit_count": 0.3 if complete else 0.0,
        "no_trailing": max(0.0, 0.2 - 0.001 * parsed.trailing) if parsed.has_answer else 0.0,
        "only_bits": 0.1 if only_bits else 0.0,
    }
    weights = (1.0, 0.15, 0.1, 0.15, 0.1, 0.05)
    reward = sum(w * part for w, part in zip(weights, components.values(), strict=True))
    return Evaluation(reward, success, components)
