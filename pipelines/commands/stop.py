"""Ending what outlives a run: generation servers and proof workers of this machine."""

from pathlib import Path

from rich.console import Console

from windrow.pipelines.commands.printing import cell
from windrow.resources.configuration.settings import Settings
from windrow.resources.generation.process import ServerProcess
from windrow.resources.proof_pool.processes import stop_workers


def stop(out: Console) -> None:
    """End every generation server and proof worker started under WINDROW_HOME, and name them.

    Runs at work notice: their group in flight is dropped, what is finished stays.
    Raises ServerWouldNotStop.
    """
    home = Settings.read().home
    ended = [*_servers(home / "servers"), *stop_workers(home / "proof-workers")]
    for name in ended:
        out.print("ended", cell(name))
    if not ended:
        out.print(f"nothing of {home} is running")


def _servers(folder: Path) -> list[str]:
    ended = []
    for state in sorted(folder.glob("*.json")):
        server = ServerProcess(state.stem, folder)
        with server.alone():
            if server.running() is not None:
                server.stop()
                ended.append(state.stem)
    return ended
