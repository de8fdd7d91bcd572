"""SGLang's own Python environment: what is installed for CUDA and for the CPU, and how.

On CUDA, SGLang's package brings what it needs. It has no package for the CPU: its pins are CUDA
builds of several GB. What the server needs for a dense model in float32 runs without them, so it is
installed without its pins, with three things in their place:

* torch: a CPU build of the release beside the pinned one.
* torchvision: SGLang imports it whether or not a model sees pictures. Its wheel is built for CUDA
  and registers fake kernels for `nms` at import, which fails where the compiled operators are
  missing; `sglang_cpu/sitecustomize.py` declares their signatures beforehand.
* vllm._custom_ops: off CUDA, SGLang takes the rotary embedding kernel from there. A file of that
  name in `sglang_cpu/` computes the same in PyTorch.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from windrow import WindrowError
from windrow.resources import torch_build
from windrow.resources.files import naming_disk_errors

VERSION: Final = "0.5.23"
TORCH: Final = "torch==2.13.0"
NEEDED: Final = (
    *("transformers==5.19.0", "tokenizers==0.23.2", "numpy", "einops", "sentencepiece", "gguf"),
    *("xxhash", "fastapi", "uvicorn>=0.51", "uvloop", "orjson", "pyzmq", "msgspec"),
    *("python-multipart", "requests", "aiohttp", "psutil", "setproctitle", "prometheus-client"),
    *("loguru", "packaging", "pybase64", "dill", "pillow", "ipython", "openai==2.8.0"),
    *("partial_json_parser", "jsonschema", "apache-tvm-ffi==0.1.11", "soundfile==0.13.1"),
)
"""What SGLang's server imports at its start, besides PyTorch."""
WITHOUT_THEIR_PINS: Final = (
    *(f"sglang=={VERSION}", "triton==3.9.0", "torchvision==0.28.0", "xgrammar==0.2.7"),
    "compressed-tensors==0.18.0",
)
FREE_GB: Final = {"cpu": 5, "cuda": 25}
"""Free disk that an installation is begun with. The CPU one takes 2.6 GB."""
MARK: Final = ".windrow-sglang.json"
"""File of an environment that this module makes: its recipe, once it is complete."""
_SHIMS: Final = Path(__file__).with_name("sglang_cpu")


class CannotInstall(WindrowError):
    """SGLang's environment was not made."""


@dataclass(frozen=True)
class Environment:
    """SGLang's environment in a folder. device: "cpu" or "cuda"."""

    folder: Path
    device: str

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def complete(self) -> bool:
        """Whether the folder holds exactly what this recipe makes."""
        try:
            return (self.folder / MARK).read_text() == self._recipe()
        except OSError:
            return False

    def make(self, say: Callable[[str], None]) -> None:
        """Make the environment; one that is incomplete or of another recipe is made from the start.

        say: is told what is being done. Raises CannotInstall, DiskFull, PathRefused.
        """
        self._clear()
        mark = self.folder / MARK
        with naming_disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            mark.write_text("")
        free = shutil.disk_usage(self.folder).free / 1e9
        if free < FREE_GB[self.device]:
            raise CannotInstall(
                f"{self.folder} has {free:.1f} GB free, and SGLang for {self.device} needs "
                f"{FREE_GB[self.device]} GB. Free space, or choose another disk with --path."
            )
        _run([sys.executable, "-m", "venv", str(self.folder)], "make a virtual environment")
        if self.device == "cuda":
            say(f"Installing SGLang {VERSION} and CUDA libraries, with the versions that it pins")
            self._pip(f"sglang=={VERSION}")
        else:
            self._install_for_cpu(say)
        say("Importing SGLang")
        _run([str(self.python), "-I", "-c", "import sglang"], "import SGLang")
        mark.write_text(self._recipe())

    def _install_for_cpu(self, say: Callable[[str], None]) -> None:
        say(f"Installing {TORCH} for the CPU")
        try:
            torch_build.install(
                torch_build.choose(
                    "cpu",
                    driver=torch_build.has_nvidia_driver,
                    offers_cuda=lambda: torch_build.offers_cuda(self.python, TORCH),
                ),
                self.python,
                TORCH,
            )
        except torch_build.NoBuild as error:
            raise CannotInstall(
                f"{error}\nIf PyTorch's index is out of reach, set PIP_EXTRA_INDEX_URL or "
                f"PIP_FIND_LINKS to a place that has the CPU build, {TORCH}+cpu."
            ) from None
        say(f"Installing SGLang {VERSION} without its CUDA libraries")
        self._pip(TORCH, *NEEDED)
        self._pip("--no-deps", *WITHOUT_THEIR_PINS)
        program = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
        purelib = _run([str(self.python), "-I", "-c", program], "find its packages")
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(_SHIMS, purelib.strip(), dirs_exist_ok=True, ignore=ignored)

    def _pip(self, *arguments: str) -> None:
        command = [str(self.python), "-I", "-m", "pip", "install", "--disable-pip-version-check"]
        quiet = [] if sys.stdout.isatty() else ["--quiet"]
        named = ", ".join(part for part in arguments[:3] if not part.startswith("-"))
        _run([*command, *quiet, *arguments], f"install {named}", shown=not quiet)

    def _clear(self) -> None:
        """Remove an earlier environment of ours. Raises CannotInstall for anything else."""
        with naming_disk_errors(self.folder):
            if not self.folder.exists():
                return
            if not self.folder.is_dir():
                raise CannotInstall(f"{self.folder} is a file. Choose another place with --path.")
            if any(self.folder.iterdir()):
                if not (self.folder / MARK).exists():
                    raise CannotInstall(
                        f"{self.folder} holds files that Windrow did not install. Choose an empty "
                        "or new folder with --path."
                    )
                shutil.rmtree(self.folder)

    def _recipe(self) -> str:
        found: dict[str, object] = {"sglang": VERSION, "device": self.device}
        if self.device == "cpu":
            digest = hashlib.sha256()
            for path in sorted(_SHIMS.rglob("*.py")):
                digest.update(path.read_bytes())
            packages = [TORCH, *NEEDED, *WITHOUT_THEIR_PINS]
            found |= {"packages": packages, "files": digest.hexdigest()}
        return json.dumps(found, indent=1)


def _run(command: Sequence[str], what: str, *, shown: bool = False) -> str:
    """Return what a command printed. Raises CannotInstall with its last lines."""
    try:
        if shown:
            done = subprocess.run(command, check=False, text=True)
        else:
            done = subprocess.run(command, check=False, capture_output=True, text=True)
    except OSError as error:
        raise CannotInstall(f"Could not {what}: {command[0]}: {error.strerror}.") from error
    if done.returncode:
        said = "\n".join(((done.stderr or "") + (done.stdout or "")).strip().splitlines()[-8:])
        raise CannotInstall(
            f"Could not {what} (exit status {done.returncode}). The command was:\n"
            f"  {' '.join(command)}\n{said}".rstrip()
        )
    return done.stdout or ""
