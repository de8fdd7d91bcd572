"""Real disks that fail: a full one and a read-only one, made with bubblewrap, without root."""

import subprocess
import sys
from pathlib import Path

from tests.support.processes import ENVIRONMENT
from windrow.environments.sandbox.executable import find_bubblewrap

SMALL_BYTES = 1024 * 1024


def run_on_failing_disks(script: str, *, small: Path, read_only: Path) -> None:
    """Run Python in a mount namespace where `small` holds 1 MiB and `read_only` refuses writes.

    The script finds both as the Path variables `small` and `read_only`; an exception in it
    fails the test with its traceback.
    """
    small.mkdir(exist_ok=True)
    read_only.mkdir(exist_ok=True)
    prologue = (
        f"from pathlib import Path\nsmall, read_only = Path({str(small)!r}), "
        f"Path({str(read_only)!r})\n"
    )
    command = [str(find_bubblewrap().path), "--die-with-parent", "--dev-bind", "/", "/"]
    command += ["--size", str(SMALL_BYTES), "--tmpfs", str(small)]
    command += ["--ro-bind", str(read_only), str(read_only)]
    command += ["--", sys.executable, "-c", prologue + script]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
