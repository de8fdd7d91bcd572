"""Reading `.env`: whole, or an error that names the line.

python-dotenv, which Dagster reads the file with too, skips what it cannot parse. A skipped line is
a default that takes the place of a setting: a live installation would mine on the development
chain. So every line must be one that both read alike.
"""

import codecs
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from dotenv import dotenv_values
from dotenv.parser import Binding, parse_stream

from windrow import WindrowError

MOST_BYTES = 1 << 20
_STRAY: Final = re.compile(r"[^A-Z0-9_]")
"""What no name of a setting has: blanks that cannot be seen among it, which editors put in."""
_MARKS = {
    codecs.BOM_UTF8: "UTF-8 with a byte-order mark",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


class EnvFileError(WindrowError):
    """A `.env` file cannot be read as a whole. The text never holds a value of it."""


def read_env_file(path: Path, is_ours: Callable[[str], bool]) -> dict[str, str]:
    """Return the variables of a `.env` file; none where there is no file.

    is_ours: tells whether a name is one that settings are read from; those must be written in
    capitals and have a value. Raises EnvFileError, naming every line that is wrong.
    """
    text = _decoded(path)
    if text is None:
        return {}
    bindings = list(parse_stream(io.StringIO(text)))
    faults = [*_faults(bindings, is_ours), *_contradictions(bindings)]
    if faults:
        lines = "".join(f"\n  line {line}: {what}" for line, what in sorted(faults))
        raise EnvFileError(f"{path} cannot be used. Correct it:{lines}")
    found = dotenv_values(stream=io.StringIO(text))
    return {name: value for name, value in found.items() if value is not None}


def _decoded(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EnvFileError(f"{path} cannot be read: {error.strerror}.") from None
    if len(raw) > MOST_BYTES:
        raise EnvFileError(f"{path} is larger than {MOST_BYTES} bytes, so it is not a .env file.")
    for mark, name in _MARKS.items():
        if raw.startswith(mark):
            raise EnvFileError(f"{path} is {name}. Save it as plain UTF-8.")
    if b"\0" in raw:
        line = raw[: raw.index(b"\0")].count(b"\n") + 1
        raise EnvFileError(
            f"{path}, line {line}, holds a zero byte: the file is UTF-16 or no text. Save it as "
            "plain UTF-8."
        )
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise EnvFileError(
            f"{path}, line {line}, is not UTF-8: the file is in another encoding, such as Latin-1. "
            "Save it as plain UTF-8."
        ) from None


def _faults(bindings: list[Binding], is_ours: Callable[[str], bool]) -> Iterator[tuple[int, str]]:
    for binding in bindings:
        line = binding.original.line
        # A blank line before a binding belongs to it.
        written = binding.original.string
        line += written[: len(written) - len(written.lstrip())].count("\n")
        if binding.error:
            yield line, "not a line NAME=VALUE; close every quote, and quote a value with blanks"
        elif binding.key is None:
            continue
        elif binding.value is not None and "\n" in binding.value:
            last = line + binding.value.count("\n")
            yield line, f"the value of {binding.key} goes on to line {last}: close its quote"
        elif is_ours(binding.key):
            if binding.value is None:
                yield line, f"{binding.key} has no value; write {binding.key}=VALUE"
        elif is_ours(meant := _STRAY.sub("", binding.key.upper())):
            yield line, f"{binding.key!a} is not read; write {meant}"


def _contradictions(bindings: list[Binding]) -> Iterator[tuple[int, str]]:
    first: dict[str, Binding] = {}
    for binding in bindings:
        if binding.key is None or binding.error:
            continue
        before = first.setdefault(binding.key, binding)
        if before.value != binding.value:
            line = before.original.line
            yield (
                binding.original.line,
                f"{binding.key} has another value here than in line {line}; keep one of the two",
            )
