"""How an SGLang server is started, and found again by later runs."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from windrow import WindrowError
from windrow.resources.checkpoint_files import VerifiedCheckpoint
from windrow.resources.files import published
from windrow.resources.generation_process import ServerProcess, require_free_port
from windrow.resources.model_config import read_config
from windrow.resources.secret import Secret

OURS: Final = ("model-path", "host", "port", "api-key", "admin-api-key", "weight-version", "config")
"""Options that Windrow sets itself."""
CPU_OPTIONS: Final = (
    *("--device", "cpu", "--attention-backend", "torch_native", "--sampling-backend", "pytorch"),
    "--disable-cuda-graph",
)
"""Options of a server without GPU: what PyTorch alone can compute."""


class InvalidLaunch(WindrowError):
    """A server cannot be started as configured."""


@dataclass(frozen=True)
class SGLangLaunch:
    """How to start a server.

    python: interpreter of the environment that SGLang is installed in. gpus: entries of
    CUDA_VISIBLE_DEVICES, one for each rank; none starts it without a GPU. memory_fraction: of a
    GPU, for weights and cache. context_length: None for the model's own. max_running: sequences
    decoded at once. deterministic: sample by seeds, at some cost; not on every GPU and never
    without. options: further ones, as on a command line. environment: further variables.
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

    def __post_init__(self) -> None:
        for option in self.options:
            if option.split("=")[0].removeprefix("--").replace("_", "-") in OURS:
                raise InvalidLaunch(
                    f"option {option.split('=')[0]} of an SGLang server is set by Windrow; take it "
                    "out of the further options"
                )

    def argv(self, checkpoint: VerifiedCheckpoint, keys: Path | None) -> list[str]:
        """The command line. keys: file with the API keys, which no command line shows."""
        argv = [str(self.python), "-m", "sglang.launch_server"]
        argv += ["--config", str(keys)] if keys is not None else []
        argv += ["--model-path", str(checkpoint.directory.absolute())]
        argv += ["--weight-version", checkpoint.weights_hash]
        argv += ["--host", self.host, "--port", str(self.port), "--dtype", self.dtype]
        argv += ["--mem-fraction-static", str(self.memory_fraction), "--skip-server-warmup"]
        argv += ["--tp-size", str(len(self.gpus))] if self.gpus else list(CPU_OPTIONS)
        if self.context_length is not None:
            argv += ["--context-length", str(self.context_length)]
        if self.max_running is not None:
            argv += ["--max-running-requests", str(self.max_running)]
        if self.gpus and not self.cuda_graphs:
            argv += ["--disable-cuda-graph"]
        if self.deterministic:
            argv += ["--enable-deterministic-inference"]
        return [*argv, *self.options]

    def variables(self) -> dict[str, str]:
        """Environment variables; a checkpoint is never looked for on the network."""
        return {
            "CUDA_VISIBLE_DEVICES": ",".join(self.gpus),
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "SGLANG_USE_CPU_ENGINE": "0",
            **self.environment,
        }


class SGLangStarter:
    """Starts the server of one port, and knows whether the one that runs there can be used."""

    def __init__(
        self,
        launch: SGLangLaunch,
        home: Path,
        api_key: Secret | None = None,
        admin_key: Secret | None = None,
    ) -> None:
        """home: folder for its state and log. The keys are what the server will demand."""
        given = {"api-key": api_key, "admin-api-key": admin_key}
        self._keys = {name: key for name, key in given.items() if key is not None}
        self._launch = launch
        self._process = ServerProcess(f"sglang-{launch.port}", home, list(self._keys.values()))
        self._keys_file = home / f"sglang-{launch.port}.keys.yaml"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other runs from starting or stopping the server meanwhile."""
        with self._process.alone():
            yield

    def usable(self, checkpoint: VerifiedCheckpoint) -> bool:
        """Whether a server runs that could take this checkpoint's weights in place."""
        running = self._process.running()
        return running is not None and running.identity == self._identity(checkpoint)

    def start(self, checkpoint: VerifiedCheckpoint, ready: Callable[[], object]) -> None:
        """Start a server on a checkpoint, in place of any that Windrow started before.

        Raises as `ServerProcess.start`, and PortTaken.
        """
        self._process.stop()
        require_free_port(self._launch.host, self._launch.port)
        if self._keys:
            with published(self._keys_file, replace=True) as path:
                path.touch(mode=0o600)
                # JSON is YAML, which the server reads.
                path.write_text(
                    json.dumps({name: key.reveal() for name, key in self._keys.items()})
                )
        try:
            self._process.start(
                self._launch.argv(checkpoint, self._keys_file if self._keys else None),
                self._launch.variables(),
                self._identity(checkpoint),
                ready=ready,
                seconds=self._launch.start_seconds,
            )
        finally:
            self._keys_file.unlink(missing_ok=True)

    def stop(self) -> None:
        """Raises ServerWouldNotStop."""
        self._process.stop()

    def trim_log(self) -> None:
        """Hold the server's log to its size."""
        self._process.trim_log()

    def _identity(self, checkpoint: VerifiedCheckpoint) -> str:
        """Digest of what a server keeps from start to end: its options, keys, model's shape."""
        config = read_config(checkpoint.directory)
        config.pop("transformers_version", None)
        keys = {name: key.reveal() for name, key in self._keys.items()}
        kept = json.dumps([asdict(self._launch), keys, config], sort_keys=True, default=str)
        return hashlib.sha256(kept.encode()).hexdigest()
