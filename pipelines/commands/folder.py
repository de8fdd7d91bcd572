"""The folder a command is started in: Dagster's files, settings and fleet, and `windrow init`."""

import os
import shlex
import shutil
import stat
import sys
from importlib.resources import files
from pathlib import Path
from typing import Final

from dotenv import set_key
from rich.console import Console

import windrow
from windrow import WindrowError
from windrow.resources.configuration.settings import is_setting, read_env
from windrow.resources.files import naming_disk_errors

DAGSTER_FILES: Final = {"dagster.yaml": "dagster.yaml", "workspace.yaml": "workspace.yaml"}
FILES: Final = {**DAGSTER_FILES, ".env": ".env.example", "fleet.yaml": "fleet.example.yaml"}
"""Name of each file that `windrow init` writes -> the file of the package that it is made from."""
PURPOSE: Final = {
    "dagster.yaml": "Dagster's settings for this folder",
    "workspace.yaml": "the code that Dagster loads",
    ".env": "your settings; every line is a comment until you change it",
    "fleet.yaml": "your nodes; none is declared yet",
}
_EXPORTED: Final = frozenset(os.environ)
"""Variables of the shell, before `.env` was read."""


class NoInstance(WindrowError):
    """This folder has no Dagster instance, or DAGSTER_HOME names a folder that cannot be one."""


class ContradictingSettings(WindrowError):
    """`.env` and the environment set a variable to different values."""


def adopt_folder() -> None:
    """Read `.env`, and let Dagster keep its instance here if this folder has a `dagster.yaml`.

    The environment comes first: a variable that is set already keeps its value. Raises
    EnvFileError.
    """
    for name, value in read_env(Path.cwd() / ".env").items():
        os.environ.setdefault(name, value)
    if Path("dagster.yaml").is_file():
        os.environ.setdefault("DAGSTER_HOME", str(Path.cwd()))


def require_instance() -> Path:
    """Return the folder of Dagster's instance. Raises NoInstance."""
    home = os.environ.get("DAGSTER_HOME")
    if not home:
        raise NoInstance(
            f"{Path.cwd()} has no dagster.yaml, so Dagster has no place to keep its runs. "
            "Change to the folder of your installation, or make one here: windrow init"
        )
    if not Path(home).is_absolute() or not Path(home).is_dir():
        raise NoInstance(
            f"DAGSTER_HOME={home} is not the absolute path of a folder. Correct it, or unset it to "
            "use the dagster.yaml of the folder that a command is started in."
        )
    return Path(home)


def refuse_contradictions() -> None:
    """Raise ContradictingSettings if `.env` would replace a variable of the environment.

    Dagster's own commands let `.env` win, and Windrow lets the environment win.
    """
    written = read_env(Path(".env"))
    if different := sorted(n for n, value in written.items() if os.environ.get(n, value) != value):
        names = ", ".join(different)
        raise ContradictingSettings(
            f"The environment and {Path.cwd() / '.env'} set different values: {names}. Dagster "
            "would use the file's and Windrow the environment's. Change the line in .env, or: "
            f"unset {' '.join(different)}"
        )


def write_files(folder: Path, names: dict[str, str] = FILES) -> dict[str, bool]:
    """Write files of the package into a folder; never over one that exists.

    Returns name -> True if it was written, False if the folder already had it. `.env` is readable
    by its owner only. Raises DiskFull, PathRefused.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return {name: _write(folder / name, source) for name, source in names.items()}


def _write(path: Path, source: str) -> bool:
    content = files(windrow).joinpath(source).read_bytes()
    mode = 0o600 if path.name == ".env" else 0o666
    with naming_disk_errors(path):
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        except FileExistsError:
            return False
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
        except OSError:
            path.unlink()
            raise
    return True


def write_setting(env: Path, name: str, value: str) -> None:
    """Set a variable in a `.env`: its line is replaced or added, every other line stays.

    The file is made if it is missing, readable by its owner only. Raises DiskFull, PathRefused.
    """
    with naming_disk_errors(env):
        set_key(env, name, value, quote_mode="auto", follow_symlinks=True)


def init(out: Console, folder: Path) -> None:
    """Make a folder an installation of Windrow, and say what was written and what was kept."""
    with naming_disk_errors(folder):
        written = write_files(folder)
    for name, new in written.items():
        said = f"wrote  {name:15} {PURPOSE[name]}" if new else f"kept   {name:15} it exists already"
        out.print(said, highlight=False, soft_wrap=True)
    env = folder / ".env"
    if env.is_file() and stat.S_IMODE(env.stat().st_mode) & 0o077:
        out.print(f"Other users can read {env}: chmod 600 {shlex.quote(str(env))}", soft_wrap=True)
    next_lines = [
        *(way_back(folder)),
        "windrow demo      # mines, validates and verifies in a folder of its own",
        "windrow doctor    # what is configured, what is missing",
        "windrow ui        # Dagster's UI on http://127.0.0.1:3000",
    ]
    out.print("\nType next:", *(f"  {line}" for line in next_lines), sep="\n", highlight=False,
              soft_wrap=True)  # fmt: skip


def way_back(folder: Path) -> list[str]:
    """Shell commands that lead to a folder, with `windrow` on the PATH; none if already there."""
    lines = []
    scripts = Path(sys.executable).parent
    found = shutil.which("windrow")
    if (scripts / "windrow").exists() and not (found and Path(found).samefile(scripts / "windrow")):
        lines.append(f"export PATH={shlex.quote(str(scripts))}:$PATH")
    if folder.resolve() != Path.cwd().resolve():
        lines.append(f"cd {shlex.quote(str(folder))}")
    return lines


def exported_settings() -> list[str]:
    """Names of the shell's own variables that Windrow or Dagster's instance would follow."""
    followed = (name for name in _EXPORTED if is_setting(name) or name == "DAGSTER_HOME")
    return sorted(name for name in followed if name in os.environ)
