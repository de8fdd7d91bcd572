"""What a look at one part of the set-up finds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import wraps

from windrow import WindrowError
from windrow.resources.configuration.settings import Settings


class State(StrEnum):
    """FINE works. DOUBTFUL works, and not as well as it could. MISSING does not work."""

    FINE = "fine"
    DOUBTFUL = "doubtful"
    MISSING = "missing"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report. todo: empty where there is nothing to do."""

    about: str
    state: State
    found: str
    todo: str = ""


Look = Callable[[Settings], Sequence[Finding]]


def look(about: str) -> Callable[[Callable[[Settings], Sequence[Finding]]], Look]:
    """A look whose own failure is a finding too: an error says what, where and what to do."""

    def decorate(examine: Callable[[Settings], Sequence[Finding]]) -> Look:
        @wraps(examine)
        def careful(settings: Settings) -> Sequence[Finding]:
            try:
                return examine(settings)
            except WindrowError as error:
                return [missing(about, type(error).__name__, str(error))]
            except Exception as error:  # noqa: BLE001 - one look that breaks must not hide the others
                return [missing(about, f"{type(error).__name__}: {error}", "report this")]

        return careful

    return decorate


def fine(about: str, found: str) -> Finding:
    return Finding(about, State.FINE, found)


def doubtful(about: str, found: str, todo: str) -> Finding:
    return Finding(about, State.DOUBTFUL, found, todo)


def missing(about: str, found: str, todo: str) -> Finding:
    return Finding(about, State.MISSING, found, todo)
