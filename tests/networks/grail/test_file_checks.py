"""Violations of a file's structure: all of them, in the network's order."""

import pyarrow as pa

from windrow.networks.grail.file_checks import file_violations, network_reason

HASH = "0x" + "5e" * 32


def rows(count: int = 16, **columns: list[object]) -> pa.Table:
    filled: dict[str, list[object]] = {
        "window_start": [60] * count,
        "block_hash": [HASH] * count,
        "nonce": list(range(count)),
        "rollout_group": [0] * count,
    }
    types = {"block_hash": pa.string()}
    return pa.table(
        {
            name: pa.array(values, types.get(name, pa.int64()))
            for name, values in (filled | columns).items()
        }
    )


def check(table: pa.Table, wallet: str | None = "me", window: int | None = 60) -> pa.Table:
    return file_violations(
        table, wallet=wallet, metadata_window=window, hotkey="me", window=60, block_hash=HASH
    )


def test_a_sound_file_has_none() -> None:
    assert check(rows()).num_rows == 0
    assert network_reason(check(rows())) is None
    assert check(rows(0)).num_rows == 0


def test_a_file_that_names_no_window_is_of_another() -> None:
    assert network_reason(check(rows(), window=None)) == "window_mismatch"


def test_every_violation_is_listed_in_the_networks_order() -> None:
    table = rows(
        17,
        window_start=[60] * 9 + [90] * 8,
        nonce=[0, 1, 2, 3, None, 5, 6, None, 8, 9, 10, 11, 3, 13, 14, 15, 16],
        block_hash=[HASH] * 12 + [None, "0x"] + [HASH] * 3,
    )
    violations = check(table, wallet=None, window=10**400)
    found = list(zip(violations["row"].to_pylist(), violations["check"].to_pylist(), strict=True))
    assert found == [
        (None, "wallet_mismatch"),
        (None, "window_mismatch"),
        (7, "duplicate_nonce"),
        (9, "window_start_mismatch"),
        (10, "window_start_mismatch"),
        (11, "window_start_mismatch"),
        (12, "window_start_mismatch"),
        (12, "block_hash_mismatch"),
        (12, "duplicate_nonce"),
        (13, "window_start_mismatch"),
        (13, "block_hash_mismatch"),
        (14, "window_start_mismatch"),
        (15, "window_start_mismatch"),
        (16, "window_start_mismatch"),
        (None, "invalid_group_size"),
    ]
    assert network_reason(violations) == "wallet_mismatch"


def test_rows_in_several_chunks_are_one_file() -> None:
    table = pa.concat_tables([rows(8), rows(8, nonce=list(range(7, 15)))])
    violations = check(table)
    assert violations["row"].to_pylist() == [8]
    assert network_reason(violations) == "duplicate_nonce"


def test_groups_far_apart_are_told_apart() -> None:
    groups = [-(2**63)] * 16 + [2**63 - 1] * 16
    assert check(rows(32, rollout_group=groups)).num_rows == 0
    groups[0] = 2**63 - 1
    sizes = check(rows(32, rollout_group=groups))
    assert dict(
        zip(sizes["rollout_group"].to_pylist(), sizes["measured"].to_pylist(), strict=True)
    ) == {
        -(2**63): 15,
        2**63 - 1: 17,
    }
