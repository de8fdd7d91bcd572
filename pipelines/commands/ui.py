"""`windrow ui` and `windrow dagster`: Dagster's own commands, with the instance of this folder."""

import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from windrow import WindrowError
from windrow.pipelines.commands.folder import (
    NoInstance,
    refuse_contradictions,
    require_instance,
)
from windrow.resources.configuration.settings import Settings

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class AddressTaken(WindrowError):
    """The UI cannot listen on the address it was given."""


def serve(out: Console, host: str, port: int) -> NoReturn:
    """Become `dagster dev`: webserver, daemon and code server of this folder, until interrupted.

    Raises NoInstance, ContradictingSettings, SettingError, AddressTaken.
    """
    home = require_instance()
    if not Path("workspace.yaml").is_file():
        raise NoInstance(
            f"{Path.cwd()} has no workspace.yaml, which names the code that Dagster loads. "
            "Change to the folder of your installation, or make one here: windrow init"
        )
    refuse_contradictions()
    Settings.read()
    _try_to_listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    out.print(f"Dagster's UI on http://{shown}:{port}, with the instance of {home}; Ctrl-C ends it",
              soft_wrap=True, highlight=False)  # fmt: skip
    if host not in LOOPBACK:
        out.print("[yellow]The UI has no login: whoever reaches this address can start runs.[/]")
    # PyTorch's threads wait for each other where a run has not every core to itself.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    _become(["dev", "-w", "workspace.yaml", "--host", host, "--port", str(port)])


def run_dagster(arguments: Sequence[str]) -> NoReturn:
    """Become Dagster's own command. Raises NoInstance, ContradictingSettings."""
    if not {"-h", "--help"} & set(arguments):
        require_instance()
        refuse_contradictions()
    _become(arguments)


def _become(arguments: Sequence[str]) -> NoReturn:
    sys.stdout.flush()
    python = [sys.executable, "-W", "ignore:Function `dev_command` is superseded"]
    os.execv(sys.executable, [*python, "-m", "dagster", *arguments])  # noqa: S606 - no shell wanted


def _try_to_listen(host: str, port: int) -> None:
    """Raises AddressTaken."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise AddressTaken(
            f"The UI cannot listen on {host} port {port}: {error.strerror}. Stop what listens "
            f"there, or choose another port: windrow ui --port {port + 1}"
        ) from None
