"""What `make clean` removes, and what it never touches."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KEPT = (".windrow/lake/rows.parquet", ".env", "fleet.yaml", "assets/lake.py", "notes.txt")
REMOVED = (
    *(".venv/bin/python", ".sglang/bin/python", "windrow-demo/.windrow/lake/rows.parquet"),
    *("build/lib/x", "dist/windrow.whl", "src/windrow.egg-info/PKG-INFO", ".mypy_cache/x"),
    *(".ruff_cache/x", ".pytest_cache/x", "assets/fleet/__pycache__/x.pyc"),
)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_clean_keeps_the_operators_data(tmp_path: Path) -> None:
    for name in (*KEPT, *REMOVED):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    shutil.copy(ROOT / "Makefile", tmp_path)
    for _ in range(2):
        cleaned = subprocess.run(
            ["make", "clean"], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert "Kept your data: .windrow" in cleaned.stdout
    assert [name for name in KEPT if not (tmp_path / name).exists()] == []
    assert [name for name in REMOVED if (tmp_path / name).exists()] == []
