"""The window loop: whole groups only, in order, resumable, in time."""

import dataclasses
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.engine.scripted import (
    EOS,
    PLAN,
    VOCABULARY,
    WINDOW,
    ScriptedClock,
    ScriptedEnvironment,
    ScriptedGenerator,
    ScriptedProver,
    loop,
)
from windrow import WindrowError
from windrow.engine.mining.loop import MAX_DROPS_IN_A_ROW, WindowAborted
from windrow.engine.mining.plan import request_seed
from windrow.engine.mining.report import Progress
from windrow.engine.mining.spool import Spool, SpoolError, identity_of
from windrow.engine.ports import Completion
from windrow.networks.grail.budget import TimeBudget


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path, WINDOW, PLAN.hotkey, identity_of({"test": 1}))


def test_stops_at_max_groups_with_whole_groups_in_the_spool(spool: Spool) -> None:
    report = loop(spool).run()
    assert report.stopped_by == "max_groups"
    assert sorted(report.finished) == spool.finished() == [0, 1, 2, 3]
    batch = spool.read(2)
    assert batch["nonce"].to_pylist() == list(range(32, 48))
    assert batch["prompt_length"][0].as_py() + 40 == len(batch["tokens"][0])
    assert [len(row) for row in batch["sketches"]] == [len(row) for row in batch["tokens"]]
    assert abs(sum(batch["advantage"].to_pylist())) < 1e-9


def test_a_second_run_resumes_and_makes_nothing_again(spool: Spool) -> None:
    loop(spool, dataclasses.replace(PLAN, max_groups=2)).run()
    generator = ScriptedGenerator()
    report = loop(spool, generator=generator).run()
    assert report.resumed == 2
    assert sorted(report.finished) == [2, 3]
    assert generator.calls == 2


def test_a_resumed_window_equals_an_undisturbed_one(tmp_path: Path) -> None:
    whole = Spool(tmp_path / "whole", WINDOW, PLAN.hotkey, "a" * 16)
    loop(whole).run()
    broken = Spool(tmp_path / "broken", WINDOW, PLAN.hotkey, "a" * 16)

    def die(call: int) -> Exception | None:
        if call == 2:
            raise KeyboardInterrupt
        return None

    with pytest.raises(KeyboardInterrupt):
        loop(broken, prover=ScriptedProver(fail=die)).run()
    assert len(broken.finished()) < 4
    loop(broken).run()
    for ours, theirs in zip(broken.groups(), whole.groups(), strict=True):
        for name in ("tokens", "reward", "advantage", "sketches", "token_logprobs", "nonce"):
            assert ours[name].equals(theirs[name]), name


@pytest.mark.parametrize(
    ("tokens", "reason"),
    [
        (np.full(31, 5, np.int32), "short_completion"),
        (np.full(40, VOCABULARY, np.int32), "token_outside_vocabulary"),
        (np.full(40, -1, np.int32), "token_outside_vocabulary"),
        (np.full(40, 5, np.int32), "not_terminated"),
        (np.full(65, 5, np.int32), "long_completion"),
    ],
)
def test_one_bad_completion_drops_its_group_for_good(
    spool: Spool, tokens: np.ndarray, reason: str
) -> None:
    def edit(call: int, made: list[Completion]) -> list[Completion]:
        return [*made[:15], Completion(tokens, "stop")] if call == 1 else made

    report = loop(spool, generator=ScriptedGenerator(edit=edit)).run()
    assert spool.finished() == [0, 2, 3, 4]
    assert [(d.group, d.stage, d.reason) for d in report.dropped] == [(1, "check", reason)]
    assert spool.dropped() == report.dropped
    resumed = loop(spool, dataclasses.replace(PLAN, max_groups=5)).run()
    assert resumed.finished == [5]


def test_a_full_length_completion_needs_no_eos(spool: Spool) -> None:
    def edit(call: int, made: list[Completion]) -> list[Completion]:
        return [Completion(np.full(64, 5, np.int32), "length"), *made[1:]]

    report = loop(spool, generator=ScriptedGenerator(edit=edit)).run()
    assert report.dropped == []


def test_a_failed_proof_drops_the_group_but_not_for_good(spool: Spool) -> None:
    prover = ScriptedProver(fail=lambda call: RuntimeError("out of memory") if call == 0 else None)
    report = loop(spool, prover=prover).run()
    assert [(d.stage, d.reason, d.detail) for d in report.dropped] == [
        ("proof", "RuntimeError", "out of memory")
    ]
    assert spool.finished() == [1, 2, 3, 4]
    assert spool.dropped() == []


def test_a_failed_reward_drops_the_group(spool: Spool) -> None:
    environment = ScriptedEnvironment(
        fail=lambda call: WindrowError("no sandbox") if call == 3 else None
    )
    report = loop(spool, environment=environment).run()
    assert [(d.stage, d.detail) for d in report.dropped] == [("reward", "no sandbox")]
    assert len(spool.finished()) == 4


def test_an_improbable_eos_drops_the_group(spool: Spool) -> None:
    prover = ScriptedProver(eos_logprob=float(np.log(0.02)))
    with pytest.raises(WindowAborted, match="improbable_eos"):
        loop(spool, prover=prover).run()
    assert spool.finished() == []


def test_missing_completions_are_a_failed_generation(spool: Spool) -> None:
    generator = ScriptedGenerator(edit=lambda call, made: made[:15] if call == 0 else made)
    report = loop(spool, generator=generator).run()
    assert [(d.stage, d.detail) for d in report.dropped] == [
        ("generation", "a group needs 16 completions; 15 came back")
    ]


def test_group_after_group_dropped_ends_the_window_with_the_reason(spool: Spool) -> None:
    prover = ScriptedProver(fail=lambda call: RuntimeError("device lost") if call > 0 else None)
    with pytest.raises(WindowAborted, match=rf"{MAX_DROPS_IN_A_ROW} groups in a row.*device lost"):
        loop(spool, dataclasses.replace(PLAN, max_groups=None), prover=prover).run()
    assert spool.finished() == [0]


def test_time_budget_stops_before_the_window_ends(spool: Spool) -> None:
    clock = ScriptedClock(height=WINDOW + 10)
    plan = dataclasses.replace(PLAN, max_groups=None, timed=True, groups_in_flight=1)

    def tick(progress: object) -> None:
        clock.height += 2 if len(spool.finished()) >= 3 else 0
        clock.time += 24

    report = loop(spool, plan, clock=clock, on_progress=tick).run()
    assert report.stopped_by == "time_budget"
    assert len(report.finished) >= 3
    assert clock.height < WINDOW + 30


def test_a_window_that_is_over_starts_nothing(spool: Spool) -> None:
    plan = dataclasses.replace(PLAN, timed=True)
    report = loop(spool, plan, clock=ScriptedClock(height=WINDOW + 30)).run()
    assert (report.stopped_by, report.finished) == ("window_closed", [])


def test_observed_groups_reach_the_budget(spool: Spool) -> None:
    running = loop(spool, clock=ScriptedClock(step=5.0), budget=TimeBudget())
    running.run()
    assert running.budget.group_seconds is not None
    assert running.budget.group_seconds > 0


def meet(barrier: threading.Barrier) -> Callable[[int, threading.Event], object]:
    """Work that is done only once every other party of the barrier is at work too."""
    return lambda call, told_to_stop: barrier.wait(timeout=20)


def test_a_group_generates_while_another_is_proved(spool: Spool) -> None:
    both = threading.Barrier(2)

    def generating(call: int, told: threading.Event) -> None:
        if call:  # the first proof needs a group to prove
            both.wait(timeout=20)

    def proving(call: int, told: threading.Event) -> None:
        if call < 3:
            both.wait(timeout=20)

    generator, prover = ScriptedGenerator(generating=generating), ScriptedProver(proving=proving)
    report = loop(spool, generator=generator, prover=prover).run()
    assert (sorted(report.finished), report.dropped) == ([0, 1, 2, 3], [])


def test_every_stage_works_in_as_many_lanes_as_its_part_has(tmp_path: Path) -> None:
    generator = ScriptedGenerator(generating=meet(threading.Barrier(3)), lanes=3)
    prover = ScriptedProver(proving=meet(threading.Barrier(2)), lanes=2)
    plan = dataclasses.replace(PLAN, max_groups=6, groups_in_flight=5)
    wide = Spool(tmp_path / "wide", WINDOW, PLAN.hotkey, "a" * 16)
    report = loop(wide, plan, generator=generator, prover=prover).run()
    assert report.lanes == {"generation": 3, "reward": 1, "proof": 2}
    assert all(0 < share <= 1 for share in report.utilisation().values())

    narrow = Spool(tmp_path / "narrow", WINDOW, PLAN.hotkey, "a" * 16)
    loop(narrow, dataclasses.replace(plan, groups_in_flight=1)).run()
    for ours, theirs in zip(wide.groups(), narrow.groups(), strict=True):
        for name in ("tokens", "reward", "advantage", "sketches", "token_logprobs", "nonce"):
            assert ours[name].equals(theirs[name]), name


def test_no_more_groups_are_held_than_may_be_in_flight(spool: Spool) -> None:
    begun, proofs_may_go = [], threading.Event()
    plan = dataclasses.replace(PLAN, max_groups=9, groups_in_flight=3)

    def proving(call: int, told: threading.Event) -> None:
        proofs_may_go.wait(timeout=20)
        begun.append(generator.calls - call)

    def seen(progress: Progress) -> None:
        assert progress.in_flight <= 3
        if generator.calls == 3:
            proofs_may_go.set()

    generator = ScriptedGenerator(lanes=8)
    prover = ScriptedProver(proving=proving)
    loop(spool, plan, generator=generator, prover=prover, on_progress=seen).run()
    # Groups generated and not yet proved when a proof ran, itself included.
    assert max(begun) == 3


def test_the_stage_with_the_least_time_to_spare_limits_the_window(spool: Spool) -> None:
    prover = ScriptedProver(proving=lambda call, told: time.sleep(0.02))
    running = loop(spool, prover=prover)
    assert running.report.limiting_stage() is None
    assert running.run().limiting_stage() == "proof"


def test_what_is_in_flight_is_cancelled_when_only_the_upload_fits(spool: Spool) -> None:
    clock = ScriptedClock(height=WINDOW + 10)
    plan = dataclasses.replace(PLAN, max_groups=None, timed=True, groups_in_flight=2)

    def generating(call: int, told: threading.Event) -> None:
        if call == 2:
            clock.height = WINDOW + 28  # the upload takes two blocks
            assert told.wait(timeout=20)

    budget = TimeBudget(upload_seconds=13.0)
    generator = ScriptedGenerator(generating=generating)
    report = loop(spool, plan, generator=generator, clock=clock, budget=budget).run()
    assert report.cancelled[0] == 2
    assert report.dropped == []
    assert spool.finished() == report.finished == [0, 1]
    assert report.stopped_by == "window_closed"


def stopped(in_call: int) -> tuple[Callable[..., None], Callable[[object], None], list[bool]]:
    """Work that lasts until it is told to stop; a run's end in the middle of it; whether told."""
    at_work, told_to_stop = threading.Event(), []

    def working(call: int, told: threading.Event) -> None:
        if call == in_call:
            at_work.set()
            told_to_stop.append(told.wait(timeout=20))

    def interrupt(progress: object) -> None:
        assert at_work.wait(timeout=20)
        raise KeyboardInterrupt

    return working, interrupt, told_to_stop


def test_a_run_that_is_stopped_leaves_no_generation_at_work(spool: Spool) -> None:
    working, interrupt, told_to_stop = stopped(in_call=1)
    generator = ScriptedGenerator(generating=working)
    with pytest.raises(KeyboardInterrupt):
        loop(spool, generator=generator, on_progress=interrupt).run()
    assert told_to_stop == [True]


def test_a_run_that_is_stopped_leaves_no_proof_at_work(spool: Spool) -> None:
    working, interrupt, told_to_stop = stopped(in_call=0)
    with pytest.raises(KeyboardInterrupt):
        loop(spool, prover=ScriptedProver(proving=working), on_progress=interrupt).run()
    assert told_to_stop == [True]


def test_progress_counts_up(spool: Spool) -> None:
    seen = []
    loop(spool, on_progress=seen.append).run()
    assert seen[-1].finished == 4
    assert seen[-1].rollouts == 64
    assert seen[-1].tokens == 64 * 40
    assert seen[-1].in_flight == 0


def test_request_seeds_differ_and_repeat() -> None:
    seeds = {request_seed("a", "b", group, index) for group in range(8) for index in range(16)}
    assert len(seeds) == 128
    assert request_seed("a", "b", 1, 2) == request_seed("a", "b", 1, 2) < 2**63


class TestSpool:
    def test_other_identities_are_kept_apart(self, tmp_path: Path) -> None:
        first = Spool(tmp_path, WINDOW, PLAN.hotkey, identity_of({"checkpoint": 1}))
        loop(first).run()
        second = Spool(tmp_path, WINDOW, PLAN.hotkey, identity_of({"checkpoint": 2}))
        assert second.finished() == []
        assert first.finished() == [0, 1, 2, 3]

    def test_a_half_written_group_is_not_a_group(self, spool: Spool) -> None:
        (spool.folder / "group-000007.partial").write_bytes(b"PAR1")
        reopened = Spool(spool.folder.parents[2], WINDOW, PLAN.hotkey, spool.folder.name)
        assert reopened.finished() == []
        assert list(spool.folder.iterdir()) == []

    def test_a_damaged_group_is_named(self, spool: Spool) -> None:
        loop(spool).run()
        path = spool.folder / "group-000001.parquet"
        path.write_bytes(path.read_bytes()[:200])
        with pytest.raises(SpoolError, match=r"group-000001.parquet is not a readable group"):
            list(spool.groups())

    def test_a_damaged_reason_is_named(self, spool: Spool) -> None:
        (spool.folder / "dropped-000003.json").write_text('{"group": 3, "stage"')
        with pytest.raises(SpoolError, match=r"dropped-000003.json.*delete it"):
            spool.dropped()

    def test_a_misnamed_group_is_named(self, spool: Spool) -> None:
        loop(spool).run()
        (spool.folder / "group-000001.parquet").rename(spool.folder / "group-000009.parquet")
        with pytest.raises(SpoolError, match="does not hold the 16 rollouts of group 9"):
            spool.read(9)

    def test_a_full_disk_says_so_and_keeps_what_is_there(self, spool: Spool) -> None:
        loop(spool, dataclasses.replace(PLAN, max_groups=1)).run()
        (spool.folder / "group-000001.partial").symlink_to("/dev/full")
        with pytest.raises(SpoolError, match="No space left on device"):
            loop(spool).run()
        assert spool.finished() == [0]
        assert EOS in spool.read(0)["tokens"][0].as_py()
