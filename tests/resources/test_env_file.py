"""`.env` is read whole, or the line that is wrong is named; a default never replaces a line."""

import os
from pathlib import Path

import pytest
from dotenv import dotenv_values

from windrow.resources.configuration.env_file import MOST_BYTES, EnvFileError
from windrow.resources.configuration.settings import Settings, read_env


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / ".env"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# a comment\n\n  # another\n",
        "WINDROW_MAX_GROUPS=3",
        "export WINDROW_MAX_GROUPS=3\n",
        "WINDROW_MAX_GROUPS = 3   # groups\r\nA='x # y'\r\n",
        'WINDROW_WALLET_HOT="a b"\n',
        "WINDROW_MAX_GROUPS=3\nWINDROW_MAX_GROUPS=3\n",
        "HOME_OF_MINE=/x\nWINDROW_LAKE=${HOME_OF_MINE}/lake\n",
        "SOMETHING_ELSE\n",
        "WINDROW_WALLET_URI=a#b\n",
        "R2_WRITE_SECRET_ACCESS_KEY='$x\"y'\n",
        "BT_WALLET_HOT=\n",
    ],
)
def test_what_dagster_reads_is_what_windrow_reads(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    assert read_env(path) == {k: v for k, v in dotenv_values(path).items() if v is not None}


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("WINDROW_MAX_GROUPS='3\n", [1]),
        ("A=1\n\nWINDROW_MAX_GROUPS='3\nNETUID=81\nBT_WALLET_HOT=x\n", [3]),
        ("WINDROW_MAX_GROUPS='3\nNETUID='81'\n", [1]),
        ('WINDROW_MAX_GROUPS="3\nNETUID=81"\n', [1]),
        ("NETUID\n", [1]),
        ("windrow_max_groups=3\nnetuid=81\n", [1, 2]),
        ("NETUID=81\nA=1\nNETUID=3\n", [3]),
        ("NETUID 81\nBT_WALLET_HOT=x\n", [1]),
        ("A='x' y\n", [1]),
        ("=x\n", [1]),
        ("- NETUID=81\n", [1]),
    ],
)
def test_a_line_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, lines: list[int]
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(EnvFileError) as caught:
        read_env(path)
    said = str(caught.value)
    assert str(path) in said
    assert [int(part.split(":")[0]) for part in said.split("\n  line ")[1:]] == lines
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EnvFileError):  # never the development chain instead of what was meant
        Settings.read()


def test_no_value_is_repeated(tmp_path: Path) -> None:
    path = written(tmp_path, "R2_WRITE_SECRET_ACCESS_KEY='hunter2\nR2_READ=hunter2' hunter2\n")
    with pytest.raises(EnvFileError) as caught:
        read_env(path)
    assert "hunter2" not in str(caught.value)


TEXT = "# café\nNETUID=81\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (TEXT.encode("utf-16"), "UTF-16"),
        (TEXT.encode("utf-16-be"), "UTF-16"),
        (TEXT.encode("utf-16-le"), "zero byte"),
        (TEXT.encode("latin-1"), "line 1, is not UTF-8"),
        (b"A=1\nB=\xff\n", "line 2, is not UTF-8"),
        (TEXT.encode("utf-8-sig"), "byte-order mark"),
        (b"A=1\nB=\0\n", "line 2, holds a zero byte"),
        (b"#" * (MOST_BYTES + 1), "larger than"),
    ],
)
def test_another_encoding_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(EnvFileError, match=said):
        read_env(written(tmp_path, content))


def test_a_folder_and_a_file_that_cannot_be_opened_are_named(tmp_path: Path) -> None:
    folder = tmp_path / ".env"
    folder.mkdir()
    with pytest.raises(EnvFileError, match="Is a directory"):
        read_env(folder)
    if os.geteuid():
        path = written(tmp_path / "x", "A=1")
        path.chmod(0)
        with pytest.raises(EnvFileError, match="Permission denied"):
            read_env(path)
    assert read_env(tmp_path / "none") == {}


@pytest.mark.parametrize("name", ["\u2060WINDROW_HOME", "windrow_home", "Windrow_Home"])
def test_a_name_with_letters_that_cannot_be_seen_is_not_skipped(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, f"A=1\n{name}=x\n".encode())
    with pytest.raises(EnvFileError, match=r"line 2: .* is not read; write WINDROW_HOME"):
        read_env(path)
