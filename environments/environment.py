"""An environment bound to one checkpoint: from problem seeds to prompts, and back to rewards."""

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windrow.environments import competition_math, gsm8k, programming
from windrow.environments.errors import UnknownEnvironment
from windrow.environments.evaluation import Evaluation
from windrow.environments.parsing import check_thinking_mode
from windrow.environments.prompts import ChatTokenizer, prompt_ids
from windrow.environments.sandbox import Sandbox
from windrow.environments.splits import fraction_index, modulo_index
from windrow.environments.tasks import Task, TaskSource

ALIASES = {"python_code": programming.MBPP}
KNOWN = (gsm8k.ENV_ID, competition_math.ENV_ID, programming.MBPP, programming.HUMANEVAL)

Grade = Callable[[Task, Sequence[str]], list[Evaluation]]


@dataclass(frozen=True)
class TaskEnvironment:
    """The tasks of one split, how a seed selects one and how completions are graded.

    select: (problem seed, number of tasks) -> index. grade: decoded completions of one task.
    python: version of the Python that grades: of programs and algebra, or Windrow's own for gsm8k.
    """

    tasks: Sequence[Task]
    select: Callable[[int, int], int]
    grade: Grade
    thinking_mode: str
    tokenizer: ChatTokenizer
    python: str = field(default_factory=platform.python_version)

    def task(self, seed: int) -> Task:
        """The task a problem seed selects (§12)."""
        return self.tasks[self.select(seed, len(self.tasks))]

    def prompt(self, task: Task) -> NDArray[np.int32]:
        """int32 [prompt length], the canonical prompt (§12.1)."""
        return prompt_ids(self.tokenizer, task.question, self.thinking_mode)

    def evaluate(self, task: Task, completions: Sequence[NDArray[np.int32]]) -> list[Evaluation]:
        """Grade completions (int32 token ids), special tokens included in their text (§12.2).

        Raises EnvironmentUnavailable when the machine, not a completion, is at fault.
        """
        texts = [
            self.tokenizer.decode(tokens.tolist(), skip_special_tokens=False)
            for tokens in completions
        ]
        return self.grade(task, texts)


def load_environment(
    env_id: str,
    env_params: Mapping[str, Any] | None,
    thinking_mode: str,
    tokenizer: ChatTokenizer,
    source: TaskSource,
    sandbox: Sandbox,
) -> TaskEnvironment:
    """The environment a checkpoint's metadata names.

    Of env_params only "split" matters to these environments. Raises UnknownEnvironment,
    DatasetUnavailable, and for code (mbpp, humaneval) SandboxUnavailable where the sandbox cannot
    start, or ProgramPythonUnavailable where it would run another Python than the network's; math
    raises these later, for an answer that only algebra can decide.
    """
    check_thinking_mode(thinking_mode)
    name = ALIASES.get(env_id, env_id)
    split = (env_params or {}).get("split", "train")
    bind = partial(TaskEnvironment, thinking_mode=thinking_mode, tokenizer=tokenizer)
    if name not in KNOWN:
        raise UnknownEnvironment(
            f"the checkpoint asks for environment {env_id!r:.60}, which Windrow cannot grade; it "
            f"knows {', '.join((*KNOWN, *ALIASES))}"
        )
    if name == gsm8k.ENV_ID:
        tasks = gsm8k.tasks(source, split)
        return bind(tasks, fraction_index, partial(gsm8k.grade, mode=thinking_mode))
    if name == competition_math.ENV_ID:
        # Text and floats decide most answers; only a pair left to algebra needs the sandbox.
        tasks = competition_math.tasks(source, split)
        algebra = sandbox.algebraically_equal
        grade = partial(competition_math.grade, mode=thinking_mode, algebra=algebra)
        return bind(tasks, fraction_index, grade, python=str(sandbox.python))
    sandbox.check()
    tasks = (
        programming.mbpp_tasks(source, split)
        if name == programming.MBPP
        else programming.humaneval_tasks(source)
    )
    return bind(
        tasks,
        modulo_index,
        partial(programming.grade, mode=thinking_mode, sandbox=sandbox),
        python=str(sandbox.python),
    )
