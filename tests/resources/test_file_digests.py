"""A digest is remembered for the same files, and only for these."""

import os
import time
from pathlib import Path

import pytest

from windrow.resources.checkpoints.digests import digest_once
from windrow.resources.checkpoints.files import file_sha256


class Counted:
    """Computes a digest of files and counts how often."""

    def __init__(self, *paths: Path) -> None:
        self.paths, self.times = paths, 0

    def __call__(self) -> str:
        self.times += 1
        return "+".join(path.read_text() for path in self.paths)

    def ask(self) -> str:
        return digest_once("text", self.paths, self)


def written(path: Path, text: str) -> Path:
    """A file that was last changed a minute ago, as far as its own time stamp says."""
    path.write_text(text)
    then = path.stat().st_mtime - 60
    os.utime(path, (then, then))
    return path


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of a change of the inode cannot be set back, so no file is too young here."""
    monkeypatch.setattr("windrow.resources.checkpoints.digests.SETTLED_NS", -(10**9))


@pytest.mark.usefixtures("settled")
def test_files_that_stay_are_read_once(tmp_path: Path) -> None:
    counted = Counted(written(tmp_path / "a", "one"), written(tmp_path / "b", "two"))
    assert [counted.ask(), counted.ask()] == ["one+two"] * 2
    assert counted.times == 1


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("same_time", [True, False])
def test_a_file_that_changed_is_read_again(tmp_path: Path, same_time: bool) -> None:
    path = written(tmp_path / "a", "one")
    counted = Counted(path)
    assert counted.ask() == "one"
    before = path.stat()
    time.sleep(0.05)  # past the tick of the disk's clock, which SETTLED_NS stands for
    path.write_text("two")
    if same_time:  # a modification time set back hides nothing: the inode's own does not go back
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert counted.ask() == "two"
    assert counted.times == 2


@pytest.mark.usefixtures("settled")
def test_another_file_in_its_place_is_read(tmp_path: Path) -> None:
    counted = Counted(written(tmp_path / "a", "one"))
    assert counted.ask() == "one"
    written(tmp_path / "b", "two").replace(tmp_path / "a")
    assert counted.ask() == "two"


def test_a_file_just_written_is_not_trusted_to_stay(tmp_path: Path) -> None:
    counted = Counted(tmp_path / "a")
    (tmp_path / "a").write_text("one")
    assert [counted.ask(), counted.ask()] == ["one"] * 2
    assert counted.times == 2


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        file_sha256(tmp_path / "nothing")
