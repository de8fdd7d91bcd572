"""Rates and tables as Markdown."""

from collections.abc import Iterator, Sequence

from benchmarks.soundness.statistics import lower_bound, upper_bound
from benchmarks.soundness.study import Rate


def percent(rate: Rate) -> str:
    """A rate with its bounds."""
    if not rate.trials:
        return "-"
    low, high = lower_bound(rate.accepted, rate.trials), upper_bound(rate.accepted, rate.trials)
    if not rate.accepted:
        return f"0 (≤ {high:.3%})"
    return f"{rate.accepted / rate.trials:.2%} ({low:.2%}–{high:.2%})"


def plain(rate: Rate | None) -> str:
    return "-" if rate is None or not rate.trials else f"{rate.accepted / rate.trials:.2%}"


def share(rate: Rate) -> str:
    return f"{rate.accepted}/{rate.trials}"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(headings) + " |"
    yield "|" + "---|" * len(headings)
    yield from ("| " + " | ".join(row) + " |" for row in rows)
    yield ""
