"""Grail's environments: which task a seed selects, and its prompt (grail-protocol §12)."""

import json
from collections.abc import Iterator, Mapping
from functools import cache, partial
from pathlib import Path

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from windrow.environments import competition_math, gsm8k, programming, prompts, splits
from windrow.environments.tasks import Row

from ._environment_rows import SELECT, Data, select, stand_in_rows
from .framework import Case, VectorFile, handles


@handles("grail/task_selection.json", uses=["grail/datasets.json"])
def task_selection(file: VectorFile) -> Iterator[Case]:
    data = file.load_json()
    rows = json.loads((file.folder / "datasets.json").read_bytes())
    for name, size in data["dataset_sizes"].items():
        yield Case(f"size-{name}", partial(check_size, rows[name], size))
    for case in data["cases"]:
        for name in sorted(case.keys() - {"seed"}):
            yield Case(f"seed-{case['seed']}-{name}", partial(check_selection, rows, name, case))
    yield Case("split-gsm8k", partial(check_gsm8k_split, data["splits"]["gsm8k"]))
    yield Case("split-math", partial(check_math_split, data["splits"]["math"]))
    yield Case("split-mbpp", partial(check_mbpp_split, data["splits"]["mbpp"]))
    for index, case in enumerate(data["mbpp_signature_cases"]):
        yield Case(f"signature-{index}", partial(check_signature, case))
    for index, case in enumerate(data["mbpp_question_cases"]):
        yield Case(f"question-{index}", partial(check_question, case))
    for index, case in enumerate(data["math_level_cases"]):
        yield Case(f"level-{index}", partial(check_level, case))


def check_size(rows: list[Row], size: int) -> None:
    assert len(rows) == size


def check_selection(datasets: Mapping[str, list[Row]], name: str, case: Data) -> None:
    env_id, _, wanted_level = name.partition("_level")
    rows = datasets[env_id]
    if wanted_level:
        numbers = [i for i, row in enumerate(rows) if row["level"] == int(wanted_level)]
        assert numbers[SELECT[env_id](case["seed"], len(numbers))] == case[name]["index"]
        return
    task = select(env_id, rows, "train", case["seed"])
    assert {"index": task.index, "id": task.id} == case[name]


def check_gsm8k_split(case: Data) -> None:
    train, val = splits.train_and_validation(case["hf_train_rows"], gsm8k.VALIDATION_ROWS)
    assert val == case["val_row_indices_in_order"]
    assert len(train) == case["train_rows"]
    assert train[:10] == case["train_first10"]


def check_math_split(case: Data) -> None:
    assert list(competition_math.SUBSETS) == case["subset_order"]
    sizes = {name: case["subset_rows"][name] for name in case["subset_order"]}
    train, val = splits.stratified(sizes, competition_math.VALIDATION_ROWS)
    assert [f"{name}:{row}" for name, row in val] == case["val_rows_in_order"]
    assert len(train) == case["train_rows"]


def check_mbpp_split(case: Data) -> None:
    to_train, to_validation = splits.extended(case["rows"]["test"])
    assert [f"test:{row}" for row in to_train] == case["train_tail_from_test"]
    assert [f"test:{row}" for row in to_validation] == case["validation_tail_from_test"]
    assert case["rows"]["train"] + len(to_train) == case["train_rows"]
    assert case["rows"]["validation"] + len(to_validation) == case["validation_rows"]


def check_signature(case: Data) -> None:
    assert programming.first_signature(case["code"]) == case["signature"]


def check_question(case: Data) -> None:
    metadata = case["metadata"]
    task = programming.mbpp_task(case["row"], metadata["split"], metadata["index"])
    assert task.question == case["question"]
    assert len(task.tests) == metadata["num_tests"]


def check_level(case: Data) -> None:
    assert competition_math.level(case["level"]) == case["parsed"]


@cache
def tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_file(str(folder / "tokenizer.json")),
        chat_template=(folder / "chat_template.jinja").read_text(encoding="utf-8"),
    )


TOKENIZERS = {"instructed": "model", "native": "tokenizer_native"}


@handles(
    "grail/prompts.json",
    uses=[
        "grail/datasets.json",
        "grail/model/tokenizer*.json",
        "grail/model/chat_template.jinja",
        "grail/tokenizer_native/*",
    ],
)
def prompt_rendering(file: VectorFile) -> Iterator[Case]:
    data = file.load_json()
    rows = json.loads((file.folder / "datasets.json").read_bytes())
    yield Case("wire", partial(check_wire, data["wire"]))
    for index, case in enumerate(data["chat_cases"]):
        yield Case(f"chat-{index}", partial(check_chat, file, case))
    for index, case in enumerate(data["cases"]):
        name = f"{case['mode']}-{case['env_id']}-{index}"
        yield Case(name, partial(check_prompt, file, rows, case))


def check_wire(wire: Data) -> None:
    assert {
        "instructed": wire["instructed_system_prompt"],
        "native": wire["native_system_prompt"],
    } == prompts.SYSTEM_PROMPTS
    assert wire["instructed_template"] == prompts.INSTRUCTED_TEMPLATE


def check_chat(file: VectorFile, case: Data) -> None:
    text = prompts.render(
        tokenizer(file.folder / TOKENIZERS[case["mode"]]),
        case["messages"],
        case["mode"],
        add_generation_prompt=case["add_generation_prompt"],
    )
    assert text == case["text"]


def check_prompt(file: VectorFile, datasets: Mapping[str, list[Row]], case: Data) -> None:
    mode, env_id = case["mode"], case["env_id"]
    split = (case["env_params"] or {}).get("split", "train")
    task = select(env_id, stand_in_rows(datasets, env_id, split), split, case["seed"])
    chat = tokenizer(file.folder / TOKENIZERS[mode])
    messages = [{"role": "user", "content": task.question}]
    assert prompts.render(chat, messages, mode) == case["prompt_text"]
    assert prompts.prompt_ids(chat, task.question, mode).tolist() == case["prompt_ids"]
