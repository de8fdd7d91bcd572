"""The validator's memory, rebuilt from what it stored: nothing is lost with a process.

Restarting a validator of the network forgets bans, counts and copies (grail-validation §14); here
they follow from the rows of earlier windows.
"""

import pyarrow as pa
import pyarrow.compute as pc

from windrow.networks.grail.validation.copies import (
    CopyReport,
    Interval,
    MinerCompletions,
    observe,
)
from windrow.networks.grail.validation.metrics import MinerMetrics
from windrow.networks.grail.validation.service import (
    ServiceState,
    WindowPlan,
    submission_interval,
)


def remembered(scores: pa.Table, windows: int, weights_interval: int) -> ServiceState:
    """The state after the windows of these scores.

    scores: window_start, hotkey, active, eligible, selected, estimated_unique, had_failure of
    the last windows, any order. windows: how many were ever processed. weights_interval: the
    last submission interval in which weights were set, -1 for none.
    """
    state = ServiceState(weights_interval=weights_interval)
    for window in sorted(scores["window_start"].unique().to_pylist()):
        rows = scores.filter(pc.equal(scores["window_start"], window)).to_pylist()
        plan = WindowPlan(
            *(
                tuple(row["hotkey"] for row in rows if row[kind])
                for kind in ("active", "eligible", "selected")
            )
        )
        results = {
            row["hotkey"]: MinerMetrics(
                estimated_unique=row["estimated_unique"], had_failure=row["had_failure"]
            )
            for row in rows
            if row["selected"] and row["had_failure"] is not None
        }
        state = state.after_window(window, plan, results)
    return ServiceState(
        state.availability,
        state.selection,
        state.failures,
        state.metrics,
        windows,
        weights_interval,
    )


def copies(validations: pa.Table, completions: pa.Table, window: int) -> CopyReport:
    """Who copied whom in a window, and in its submission interval up to it (§13).

    validations: window_start, hotkey, total, uploaded_at, had_failure; completions: window_start,
    hotkey, digest; both of this interval's windows up to `window`. Only miners that did not fail
    take part.
    """
    interval = Interval(submission_interval(window))
    report = CopyReport((), ())
    for processed in sorted(validations["window_start"].unique().to_pylist()):
        found = validations.filter(
            pc.and_(
                pc.equal(validations["window_start"], processed),
                pc.equal(validations["had_failure"], 0),
            )
        )
        of_window = completions.filter(pc.equal(completions["window_start"], processed))
        submissions = {
            row["hotkey"]: MinerCompletions(
                of_window.filter(pc.equal(of_window["hotkey"], row["hotkey"]))["digest"]
                .combine_chunks()
                .drop_null(),
                row["total"],
                row["uploaded_at"],
            )
            for row in found.to_pylist()
        }
        interval, observed = observe(interval, processed, submissions)
        if processed == window:
            report = observed
    return report
