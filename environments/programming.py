"""MBPP and HumanEval: Python functions judged by running tests (grail-protocol §12.5)."""

from collections.abc import Sequence

from windrow.environments.evaluation import Evaluation
from windrow.environments.parsing import ParsedCompletion, parse_completion
from windrow.environments.sandbox import CodeOutcome, Sandbox, TestOutcome
from windrow.environments.splits import check_filled, check_split, extended
from windrow.environments.tasks import (
    DatasetSplit,
    Row,
    Task,
    TaskSource,
    text_column,
    text_list_column,
)

MBPP = "mbpp"
MBPP_DATASET = "google-research-datasets/mbpp"
MBPP_SPLITS = ("train", "validation", "val")
HUMANEVAL = "humaneval"
HUMANEVAL_DATASET = "openai_humaneval"
OUT_OF_MEMORY = (
    "a test ran out of the memory that Windrow's sandbox gives a program; the network has no such "
    "limit"
)


def mbpp_tasks(source: TaskSource, split: object = "train") -> list[Task]:
    """The problems of "train" or "validation" ("val"); each takes its part of the hub's test."""
    name = check_split(split, MBPP_SPLITS, MBPP)
    name = "validation" if name == "val" else name
    rows = list(source.rows(DatasetSplit(MBPP_DATASET, "full", name)))
    test = source.rows(DatasetSplit(MBPP_DATASET, "full", "test"))
    to_train, to_validation = extended(len(test))
    rows += [test[i] for i in (to_train if name == "train" else to_validation)]
    check_filled(len(rows), MBPP, name)
    return [mbpp_task(row, name, index) for index, row in enumerate(rows)]


def mbpp_task(row: Row, split: str, index: int) -> Task:
    """The problem of one MBPP row: its text and the signature to implement."""
    code = text_column(row, "code")
    question = text_column(row, "text")
    if signature := first_signature(code):
        question += f"\n\n{signature}\n    pass"
    return Task(
        env_id=MBPP,
        id=f"{split}_{index}",
        index=index,
        question=question,
        solution=code,
        tests=mbpp_tests(row),
    )


def first_signature(code: str) -> str:
    """The first line that defines a function, stripped; empty without one."""
    lines = (line.strip() for line in code.split("\n"))
    return next((line for line in lines if line.startswith("def ")), "")


def mbpp_tests(row: Row) -> tuple[str, ...]:
    """Each assertion after the row's imports and set-up code."""
    setup = "\n".join(text_list_column(row, "test_imports"))
    if code := row.get("test_setup_code"):
        setup += f"\n{code}"
    prefix = f"{setup}\n" if setup else ""
    return tuple(prefix + assertion for assertion in text_list_column(row, "test_list"))


def humaneval_tasks(source: TaskSource) -> list[Task]:
    """All problems; HumanEval knows no splits."""
    rows = source.rows(DatasetSplit(HUMANEVAL_DATASET, "openai_humaneval", "test"))
    check_filled(len(rows), HUMANEVAL, "test")
    return [humaneval_task(row, index) for index, row in enumerate(rows)]


def humaneval_task(row: Row, index: int) -> Task:
    """The problem of one HumanEval row: a function's head to repeat and complete."""
    return Task(
        env_id=HUMANEVAL,
        id=f"{HUMANEVAL}_{index}",
        index=index,
        question=text_column(row, "prompt"),
        solution=text_column(row, "canonical_solution"),
        tests=humaneval_tests(row),
    )


def humaneval_tests(row: Row) -> tuple[str, ...]:
    """The row's one test: its check function, called on the entry point."""
    test, entry_point = row.get("test"), row.get("entry_point")
    return (f"{test}\ncheck({entry_point})",) if test and entry_point else ()


def grade(task: Task, completions: Sequence[str], mode: str, sandbox: Sandbox) -> list[Evaluation]:
    """Reward (at most 1) and success of decoded completions; equal code runs once.

    Raises SandboxUnavailable or SandboxError.
    """
    parsed = [parse_completion(completion, mode) for completion in completions]
    code = list(dict.fromkeys(p.content for p in parsed if p.content))
    outcomes = dict(zip(code, sandbox.run_tests(code, task.tests), strict=True))
    return [_evaluation(p, outcomes.get(p.content), len(task.tests)) for p in parsed]


def _out_of_memory(test: TestOutcome) -> bool:
    return (test.error or "").startswith("MemoryError")


def _evaluation(parsed: ParsedCompletion, outcome: CodeOutcome | None, total: int) -> Evaluation:
    passed = sum(test.passed for test in outcome.tests) if outcome else 0
    components = {
        "correctness": passed / total if total else 0.0,
        "syntax": 1.0 if outcome and outcome.compiles else 0.0,
        "format": 1.0 if parsed.has_answer and parsed.trailing < 50 else 0.0,
        "thinking": 1.0 if parsed.has_thinking else 0.0,
    }
    weights = (0.7, 0.1, 0.1, 0.1)
    reward = sum(w * part for w, part in zip(weights, components.values(), strict=True))
    return Evaluation(
        reward,
        success=total > 0 and passed == total,
        components=components,
        tests_passed=passed,
        tests_total=total if outcome else 0,
        limit=OUT_OF_MEMORY if outcome and any(map(_out_of_memory, outcome.tests)) else None,
    )
