r"""MATH: competition mathematics answered in LaTeX (grail-protocol §12.4)."""

import re
from collections.abc import Callable, Sequence

from windrow.environments.evaluation import Evaluation
from windrow.environments.parsing import parse_completion
from windrow.environments.splits import check_filled, check_split, held_out, stratified
from windrow.environments.tasks import DatasetSplit, Row, Task, TaskSource, text_column

ENV_ID = "math"
DATASET = "EleutherAI/hendrycks_math"
SPLITS = ("train", "val", "test")
SUBSETS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)
VALIDATION_ROWS = 500
LONGEST_FORMULA = 1000
"""Characters; anything longer is compared as text and as a number only."""
BEYOND = (
    f"the answers can only be compared by algebra, which Windrow does for {LONGEST_FORMULA} "
    "characters and within its limits of time and memory; the network has no such limits"
)

BOX = "\\boxed{"
FLOAT_TOLERANCE = 1e-6

Algebra = Callable[[Sequence[tuple[str, str]]], list[bool | None]]
"""Decides for pairs of formulas, away from this process, whether they are the same; None where a
limit of time or memory stopped it."""


def tasks(source: TaskSource, split: object = "train") -> list[Task]:
    """The problems of "train" (less the stratified validation rows), "val" or "test"."""
    name = check_split(split, SPLITS, ENV_ID)
    hub_split = "test" if name == "test" else "train"
    rows = {subset: source.rows(DatasetSplit(DATASET, subset, hub_split)) for subset in SUBSETS}
    sizes = {subset: len(rows[subset]) for subset in SUBSETS}
    total = sum(sizes.values())
    chosen, val = stratified(sizes, 0 if name == "test" else held_out(total, VALIDATION_ROWS))
    if name == "val":
        chosen = val
    check_filled(len(chosen), ENV_ID, name)
    return [task(rows[s][number], name, index) for index, (s, number) in enumerate(chosen)]


def task(row: Row, split: str, index: int) -> Task:
    """The problem of one data set row; a row's own "answer" column, if any, goes before the box."""
    solution = text_column(row, "solution")
    return Task(
        env_id=ENV_ID,
        id=f"{split}_{index}",
        index=index,
        question=text_column(row, "problem"),
        answer=text_column(row, "answer") if "answer" in row else first_boxed(solution),
        solution=solution,
    )


def level(text: str) -> int:
    """The first whole number of a level's text, 0 without one."""
    number = re.search(r"\d+", text)
    return int(number[0]) if number else 0


def first_boxed(solution: str) -> str:
    r"""Content of the first \boxed{}, empty without a closed one."""
    return _boxed_at(solution, solution.find(BOX)) or ""


def last_boxed(solution: str) -> str | None:
    r"""Content of the last \boxed{}, None without a closed one."""
    return _boxed_at(solution, solution.rfind(BOX))


def _boxed_at(text: str, start: int) -> str | None:
    if start < 0:
        return None
    depth = 1
    for position in range(start + len(BOX), len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[start + len(BOX) : position]
    return None


def normalise(answer: str) -> str:
    """LaTeX text without what does not change its meaning."""
    text = re.sub(r"\\[dtc]frac", r"\\frac", answer.strip())
    text = re.sub(r"\\(?:left|right)\b", "", text)
    text = re.sub(r"\\[,!;:]", "", text)
    return re.sub(r"\s+", "", text).lower()


def cheaply_equal(left: str, right: str) -> bool | None:
    """Whether two answers are equal where text and floats decide it, None where algebra must.

    A backslash outside quotes and comments is no Python expression, so that the network's parser
    refuses such a text; most LaTeX is settled by that.
    """
    if not left or not right:
        return False
    left, right = normalise(left), normalise(right)
    if left == right:
        return True
    try:
        return abs(float(left) - float(right)) < FLOAT_TOLERANCE
    except ValueError:
        pass
    if any("\\" in side and not set("'\"#") & set(side) for side in (left, right)):
        return False
    return None


def answers_equal(answers: Sequence[str], gold: str, algebra: Algebra) -> list[bool | None]:
    """Whether each answer equals the gold one; equal questions are asked of algebra once.

    None where only algebra can tell and Windrow's limits stop it.
    """
    cheap = {answer: cheaply_equal(answer, gold) for answer in dict.fromkeys(answers)}
    open_pairs = {a: (normalise(a), normalise(gold)) for a, known in cheap.items() if known is None}
    pairs = [
        pair
        for pair in dict.fromkeys(open_pairs.values())
        if max(map(len, pair)) <= LONGEST_FORMULA
    ]
    solved = dict(zip(pairs, algebra(pairs), strict=True)) if pairs else {}
    return [
        solved.get(open_pairs[answer]) if answer in open_pairs else bool(cheap[answer])
        for answer in answers
    ]


def grade(task: Task, completions: Sequence[str], mode: str, algebra: Algebra) -> list[Evaluation]:
    """Reward (at most 0.805) and success of decoded completions.

    A row without an answer is won by the last box of its solution but never rewarded for it.
    """
    parsed = [parse_completion(completion, mode) for completion in completions]
    gold = task.answer or last_boxed(task.solution) or ""
    successes = answers_equal([p.content for p in parsed], gold, algebra)
    evaluations = []
    for p, success in zip(parsed, successes, strict=True):
        components = {
            "correctness": 1.0 if success and task.answer else 0.0,
            "answer_format": 0.3 if p.has_answer and p.trailing < 50 else 0.0,
            "thinking": 0.5 if p.has_thinking else 0.0,
            "no_trailing": max(0.0, 0.2 - 0.001 * p.trailing) if p.has_answer else 0.0,
        }
        weights = (0.7, 0.15, 0.1, 0.05)
        reward = sum(w * part for w, part in zip(weights, components.values(), strict=True))
        limit = BEYOND if success is None else None
        evaluations.append(Evaluation(reward, bool(success), components, limit=limit))
    return evaluations
