"""Triton's kernels on every machine: on a GPU, elsewhere on the CPU in Triton's interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

CASES = Path(__file__).with_name("sketch_triton_cases.py")


def test_sketches() -> None:
    """In a process of its own: Triton chooses its interpreter once, when it is imported."""
    pytest.importorskip("triton", reason="not tested: Triton kernels (pip install triton)")
    where = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(CASES), "-q", "-p", "no:cacheprovider"],
        cwd=Path(__file__).parents[2],
        env=os.environ | where,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "skipped" not in done.stdout
