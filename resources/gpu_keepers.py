"""What of ours keeps memory of GPUs between its turns: generation servers and proof workers.

They outlive the run that started them, for the next one, and hold no lock meanwhile. Workers of a
Ray cluster are not seen here: the cluster hands out its GPUs itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

HELLO_SECONDS: Final = 2.0
STOP: Final = "`windrow stop` ends it, and the next window starts it again"


@dataclass(frozen=True)
class Keeper:
    """what: it is, in words. gpus: entries of CUDA_VISIBLE_DEVICES; None may be any of them.

    remedy: what makes it let go.
    """

    what: str
    gpus: tuple[str, ...] | None
    remedy: str = STOP


def keepers(home: Path) -> list[Keeper]:
    """Those that live, of the ones started under a WINDROW_HOME. Raises ForeignWorker."""
    from windrow.resources.generation.process import ServerProcess
    from windrow.resources.proof_pool.processes import workers_at

    found = []
    for state in sorted((home / "servers").glob("*.json")):
        running = ServerProcess(state.stem, home / "servers").running()
        if running is not None:
            what = f"the generation server {state.stem} (process {running.pid})"
            found.append(Keeper(what, _entries(running.gpus)))
    for name, said in workers_at(home / "proof-workers", HELLO_SECONDS).items():
        found += worker_keeps(name, said)
    return [keeper for keeper in found if keeper.gpus != ()]


def worker_keeps(name: str, said: Mapping[str, Any]) -> list[Keeper]:
    """What a proof worker keeps. said: its hello, empty of one that hangs."""
    if name.startswith("cpu-") or said.get("device") == "cpu":
        return []
    if not said:
        return [Keeper(f"the proof worker {name}, which does not answer,", None)]
    if said.get("weights_hash") is None:
        return []  # it has not touched its GPU yet
    what = f"the proof worker {name} (process {said.get('pid')})"
    idle = f"it ends by itself when nobody asked it for half an hour, and {STOP}"
    return [Keeper(what, _entries(said.get("gpus")), idle)]


def _entries(visible: object) -> tuple[str, ...] | None:
    """The GPUs that a CUDA_VISIBLE_DEVICES shows; without one, all there are."""
    if not isinstance(visible, str):
        return None
    return tuple(entry for part in visible.split(",") if (entry := part.strip()))
