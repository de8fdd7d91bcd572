"""GSM8K: school arithmetic with a number as the answer (grail-protocol §12.3)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from windrow.environments.evaluation import Evaluation
from windrow.environments.parsing import ParsedCompletion, parse_completion
from windrow.environments.splits import (
    check_filled,
    check_split,
    held_out,
    train_and_validation,
)
from windrow.environments.tasks import DatasetSplit, Row, Task, TaskSource, text_column

ENV_ID = "gsm8k"
DATASET = "openai/gsm8k"
SPLITS = ("train", "val", "test")
VALIDATION_ROWS = 250

NUMBER = re.compile(r"[-+]?\d+(?:[\.,]\d+)?")
GOLD = re.compile(r"####\s*(.+)")
"""Any white space, line ends too, may stand between the marker and the answer; the answer ends with
its line."""

NUMERIC_ONLY = re.compile(r"^[-+]?[\d.,]+$")


@dataclass(frozen=True)
class NumericAnswer:
    """The number a completion answers with, commas removed; empty when it names none."""

    text: str
    numeric_only: bool


def tasks(source: TaskSource, split: object = "train") -> list[Task]:
    """The problems of "train" (the hub's less its validation rows), "val" or "test"."""
    name = check_split(split, SPLITS, ENV_ID)
    rows = source.rows(DatasetSplit(DATASET, "main", "test" if name == "test" else "train"))
    if name != "test":
        train, val = train_and_validation(len(rows), held_out(len(rows), VALIDATION_ROWS))
        rows = [rows[i] for i in (train if name == "train" else val)]
    check_filled(len(rows), ENV_ID, name)
    return [task(row, name, index) for index, row in enumerate(rows)]


def task(row: Row, split: str, index: int) -> Task:
    """The problem of one data set row."""
    solution = text_column(row, "answer")
    return Task(
        env_id=ENV_ID,
        id=f"{split}_{index}",
        index=index,
        question=text_column(row, "question"),
        answer=gold_answer(solution),
        solution=solution,
    )


def gold_answer(solution: str) -> str:
    """The text after the last "####" that has one, to the end of its line. Commas are kept: such
    golds are never matched, on the network as here. Else the last number, else the last line that
    is not empty."""
    if marked := GOLD.findall(solution):
        return str(marked[-1]).strip()
    if numbers := NUMBER.findall(solution):
        return str(numbers[-1]).replace(",", "")
    lines = [line.strip() for line in solution.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def numeric_answer(parsed: ParsedCompletion) -> NumericAnswer:
    """The first number of the answer's content."""
    number = NUMBER.search(parsed.content)
    return NumericAnswer(
        text=number[0].replace(",", "") if number else "",
        numeric_only=bool(number and NUMERIC_ONLY.match(parsed.content.replace(" ", ""))),
    )


def grade(task: Task, completions: Sequence[str], mode: str) -> list[Evaluation]:
    """Reward (at most 0.735) and success of decoded completions."""
    return [_evaluation(parse_completion(text, mode), task.answer) for text in completions]


def _evaluation(parsed: ParsedCompletion, gold: str) -> Evaluation:
    answer = numeric_answer(parsed)
    correct = _comparable(answer.text) == _comparable(gold)
    strict = parsed.has_answer and answer.numeric_only and parsed.trailing == 0
    components = {
        "correctness": 1.0 if correct else 0.0,
        "strict_format": 0.3 if strict else 0.0,
        "thinking": 0.5 if parsed.has_thinking else 0.0,
        "answer": 0.3 if parsed.has_answer else 0.0,
        "no_trailing": max(0.0, 0.2 - 0.001 * parsed.trailing) if parsed.has_answer else 0.0,
    }
    weights = (0.6, 0.15, 0.1, 0.1, 0.05)
    reward = sum(w * part for w, part in zip(weights, components.values(), strict=True))
    return Evaluation(reward, correct, components)


def _comparable(answer: str) -> str:
    return re.sub(r"[\s.]+$", "", answer.strip().lower())
