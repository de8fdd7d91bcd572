"""Grail's environments: what a completion earns (grail-protocol §12, grail-validation §12)."""

from collections.abc import Iterator, Mapping
from functools import cache, partial

from windrow.environments import competition_math, gsm8k, programming, sat
from windrow.environments.evaluation import Evaluation
from windrow.environments.parsing import parse_completion
from windrow.environments.sandbox import Sandbox, worker
from windrow.environments.tasks import Row, Task

from ._environment_rows import MAKE_TASK, Data, select
from .framework import Case, VectorFile, assert_close, handles


@cache
def sandbox() -> Sandbox:
    return Sandbox(2, any_python=True)


def check_reward(actual: Evaluation, case: Data) -> None:
    assert_close([actual.reward], [case["reward"]])
    assert actual.success is case["success"]
    if "components" in case:
        assert_close(list(actual.components.values()), list(case["components"].values()))


def grade_one(task: Task, text: str, mode: str) -> Evaluation:
    match task.env_id:
        case gsm8k.ENV_ID:
            return gsm8k.grade(task, [text], mode)[0]
        case competition_math.ENV_ID:
            return competition_math.grade(task, [text], mode, sandbox().algebraically_equal)[0]
        case _:
            return programming.grade(task, [text], mode, sandbox())[0]


@handles("grail/rewards_gsm8k.json")
def gsm8k_rewards(file: VectorFile) -> Iterator[Case]:
    for index, case in enumerate(file.load_json()["cases"]):
        yield Case(f"{case['name']}-{index}", partial(check_gsm8k, case))


def check_gsm8k(case: Data) -> None:
    task = gsm8k.task({"question": "", "answer": case["gold_raw"]}, "train", 0)
    parsed = parse_completion(case["completion"], case["mode"])
    answer = gsm8k.numeric_answer(parsed)
    assert {
        "answer_text": answer.text,
        "has_thinking": parsed.has_thinking,
        "has_answer": parsed.has_answer,
        "trailing_after_answer": parsed.trailing,
        "is_numeric_only": answer.numeric_only,
    } == case["parsed"]
    assert task.answer == case.get("gold_answer", task.answer)
    check_reward(grade_one(task, case["completion"], case["mode"]), case)


@handles("grail/rewards_math.json")
def math_rewards(file: VectorFile) -> Iterator[Case]:
    data = file.load_json()
    for index, case in enumerate(data["equality_cases"]):
        yield Case(f"equality-{index}", partial(check_equality, case))
    for index, case in enumerate(data["boxed_cases"]):
        yield Case(f"boxed-{index}", partial(check_boxed, case))
    for index, case in enumerate(data["cases"]):
        yield Case(f"{case['name']}-{index}", partial(check_math, case))


def check_equality(case: Data) -> None:
    assert competition_math.normalise(case["predicted"]) == case["norm_predicted"]
    assert competition_math.normalise(case["gold"]) == case["norm_gold"]
    algebra = sandbox().algebraically_equal
    verdict = competition_math.answers_equal([case["predicted"]], case["gold"], algebra)
    assert verdict == [case["equal"]]


def check_boxed(case: Data) -> None:
    assert competition_math.first_boxed(case["text"]) == case["dataset_loader_first_box"]
    assert competition_math.last_boxed(case["text"]) == case["env_fallback_last_box"]


def check_math(case: Data) -> None:
    row = {"problem": "", "solution": "", "answer": case["gold"]}
    parsed = parse_completion(case["completion"], case["mode"])
    assert {
        "answer_text": parsed.content,
        "has_thinking": parsed.has_thinking,
        "has_answer": parsed.has_answer,
        "trailing_after_answer": parsed.trailing,
    } == case["parsed"]
    task = competition_math.task(row, "train", 0)
    check_reward(grade_one(task, case["completion"], case["mode"]), case)


@handles("grail/rewards_fuzz.json")
def fuzzed_rewards(file: VectorFile) -> Iterator[Case]:
    checks = {"gsm8k": check_gsm8k, "math": check_math, "code_parse": check_code_parsing}
    for index, case in enumerate(file.load_json()["cases"]):
        yield Case(f"{case['env']}-{index}", partial(checks[case["env"]], case))


def check_code_parsing(case: Data) -> None:
    parsed = parse_completion(case["completion"], case["mode"])
    outcome = sandbox().run_tests([parsed.content], [])[0]
    assert {
        "code": parsed.content,
        "has_thinking": parsed.has_thinking,
        "has_solution": parsed.has_answer,
        "trailing_after_solution": parsed.trailing,
        "syntax_valid": outcome.compiles and parsed.content != "",
    } == case["parsed"]


@handles("grail/rewards_code.json")
def code_rewards(file: VectorFile) -> Iterator[Case]:
    data = file.load_json()
    yield Case("builtins", partial(check_builtins, data["pool_builtins_allow_list"]))
    yield Case("imports", partial(check_imports, data["pool_import_allow_list"]))
    for index, case in enumerate(data["prepare_cases"]):
        yield Case(f"prepare-{index}", partial(check_prepare, case))
    for index, case in enumerate(data["cases"]):
        yield Case(f"{case['env']}-{case['name']}-{index}", partial(check_code, case))


def check_builtins(names: list[str]) -> None:
    assert sorted([*worker.BUILTINS, "__import__"]) == sorted(names)


def check_imports(names: list[str]) -> None:
    assert sorted(worker.MODULES) == sorted(names)


def check_prepare(case: Data) -> None:
    payload = case["payload"]
    prepare = programming.humaneval_tests if "test" in payload else programming.mbpp_tests
    assert list(prepare(payload)) == case["tests"]


def check_code(case: Data) -> None:
    row = {"prompt": "", "canonical_solution": "", **case["task"]}
    task = MAKE_TASK[case["env"]](row, "train", 0)
    assert list(task.tests) == case["test_programs_suffix"]
    actual = grade_one(task, case["completion"], case["mode"])
    check_reward(actual, case)
    assert actual.components["syntax"] == float(case["syntax_valid"])
    assert (actual.tests_passed, actual.tests_total) == (case["tests_passed"], case["tests_total"])


@handles("grail-validation/environment_eval.json")
def environment_evaluation(file: VectorFile) -> Iterator[Case]:
    data = file.load_json()
    rows = {name.removesuffix("_train"): rows for name, rows in data["datasets"].items()}
    for case in data["seed_to_index"]:
        yield Case(f"seed-{case['seed']}", partial(check_seed, rows, case))
    for case in data["sandbox_difference"]:
        yield Case(f"sandbox-{case['name']}", partial(check_sandbox, case))
    for index, case in enumerate(data["cases"]):
        check = check_sat if case["env_id"] == "sat" else partial(check_evaluation, rows)
        yield Case(f"{case['env_id']}-{index}", partial(check, case))


def check_seed(datasets: Mapping[str, list[Row]], case: Data) -> None:
    for env_id in ("gsm8k", "math", "mbpp"):
        assert len(datasets[env_id]) == case[f"{env_id}_size"]
        index = select(env_id, datasets[env_id], "train", case["seed"]).index
        assert index == case[f"{env_id}_index"]
    assert_close([sat.difficulty(case["seed"])], [case["sat_difficulty"]])


def check_sandbox(case: Data) -> None:
    """The network's normal sandbox; its second one gives other verdicts and is not imitated."""
    outcome = sandbox().run_tests([case["code"]], case["tests"])[0]
    passed = sum(test.passed for test in outcome.tests)
    assert (passed, len(outcome.tests)) == (case["pool"]["passed"], case["pool"]["total"])


def check_evaluation(datasets: Mapping[str, list[Row]], case: Data) -> None:
    env_id, expected = case["env_id"], case["expected"]
    task = select(env_id, datasets[env_id], "train", case["seed"])
    actual = grade_one(task, case["completion_text"], case["thinking_mode"])
    check_reward(actual, expected)
    if "gold_answer" in expected:
        gold = task.answer or competition_math.last_boxed(task.solution)
        assert (gold, answer_of(case)) == (expected["gold_answer"], expected["pred_answer"])
    if "tests_passed" in expected:
        assert actual.tests_passed == expected["tests_passed"]
        assert actual.tests_total == expected["tests_total"]
        assert actual.components["syntax"] == float(expected["syntax_valid"])


def answer_of(case: Data) -> str:
    """What a completion answers, empty where nothing."""
    parsed = parse_completion(case["completion_text"], case["thinking_mode"])
    if case["env_id"] == gsm8k.ENV_ID:
        return gsm8k.numeric_answer(parsed).text
    return parsed.content


def check_sat(case: Data) -> None:
    clauses = tuple(tuple(clause) for clause in case["context"]["clauses"])
    instance = sat.Instance(case["context"]["num_vars"], clauses)
    mode, expected = case["thinking_mode"], case["expected"]
    check_reward(sat.grade(instance, case["completion_text"], mode), expected)
    parsed = parse_completion(case["completion_text"], mode)
    assert sat.assignment(parsed, instance.variables) == expected["assignment"]
