"""Where a node stands, and when it is due."""

from windrow.engine.fleet.stages import (
    LOOK,
    LOOK_SECONDS,
    LOST_SECONDS,
    MOST_RETRY_SECONDS,
    RESUME_SECONDS,
    RETRY_SECONDS,
    STAGES,
    VERIFIED_SECONDS,
    Machine,
    Standing,
    State,
    concerned,
    due,
    standing,
)

T = 1_000_000.0


def made(*stages: str, at: float = T) -> list[State]:
    """Steps that began and ended well, a second each."""
    rows = []
    for number, stage in enumerate(stages):
        rows += [State(stage, "started", at + number), State(stage, "done", at + number + 0.5)]
    return rows


def failed(stage: str, at: float, reason: str = "NodeUnreachable") -> list[State]:
    return [State(stage, "started", at), State(stage, "failed", at + 0.5, reason, "gone")]


def test_a_node_nobody_asked_is_new() -> None:
    found = standing([], T)
    assert (found.state, found.remaining) == ("new", STAGES)
    what = due(found, None, None, 0.0, T)
    assert what is not None
    assert what.stages == STAGES


def test_a_whole_verification_is_verified_in_any_order_of_rows() -> None:
    found = standing(reversed(made(*STAGES)), T + 20)
    assert (found.state, found.remaining, found.since) == ("verified", (), T + 7.5)
    assert due(found, None, None, 0.0, T + 20) is None


def test_a_lost_node_goes_on_at_its_last_finished_step() -> None:
    rows = made(*STAGES[:3]) + failed("attestation", T + 10)
    found = standing(rows, T + 20)
    assert (found.state, found.reason, found.stage) == ("failed", "NodeUnreachable", "attestation")
    assert found.remaining == STAGES[3:]
    assert due(found, None, None, 0.0, T + 20) is None
    what = due(found, None, None, 0.0, T + 11 + RETRY_SECONDS)
    assert what is not None
    assert what.stages == STAGES[3:]
    later = made(*STAGES[3:], at=T + 400)
    assert standing(rows + later, T + 500).state == "verified"


def test_what_was_finished_long_ago_is_made_again() -> None:
    rows = made(*STAGES[:3]) + failed("attestation", T + 10)
    assert standing(rows, T + RESUME_SECONDS + 60).remaining == STAGES


def test_every_failure_doubles_the_wait() -> None:
    rows = made(*STAGES, at=T - 100)
    for number in range(3):
        rows += failed("inventory", T + number)
    found = standing(rows, T + 10)
    assert found.failures == 3
    assert due(found, None, None, 0.0, found.since + 3.9 * RETRY_SECONDS) is None
    assert due(found, None, None, 0.0, found.since + 4.1 * RETRY_SECONDS) is not None


def test_a_node_that_failed_for_a_week_is_due_and_in_nobodys_way() -> None:
    """The sensor looks at all nodes at once: what one has behind it must not end its tick."""
    found = Standing("failed", T, "facts", "NodeUnreachable", remaining=STAGES, failures=10_000)
    assert due(found, None, None, 0.0, T + MOST_RETRY_SECONDS - 60) is None
    assert due(found, None, None, 0.0, T + MOST_RETRY_SECONDS + 60) is not None


def test_a_step_that_never_ended_is_lost_with_its_run() -> None:
    rows = [*made(*STAGES[:2]), State("preflight", "started", T + 5)]
    assert standing(rows, T + 60).state == "under way"
    assert due(standing(rows, T + 60), None, None, 0.0, T + 60) is None
    found = standing(rows, T + LOST_SECONDS + 60)
    assert (found.state, found.stage, found.remaining) == ("lost", "preflight", STAGES[2:])


def verified(at: float = T) -> Standing:
    return Standing("verified", at, remaining=())


def test_a_verified_node_is_due_by_age_change_and_mishap() -> None:
    machine = Machine(T - 5, "550", ("a", "b"))

    def reason(seen: Machine | None, mishap: float, now: float) -> str | None:
        what = due(verified(), machine, seen, mishap, now)
        return None if what is None else what.reason

    soon = T + 60
    same = Machine(soon, "550", ("b", "a"))
    assert reason(same, 0.0, soon) is None
    assert reason(Machine(soon, "551", ("a", "b")), 0.0, soon) == "other driver"
    assert reason(Machine(soon, "550", ("a", "c")), 0.0, soon) == "other GPUs"
    assert reason(Machine(soon, "550", ("a",)), 0.0, soon) == "other GPUs"
    assert reason(same, T + 30, soon) == "a window failed"
    assert reason(same, T - 30, soon) is None
    assert reason(same, 0.0, T + VERIFIED_SECONDS + 1) == "age"


def test_between_verifications_a_node_is_looked_at() -> None:
    what = due(verified(), None, None, 0.0, T + LOOK_SECONDS + 1)
    assert what is not None
    assert (what.reason, what.stages) == ("look", LOOK)
    seen = Machine(T + LOOK_SECONDS, None, ())
    assert due(verified(), None, seen, 0.0, T + LOOK_SECONDS + 1) is None


def test_a_node_declared_anew_is_verified_anew() -> None:
    what = due(verified(), None, None, 0.0, T + 5, declared_anew=True)
    assert what is not None
    assert (what.reason, what.stages) == ("other declaration", STAGES)


def test_steps_of_other_networks_do_not_concern_a_node() -> None:
    assert concerned(STAGES, ()) == STAGES[:4]
    assert concerned(STAGES, ("gonka", "grail")) == (*STAGES[:4], "proof_of_compute")
    assert concerned(STAGES[5:], ("compute-subnet",)) == ("gemm_proof",)
    assert concerned(STAGES, ("compute-subnet", "gonka", "compute-horde")) == STAGES


def test_the_same_reason_has_the_same_marker() -> None:
    first, again, later = (
        due(verified(at), None, None, 0.0, now)
        for at, now in (
            (T, T + VERIFIED_SECONDS + 1),
            (T, T + VERIFIED_SECONDS + 90),
            (T + 9, T + VERIFIED_SECONDS + 90),
        )
    )
    assert first == again
    assert later is not None
    assert first is not None
    assert later.marker != first.marker
