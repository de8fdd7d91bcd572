"""What the lake knows of one miner's window: its upload, verdicts, score, weight and ban."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from windrow import WindrowError
from windrow.networks.grail.validation.service import BAN_WINDOWS
from windrow.networks.grail.windows import parse_window
from windrow.resources.warehouse.lake import Lake
from windrow.resources.warehouse.schema import DATASETS

Row = Mapping[str, Any]

VALIDATE: Final = (
    "windrow dagster job execute -m windrow.pipelines.definitions -j validate_window "
    """--tags '{{"dagster/partition": "{window}"}}'"""
)
_OF_MINER = "FROM {dataset} WHERE window_start = ? AND hotkey = ?"
_LAST_FAILURE = """
SELECT max(window_start) FILTER (hotkey = ? AND had_failure = 1) AS failed,
    max(window_start) AS newest
FROM scores WHERE validator = ?
"""
_WINDOWS_SINCE = """
SELECT count(DISTINCT window_start) AS since FROM scores WHERE validator = ? AND window_start > ?
"""


class NothingKnown(WindrowError):
    """The lake holds nothing about a window."""


@dataclass(frozen=True)
class Ban:
    """failed: the last window that failed. windows_left: until it is forgotten, counted from
    newest, the newest window validated."""

    failed: int
    windows_left: int
    newest: int


@dataclass(frozen=True)
class Story:
    """One miner's window. A row is None where the lake has none.

    validator: who validated it, None if nobody did. miners: with an upload. verdicts:
    VERDICT_SCHEMA. signal: sum of the raw scores of all miners. faults: of this window.
    """

    window: int
    hotkey: str
    validator: str | None
    miners: int
    submission: Row | None
    upload: Row | None
    validation: Row | None
    verdicts: pa.Table
    score: Row | None
    weight: Row | None
    signal: float
    ban: Ban | None
    faults: list[Row]


def story(lake: Lake, window_key: str, hotkey: str, own: str) -> Story:
    """What became of a miner's window.

    window_key: as typed. own: this operator's hotkey, whose verdicts come before those of other
    validators. Raises NothingKnown.
    """
    window = parse_window(window_key)
    if window is None:
        raise NothingKnown(f"{window_key:.40} is no window; windows are multiples of 30")

    validators = lake.names("validations", window)
    validator = own if own in validators else next(iter(validators), None)

    def of_miner(dataset: str) -> list[Row]:
        """By the miner itself; the hotkey may be anything a person typed."""
        rows: list[Row] = lake.query(
            _OF_MINER.format(dataset=dataset), [window, hotkey]
        ).to_pylist()
        return rows

    def judged(dataset: str) -> pa.Table:
        """By the validator, of all miners."""
        if validator is None or not lake.exists(dataset, window, validator):
            return DATASETS[dataset].schema.empty_table()
        return lake.read(dataset, window, validator)

    def of_judged(table: pa.Table) -> Row | None:
        return _first(table.filter(pc.equal(table["hotkey"], hotkey)).to_pylist())

    verdicts, weights = judged("verdicts"), judged("weights")
    validations = judged("validations")
    found = Story(
        window=window,
        hotkey=hotkey,
        validator=validator,
        miners=validations.num_rows,
        submission=_first(of_miner("submissions")),
        upload=_first(of_miner("uploads")),
        validation=of_judged(validations),
        verdicts=verdicts.filter(pc.equal(verdicts["hotkey"], hotkey)),
        score=of_judged(judged("scores")),
        weight=of_judged(weights),
        signal=float(pc.sum(weights["raw_score"]).as_py() or 0.0),
        ban=_ban(lake, validator, hotkey) if validator else None,
        faults=of_miner("faults"),
    )
    if not (validator or found.submission or found.upload or found.faults):
        raise NothingKnown(
            f"the lake holds nothing of window {window} and {hotkey:.60}. Once it has closed, "
            f"validate it: {VALIDATE.format(window=window)}"
        )
    return found


def _ban(lake: Lake, validator: str, hotkey: str) -> Ban | None:
    """The ban by the miner's last failure, counted in windows that were validated (§14)."""
    last = lake.query(_LAST_FAILURE, [hotkey, validator]).to_pylist()[0]
    if last["failed"] is None:
        return None
    since = lake.query(_WINDOWS_SINCE, [validator, last["failed"]])["since"][0].as_py()
    left = BAN_WINDOWS - since
    return Ban(last["failed"], left, last["newest"]) if left > 0 else None


def _first(rows: Sequence[Row]) -> Row | None:
    return rows[0] if rows else None
