"""The runner itself: what it draws, what it fails, what it lists."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from .framework import REGISTRY, Case, Registry, VectorFile, assert_close


def check_square(case: dict[str, int]) -> None:
    assert case["x"] ** 2 == case["square"]


@pytest.fixture
def registry() -> Registry:
    registry = Registry()

    @registry.handles("net/squares*.json", uses=("net/blobs/*.bin",))
    def squares(file: VectorFile) -> Iterator[Case]:
        for index, case in enumerate(file.load_json()["cases"]):
            yield Case(f"case-{index}", partial(check_square, case))

    return registry


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def outcomes(registry: Registry, root: Path) -> dict[str, bool]:
    results = {}
    for case in registry.cases(root):
        try:
            case.check()
            results[case.id] = True
        except (AssertionError, ValueError, KeyError):
            results[case.id] = False
    return results


def test_an_altered_value_fails_its_case_alone(registry: Registry, tmp_path: Path) -> None:
    cases = [{"x": 2, "square": 4}, {"x": 3, "square": 10}, {"x": 5, "square": 25}]
    write(tmp_path / "net/squares.json", {"cases": cases})
    assert outcomes(registry, tmp_path) == {
        "net/squares.json::case-0": True,
        "net/squares.json::case-1": False,
        "net/squares.json::case-2": True,
    }


def test_an_altered_vector_fails_its_handler(tmp_path: Path) -> None:
    measured = Path(__file__).parents[1] / "vectors/grail/env_seed.json"
    vectors = json.loads(measured.read_text())
    vectors["cases"][5]["seed"] ^= 1
    write(tmp_path / "grail/env_seed.json", vectors)
    failed = [name for name, passed in outcomes(REGISTRY, tmp_path).items() if not passed]
    assert failed == ["grail/env_seed.json::case-5"]


def test_a_malformed_file_is_one_failing_case(registry: Registry, tmp_path: Path) -> None:
    write(tmp_path / "net/squares.json", {"cases": [{"x": 2, "square": 4}]})
    (tmp_path / "net/squares-2.json").write_text("{")
    (tmp_path / "net/squares-3.json").write_text('{"cases": []}')
    assert outcomes(registry, tmp_path) == {
        "net/squares.json::case-0": True,
        "net/squares-2.json::unreadable": False,
        "net/squares-3.json::empty": False,
    }


def test_files_nobody_reads_are_listed(registry: Registry, tmp_path: Path) -> None:
    write(tmp_path / "net/README.md", "")
    write(tmp_path / "net/blobs/a.bin", "")
    write(tmp_path / "other/new.json", {})
    assert registry.unhandled(tmp_path) == ["net/blobs/a.bin", "other/new.json"]
    write(tmp_path / "net/squares.json", {"cases": []})
    assert registry.unhandled(tmp_path) == ["other/new.json"]


def test_folders_that_are_links_are_read(registry: Registry, tmp_path: Path) -> None:
    write(tmp_path / "elsewhere/squares.json", {"cases": [{"x": 2, "square": 4}]})
    root = tmp_path / "root"
    root.mkdir()
    (root / "net").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert outcomes(registry, root) == {"net/squares.json::case-0": True}


def test_a_folder_without_vectors_is_refused(registry: Registry, tmp_path: Path) -> None:
    write(tmp_path / "squares.json", {"cases": [{"x": 2, "square": 4}]})
    with pytest.raises(pytest.UsageError, match="no file that a handler reads"):
        registry.collected(tmp_path)
    write(tmp_path / "net/squares.json", {"cases": [{"x": 2, "square": 4}]})
    assert len(registry.collected(tmp_path)) == 1


def test_a_missing_file_yields_no_case(registry: Registry, tmp_path: Path) -> None:
    assert outcomes(registry, tmp_path) == {}


def test_a_handler_module_that_cannot_be_imported_is_a_failing_case(
    registry: Registry, tmp_path: Path
) -> None:
    registry.report_broken("net_topic", ValueError("broken"))
    assert outcomes(registry, tmp_path) == {"net_topic.py::import": False}


def test_close_compares_every_value() -> None:
    assert_close([1.0, float("nan")], [1.0 + 1e-12, "nan"])
    with pytest.raises(AssertionError):
        assert_close([1.0], [1.0 + 1e-6])
    with pytest.raises(AssertionError):
        assert_close([1.0], ["nan"])
    with pytest.raises(AssertionError):
        assert_close([1.0, 2.0], [1.0])
