"""What a miner's groups ask, and what its completions earn, derived again (§8.3, §8.6)."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from windrow import WindrowError
from windrow.engine.claims import Claim
from windrow.engine.ports import Environment
from windrow.engine.rollout_verdicts import Refused
from windrow.environments.evaluation import Evaluation
from windrow.environments.tasks import Task
from windrow.networks.grail.seeds import problem_seed
from windrow.networks.grail.tokens import tokens_valid

_log = logging.getLogger(__name__)


@dataclass
class GroupTasks:
    """The tasks of one miner's groups in one window, each derived once.

    faults: takes what this machine, not the miner, fails at; such prompts and evaluations are
    missing.
    """

    environment: Environment
    hotkey: str
    block_hash: str
    faults: list[str]
    _tasks: dict[int | None, tuple[Task, NDArray[np.int32]] | Refused | None] = field(
        default_factory=dict
    )

    def prompt(self, group: int | None) -> NDArray[np.int32] | Refused | None:
        """Canonical prompt of a group; None where this machine could not derive it."""
        task = self._task(group)
        return task[1] if isinstance(task, tuple) else task

    def evaluate(
        self, claims: Sequence[Claim], vocabulary: int | None
    ) -> list[Evaluation | Refused | None]:
        """Evaluations of rollouts, in order, each group's together.

        A completion that makes the environment raise is refused alone; None where the machine
        could not evaluate.
        """
        found: list[Evaluation | Refused | None] = [None] * len(claims)
        members: dict[int | None, list[int]] = {}
        for index, claim in enumerate(claims):
            if claim.prompt_length >= 0 and _legible(claim.completion, vocabulary):
                members.setdefault(claim.place.rollout_group, []).append(index)
            else:
                found[index] = Refused("the completion is no text of the tokenizer")
        for group, indices in members.items():
            task = self._task(group)
            if isinstance(task, tuple):
                completions = [claims[index].completion for index in indices]
                graded = self._graded(task[0], completions)
            else:
                graded = [task] * len(indices)
            for index, evaluation in zip(indices, graded, strict=True):
                found[index] = evaluation
        return found

    def _graded(
        self, task: Task, completions: list[NDArray[np.int32]]
    ) -> list[Evaluation | Refused | None]:
        if not completions:
            return []
        try:
            return list(self.environment.evaluate(task, completions))
        except WindrowError as error:
            self.faults.append(f"task {task.id} could not be evaluated: {error}")
            return [None] * len(completions)
        except Exception as error:  # noqa: BLE001 - as the network: it fails the rollout (§8.6)
            if len(completions) == 1:
                _log.warning("Evaluating task %s raised", task.id, exc_info=True)
                return [Refused(f"the environment raised {type(error).__name__}: {error!s:.200}")]
        return [found for one in completions for found in self._graded(task, [one])]

    def _task(self, group: int | None) -> tuple[Task, NDArray[np.int32]] | Refused | None:
        if group not in self._tasks:
            self._tasks[group] = self._derive(group)
        return self._tasks[group]

    def _derive(self, group: int | None) -> tuple[Task, NDArray[np.int32]] | Refused | None:
        try:
            task = self.environment.task(problem_seed(self.hotkey, self.block_hash, group))
            return task, self.environment.prompt(task)
        except WindrowError as error:
            self.faults.append(f"the task of group {group} could not be derived: {error}")
            return None
        except Exception as error:  # noqa: BLE001 - as the network: it fails the rollout (§8.3)
            _log.warning("The task of group %s cannot be derived", group, exc_info=True)
            return Refused(f"the group has no task: {type(error).__name__}: {error!s:.200}")


def _legible(tokens: NDArray[np.int32], vocabulary: int | None) -> bool:
    return tokens_valid(tokens, vocabulary, context=len(tokens))
