"""What a miner's groups ask, and what its completions earn, derived again (§8.3, §8.6)."""

import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from windrow import WindrowError
from windrow.engine.ports import Environment
from windrow.engine.validation.claims import Claim
from windrow.engine.validation.inputs import ValidationContext
from windrow.engine.validation.rollout_verdicts import BudgetSpent, Refused
from windrow.environments.evaluation import Evaluation
from windrow.environments.tasks import Task
from windrow.networks.grail.constants import MAX_COMPLETION_TOKENS
from windrow.networks.grail.seeds import problem_seed
from windrow.networks.grail.tokens import tokens_valid

_log = logging.getLogger(__name__)

Evaluated = Evaluation | Refused | BudgetSpent | None


@dataclass
class GroupTasks:
    """The tasks of one miner's groups in one window, each derived once.

    faults: takes what this machine, not the miner, fails at; such prompts and evaluations are
    missing. unevaluated: rows an earlier run left out as its budget was spent; this one leaves out
    just these, however long it takes.
    """

    environment: Environment
    context: ValidationContext
    faults: list[str]
    unevaluated: Collection[int] | None = None
    _tasks: dict[int | None, tuple[Task, NDArray[np.int32]] | Refused | None] = field(
        default_factory=dict
    )

    def prompt(self, group: int | None) -> NDArray[np.int32] | Refused | None:
        """Canonical prompt of a group; None where this machine could not derive it."""
        task = self._task(group)
        return task[1] if isinstance(task, tuple) else task

    def evaluate(self, claims: Sequence[Claim], vocabulary: int | None) -> list[Evaluated]:
        """Evaluations of rollouts, in order; equal completions of a group are evaluated once.

        One after another, so that a file never has more than one program running and the others
        have their turns. A completion that makes the environment raise is refused alone; None
        where the machine could not evaluate.
        """
        budget = self.context.evaluation_seconds
        spent, known, found = 0.0, dict[tuple[int | None, bytes], Evaluated](), list[Evaluated]()
        for claim in claims:
            text = claim.place.rollout_group, claim.completion.tobytes()
            if self.unevaluated is None:
                left_out = text not in known and spent >= budget
            else:
                left_out = claim.row in self.unevaluated
            if left_out:
                found.append(BudgetSpent(budget))
                continue
            if text not in known:
                began = time.monotonic()
                known[text] = self._evaluate(claim, vocabulary)
                spent += time.monotonic() - began
            found.append(known[text])
        return found

    def _evaluate(self, claim: Claim, vocabulary: int | None) -> Evaluated:
        if not _legible(claim, vocabulary):
            return Refused("the completion is no text of the tokenizer, or is too long")
        task = self._task(claim.place.rollout_group)
        if not isinstance(task, tuple):
            return task
        try:
            (evaluation,) = self.environment.evaluate(task[0], [claim.completion])
        except WindrowError as error:
            self._fault(f"task {task[0].id} could not be evaluated: {error}")
            return None
        except Exception as error:  # noqa: BLE001 - as the network: it fails the rollout (§8.6)
            _log.warning("Evaluating task %s raised", task[0].id, exc_info=True)
            return Refused(f"the environment raised {type(error).__name__}: {error!s:.200}")
        return evaluation

    def _task(self, group: int | None) -> tuple[Task, NDArray[np.int32]] | Refused | None:
        if group not in self._tasks:
            self._tasks[group] = self._derive(group)
        return self._tasks[group]

    def _derive(self, group: int | None) -> tuple[Task, NDArray[np.int32]] | Refused | None:
        try:
            task = self.environment.task(
                problem_seed(self.context.hotkey, self.context.block_hash, group)
            )
            return task, self.environment.prompt(task)
        except WindrowError as error:
            self._fault(f"the task of group {group} could not be derived: {error}")
            return None
        except Exception as error:  # noqa: BLE001 - as the network: it fails the rollout (§8.3)
            _log.warning("The task of group %s cannot be derived", group, exc_info=True)
            return Refused(f"the group has no task: {type(error).__name__}: {error!s:.200}")

    def _fault(self, fault: str) -> None:
        if fault not in self.faults:
            self.faults.append(fault)


def _legible(claim: Claim, vocabulary: int | None) -> bool:
    """Whether there is a completion to decode, of a length that can be honest (§8.1)."""
    completion = claim.completion
    return claim.prompt_length >= 0 and tokens_valid(completion, vocabulary, MAX_COMPLETION_TOKENS)
