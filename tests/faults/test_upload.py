"""Windows that come too early, too late or twice."""

from pathlib import Path

import pyarrow as pa

from tests.faults.runs import Home, assert_completes, assert_refused
from tests.support.embedded import WINDOW
from windrow.assets.window.self_checks import CHECKS
from windrow.networks.grail.constants import WINDOW_BLOCKS
from windrow.networks.grail.windows import window_start


def test_a_window_of_the_future(home: Home) -> None:
    future = window_start(home.resource("chain").block()) + 100 * WINDOW_BLOCKS
    refused = home.mine(window=future)
    assert_refused(home, refused, "beacon", "FutureBlock", str(future), "opens at", window=future)
    assert home.uploaded(future) is None


def test_a_window_that_is_over_is_uploaded_once_and_called_late(
    home: Home, undisturbed: pa.Table
) -> None:
    result = home.mine()
    assert result.success
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    on_time = checks.pop("on_time")
    assert not on_time.passed
    assert on_time.severity.value == "WARN"
    assert "after the deadline" in (on_time.description or "")
    assert len(checks) == len(CHECKS)
    assert all(check.passed for check in checks.values())
    (row,) = home.resource("lake").read("uploads", WINDOW).to_pylist()
    assert row["on_time"] is False
    assert row["margin_seconds"] < 0

    uploaded, file = home.uploaded(), home.window_file().read_bytes()
    assert_completes(home, undisturbed)
    assert home.uploaded() == uploaded
    assert home.window_file().read_bytes() == file


def test_another_file_after_the_deadline_is_refused(home: Home, undisturbed: pa.Table) -> None:
    assert home.mine(1).success
    uploaded = home.uploaded()
    refused = home.mine(2)
    words = (home.key(), "deadline passed", str(home.window_file()))
    assert_refused(home, refused, "upload", "LateReplacement", *words)
    assert home.uploaded() == uploaded
    home.resource("bucket").delete(home.key())
    assert_completes(home, undisturbed)


def test_another_file_before_the_deadline_replaces_the_first(tiny: Path, tmp_path: Path) -> None:
    home = Home.make(tmp_path / "home", tiny, WINDROW_CHAIN_CLOCK="stepped")
    chain = home.resource("chain")
    window = window_start(chain.block()) + WINDOW_BLOCKS
    chain.advance_to(window)
    assert home.mine(1, window).success
    uploaded = home.uploaded(window)
    assert home.mine(2, window).success
    assert home.uploaded(window) != uploaded
    assert home.groups(window).num_rows == 32
