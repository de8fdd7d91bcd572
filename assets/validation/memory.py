"""What a validator remembers of earlier windows, read from the lake."""

import pyarrow as pa

from windrow.engine.validation.memory import remembered
from windrow.networks.grail.constants import WINDOW_BLOCKS
from windrow.networks.grail.validation.service import (
    BAN_WINDOWS,
    SUBMISSION_BLOCKS,
    ServiceState,
    submission_interval,
)
from windrow.resources.warehouse.lake import Lake

COLUMNS = [
    "window_start",
    "hotkey",
    "active",
    "eligible",
    "selected",
    "estimated_unique",
    "had_failure",
]
EARLIER = "FROM scores WHERE validator = ? AND window_start < ? AND window_start >= ?"
PROCESSED = (
    "SELECT count(DISTINCT window_start) FROM scores WHERE validator = ? AND window_start < ?"
)


def interval_start(window: int) -> int:
    """First window of the submission interval that holds a window."""
    first = submission_interval(window) * SUBMISSION_BLOCKS
    return -(-first // WINDOW_BLOCKS) * WINDOW_BLOCKS


def remember(
    lake: Lake,
    validator: str,
    window: int,
    scores: pa.Table | None = None,
    weights_interval: int = -1,
) -> ServiceState:
    """The validator's state before a window, or after it where its scores are given."""
    earlier = lake.query(EARLIER, [validator, window, window - BAN_WINDOWS * WINDOW_BLOCKS])
    earlier = earlier.select(COLUMNS)
    processed = lake.query(PROCESSED, [validator, window]).column(0)[0].as_py()
    if scores is not None:
        own = scores.select(COLUMNS)
        earlier = pa.concat_tables([earlier.cast(own.schema), own])
    return remembered(earlier, processed + (scores is not None), weights_interval)
