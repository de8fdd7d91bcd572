"""The window loop: groups generate, are rewarded and proved concurrently, and end in the spool.

One coordinator owns all state and reacts to events; the stages run on threads of their own, so the
generator works on later groups while earlier ones are rewarded and proved, and the time of a
window tends to that of its slowest stage. A group ends whole or not at all: anything wrong with
one of its sixteen rollouts drops the group, with the reason kept.
"""

import hashlib
import queue
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np

from windrow import WindrowError
from windrow.engine.group import Group, completion_problem, group_batch, proof_problem
from windrow.engine.ports import Completion, Environment, Generator, Proof, Prover
from windrow.engine.spool import DroppedGroup, Spool
from windrow.environments.evaluation import Evaluation
from windrow.networks.grail.budget import MAX_GROUP_SECONDS, TimeBudget
from windrow.networks.grail.checkpoint import GenerationPolicy
from windrow.networks.grail.constants import ROLLOUTS_PER_GROUP, WINDOW_BLOCKS
from windrow.networks.grail.prf import sketch_coefficients
from windrow.networks.grail.seeds import problem_seed

MAX_DROPS_IN_A_ROW = 8

_Part = TypeVar("_Part", Completion, Evaluation, Proof)


class WindowAborted(WindrowError):
    """Group after group was dropped: going on would waste the window."""


class Clock(Protocol):
    """The chain's height and the time of day."""

    def block(self) -> int:
        """The chain's current block."""
        ...

    def now(self) -> float:
        """Unix time in seconds."""
        ...


@dataclass(frozen=True)
class WindowPlan:
    """What one window run works on.

    randomness: R_m, plain hex (§2). max_groups: finished groups to stop at; None: as time allows.
    timed: honour the window's end; False replays a window that is already over.
    """

    window_start: int
    block_hash: str
    randomness: str
    hotkey: str
    policy: GenerationPolicy
    vocab_size: int
    eos_token_id: int
    max_groups: int | None
    groups_in_flight: int
    timed: bool


@dataclass(frozen=True)
class Progress:
    """A window run at one moment. blocks_left: until the window ends, 0 when it is over."""

    finished: int
    dropped: int
    in_flight: int
    rollouts: int
    tokens: int
    mean_reward: float
    blocks_left: int


@dataclass
class Report:
    """What a window run did. Groups that an earlier run finished count as resumed; those it
    dropped are not named again.

    busy_seconds: by stage; over seconds it is the stage's utilisation.
    stopped_by: max_groups, time_budget or window_closed.
    """

    resumed: int = 0
    finished: list[int] = field(default_factory=list)
    dropped: list[DroppedGroup] = field(default_factory=list)
    tokens: int = 0
    reward_sum: float = 0.0
    seconds: float = 0.0
    busy_seconds: dict[str, float] = field(
        default_factory=lambda: {"generation": 0.0, "reward": 0.0, "proof": 0.0}
    )
    stopped_by: str = ""


def request_seed(hotkey: str, block_hash: str, group: int, index: int) -> int:
    """Sampling seed of one rollout, 63 bits; the same on every run of the window."""
    digest = hashlib.sha256(f"request|{hotkey}:{block_hash}:{group}:{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


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
        self.report = Report()
        self.budget = budget
        self._generator = generator
        self._environment = environment
        self._prover = prover
        self._spool = spool
        self._clock = clock
        self._on_progress = on_progress
        self._coefficients = sketch_coefficients(plan.randomness)
        self._events: queue.SimpleQueue[tuple[str, Group, Future[float]]] = queue.SimpleQueue()
        self._waiting: dict[int, set[str]] = {}
        self._started: dict[int, float] = {}
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._next_group = 0
        self._drops_in_a_row = 0

    def run(self) -> Report:
        """Work until the time budget, the window's end or max_groups; the spool holds the groups.

        Raises WindowAborted after MAX_DROPS_IN_A_ROW dropped groups, SpoolError when the disk
        refuses a finished group. Whatever ends the run, finished groups stay in the spool.
        """
        began = time.perf_counter()
        done = set(self._spool.finished())
        given_up = self._spool.dropped()
        self.report.resumed = len(done)
        settled = done | {drop.group for drop in given_up}
        with ExitStack() as stack:
            for stage in ("generation", "reward", "proof"):
                pool = ThreadPoolExecutor(1, thread_name_prefix=stage)
                stack.callback(pool.shutdown, cancel_futures=True)
                self._pools[stage] = pool
            while True:
                while self._may_start():
                    while self._next_group in settled:
                        self._next_group += 1
                    self._start(self._next_group)
                    self._next_group += 1
                if not self._waiting:
                    break
                self._react(*self._events.get())
                self._on_progress(self._progress())
        self.report.seconds = time.perf_counter() - began
        return self.report

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
        def timed() -> float:
            began = time.perf_counter()
            work(group)
            return time.perf_counter() - began

        self._waiting.setdefault(group.number, set()).add(stage)
        future = self._pools[stage].submit(timed)
        future.add_done_callback(lambda done: self._events.put((stage, group, done)))

    def _react(self, stage: str, group: Group, future: Future[float]) -> None:
        stages = self._waiting.get(group.number)
        if stages is None:  # dropped while this stage was still at work
            return
        stages.discard(stage)
        error = future.exception()
        if error is not None:
            if not isinstance(error, Exception):
                raise error
            self._drop(DroppedGroup(group.number, stage, type(error).__name__, str(error)))
            return
        setattr(group, f"{stage}_seconds", future.result())
        self.report.busy_seconds[stage] += future.result()
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
        prompt_lengths = [len(group.prompt)] * len(group.completions)
        proofs = self._prover.prove(group.sequences(), prompt_lengths, self._coefficients)
        group.proofs = _whole(proofs, "proofs")

    def _finish(self, group: Group) -> None:
        now = self._clock.now()
        self._spool.add(group_batch(group, self._clock.block(), now))
        del self._waiting[group.number]
        self._drops_in_a_row = 0
        self.report.finished.append(group.number)
        self.report.tokens += group.completion_tokens()
        self.report.reward_sum += float(np.sum([e.reward for e in group.evaluations]))
        # From start to spool, so waiting behind other groups counts: what one more would take.
        seconds = min(now - self._started.pop(group.number), MAX_GROUP_SECONDS)
        self.budget = self.budget.observe_group(seconds)

    def _give_up(self, group: Group, problem: tuple[str, str]) -> None:
        """Drop a group for what it is: making it again would give the same."""
        reason, detail = problem
        drop = DroppedGroup(group.number, "check", reason, detail)
        self._spool.add_dropped(drop)
        self._drop(drop)

    def _drop(self, drop: DroppedGroup) -> None:
        del self._waiting[drop.group]
        self._started.pop(drop.group)
        self.report.dropped.append(drop)
        self._drops_in_a_row += 1
        if self._drops_in_a_row >= MAX_DROPS_IN_A_ROW:
            raise WindowAborted(
                f"window {self.plan.window_start}: {self._drops_in_a_row} groups in a row were "
                f"dropped, the last one (group {drop.group}) in {drop.stage}: {drop.reason}: "
                f"{drop.detail}. Mend that and run the window again; "
                f"{self.report.resumed + len(self.report.finished)} finished groups are kept"
            )

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
