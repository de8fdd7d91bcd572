"""Upload times and sizes, retention, bucket commitments (grail-validation §2, §3, §17, §19)."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from windrow.networks.grail import checkpoint, retention
from windrow.networks.grail.bucket import BucketCommitment
from windrow.networks.grail.constants import DEADLINE_SLACK_SECONDS
from windrow.networks.grail.validation import uploads
from windrow.networks.grail.validation.credentials import (
    ChainRow,
    already_published,
    decode_rows,
)
from windrow.networks.grail.windows import (
    drand_round,
    validator_randomness,
    validator_target,
)

from ._validation_values import load
from .framework import Case, VectorFile, assert_close, handles

KEYS = ("name", "access_key_id", "secret_access_key")
OUR_KEYS = ("bucket_name", "read_access_key_id", "read_secret_access_key")


@handles("grail-validation/timing_and_uploads.json")
def timing_and_uploads(file: VectorFile) -> Iterator[Case]:
    vectors = load(file)
    yield Case("windows-and-rounds", partial(check_windows, vectors))
    for index, case in enumerate(vectors["window_randomness"]):
        yield Case(f"randomness-{index}", partial(check_randomness, case))
    for index, case in enumerate(vectors["estimate_block_timestamp"]):
        yield Case(f"estimate-{index}", partial(check_estimate, case))
    for index, case in enumerate(vectors["timestamp_units"]):
        yield Case(f"units-{index}", partial(check_units, case))
    for case in vectors["object_head"]:
        yield Case(f"head-{case['name']}", partial(check_head, case))


def check_windows(vectors: dict[str, Any]) -> None:
    assert vectors["deadline_slack_seconds"] == DEADLINE_SLACK_SECONDS
    assert uploads.upload_deadline(1000.0) == 1000.0 + vectors["deadline_slack_seconds"]
    for block, window in vectors["target_window"]:
        assert validator_target(block) == window
    for time, number in vectors["drand_round_at_time"]:
        assert drand_round(time) == number


def check_randomness(case: dict[str, Any]) -> None:
    mixed = validator_randomness(case["block_hash"], case["drand_randomness"])
    assert mixed == case["with_drand"]
    assert validator_randomness(case["block_hash"], None) == case["without_drand"]


def check_estimate(case: dict[str, Any]) -> None:
    estimate = uploads.estimate_timestamp(
        case["target_block"],
        case["current_block"],
        case["timestamp_current"],
        case["timestamp_anchor_100_back"],
    )
    assert_close([estimate], [case["estimate"]], rel=1e-12)


def check_units(case: dict[str, Any]) -> None:
    seconds = uploads.timestamp_seconds(case["raw"])
    assert seconds == case["pallet_seconds"] == case["extrinsic_seconds"]


def check_head(case: dict[str, Any]) -> None:
    heads = {key: uploads.ObjectHead(**head) for key, head in case["objects"].items()}
    candidates = uploads.candidate_keys(case["key"])
    assert list(candidates[: len(case["keys_probed"])]) == case["keys_probed"]
    upload = uploads.decide_upload(
        case["key"], heads, case["deadline"], least=case["min_size"], most=case["max_size"]
    )
    assert upload.key == (case["keys_probed"][-1] if heads else None)
    assert {
        "exists": upload.state is uploads.UploadState.USABLE,
        "was_late": upload.state is uploads.UploadState.LATE,
        "bad_size": upload.state is uploads.UploadState.BAD_SIZE,
        "upload_time": upload.uploaded,
    } == case["expected"]


@handles("grail-validation/retention_and_metadata.json")
def retention_and_metadata(file: VectorFile) -> Iterator[Case]:
    vectors = load(file)
    for case in vectors["compute_retention_windows"]:
        yield Case(f"retention-{case['current_window']}", partial(check_retention, case))
    for case in vectors["anchor"]:
        yield Case(f"anchor-{case['window']}", partial(check_anchor, case))
    for case in vectors["paths"]:
        yield Case(f"paths-{case['window']}", partial(check_paths, case))
    for index, case in enumerate(vectors["parse_window"]):
        yield Case(f"key-{index}", partial(check_key, case))
    for index, case in enumerate(vectors["compute_chain_windows"]):
        yield Case(f"chain-{index}", partial(check_chain, case))
    for index, case in enumerate(vectors["publisher_keep"]):
        yield Case(f"publisher-{index}", partial(check_publisher, case))
    for case in vectors["metadata_validation"]:
        yield Case(f"metadata-{case['name']}", partial(check_metadata, case))


def check_retention(case: dict[str, Any]) -> None:
    assert checkpoint.retained_windows(case["current_window"]) == case["keep"]


def check_anchor(case: dict[str, Any]) -> None:
    anchor = checkpoint.anchor_window(case["window"])
    assert (anchor, anchor == case["window"]) == (case["anchor"], case["is_anchor"])


def check_paths(case: dict[str, Any]) -> None:
    window = case["window"]
    assert case == {
        "window": window,
        "window_prefix": checkpoint.checkpoint_prefix(window),
        "delta_prefix": checkpoint.kind_prefix(window, "DELTA"),
        "full_prefix": checkpoint.kind_prefix(window, "FULL"),
        "delta_metadata": checkpoint.metadata_key(window, "DELTA"),
        "full_metadata": checkpoint.metadata_key(window, "FULL"),
        "ready": checkpoint.ready_key(window, int(case["ready"].rpartition("-")[2])),
    }


def check_key(case: tuple[str, int | None]) -> None:
    key, window = case
    assert retention.checkpoint_window(key) == window


def check_chain(case: dict[str, Any]) -> None:
    previous = {int(window): to for window, to in case["prev_map"].items()}
    anchors = {int(window): to for window, to in case["anchor_map"].items()}
    kept = checkpoint.delta_dependencies(case["retained_deltas"], previous, anchors)
    assert sorted(kept) == case["keep"]


def check_publisher(case: dict[str, Any]) -> None:
    inventory = retention.Inventory.of(case["keys"])
    assert {
        "all": list(inventory.windows),
        "full_only": list(inventory.full_only),
        "delta": list(inventory.deltas),
    } == case["inventory"]
    chains = {int(window): links for window, links in case["chain_info"].items()}
    kept = retention.published_windows(
        max(inventory.windows),
        inventory,
        previous={window: previous for window, (_, previous) in chains.items()},
        anchors={window: anchor for window, (anchor, _) in chains.items()},
    )
    assert kept == case["keep"]


def check_metadata(case: dict[str, Any]) -> None:
    assert checkpoint.missing_fields(case["metadata"]) == case["missing"]


@handles("grail-validation/credentials.json")
def credentials(file: VectorFile) -> Iterator[Case]:
    vectors = load(file)
    for case in vectors["encode"]:
        yield Case(f"encode-{case['name']}", partial(check_encoding, case))
    yield Case("chain-rows", partial(check_rows, vectors))
    for case in vectors["match"]:
        yield Case(f"match-{case['name']}", partial(check_match, case))
    reason = "keys inside the network's own client cache; Windrow has none, nor the inputs"
    yield Case("client-cache-keys", partial(pytest.skip, reason))


def check_encoding(case: dict[str, Any]) -> None:
    bucket = BucketCommitment(
        case["account_id"], case["read_access_key_id"], case["read_secret_access_key"]
    )
    text = bucket.encode()
    assert (text, len(text)) == (case["commitment"], case["length"])


def check_rows(vectors: dict[str, Any]) -> None:
    rows = [
        ChainRow(
            bytes.fromhex(row["account_id_hex"]),
            None if row["payload_hex"] is None else bytes.fromhex(row["payload_hex"]),
        )
        for row in vectors["chain_rows"]
    ]
    metagraph = vectors["metagraph"]
    uids = dict(zip(metagraph["hotkeys"], metagraph["uids"], strict=True))
    decoded = {
        str(uid): {
            "name": bucket.account_id,
            "account_id": bucket.account_id,
            "access_key_id": bucket.access_key_id,
            "secret_access_key": bucket.secret_access_key,
        }
        for uid, bucket in decode_rows(rows, uids).items()
    }
    assert decoded == vectors["decoded_by_uid"]


def check_match(case: dict[str, Any]) -> None:
    """The stored bucket's name is compared, which for all that is decoded is its account."""
    stored = BucketCommitment(*(case["existing"][name] for name in KEYS))
    ours = (case["ours"][name] for name in OUR_KEYS)
    assert already_published(stored, *ours) == case["match"]
