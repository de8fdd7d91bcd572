"""The bubblewrap command that starts a sandbox worker.

Inside, the worker is process 1 of its own namespaces, unprivileged, and sees the Python
interpreter, its standard library, the system's shared libraries and /dev/null, all read-only.
There is no /proc, no network, no environment and no other file of the host.
"""

import importlib.util
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from windrow.environments.errors import SandboxUnavailable
from windrow.environments.sandbox.executable import find_bubblewrap
from windrow.environments.sandbox.interpreter import Interpreter

NOBODY = 65534
"""The uid and gid inside; started by root the worker also is that user outside (§12.6, W6)."""

WORKER = Path(__file__).resolve().with_name("worker.py")
PACKAGES = Path("/packages")
SYSTEM_LIBRARIES = ("/usr/lib", "/usr/lib64", "/lib", "/lib64")


def command(
    arguments: Iterable[str], packages: Iterable[str], filter_fd: int, python: Interpreter
) -> list[str]:
    """Arguments for exec.

    packages: import names to make importable from /packages besides the standard library.
    filter_fd: open file with the seccomp program. python: runs the worker. Raises
    SandboxUnavailable.
    """
    if sys.platform != "linux":
        raise SandboxUnavailable(
            f"untrusted programs can only be confined on Linux, this is {sys.platform}; "
            "choose an environment that runs none (gsm8k)"
        )
    bwrap = str(find_bubblewrap().path)
    libraries = _libraries(python)
    files = {path: path for path in [*libraries, str(python.executable)]}
    files |= {str(_package(name)): f"{PACKAGES}/{name}" for name in packages}
    files[str(WORKER)] = "/worker.py"
    return [
        bwrap,
        *_namespaces(),
        *("--as-pid-1", "--new-session", "--clearenv"),
        *("--setenv", "PYTHONHASHSEED", "0"),
        *("--setenv", "LD_LIBRARY_PATH", f"{python.prefix}/lib"),
        *_mounts(files),
        *_hidden(libraries),
        *("--perms", "0755", "--dir", "/dev", "--dev-bind", "/dev/null", "/dev/null"),
        *("--remount-ro", "/", "--chdir", "/", "--seccomp", str(filter_fd)),
        *("--", str(python.executable), "-s", "-S", "-P", "-B", "/worker.py", *arguments),
    ]


def _namespaces() -> list[str]:
    """Root needs no user namespace and drops to nobody itself, because the kernel exempts the
    real root user from RLIMIT_NPROC; anyone else is mapped to nobody in a user namespace."""
    if os.geteuid() == 0:
        return [
            *("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"),
            *("--unshare-cgroup-try", "--cap-drop", "ALL"),
            *("--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"),
        ]
    return [
        *("--unshare-all", "--unshare-user", "--disable-userns", "--cap-drop", "ALL"),
        *("--uid", str(NOBODY), "--gid", str(NOBODY)),
    ]


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise SandboxUnavailable(
            f"Python package {name!r} is needed in the sandbox and is not installed; "
            f"pip install {name}"
        )
    return Path(spec.submodule_search_locations[0]).resolve()


def _mounts(files: dict[str, str]) -> list[str]:
    """Read-only binds of host path -> path inside, links kept, parents made searchable."""
    arguments: list[str] = []
    made: set[Path] = set()
    for source, target in files.items():
        for parent in reversed(Path(target).parents[:-1]):
            if parent not in made and not any(Path(t) in (parent, *parent.parents) for t in files):
                arguments += ["--perms", "0755", "--dir", str(parent)]
                made.add(parent)
        if Path(source).is_symlink():
            arguments += ["--symlink", str(Path(source).readlink()), target]
        else:
            arguments += ["--ro-bind", source, target]
    return arguments


def _libraries(python: Interpreter) -> list[str]:
    """The directories of shared libraries and of the standard library that exist."""
    own = (f"{python.prefix}/lib", f"{python.prefix}/lib64")
    paths = dict.fromkeys(os.path.normpath(path) for path in (*SYSTEM_LIBRARIES, *own))
    return [path for path in paths if Path(path).exists()]


def _hidden(libraries: Iterable[str]) -> list[str]:
    """Empty directories over the packages installed beside the standard library."""
    arguments: list[str] = []
    for library in map(Path, libraries):
        if not library.is_symlink():
            for packages in library.glob("python3*/*-packages"):
                arguments += ["--tmpfs", str(packages), "--remount-ro", str(packages)]
    return arguments
