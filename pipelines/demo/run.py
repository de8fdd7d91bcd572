"""`windrow demo`: mine a few windows of the embedded network, then validate them."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from windrow import WindrowError
from windrow.networks.grail.constants import WINDOW_BLOCKS
from windrow.networks.grail.windows import window_start
from windrow.pipelines.commands.explain import story
from windrow.pipelines.commands.explain_page import print_story
from windrow.pipelines.demo import tables
from windrow.pipelines.demo.broken import upload_broken_copy
from windrow.pipelines.demo.fleet import verify_fleet
from windrow.resources.configuration.settings import Settings
from windrow.resources.storage.object_store import open_bucket
from windrow.resources.wallet import DevelopmentWallet
from windrow.resources.warehouse.lake import Lake

if TYPE_CHECKING:
    import dagster as dg


class DemoFailed(WindrowError):
    """A demo window was not mined or not validated."""


def run_demo(out: Console, windows: int, groups: int) -> None:
    """Mine `windows` windows of `groups` groups, validate them, and print what DuckDB says of both.

    The development chain jumps to the next window instead of waiting for it; from there its clock
    runs on, so deadlines and time budgets are real. In the last window a second miner uploads a
    broken copy of the first one's file. Raises DemoFailed.
    """
    os.environ.setdefault("DAGSTER_HOME", str(Path.cwd()))
    from windrow.pipelines.build import build
    from windrow.pipelines.embedded import embedded_chain
    from windrow.pipelines.instance import open_instance

    settings = Settings.read()
    embedded = settings.chain == settings.wallet == "development"
    if not embedded or settings.bucket.startswith("s3://"):
        raise DemoFailed(
            "the demo moves its own chain and fills its own bucket, never a live one: run it in a "
            "folder without .env and with no variable of a live part set; windrow doctor lists "
            "them"
        )
    chain = embedded_chain(settings)
    own = DevelopmentWallet(settings.wallet_uri).hotkey
    definitions = build(settings)
    lake = Lake(settings.lake)
    mined: list[int] = []
    with open_instance() as instance:
        for number in range(windows):
            window = chain.advance_to(window_start(chain.block()) + WINDOW_BLOCKS)
            out.print(f"window {window} ({number + 1} of {windows}): {groups} groups of 16 …")
            stream = {"window_stream": {"config": {"max_groups": groups}}}
            _run(definitions, instance, "mine_window", window, "INFO", stream)
            mined.append(window)
        out.print("a second miner uploads a broken copy of the last file")
        broken = upload_broken_copy(open_bucket(settings.bucket), mined[-1], own, chain.now())
        chain.advance_to(mined[-1] + WINDOW_BLOCKS)
        for window in mined:
            out.print(f"window {window} has closed: validating …")
            _run(definitions, instance, "validate_window", window, "WARNING")
        verify_fleet(out, settings, instance)
    names = {own: "you", broken: "broken copy"}
    tables.print_mined(out, lake, mined[0])
    tables.print_verdicts(out, lake, mined[0], names)
    tables.print_weights(out, lake, mined[-1], names)
    out.rule("windrow explain, for the broken copy", align="left")
    print_story(out, story(lake, str(mined[-1]), broken, own), brief=True)
    out.rule()
    out.print(
        NEXT.format(bucket=settings.bucket, window=mined[-1]), highlight=False, soft_wrap=True
    )


def _run(
    definitions: "dg.Definitions",
    instance: "dg.DagsterInstance",
    job: str,
    window: int,
    log_level: str,
    ops: Mapping[str, Any] | None = None,
) -> None:
    """Run a job of one window in this process. Raises DemoFailed."""
    result = definitions.resolve_job_def(job).execute_in_process(
        partition_key=str(window),
        instance=instance,
        run_config={
            "ops": dict(ops or {}),
            "loggers": {"console": {"config": {"log_level": log_level}}},
        },
        raise_on_error=False,
    )
    if not result.success:
        failed = ", ".join(str(e.step_key) for e in result.all_events if e.is_step_failure)
        raise DemoFailed(
            f"window {window} failed in {failed}; run {result.run_id} has the details: make ui"
        )


NEXT = """reward: mean of the rollouts; margin: seconds that were left until the network's deadline.
The demo's chain jumps to the next window once a file is up, so explain, which looks
back, counts to that jump.
The files are in {bucket}, signed by development keys.

Type next:
  make ui                                the pipeline in a browser; it mines and
                                         validates every window
  .venv/bin/windrow status               the chain and the newest windows
  .venv/bin/windrow explain {window}      your own file of the last window
  .venv/bin/windrow verify FILE --all    any window file, every rollout
  .venv/bin/windrow doctor               what is configured, what is missing
  .venv/bin/windrow sql --list           what can be asked of the lake
"""
