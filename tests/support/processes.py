"""Several Python processes at once, each running the same script."""

import os
import subprocess
import sys
from pathlib import Path

# The tests' own modules are importable in a child process as they are here.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}


def run_together(script: str, count: int, *arguments: object) -> list[str]:
    """Run a script in `count` processes; sys.argv is [-c, its number, *arguments].

    Returns what each printed; a process that fails fails the test with its traceback.
    """
    children = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(number), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        for number in range(count)
    ]
    try:
        outputs = [child.communicate(timeout=120) for child in children]
    finally:
        for child in children:
            child.kill()
    assert [child.returncode for child in children] == [0] * count, [err for _, err in outputs]
    return [out for out, _ in outputs]
