"""Environments of the verdict vectors: stand-in data sets, and SAT instances as recorded."""

import json
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from windrow.environments import sat
from windrow.environments.environment import TaskEnvironment
from windrow.environments.evaluation import Evaluation
from windrow.environments.tasks import Row, Task

from ._environment_rows import MAKE_TASK, SELECT, stand_in_rows
from .grail_rewards import grade_one


def tokenizer_of(folder: Path) -> PreTrainedTokenizerFast:
    config = json.loads((folder / "tokenizer_config.json").read_bytes())
    return PreTrainedTokenizerFast(
        eos_token=config["eos_token"],
        tokenizer_object=Tokenizer.from_file(str(folder / "tokenizer.json")),
        chat_template=(folder / "chat_template.jinja").read_text(encoding="utf-8"),
        clean_up_tokenization_spaces=False,
    )


def stand_in_environment(
    datasets: Mapping[str, list[Row]], env_id: str, split: str, mode: str, model: Path
) -> TaskEnvironment:
    """The environment over the vectors' synthetic rows."""
    rows = stand_in_rows(datasets, env_id, split)
    return TaskEnvironment(
        tasks=[MAKE_TASK[env_id](row, split, index) for index, row in enumerate(rows)],
        select=SELECT[env_id],
        grade=lambda task, texts: [grade_one(task, text, mode) for text in texts],
        thinking_mode=mode,
        tokenizer=tokenizer_of(model),
    )


@dataclass(frozen=True)
class RecordedSat:
    """SAT prompts as valid files hold them: how the network draws an instance is not documented.

    prompts: canonical ids by problem seed.
    """

    prompts: Mapping[int, NDArray[np.int32]]
    tokenizer: PreTrainedTokenizerFast
    mode: str
    python: str = platform.python_version()

    def task(self, seed: int) -> Task:
        text = self.tokenizer.decode(self.prompts[seed].tolist())
        return Task("sat", f"seed_{seed}", seed, text)

    def prompt(self, task: Task) -> NDArray[np.int32]:
        return self.prompts[task.index]

    def evaluate(self, task: Task, completions: Sequence[NDArray[np.int32]]) -> list[Evaluation]:
        instance = sat_instance(task.question)
        texts = [self.tokenizer.decode(tokens.tolist()) for tokens in completions]
        return [sat.grade(instance, text, self.mode) for text in texts]


def sat_instance(prompt: str) -> sat.Instance:
    variables = re.search(r"^Variables: (\d+)$", prompt, re.MULTILINE)
    clauses = re.findall(r"^  \((.*)\)$", prompt, re.MULTILINE)
    assert variables
    return sat.Instance(
        int(variables[1]),
        tuple(
            tuple(-int(v) if negated else int(v) for negated, v in literals)
            for literals in (re.findall(r"(NOT )?x(\d+)", clause) for clause in clauses)
        ),
    )


def group_prompts(rollouts: pa.Table, rows: Sequence[int]) -> dict[int, NDArray[np.int32]]:
    """Prompt ids of the groups of some rows, which begin with their canonical prompt."""
    chosen = rollouts.take(pa.array(rows, pa.int64())).select(
        ["rollout_group", "tokens", "prompt_length"]
    )
    return {
        row["rollout_group"]: np.array(row["tokens"][: row["prompt_length"]], np.int32)
        for row in chosen.to_pylist()
    }
