"""Stand-ins for the loop's parts that do what a test says, fast and without a model."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from windrow.engine.mining.in_flight import InFlight
from windrow.engine.mining.loop import WindowLoop
from windrow.engine.mining.plan import WindowPlan
from windrow.engine.mining.report import Progress
from windrow.engine.mining.spool import Spool
from windrow.engine.ports import Completion, GenerationCancelled, Proof, ProofCancelled
from windrow.environments.evaluation import Evaluation
from windrow.environments.tasks import Task
from windrow.networks.grail.budget import TimeBudget
from windrow.networks.grail.checkpoint import GenerationPolicy

EOS = 2
VOCABULARY = 100
POLICY = GenerationPolicy(64, 1.0, 1.0, None, 1.0)
WINDOW = 3000

PLAN = WindowPlan(
    window_start=WINDOW,
    block_hash="0x" + "ab" * 32,
    randomness="cd" * 32,
    hotkey="5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY",
    policy=POLICY,
    vocab_size=VOCABULARY,
    eos_token_id=EOS,
    max_groups=4,
    groups_in_flight=2,
    timed=False,
)


@dataclass
class ScriptedClock:
    """Block and time as the test sets them; every look moves time by `step` seconds."""

    height: int = WINDOW
    time: float = 1_000_000.0
    step: float = 0.0

    def block(self) -> int:
        return self.height

    def now(self) -> float:
        self.time += self.step
        return self.time


@dataclass
class ScriptedGenerator:
    """Completions of 40 tokens drawn from their seed; `edit` changes those of a chosen call.

    generating: called in the middle of every call, with its number and the event that `cancel`
    sets.
    """

    edit: Callable[[int, list[Completion]], list[Completion]] = lambda call, made: made
    generating: Callable[[int, threading.Event], object] = lambda call, told_to_stop: None
    lanes: int = 1
    calls: int = 0
    in_flight: InFlight = field(default_factory=InFlight)
    counting: threading.Lock = field(default_factory=threading.Lock)

    def generate(
        self, prompt: np.ndarray, seeds: Sequence[int], policy: GenerationPolicy
    ) -> list[Completion]:
        with self.counting:
            call, self.calls = self.calls, self.calls + 1
        with self.in_flight.call() as told_to_stop:
            self.generating(call, told_to_stop)
            if told_to_stop.is_set():
                raise GenerationCancelled("told to stop")
        made = []
        for seed in seeds:
            tokens = np.random.default_rng(seed).integers(3, VOCABULARY, 40).astype(np.int32)
            tokens[-1] = EOS
            made.append(Completion(tokens, "stop"))
        return self.edit(call, made)

    def cancel(self) -> None:
        self.in_flight.cancel()


@dataclass
class ScriptedProver:
    """Sketches that count up and log-probs of -0.1; `fail` raises what it returns for a call."""

    fail: Callable[[int], Exception | None] = lambda call: None
    proving: Callable[[int, threading.Event], object] = lambda call, told_to_stop: None
    lanes: int = 1
    calls: int = 0
    eos_logprob: float = -0.1
    in_flight: InFlight = field(default_factory=InFlight)
    counting: threading.Lock = field(default_factory=threading.Lock)

    def prove(
        self,
        sequences: Sequence[np.ndarray],
        prompt_lengths: Sequence[int],
        coefficients: np.ndarray,
    ) -> list[Proof]:
        with self.counting:
            call, self.calls = self.calls, self.calls + 1
        with self.in_flight.call() as told_to_stop:
            self.proving(call, told_to_stop)
            if told_to_stop.is_set():
                raise ProofCancelled("told to stop")
        if error := self.fail(call):
            raise error
        proofs = []
        for sequence, length in zip(sequences, prompt_lengths, strict=True):
            logprobs = np.full(len(sequence), -0.1, np.float32)
            logprobs[:length] = 0.0
            logprobs[-1] = self.eos_logprob
            proofs.append(Proof(np.arange(len(sequence), dtype=np.int32), logprobs))
        return proofs

    def cancel(self) -> None:
        self.in_flight.cancel()


@dataclass
class ScriptedEnvironment:
    """Rewards the parity of the first completion token; `fail` as in ScriptedProver."""

    fail: Callable[[int], Exception | None] = lambda call: None
    calls: int = 0
    threads: set[str] = field(default_factory=set)
    python: str = "3.12.1"

    def task(self, seed: int) -> Task:
        return Task("gsm8k", f"train_{seed % 7}", seed % 7, "How many?")

    def prompt(self, task: Task) -> np.ndarray:
        return np.arange(3, 3 + 5 + task.index, dtype=np.int32)

    def evaluate(self, task: Task, completions: Sequence[np.ndarray]) -> list[Evaluation]:
        call, self.calls = self.calls, self.calls + 1
        self.threads.add(threading.current_thread().name)
        if error := self.fail(call):
            raise error
        return [Evaluation(float(tokens[0] % 2), bool(tokens[0] % 2)) for tokens in completions]


def loop(
    spool: Spool,
    plan: WindowPlan = PLAN,
    *,
    generator: ScriptedGenerator | None = None,
    prover: ScriptedProver | None = None,
    environment: ScriptedEnvironment | None = None,
    clock: ScriptedClock | None = None,
    budget: TimeBudget | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> WindowLoop:
    """A loop over scripted parts."""
    return WindowLoop(
        plan,
        generator=generator or ScriptedGenerator(),
        environment=environment or ScriptedEnvironment(),
        prover=prover or ScriptedProver(),
        spool=spool,
        budget=budget or TimeBudget(),
        clock=clock or ScriptedClock(),
        on_progress=on_progress,
    )
