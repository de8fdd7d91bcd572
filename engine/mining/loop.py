"""The window loop: groups generate, are rewarded and proved concurrently, and end in the spool.

One coordinator owns all state and reacts to events; every stage has as many threads as its part has
lanes, so the generator works on later groups while earlier ones are rewarded and proved, and the
time of a window tends to that of its slowest stage. A group ends whole or not at all: anything
wrong with one of its sixteen rollouts drops the group, with the reason kept.
"""

import math
import time
from collections.abc import Callable
from typing import Final, TypeVar

import numpy as np

from windrow import WindrowError
from windrow.engine.mining.group import Group, completion_problem, group_batch, proof_problem
from windrow.engine.mining.plan import Clock, WindowPlan, request_seed
from windrow.engine.mining.report import Progress, Report
from windrow.engine.mining.spool import DroppedGroup, Spool
from windrow.engine.mining.stages import Stages, Task
from windrow.engine.ports import (
    Completion,
    Environment,
    GenerationCancelled,
    Generator,
    Proof,
    ProofCancelled,
    Prover,
)
from windrow.environments.evaluation import Evaluation
from windrow.networks.grail.budget import FIRST_UPLOAD_BLOCKS, MAX_GROUP_SECONDS, TimeBudget
from windrow.networks.grail.constants import ROLLOUTS_PER_GROUP, WINDOW_BLOCKS
from windrow.networks.grail.prf import sketch_coefficients
from windrow.networks.grail.seeds import problem_seed

MAX_DROPS_IN_A_ROW: Final = 8
LOOK_SECONDS: Final = 2.0
"""How often a timed run looks at the chain while no stage has anything to say (§10.1)."""
REWARD_LANES: Final = 1
"""An environment evaluates the sixteen of a group side by side in its sandbox's processes."""

_Part = TypeVar("_Part", Completion, Evaluation, Proof)


class WindowAborted(WindrowError):
    """Group after group was dropped: going on would waste the window."""


class WindowLoop:
    """Runs one window. Without a prover the groups are generated and rewarded only."""

    def __init__(
        self,
        plan: WindowPlan,
        *,
        generator: Generator,
        environment: Environment,
        prover: Prover | None,
        spool: Spool,
        budget: TimeBudget,
        clock: Clock,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self.plan = plan
        self.report = Report(
            lanes={
                "generation": generator.lanes,
                "reward": REWARD_LANES,
                "proof": prover.lanes if prover is not None else 0,
            }
        )
        self.budget = budget
        self._generator = generator
        self._environment = environment
        self._prover = prover
        self._spool = spool
        self._clock = clock
        self._on_progress = on_progress
        self._coefficients = sketch_coefficients(plan.randomness)
        self._waiting: dict[int, set[str]] = {}
        self._started: dict[int, float] = {}
        self._stages: Stages[Group] = Stages(self.report.lanes)
        self._closing = False
        self._next_group = 0
        self._drops_in_a_row = 0

    def run(self) -> Report:
        """Work until the time budget, the window's end or max_groups; the spool holds the groups.

        A timed run ends when only the time of the upload is left: what is in flight then is
        cancelled, for a late file counts for nothing.

        Raises WindowAborted after MAX_DROPS_IN_A_ROW dropped groups, SpoolError when the disk
        refuses a finished group. Whatever ends the run, finished groups stay in the spool, and
        generator and prover are told to stop.
        """
        began = time.perf_counter()
        done = set(self._spool.finished())
        self.report.resumed = len(done)
        settled = done | {drop.group for drop in self._spool.dropped()}
        try:
            while True:
                while self._may_start():
                    while self._next_group in settled:
                        self._next_group += 1
                    self._start(self._next_group)
                    self._next_group += 1
                if not self._waiting:
                    break
                task = self._stages.next_done(LOOK_SECONDS if self.plan.timed else None)
                if task is not None:
                    self._react(task)
                    self._on_progress(self._progress())
                if self.plan.timed:
                    self._check_end()
        finally:
            self._closing = True
            self._stages.stop(self._cancel)
            self.report.seconds = time.perf_counter() - began
        return self.report

    def _cancel(self) -> None:
        self._generator.cancel()
        if self._prover is not None:
            self._prover.cancel()

    def _may_start(self) -> bool:
        finished = self.report.resumed + len(self.report.finished)
        if self.plan.max_groups is not None:
            if finished >= self.plan.max_groups:
                self.report.stopped_by = "max_groups"
            if finished + len(self._waiting) >= self.plan.max_groups:
                return False
        if len(self._waiting) >= self.plan.groups_in_flight:
            return False
        if self.plan.timed and not self.report.stopped_by:
            self._check_time()
        return not self.report.stopped_by

    def _check_time(self) -> None:
        block = self._clock.block()
        self.budget = self.budget.observe_block(block, self._clock.now())
        if block >= self.plan.window_start + WINDOW_BLOCKS:
            self.report.stopped_by = "window_closed"
        elif not self.budget.has_time(self.plan.window_start, block):
            self.report.stopped_by = "time_budget"

    def _check_end(self) -> None:
        """Cancel what is in flight once only the time of the upload is left."""
        upload, block_seconds = self.budget.upload_seconds, self.budget.block_seconds
        blocks = FIRST_UPLOAD_BLOCKS
        if upload is not None:
            blocks = max(blocks, math.ceil(upload / max(0.001, block_seconds)))
        if self._clock.block() >= self.plan.window_start + WINDOW_BLOCKS - blocks:
            self._closing = True
            self.report.stopped_by = self.report.stopped_by or "window_closed"
            self._cancel()

    def _start(self, number: int) -> None:
        plan = self.plan
        group = Group(
            number,
            problem_seed(plan.hotkey, plan.block_hash, number),
            [
                request_seed(plan.hotkey, plan.block_hash, number, index)
                for index in range(ROLLOUTS_PER_GROUP)
            ],
        )
        self._started[number] = self._clock.now()
        self._submit("generation", group, self._generate)

    def _submit(self, stage: str, group: Group, work: Callable[[Group], None]) -> None:
        self._waiting.setdefault(group.number, set()).add(stage)
        self._stages.submit(stage, group, work)

    def _react(self, task: Task[Group]) -> None:
        stage, group, error = task.stage, task.item, task.error
        self.report.busy_seconds[stage] += task.seconds
        setattr(group, f"{stage}_seconds", task.seconds)
        stages = self._waiting.get(group.number)
        if stages is None:  # given up while this stage was still at work
            return
        stages.discard(stage)
        if self._closing and isinstance(error, GenerationCancelled | ProofCancelled):
            self._forget(group.number)
            self.report.cancelled.append(group.number)
            return
        if error is not None:
            self._drop(DroppedGroup(group.number, stage, type(error).__name__, str(error)))
            return
        if stage == "generation":
            problem = completion_problem(
                group.completions, self.plan.policy, self.plan.vocab_size, self.plan.eos_token_id
            )
            if problem:
                self._give_up(group, problem)
                return
            if self._prover is not None:
                self._submit("proof", group, self._prove)
            self._submit("reward", group, self._reward)
        elif not stages:
            problem = (
                proof_problem(group.completions, group.proofs, self.plan.policy)
                if group.proofs
                else None
            )
            if problem:
                self._give_up(group, problem)
            else:
                self._finish(group)

    def _generate(self, group: Group) -> None:
        if self._closing:
            raise GenerationCancelled(f"group {group.number} was not begun")
        group.task = self._environment.task(group.problem_seed)
        group.prompt = self._environment.prompt(group.task)
        completions = self._generator.generate(group.prompt, group.request_seeds, self.plan.policy)
        group.completions = _whole(completions, "completions")

    def _reward(self, group: Group) -> None:
        if group.task is None:
            raise ValueError(f"group {group.number} was never generated")
        evaluations = self._environment.evaluate(
            group.task, [completion.tokens for completion in group.completions]
        )
        group.evaluations = _whole(evaluations, "rewards")

    def _prove(self, group: Group) -> None:
        if self._prover is None:
            raise ValueError("this run has no prover")
        if self._closing:
            raise ProofCancelled(f"the proof of group {group.number} was not begun")
        prompt_lengths = [len(group.prompt)] * len(group.completions)
        proofs = self._prover.prove(group.sequences(), prompt_lengths, self._coefficients)
        group.proofs = _whole(proofs, "proofs")

    def _finish(self, group: Group) -> None:
        now = self._clock.now()
        self._spool.add(group_batch(group, self._clock.block(), now))
        started = self._forget(group.number)
        self._drops_in_a_row = 0
        self.report.finished.append(group.number)
        self.report.tokens += group.completion_tokens()
        self.report.reward_sum += float(np.sum([e.reward for e in group.evaluations]))
        # From start to spool, so waiting behind other groups counts: what one more would take.
        seconds = min(now - started, MAX_GROUP_SECONDS)
        self.budget = self.budget.observe_group(seconds)

    def _give_up(self, group: Group, problem: tuple[str, str]) -> None:
        """Drop a group for what it is: making it again would give the same."""
        reason, detail = problem
        drop = DroppedGroup(group.number, "check", reason, detail)
        self._spool.add_dropped(drop)
        self._drop(drop)

    def _drop(self, drop: DroppedGroup) -> None:
        self._forget(drop.group)
        self.report.dropped.append(drop)
        self._drops_in_a_row += 1
        if self._drops_in_a_row >= MAX_DROPS_IN_A_ROW:
            raise WindowAborted(
                f"window {self.plan.window_start}: {self._drops_in_a_row} groups in a row were "
                f"dropped, the last one (group {drop.group}) in {drop.stage}: {drop.reason}: "
                f"{drop.detail}. Mend that and run the window again; "
                f"{self.report.resumed + len(self.report.finished)} finished groups are kept"
            )

    def _forget(self, number: int) -> float:
        """The group is in flight no longer. Returns when it started, unix seconds."""
        del self._waiting[number]
        return self._started.pop(number)

    def _progress(self) -> Progress:
        report, plan = self.report, self.plan
        rollouts = ROLLOUTS_PER_GROUP * len(report.finished)
        return Progress(
            finished=report.resumed + len(report.finished),
            dropped=len(report.dropped),
            in_flight=len(self._waiting),
            rollouts=rollouts,
            tokens=report.tokens,
            mean_reward=report.reward_sum / rollouts if rollouts else 0.0,
            blocks_left=max(0, plan.window_start + WINDOW_BLOCKS - self._clock.block()),
        )


def _whole(parts: list[_Part], what: str) -> list[_Part]:
    if len(parts) != ROLLOUTS_PER_GROUP:
        raise WindrowError(f"a group needs {ROLLOUTS_PER_GROUP} {what}; {len(parts)} came back")
    return parts
