"""SGLang's command line."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from windrow.resources.checkpoints.files import VerifiedCheckpoint
from windrow.resources.files import published
from windrow.resources.generation.launch import ServerLaunch
from windrow.resources.models.config import read_config
from windrow.resources.secret import Secret

OURS: Final = ("model-path", "host", "port", "api-key", "admin-api-key", "weight-version", "config")
CPU_OPTIONS: Final = (
    *("--device", "cpu", "--attention-backend", "torch_native", "--sampling-backend", "pytorch"),
    *("--disable-cuda-graph", "--sleep-on-idle"),
)
"""Options of a server without GPU: what PyTorch can compute, no core busy while it waits."""


class SGLangCommand:
    """A `ServerCommand`; its keys are in a file while it starts, and on no command line."""

    def __init__(
        self,
        launch: ServerLaunch,
        home: Path,
        api_key: Secret | None = None,
        admin_key: Secret | None = None,
    ) -> None:
        """home: folder for the file with the keys. Raises InvalidLaunch."""
        launch.refuse_options(OURS)
        self.name = f"sglang-{launch.port}"
        self.launch = launch
        given = {"api-key": api_key, "admin-api-key": admin_key}
        self._keys = {name: key for name, key in given.items() if key is not None}
        self._keys_file = home / f"{self.name}.keys.yaml"
        self.secrets = tuple(self._keys.values())

    def argv(self, checkpoint: VerifiedCheckpoint) -> list[str]:
        """The command line that serves a checkpoint, stamped with its weights hash."""
        launch = self.launch
        argv = [str(launch.python), "-m", "sglang.launch_server"]
        argv += ["--config", str(self._keys_file)] if self._keys else []
        argv += ["--model-path", str(checkpoint.directory.absolute())]
        argv += ["--weight-version", checkpoint.weights_hash]
        argv += ["--host", launch.host, "--port", str(launch.port), "--dtype", launch.dtype]
        argv += ["--mem-fraction-static", str(launch.memory_fraction), "--skip-server-warmup"]
        argv += ["--tp-size", str(len(launch.gpus))] if launch.gpus else list(CPU_OPTIONS)
        if launch.context_length is not None:
            argv += ["--context-length", str(launch.context_length)]
        if launch.max_running is not None:
            argv += ["--max-running-requests", str(launch.max_running)]
        if launch.gpus and not launch.cuda_graphs:
            argv += ["--disable-cuda-graph"]
        if launch.deterministic:
            argv += ["--enable-deterministic-inference"]
        if _penalised(checkpoint):
            # A step is otherwise prepared before the token of the last is known, and that token
            # goes unpenalised.
            argv += ["--disable-overlap-schedule"]
        return [*argv, *launch.options]

    def variables(self) -> dict[str, str]:
        """Environment variables, in addition to those that every server is given."""
        # Off a GPU there are no kernels of its own to use, and nothing worth compiling: the first
        # request with a repetition penalty would wait for it, on a busy machine for minutes.
        slow = {} if self.launch.gpus else {"TORCHDYNAMO_DISABLE": "1"}
        return {"SGLANG_USE_CPU_ENGINE": "0"} | slow | self.launch.variables()

    def kept(self, checkpoint: VerifiedCheckpoint) -> object:
        """The model without its weights, which are exchanged in place."""
        config = read_config(checkpoint.directory)
        config.pop("transformers_version", None)
        return [config, _penalised(checkpoint)]

    @contextmanager
    def sealed(self) -> Iterator[None]:
        """The keys in their file, which only this user can read."""
        try:
            if self._keys:
                with published(self._keys_file, replace=True) as path:
                    path.touch(mode=0o600)
                    # JSON is YAML, which the server reads.
                    keys = {name: key.reveal() for name, key in self._keys.items()}
                    path.write_text(json.dumps(keys))
            yield
        finally:
            self._keys_file.unlink(missing_ok=True)


def _penalised(checkpoint: VerifiedCheckpoint) -> bool:
    return checkpoint.metadata.policy.repetition_penalty != 1.0
