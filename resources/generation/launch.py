"""How a generation server is started, whatever its make, and found again by later runs."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from windrow import WindrowError
from windrow.resources.checkpoints.files import VerifiedCheckpoint
from windrow.resources.generation.process import ServerProcess, require_free_port
from windrow.resources.secret import Secret


class InvalidLaunch(WindrowError):
    """A server cannot be started as configured."""


@dataclass(frozen=True)
class ServerLaunch:
    """What is chosen about a server.

    python: interpreter of the environment that the server is installed in. gpus: entries of
    CUDA_VISIBLE_DEVICES, one for each tensor-parallel rank; none starts it without a GPU.
    memory_fraction: of a GPU, for weights and cache. context_length: None for the model's own.
    max_running: sequences decoded at once. deterministic: sample by the seeds, at some cost; SGLang
    needs a GPU for it. options: further ones, as on a command line. environment: further variables.
    """

    python: Path
    port: int
    host: str = "127.0.0.1"
    gpus: tuple[str, ...] = ()
    memory_fraction: float = 0.9
    context_length: int | None = None
    dtype: str = "bfloat16"
    max_running: int | None = None
    deterministic: bool = False
    cuda_graphs: bool = True
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    start_seconds: float = 900.0

    @property
    def url(self) -> str:
        """Where the server answers."""
        return f"http://{self.host}:{self.port}"

    def variables(self) -> dict[str, str]:
        """Environment variables of any server; nothing is looked for on the network."""
        return {
            "CUDA_VISIBLE_DEVICES": ",".join(self.gpus),
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            **self.environment,
        }

    def refuse_options(self, ours: tuple[str, ...]) -> None:
        """Raises InvalidLaunch when a further option is one of those that Windrow sets itself."""
        for option in self.options:
            name = option.split("=")[0]
            if name.startswith("-") and name.lstrip("-").replace("_", "-") in ours:
                raise InvalidLaunch(
                    f"option {name} of a generation server is set by Windrow; take it out of the "
                    "further options"
                )


class ServerCommand(Protocol):
    """One make of server.

    name: of its state and log. kept: what a server keeps from its start to its end, as JSON; one
    that runs with anything else cannot be used. sealed: its secrets, in place while it starts.
    """

    name: str
    launch: ServerLaunch
    secrets: tuple[Secret, ...]

    def argv(self, checkpoint: VerifiedCheckpoint) -> list[str]: ...
    def variables(self) -> dict[str, str]: ...
    def kept(self, checkpoint: VerifiedCheckpoint) -> object: ...
    def sealed(self) -> AbstractContextManager[None]: ...


class Starter:
    """Starts the server of one port, and knows whether the one that runs there can be used."""

    def __init__(self, command: ServerCommand, home: Path) -> None:
        """home: folder for its state and log."""
        self._command = command
        self._process = ServerProcess(command.name, home, command.secrets)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other runs from starting or stopping the server meanwhile."""
        with self._process.alone():
            yield

    def usable(self, checkpoint: VerifiedCheckpoint) -> bool:
        """Whether a server runs that could sample from this checkpoint."""
        running = self._process.running()
        return running is not None and running.identity == self._identity(checkpoint)

    def start(self, checkpoint: VerifiedCheckpoint, ready: Callable[[], object]) -> None:
        """Start a server on a checkpoint, in place of any that Windrow started before.

        Raises as `ServerProcess.start`, and PortTaken.
        """
        command, launch = self._command, self._command.launch
        self._process.stop()
        require_free_port(launch.host, launch.port)
        with command.sealed():
            self._process.start(
                command.argv(checkpoint),
                command.variables(),
                self._identity(checkpoint),
                ready=ready,
                seconds=launch.start_seconds,
            )

    def stop(self) -> None:
        """Raises ServerWouldNotStop."""
        self._process.stop()

    def trim_log(self) -> None:
        """Hold the server's log to its size."""
        self._process.trim_log()

    def _identity(self, checkpoint: VerifiedCheckpoint) -> str:
        command = self._command
        secrets = [secret.reveal() for secret in command.secrets]
        kept = [asdict(command.launch), secrets, command.kept(checkpoint)]
        return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()
