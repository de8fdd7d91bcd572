"""`windrow explain`: what a page says of each fate a window can have."""

import io
import os
from pathlib import Path

import dagster as dg
import pytest
from rich.console import Console

from tests.pipelines.demonstrated import Demonstrated
from windrow.networks.grail.bucket import window_file_key
from windrow.networks.grail.validation.verdicts import HARD_CHECKS, SOFT_CHECKS
from windrow.pipelines.build import build
from windrow.pipelines.commands.advice import ADVICE, UPLOADS
from windrow.pipelines.commands.explain import NothingKnown
from windrow.pipelines.commands.explain_page import LOOKED_AT, show
from windrow.pipelines.embedded import embedded_chain
from windrow.resources.storage.object_store import open_bucket
from windrow.resources.warehouse.lake import Lake


@pytest.fixture(autouse=True)
def environment(demonstrated: Demonstrated, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINDROW_HOME", str(demonstrated.settings.home))
    monkeypatch.setenv("WINDROW_CHAIN_CLOCK", "stepped")
    monkeypatch.setenv("COLUMNS", "80")


def explain(window: object, hotkey: str = "") -> str:
    """What the page says, its lines joined. Of names of miners, the command takes hotkeys only."""
    written = io.StringIO()
    show(Console(file=written, width=80), str(window), hotkey)
    assert max(map(len, written.getvalue().splitlines())) <= 80
    return " ".join(written.getvalue().split())


def validate(demonstrated: Demonstrated, window: int) -> None:
    job = build(demonstrated.settings).resolve_job_def("validate_window")
    with dg.DagsterInstance.ephemeral() as instance:
        assert job.execute_in_process(partition_key=str(window), instance=instance).success


@pytest.fixture(scope="module")
def later(demonstrated: Demonstrated) -> int:
    """A later window, with a file too small, one by the banned miner and one that came late."""
    chain = embedded_chain(demonstrated.settings)
    bucket = open_bucket(demonstrated.settings.bucket)
    window = demonstrated.window + 30
    bucket.put(window_file_key(demonstrated.broken, window), bytes(300))
    bucket.put(window_file_key("5Smaa", window), bytes(20))
    chain.advance_to(window + 30)
    bucket.put(window_file_key("5Late", window), bytes(300))
    late = chain.deadline(window) + 60.0
    os.utime(Path(demonstrated.settings.bucket) / window_file_key("5Late", window), (late, late))
    validate(demonstrated, window)
    return window


def test_an_accepted_window_shows_every_factor_of_its_weight(demonstrated: Demonstrated) -> None:
    page = explain(demonstrated.window)
    assert demonstrated.own in page
    assert "s before the deadline" in page
    assert "yes, the file was checked" in page
    assert "network accepts Windrow finds nothing wrong" in page
    assert "20 of 20 pass" in page
    weight = (
        Lake(demonstrated.settings.lake)
        .query(
            "SELECT * FROM weights WHERE hotkey = ? AND window_start = ?",
            [demonstrated.own, demonstrated.window],
        )
        .to_pylist()[0]
    )
    score = (
        Lake(demonstrated.settings.lake)
        .query(
            "SELECT * FROM validations WHERE hotkey = ? AND window_start = ?",
            [demonstrated.own, demonstrated.window],
        )
        .to_pylist()[0]
    )
    assert f"32 rollouts * {score['unique']}/16 = {weight['unique_sum']} unique rollouts" in page
    assert "/ cap of 60,000" in page
    assert f"^ 4 = {weight['raw_score']:.4g} raw score" in page
    assert "* 0.1, what is not burnt" in page
    assert f"= weight {weight['weight']:.4g} (a forecast, not sent to the chain)" in page
    assert "ban none" in page
    assert "change" not in page


def test_a_refused_window_says_what_to_change(demonstrated: Demonstrated) -> None:
    page = explain(demonstrated.window, demonstrated.broken)
    assert "network refuses and bans: hard:env_prompt_valid" in page
    assert "env_prompt_valid 0/16 0/16" in page
    assert "proof_valid 16/16 0/16" in page
    assert ADVICE["env_prompt_valid"] in page
    assert ADVICE["sketches_agree"] in page
    assert "more windows, about" in page


def test_miners_not_looked_at_learn_why(demonstrated: Demonstrated, later: int) -> None:
    banned = explain(later, demonstrated.broken)
    assert LOOKED_AT["banned"] in banned
    assert "for 13 more windows, about 78 minutes" in banned
    assert f"windrow explain {demonstrated.window} {demonstrated.broken}" in banned
    late = explain(later, "5Late")
    assert "60.0 s AFTER the deadline" in late
    assert UPLOADS["late"] in late
    small = explain(later, "5Smaa")
    assert "20 bytes; 200 to 367,001,600 are fetched" in small
    assert UPLOADS["bad_size"] in small
    absent = explain(later)
    assert "none was found; 3 miners uploaded" in absent
    assert UPLOADS["missing"] in absent


@pytest.mark.parametrize("hotkey", ["", "../../etc", "'; DROP VIEW scores", "\x1b[31m"])
def test_a_window_without_data_says_what_to_run(demonstrated: Demonstrated, hotkey: str) -> None:
    window = demonstrated.window - 3000
    with pytest.raises(NothingKnown, match=f"validate_window.*{window}"):
        explain(window, hotkey)


@pytest.mark.parametrize("window", ["31", "-30", "x", "9" * 40])
def test_what_is_no_window_is_refused(window: str) -> None:
    with pytest.raises(NothingKnown, match="multiples of 30"):
        explain("--", window)


def test_there_is_advice_on_every_check_and_state(demonstrated: Demonstrated, later: int) -> None:
    made = demonstrated.lake.query('SELECT DISTINCT "check" FROM verdicts')["check"].to_pylist()
    assert {*made, *HARD_CHECKS, *SOFT_CHECKS} <= ADVICE.keys()
    assert UPLOADS.keys() == LOOKED_AT.keys() - {"checked"}


def test_the_demo_ends_with_verdicts_scores_and_a_forecast(demonstrated: Demonstrated) -> None:
    printed = demonstrated.printed
    assert "accepts  accepts" in printed
    assert "hard:env_prompt_valid" in printed
    assert f"weight forecast after window {demonstrated.window}" in printed
    assert "windrow explain, for the broken copy" in printed
    assert ADVICE["sketches_agree"] in " ".join(printed.split())
    shown = printed.split("Type next")[0].splitlines()
    assert max(len(line) for line in shown if "/bucket, signed" not in line) <= 93
