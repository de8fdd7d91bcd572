"""``pytest tests/conformance --vectors DIR``: every case of every vector file as a test."""

import importlib
from pathlib import Path

import pytest

from .framework import REGISTRY

HERE = Path(__file__).parent
DEFAULT_VECTORS = HERE.parent / "vectors"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--vectors",
        type=Path,
        default=DEFAULT_VECTORS,
        help="folder of vector files, one sub-folder a network (default: tests/vectors)",
    )


def vectors_root(config: pytest.Config) -> Path:
    # The option is unknown when pytest met this folder only while collecting (`pytest tests`).
    root = Path(config.getoption("vectors", default=DEFAULT_VECTORS)).resolve()
    if not root.is_dir():
        raise pytest.UsageError(
            f"--vectors: {root} is not a folder; name one that holds vector files"
        )
    return root


def pytest_configure(config: pytest.Config) -> None:
    """Import every handler module, ``<network>_<topic>.py``, once."""
    vectors_root(config)
    for path in sorted(HERE.glob("*_*.py")):
        if path.stem.startswith(("test_", "_")):
            continue
        try:
            importlib.import_module(f"{__package__}.{path.stem}")
        except Exception as error:  # noqa: BLE001 - reported as a case: the other handlers still run
            REGISTRY.report_broken(path.stem, error)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "vector_check" in metafunc.fixturenames:
        cases = REGISTRY.collected(vectors_root(metafunc.config))
        metafunc.parametrize("vector_check", [c.check for c in cases], ids=[c.id for c in cases])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    unhandled = REGISTRY.unhandled(vectors_root(config))
    if unhandled:
        terminalreporter.section(f"{len(unhandled)} vector files without a handler")
        for name in unhandled:
            terminalreporter.line(name)
