"""The `windrow` command."""

import logging
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from windrow import WindrowError
from windrow.networks.grail.windows import parse_window
from windrow.pipelines.commands.folder import adopt_folder
from windrow.pipelines.commands.install import app as installs
from windrow.pipelines.commands.lake_cli import app as lakes
from windrow.pipelines.commands.node_cli import app as nodes
from windrow.pipelines.commands.printing import readable

app = typer.Typer(
    help="Run, prove, check and account for GPU work on proof-of-compute networks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(nodes, name="node")
app.add_typer(installs, name="install")
app.add_typer(lakes, name="lake")
out = Console()
err = Console(stderr=True)


def _print_version(wanted: bool) -> None:
    if wanted:
        out.print(f"windrow {version('windrow')}", highlight=False)
        raise typer.Exit


@app.callback()
def windrow(
    _: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Run, prove, check and account for GPU work on proof-of-compute networks."""


def _hotkey(text: str | None) -> str | None:
    from windrow.resources.configuration import values

    try:
        return values.ss58(text) if text else text
    except ValueError as error:
        raise typer.BadParameter(f"{text!r:.80} is not a hotkey: {error}") from None


def _hotkeys(texts: list[str] | None) -> list[str] | None:
    for text in texts or []:
        _hotkey(text)
    return texts


def _window(window: int | None) -> int | None:
    if window is not None and parse_window(str(window)) is None:
        raise typer.BadParameter(f"{window} is not the first block of a window, a multiple of 30")
    return window


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="made if it is missing")] = Path(),
) -> None:
    """Write Dagster's files, a commented .env and a fleet.yaml; a file that exists is kept."""
    from windrow.pipelines.commands.folder import init as make

    make(out, folder)


@app.command()
def demo(
    windows: Annotated[int, typer.Option(min=1, help="windows to mine")] = 3,
    groups: Annotated[int, typer.Option(min=1, help="groups of 16 rollouts a window")] = 4,
) -> None:
    """Mine, validate and verify nodes end to end, apart from your own data, in windrow-demo."""
    # Before PyTorch loads: its threads wait for each other where the demo has not every core.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from windrow.pipelines.demo.run import FOLDER, run_demo

    run_demo(out, windows, groups, Path(FOLDER))


@app.command()
def ui(
    host: Annotated[str, typer.Option(help="address to listen on; no login")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="port to listen on")] = 3000,
) -> None:
    """Dagster's UI, with the daemon that starts runs, until interrupted."""
    from windrow.pipelines.commands.ui import serve

    serve(out, host, port)


@app.command(
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "help_option_names": [],
    }
)
def dagster(context: typer.Context) -> None:
    """Dagster's own command, with the instance of this folder: windrow dagster job list."""
    from windrow.pipelines.commands.ui import run_dagster

    run_dagster(context.args)


@app.command()
def doctor(
    repairing: Annotated[
        bool,
        typer.Option("--repair", help="first repair Dagster's databases if they are broken"),
    ] = False,
) -> None:
    """What is configured, what is missing and what to do; exit status 1 if anything is missing."""
    from windrow.pipelines.commands.doctor import repair, report

    if repairing:
        repair(out)
    raise typer.Exit(0 if report(out) else 1)


@app.command()
def status() -> None:
    """The chain, the open window and the newest windows in the lake."""
    from windrow.pipelines.commands.status import show

    show(out)


@app.command()
def stop() -> None:
    """End the generation servers and proof workers that outlive their runs."""
    from windrow.pipelines.commands.stop import stop as end

    end(out)


@app.command()
def windows(
    first: Annotated[str, typer.Argument(help="the oldest window, e.g. 5000040")],
    last: Annotated[str, typer.Argument(help="the newest window of the range")],
) -> None:
    """Register a range of windows with Dagster, to backfill them."""
    from windrow.pipelines.commands.windows import register

    register(out, first, last)


@app.command()
def sql(
    query: Annotated[
        str, typer.Argument(help="a named query, or a SELECT over the lake; with --list, a name")
    ] = "",
    names: Annotated[
        bool, typer.Option("--list", help="list tables and queries, or the columns of one")
    ] = False,
    rows: Annotated[int, typer.Option(min=1, help="most rows of the printed table")] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="print every row as JSON")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="print every row as CSV")] = False,
    lake: Annotated[
        str, typer.Option(help="s3://BUCKET/PREFIX of a copied lake; default: this machine's")
    ] = "",
) -> None:
    """Query the lake with DuckDB, read-only, while runs go on."""
    from windrow.pipelines.commands.sql import Form, list_all, list_columns, print_query

    if as_json and as_csv:
        raise typer.BadParameter("choose one of --json and --csv")
    form = Form.JSON if as_json else Form.CSV if as_csv else Form.TABLE
    if not query:
        list_all(out)
    elif names:
        list_columns(out, query)
    else:
        print_query(out, query, rows, form, lake)


@app.command()
def verify(
    files: Annotated[list[str], typer.Argument(help="window files: paths or s3://BUCKET/KEY")],
    model: Annotated[
        bool, typer.Option(help="ask the checkpoint's model too, or make all other checks only")
    ] = True,
    every: Annotated[
        bool, typer.Option("--all", help="check every rollout, not only the network's sample")
    ] = False,
    randomness: Annotated[
        str | None, typer.Option(help="R_v as hex; default: the closed window's, else drawn")
    ] = None,
    hotkey: Annotated[
        str | None,
        typer.Option(
            help="owner; default: of the file's name, else of its header", callback=_hotkey
        ),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(
            help="first block; default: of the name, else of the header", callback=_window
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
) -> None:
    """What the network would do with window files, and what is true of them.

    Exit status 0: accepted by the network and by Windrow. 1: refused by either. 2: a file could
    not be verified.
    """
    from windrow.pipelines.commands.verify import Options, Verifier, exit_status
    from windrow.pipelines.commands.verify_report import print_json, print_page

    # What a check raised on a hostile file is in its verdict; a log would print it as a traceback.
    logging.getLogger("windrow.engine").setLevel(logging.ERROR)
    verifier = Verifier.embedded(Options(model, every, randomness, hotkey, window))
    reports = []
    for file in files:
        reports.append(verifier.judge(file))
        if not as_json:
            print_page(out, reports[-1])
    if as_json:
        print_json(out, reports)
    raise typer.Exit(exit_status(reports))


@app.command()
def publish(
    folder: Annotated[Path, typer.Argument(help="a checkpoint: model files and metadata.json")],
    window: Annotated[
        int | None, typer.Option(help="publish it as this window's; default: its metadata's")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="FULL alone, whatever is due")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="then delete what a publisher no longer keeps")
    ] = False,
) -> None:
    """As a trainer: put a checkpoint into your bucket, FULL or DELTA as its place asks for."""
    from windrow.pipelines.commands.publish import publish as put

    put(out, folder, window, full=full, prune=prune)


@app.command()
def metrics(
    port: Annotated[int, typer.Option(min=1, max=65535, help="port to listen on")] = 9108,
    host: Annotated[str, typer.Option(help="address to listen on; no login")] = "127.0.0.1",
) -> None:
    """Serve the newest windows' numbers to Prometheus, from the lake, until interrupted."""
    from windrow.pipelines.commands.metrics import serve

    serve(out, port, host)


@app.command()
def agent(
    hotkey: Annotated[str, typer.Option(help="whom this machine answers for", callback=_hotkey)],
    caller: Annotated[
        list[str] | None,
        typer.Option(help="hotkey that may ask, again for more; default: it", callback=_hotkeys),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="port to listen on")] = 8790,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    node: Annotated[
        str, typer.Option(help="its name in fleet.yaml; questions for another are refused")
    ] = "",
    tls_cert: Annotated[
        Path | None, typer.Option(help="PEM certificate, to answer over TLS", exists=True)
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM key of --tls-cert", exists=True)] = None,
) -> None:
    """Let your other machines verify this one: answer signed requests until interrupted.

    Prints what fleet.yaml needs of it. The key it signs with is made once, below WINDROW_HOME.
    """
    from windrow.pipelines.commands.agent import serve

    if (tls_cert is None) != (tls_key is None):
        raise typer.BadParameter("Give --tls-cert and --tls-key together.")
    tls = None
    if tls_cert is not None and tls_key is not None:
        from windrow.resources.guarded_server import TlsFiles

        tls = TlsFiles(str(tls_cert), str(tls_key))
    serve(out, hotkey, caller or [], host, port, node or None, tls)


@app.command()
def explain(
    window: Annotated[str, typer.Argument(help="first block of a validated window")],
    hotkey: Annotated[
        str, typer.Argument(help="a miner; default: your own", callback=_hotkey)
    ] = "",
) -> None:
    """What became of a miner's window: verdicts, score, weight, ban, and what to change."""
    from windrow.pipelines.commands.explain_page import show

    show(out, window, hotkey)


def main() -> None:
    """Run the command; a WindrowError is a message and exit status 2, never a traceback."""
    try:
        adopt_folder()
        app(prog_name="windrow")
    except WindrowError as error:
        said = Text.assemble((type(error).__name__, "bold red"), ": ", readable(str(error)))
        err.print(said, highlight=False, soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
