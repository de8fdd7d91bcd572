"""What a validator asks of a whole file before it looks at a rollout (grail-validation §5)."""

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from windrow.networks.grail.columns import equals, is_null
from windrow.networks.grail.constants import ROLLOUTS_PER_GROUP
from windrow.networks.grail.violations import Severity, Violations

FILE_COLUMNS: Final = ("window_start", "block_hash", "nonce", "rollout_group")


_EXACT: Final = 2**53  # a violation's float64 holds every integer up to it


def file_violations(
    rollouts: pa.Table,
    *,
    wallet: str | None,
    metadata_window: int | None,
    hotkey: str,
    window: int,
    block_hash: str,
) -> pa.Table:
    """Every violation of the file's structure (§11.1 F3-F7), VIOLATION_SCHEMA.

    They stand in the order in which the network looks, so that the first row's `check` is the
    reason it records: see `network_reason`.

    rollouts: a table with FILE_COLUMNS at least. wallet, metadata_window: what the file says of
    itself. hotkey, window, block_hash: whose file it should be, and of which window.
    """
    window_start, hashes, nonces, groups = (
        rollouts.column(name).combine_chunks() for name in FILE_COLUMNS
    )
    header, rows, sizes = Violations(groups), Violations(groups), Violations(groups)
    if wallet != hotkey:
        header.of_file("wallet_mismatch", Severity.BAN, f"metadata wallet is not {hotkey}")
    if metadata_window != window:
        header.of_file(
            "window_mismatch",
            Severity.BAN,
            "metadata window_start is another window",
            measured=_exactly(metadata_window),
            threshold=window,
        )
    for broken, check, reason in (
        (is_null(groups), "null_rollout_group", "rollout_group is null"),
        (~equals(window_start, window), "window_start_mismatch", "window_start is another window"),
        (~equals(hashes, block_hash), "block_hash_mismatch", "block_hash is not the window's"),
        (_repeated(nonces), "duplicate_nonce", "an earlier row has the same nonce"),
    ):
        rows.rollouts(broken, check, Severity.BAN, reason)
    counts = groups.value_counts()
    size = counts.field("counts").to_numpy()
    wrong = size != ROLLOUTS_PER_GROUP
    sizes.of_groups(
        counts.field("values").filter(pa.array(wrong)),
        "invalid_group_size",
        Severity.BAN,
        f"a group has exactly {ROLLOUTS_PER_GROUP} rollouts",
        measured=size[wrong],
        threshold=ROLLOUTS_PER_GROUP,
    )
    # Stable, so that within a row the checks keep the network's order.
    by_row = rows.table().sort_by("row")
    return pa.concat_tables([header.table(), by_row, sizes.table()])


def network_reason(violations: pa.Table) -> str | None:
    """The reason a validator records for the file (as `file:<reason>`), None where it passes."""
    return violations.column("check")[0].as_py() if violations.num_rows else None


def _exactly(number: int | None) -> int | None:
    return number if number is not None and abs(number) <= _EXACT else None


def _repeated(nonces: pa.Array) -> NDArray[np.bool_]:
    """bool [n]: values that an earlier row has too. A null is a value like any other."""
    codes = pc.dictionary_encode(nonces, null_encoding="encode").indices.to_numpy()
    repeated = np.ones(len(codes), np.bool_)
    repeated[np.unique(codes, return_index=True)[1]] = False
    return repeated
