"""The rows of a window file that are checked, as their miner claims them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from windrow.networks.grail.columns import RolloutColumns
from windrow.networks.grail.commitments import CommitmentsError
from windrow.networks.grail.foreign_types import ForeignRow
from windrow.networks.grail.rollout_checks import check_proof_fields, check_schema
from windrow.networks.grail.sketch import Numbers
from windrow.networks.grail.submission_checks import check_signatures
from windrow.networks.grail.validation.verdicts import Place
from windrow.networks.grail.violations import Severity, Violations
from windrow.networks.grail.window_file import WindowFile
from windrow.networks.grail.window_schema import IrregularText

MOST_PATHS: Final = 5
"""Fields of one row that a reason lists."""


@dataclass(frozen=True)
class Claim:
    """One rollout as the file has it.

    row: within the file. tokens: int32 [L]. sketches: [L], nan where an entry has no number, None
    where there is no list of them. logprobs: float32, None where absent. randomness: of the
    commit's beacon.
    Numbers that are null are 0, rewards and advantages nan.
    schema_faults, proof_faults: why C1 and the parts of C4 that need no model fail, in words.
    row_signed: whether the row's own signature holds. whole_tokens: whether tokens are integers.
    """

    row: int
    place: Place
    window_start: int | None
    block_hash: str | None
    checkpoint_window: int | None
    tokens: NDArray[np.int32]
    prompt_length: int
    completion_length: int
    sketches: Numbers | None
    logprobs: NDArray[np.float32] | None
    randomness: str | None
    reward: float
    advantage: float
    success: bool | None
    schema_faults: tuple[str, ...]
    proof_faults: tuple[str, ...]
    row_signed: bool
    whole_tokens: bool = True

    @property
    def completion(self) -> NDArray[np.int32]:
        return self.tokens[self.prompt_length :]

    @property
    def token_sketches(self) -> Numbers | None:
        """[L] sketches, None unless there is one for each token."""
        if self.sketches is None or len(self.sketches) != len(self.tokens):
            return None
        return self.sketches

    @property
    def completion_logprobs(self) -> NDArray[np.float32] | None:
        """float32 [C] log-probs of the completion, None unless there is one for each token."""
        if self.logprobs is None or len(self.logprobs) != len(self.tokens):
            return None
        return self.logprobs[self.prompt_length :]

    @property
    def whole(self) -> bool:
        """Whether the lengths split the tokens into a prompt and a completion."""
        lengths = self.prompt_length, self.completion_length
        return min(lengths) >= 1 and sum(lengths) == len(self.tokens)


_PLAIN_COLUMNS = (
    "window_start",
    "block_hash",
    "checkpoint_window",
    "success",
    "rollout_group",
    "rollout_index",
    "nonce",
)


def claims_of(
    columns: RolloutColumns,
    rows: Sequence[int],
    file: WindowFile,
    hotkey: str,
) -> list[Claim]:
    """The checked rollouts of a file owned by `hotkey`.

    columns: of the checked rows only. rows: where each stands in the file.
    """
    table = columns.table
    at = {row: index for index, row in enumerate(rows)}
    texts = [replace(text, row=at[text.row]) for text in file.irregular if text.row in at]
    foreign = {told.row: told for told in file.foreign}
    entries, faults = _irregular_sketches(texts, columns.tokens.lengths)
    for fault in _faults(columns, texts, hotkey):
        faults[fault.check][fault.row].append(fault.reason)
    values = {name: table.column(name).to_pylist() for name in _PLAIN_COLUMNS}
    beacon = table.column("beacon_randomness").to_pylist()
    numbers = {
        name: table.column(name).combine_chunks().cast(pa.float64()).to_numpy(zero_copy_only=False)
        for name in ("total_reward", "advantage")
    }
    claims = []
    for index, row in enumerate(rows):
        plain = {name: column[index] for name, column in values.items()}
        told = foreign.get(row)
        place = Place(plain["rollout_group"], plain["rollout_index"], plain["nonce"], row)
        claims.append(
            Claim(
                row=row,
                place=place,
                window_start=plain["window_start"],
                block_hash=plain["block_hash"],
                checkpoint_window=plain["checkpoint_window"],
                tokens=columns.tokens.row(index),
                prompt_length=int(columns.prompt_lengths[index]),
                completion_length=int(columns.completion_lengths[index]),
                sketches=entries.get(index, _regular_sketches(columns, index)),
                logprobs=columns.logprobs.row(index) if columns.logprobs.valid[index] else None,
                randomness=beacon[index],
                reward=float(numbers["total_reward"][index]),
                advantage=float(numbers["advantage"][index]),
                success=plain["success"],
                schema_faults=tuple(faults["schema_valid"][index])
                if told is None
                else _named(told),
                proof_faults=tuple(faults["proof_valid"][index]),
                row_signed=not faults["outer_signature"][index],
                whole_tokens=told is None or told.whole_tokens,
            )
        )
    return claims


def _named(told: ForeignRow) -> tuple[str, ...]:
    """What C1 says of a row whose columns are not the protocol's."""
    listed = told.schema_faults[:MOST_PATHS]
    return (f"missing or wrong: {', '.join(listed)}",) if listed else ()


@dataclass(frozen=True)
class _Fault:
    row: int
    check: str
    reason: str


def _faults(
    columns: RolloutColumns, irregular: Sequence[IrregularText], hotkey: str
) -> list[_Fault]:
    found = Violations(columns.column("rollout_group"))
    check_schema(columns, irregular, found)
    check_proof_fields(columns, found)
    check_signatures(columns, hotkey, irregular, found)
    return [
        _Fault(violation["row"], violation["check"], violation["reason"])
        for violation in found.table().to_pylist()
        if violation["severity"] == Severity.BAN
    ]


def _regular_sketches(columns: RolloutColumns, index: int) -> NDArray[np.int64] | None:
    if not columns.sketches.valid[index]:
        return None
    sketches: NDArray[np.int64] = columns.sketches.row(index)
    return sketches


_Faults = defaultdict[str, defaultdict[int, list[str]]]


def _irregular_sketches(
    texts: Sequence[IrregularText], lengths: NDArray[np.int64]
) -> tuple[Mapping[int, NDArray[np.float64]], _Faults]:
    """Values of commitments that are JSON but not the usual one, and what C1 says of them."""
    values: dict[int, NDArray[np.float64]] = {}
    faults: _Faults = defaultdict(lambda: defaultdict(list))
    for text in texts:
        if text.column != "sketches":
            continue
        try:
            entries = text.json.parsed()
        except CommitmentsError as error:
            faults["schema_valid"][text.row].append(f"commitments: {error}")
            continue
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            faults["schema_valid"][text.row].append("commitments are no list of objects")
            continue
        if len(entries) != lengths[text.row]:
            faults["schema_valid"][text.row].append("not one sketch for each token")
        values[text.row] = np.array([_number(e.get("sketch")) for e in entries], np.float64)
    return values, faults


def _number(value: Any) -> float:
    """What the network's arithmetic makes of an entry; nan where it has none."""
    if not isinstance(value, int | float):
        return np.nan
    try:
        return float(value)
    except OverflowError:
        return np.inf if value > 0 else -np.inf
