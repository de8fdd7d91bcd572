"""`windrow doctor`: what is configured, what is missing, what each GPU index means."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from windrow import WindrowError
from windrow.environments.sandbox import Sandbox
from windrow.networks.grail.constants import WINDOW_BLOCKS
from windrow.networks.grail.windows import window_start
from windrow.resources.settings import Settings

FREE_BYTES = 2 * 1024**3


@dataclass(frozen=True)
class Finding:
    """What one look at the machine found. problem: something is missing or will not work."""

    about: str
    found: str
    problem: bool = False


def report(out: Console) -> bool:
    """Print settings, findings and GPUs; True when nothing is missing.

    Raises SettingError when the settings cannot even be read.
    """
    settings = Settings.read()
    _print_settings(out, settings)
    findings = [_look(about, look, settings) for about, look in LOOKS.items()]
    table = Table(title="this machine", title_justify="left")
    table.add_column("")
    table.add_column("part")
    table.add_column("found", overflow="fold")
    for finding in findings:
        table.add_row(
            "[red]✗[/]" if finding.problem else "[green]✓[/]", finding.about, finding.found
        )
    out.print(table)
    missing = _print_gpus(out, settings)
    return not missing and not any(finding.problem for finding in findings)


def _print_settings(out: Console, settings: Settings) -> None:
    table = Table(title="settings (environment variables)", title_justify="left")
    for name in ("variable", "value", "from", "meaning"):
        table.add_column(name, overflow="fold")
    for row in settings.describe():
        table.add_row(
            row.name, row.value, row.source, row.meaning, style=None if row.used else "yellow"
        )
    out.print(table)


def _look(about: str, look: Callable[[Settings], str], settings: Settings) -> Finding:
    try:
        return Finding(about, look(settings))
    except WindrowError as error:
        return Finding(about, str(error), problem=True)


def _home(settings: Settings) -> str:
    settings.home.mkdir(parents=True, exist_ok=True)
    if not os.access(settings.home, os.W_OK):
        raise WindrowError(
            f"{settings.home} cannot be written to; set WINDROW_HOME to a folder that can"
        )
    free = shutil.disk_usage(settings.home).free
    if free < FREE_BYTES:
        raise WindrowError(
            f"{free / 1e9:.1f} GB are free at {settings.home}; make room for windows"
        )
    return f"{settings.home.resolve()}, {free / 1e9:.0f} GB free"


def _dagster(_: Settings) -> str:
    home = os.environ.get("DAGSTER_HOME")
    if not home:
        raise WindrowError(
            "DAGSTER_HOME is not set, so dagster commands forget their runs; in the folder of "
            "dagster.yaml: export DAGSTER_HOME=$PWD"
        )
    return f"DAGSTER_HOME={home}"


def _chain(settings: Settings) -> str:
    from windrow.pipelines.embedded import embedded_chain

    chain = embedded_chain(settings)
    block = chain.block()
    window = window_start(block)
    return (
        f"development chain at block {block}, window {window} open for "
        f"{window + WINDOW_BLOCKS - block} more blocks"
    )


def _wallet(settings: Settings) -> str:
    from windrow.resources.wallet import DevelopmentWallet

    return f"development hotkey {DevelopmentWallet(settings.wallet_uri).hotkey}"


def _checkpoint(settings: Settings) -> str:
    from windrow.pipelines.embedded import embedded_chain, embedded_resources

    window = window_start(embedded_chain(settings).block())
    chosen = embedded_resources(settings)["checkpoints"].select(window)
    return f"checkpoint {chosen} is ready for window {window}, in {settings.bucket}"


def _sandbox(_: Settings) -> str:
    Sandbox(1).check()
    return "bubblewrap starts: math, mbpp and humaneval can be graded"


LOOKS: dict[str, Callable[[Settings], str]] = {
    "home": _home,
    "Dagster": _dagster,
    "chain": _chain,
    "wallet": _wallet,
    "checkpoint": _checkpoint,
    "sandbox": _sandbox,
}


def _print_gpus(out: Console, settings: Settings) -> list[str]:
    """What each index means; returns the uses whose GPU is not there."""
    import torch

    count = torch.cuda.device_count()
    wanted = {
        "generation": ("WINDROW_GENERATION_GPU", settings.generation_gpu),
        "proofs": ("WINDROW_PROOF_GPU", settings.proof_gpu),
    }
    if not count:
        out.print("no CUDA device is visible: generation and proofs run on the CPU")
    for index in range(count):
        properties = torch.cuda.get_device_properties(index)
        uses = [use for use, (_, gpu) in wanted.items() if gpu == index] or ["unused"]
        out.print(
            f"GPU {index}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB: "
            f"{' and '.join(uses)}"
        )
    missing = [use for use, (_, gpu) in wanted.items() if gpu is not None and gpu >= count]
    for use in missing:
        variable, gpu = wanted[use]
        out.print(
            f"[red]✗[/] {variable}={gpu}: {use} would need GPU {gpu}, "
            f"but {count} are visible (CUDA_VISIBLE_DEVICES renumbers them from 0)"
        )
    return missing
