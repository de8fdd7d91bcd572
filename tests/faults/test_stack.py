"""The whole stack, killed as a power cut does it and started again, twice in a row."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES

from tests.support.stack import LAYOUTS, Stack, wait_for
from windrow.networks.grail.constants import WINDOW_BLOCKS

pytestmark = pytest.mark.soak


@pytest.fixture(params=LAYOUTS)
def stack(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stack]:
    made = Stack(tmp_path / "stack", request.param)
    try:
        yield made
    finally:
        made.kill()


def working(stack: Stack) -> set[str]:
    """Ids of the runs that Dagster takes for alive."""
    with stack.instance() as instance:
        return {
            run.run_id
            for run in instance.get_runs(dg.RunsFilter(statuses=IN_PROGRESS_RUN_STATUSES))
        }


def validated(stack: Stack) -> set[int]:
    rows = stack.lake.query("SELECT DISTINCT window_start FROM validations").to_pylist()
    return {row["window_start"] for row in rows}


def test_a_stack_that_is_killed_twice_mines_and_validates_again(stack: Stack) -> None:
    first = stack.open_window()
    stack.start()
    for _ in range(2):
        wait_for(lambda: working(stack), 2.5 * stack.window_seconds, "a run is at work", every=0.1)
        stack.kill()
        lost, killed_in = working(stack), stack.open_window()
        stack.start()
        # A loaded machine takes its time to start Dagster itself; from there it is ten seconds.
        wait_for(stack.daemon_runs, 60, "the daemon starts", every=0.1)
        # A run that was only starting gets ten seconds to report, and a tick of the sensor.
        wait_for(lambda: not (working(stack) & lost), 20, "lost runs are ended", every=0.2)  # noqa: B023
        wait_for(
            lambda: any(window > killed_in for window in stack.uploads()),  # noqa: B023
            2.5 * stack.window_seconds,
            "the next window is mined",
        )
    mined = max(stack.uploads())
    wait_for(lambda: mined in validated(stack), 3 * stack.window_seconds, "it is validated")
    last = stack.open_window()
    stack.kill()
    uploads = stack.uploads()
    explained = {row["window_start"] for row in stack.faults()}
    assert set(range(first, last, WINDOW_BLOCKS)) <= uploads.keys() | explained
    assert all(uploads.values()), "no window was mined after it had closed"
    assert len(stack.objects()) == len(set(stack.objects())) == len(uploads)
