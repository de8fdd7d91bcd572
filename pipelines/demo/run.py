"""`windrow demo`: mine a few windows of the embedded network, then validate them."""

import contextlib
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from windrow import WindrowError
from windrow.networks.grail.constants import WINDOW_BLOCKS
from windrow.networks.grail.windows import window_start
from windrow.pipelines.commands.explain import story
from windrow.pipelines.commands.explain_page import print_story
from windrow.pipelines.commands.folder import (
    DAGSTER_FILES,
    adopt_folder,
    exported_settings,
    way_back,
    write_files,
    write_setting,
)
from windrow.pipelines.demo import tables
from windrow.pipelines.demo.broken import upload_broken_copy
from windrow.pipelines.demo.fleet import verify_fleet
from windrow.pipelines.demo.network import CHECKPOINT
from windrow.resources.configuration.settings import Settings, is_setting
from windrow.resources.storage.object_store import open_bucket
from windrow.resources.wallet import DevelopmentWallet
from windrow.resources.warehouse.lake import Lake

if TYPE_CHECKING:
    import dagster as dg

FOLDER = "windrow-demo"
"""Folder of the demo's own installation: settings, lake, bucket, chain, nodes, Dagster's runs."""


class DemoFailed(WindrowError):
    """A demo window was not mined or not validated."""


def run_demo(
    out: Console, windows: int, groups: int, folder: Path, given: Mapping[str, str] | None = None
) -> None:
    """Mine `windows` windows of `groups` groups, validate them, and print what DuckDB says of both.

    Everything is kept in `folder`, an installation of its own; no setting of the environment or of
    this folder's `.env` is read, and nothing else is written. given: settings of the demo, by
    variable, for another demo than the default one.

    The development chain jumps to the next window instead of waiting for it; from there its clock
    runs on, so deadlines and time budgets are real. In the last window a second miner uploads a
    broken copy of the first one's file. Raises DemoFailed, DemoFleetFailed, DiskFull, PathRefused.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with own_installation(folder, given or {}) as settings:
        newest = _run_demo(out, windows, groups, settings)
    out.print(ENDED.format(bucket=settings.bucket), highlight=False, soft_wrap=True)
    unset = exported_settings()
    steps = [
        *way_back(folder),
        *([f"unset {' '.join(unset)}"] if unset else []),
        *NEXT.format(window=newest).splitlines(),
    ]
    out.print("Type next:", *(f"  {step}" for step in steps), sep="\n", highlight=False,
              soft_wrap=True)  # fmt: skip


@contextlib.contextmanager
def own_installation(folder: Path, given: Mapping[str, str]) -> Iterator[Settings]:
    """Work in a folder as in an installation of its own, with no setting from outside it."""
    write_files(folder, DAGSTER_FILES)
    # As a node, this machine answers with the demo's own model.
    write_setting(folder / ".env", "WINDROW_NODE_MODELS", str(CHECKPOINT.parent))
    before = dict(os.environ)
    with contextlib.chdir(folder):
        for name in filter(is_setting, before):
            del os.environ[name]
        os.environ.pop("DAGSTER_HOME", None)
        os.environ.update(given)
        adopt_folder()
        try:
            settings = Settings.read()
            _refuse_live_parts(settings)
            yield settings
        finally:
            os.environ.clear()
            os.environ.update(before)


def _refuse_live_parts(settings: Settings) -> None:
    """Raises DemoFailed: the demo moves a chain and fills a bucket, never live ones."""
    embedded = settings.chain == settings.wallet == "development"
    if not embedded or settings.bucket.startswith("s3://"):
        raise DemoFailed(
            f"{Path.cwd() / '.env'} asks for live parts, and the demo never uses them. Move these "
            "settings to the .env of your own installation (windrow init makes one), and delete "
            f"{Path.cwd() / '.env'}"
        )


def _run_demo(out: Console, windows: int, groups: int, settings: Settings) -> int:
    """Return the newest window that was mined."""
    from windrow.pipelines.build import build
    from windrow.pipelines.embedded import embedded_chain
    from windrow.pipelines.instance import open_instance

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
    return mined[-1]


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
            f"window {window} failed in {failed}; run {result.run_id} has the details: "
            f"cd {shlex.quote(str(Path.cwd()))} && windrow ui"
        )


ENDED = """\
reward: mean of the rollouts; margin: seconds that were left until the network's deadline.
The demo's chain jumps to the next window once a file is up, so explain, which looks
back, counts to that jump.
The files are in {bucket}, signed by development keys.
"""
NEXT = """windrow ui                   # the pipeline in a browser; it goes on mining
windrow status               # the chain and the newest windows
windrow node list            # the nodes; the demo's agents have ended
windrow explain {window}      # your own file of the last window
windrow verify FILE --all    # any window file, every rollout
windrow doctor               # what is configured, what is missing
windrow sql --list           # what can be asked of the lake"""
