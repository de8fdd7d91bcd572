"""The window file in the miner's bucket."""

import hashlib

import dagster as dg

from windrow import WindrowError
from windrow.assets.window.faults import WHOLE_WINDOW, faults_kept
from windrow.assets.window.partitions import windows
from windrow.assets.window.stored import stored_row, window_file_path
from windrow.assets.window.submission_rows import sha256_of
from windrow.assets.window.tracking import track
from windrow.engine.mining.spool import DroppedGroup
from windrow.networks.grail.bucket import window_file_key
from windrow.networks.grail.constants import MAX_FILE_BYTES
from windrow.resources.chain import Chain, ChainSilent, require_same_block
from windrow.resources.storage.object_store import ObjectStore
from windrow.resources.storage.s3_bucket import S3Bucket
from windrow.resources.tracking.metrics import mining_metrics
from windrow.resources.tracking.tracker import Tracker
from windrow.resources.wallet import Wallet
from windrow.resources.warehouse.lake import Lake
from windrow.resources.warehouse.schema import DATASETS


class LateReplacement(WindrowError):
    """Another file of this window is in the bucket and its deadline has passed."""


class ChangedSubmission(WindrowError):
    """The window file on disk is not the one that was checked."""


@dg.asset(
    partitions_def=windows,
    group_name="window",
    deps=["submission"],
    kinds={"s3"},
    check_specs=[
        dg.AssetCheckSpec(
            "on_time", asset="upload", description="in the bucket before the network's deadline"
        )
    ],
)
def upload(
    context: dg.AssetExecutionContext,
    chain: dg.ResourceParam[Chain],
    bucket: dg.ResourceParam[ObjectStore],
    lake: dg.ResourceParam[Lake],
    wallet: dg.ResourceParam[Wallet],
    tracker: dg.ResourceParam[Tracker],
) -> dg.MaterializeResult:
    """Put the checked file where validators look for it (grail-protocol §8.1, §8.4).

    The same file is never put twice: its time of upload would move. A different one replaces it
    before the deadline only, for a late file counts as none. A file for a first block that the
    chain has given up is not uploaded; one for a chain that cannot be asked is, with a fault row.
    """
    window, hotkey = int(context.partition_key), wallet.hotkey
    with faults_kept(lake, window, hotkey, "upload", context.run.run_id, chain=chain) as faults:
        made = stored_row(lake, "submissions", window, hotkey)
        path = window_file_path(lake, window, hotkey)
        if not path.exists() or sha256_of(path) != made["sha256"]:
            raise ChangedSubmission(
                f"{path} changed or vanished after it was checked and is not uploaded; materialize "
                "submission again"
            )
        faults += _unasked(chain, window, stored_row(lake, "beacons", window, hotkey)["block_hash"])
        key = window_file_key(hotkey, window)
        deadline = chain.deadline(window)
        began = chain.now()
        # What a bucket repeats must end by then; a window that is over has no such hurry.
        within = deadline - began if deadline > began else None
        info = bucket.head(key)
        action = "kept"
        if info is None:
            info = bucket.put_file(key, path, create=True, within=within)
            action = "created"
        elif (held := _sha256(bucket.get(key, max_bytes=MAX_FILE_BYTES))) != made["sha256"]:
            faults += _foreign(lake, window, hotkey, key, held)
            if began > deadline:
                raise LateReplacement(
                    f"{key} already holds another file of window {window}, and its deadline passed "
                    f"{began - deadline:.0f} s ago: replacing it would make it late. Both are "
                    f"kept: the bucket's as it is, this one at {path}"
                )
            info, action = bucket.put_file(key, path, within=within), "replaced"
        margin = deadline - info.last_modified
        row = {
            "window_start": window,
            "hotkey": hotkey,
            "key": key,
            "bytes": info.size,
            "sha256": made["sha256"],
            "etag": info.etag,
            "uploaded_at": info.last_modified,
            "deadline": deadline,
            "margin_seconds": margin,
            "on_time": margin >= 0,
            "seconds": chain.now() - began,
        }
        table = DATASETS["uploads"].table([row])
        lake.write("uploads", window, hotkey, table, run_id=context.run.run_id, replace=True)
    track(context, tracker, lake, mining_metrics, hotkey)
    return dg.MaterializeResult(
        metadata={
            "key": key,
            "action": action,
            "creation": _creation(bucket),
            "bytes": info.size,
            "sha256": made["sha256"],
            "deadline_margin_seconds": round(margin, 1),
            "uploaded_at": dg.MetadataValue.timestamp(info.last_modified),
            "deadline": dg.MetadataValue.timestamp(deadline),
            "seconds": round(row["seconds"], 3),
        },
        check_results=[
            dg.AssetCheckResult(
                check_name="on_time",
                passed=margin >= 0,
                severity=dg.AssetCheckSeverity.WARN,
                metadata={"margin_seconds": round(margin, 1)},
                description=(
                    f"{margin:.1f} s before the deadline"
                    if margin >= 0
                    else f"{-margin:.1f} s after the deadline: the network treats it as no file"
                ),
            )
        ],
    )


def _creation(bucket: ObjectStore) -> str:
    """How the bucket keeps an object from being replaced, as far as this run has seen."""
    if isinstance(bucket, S3Bucket) and not bucket.conditions:
        return "look-up before upload: the server does not support If-None-Match"
    return "conditional"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _unasked(chain: Chain, window: int, recorded: str) -> list[DroppedGroup]:
    """A fault where the chain cannot be asked once more. Raises ReorganisedWindow.

    Not to upload would lose the window for certain, to upload only if the chain was reorganised
    and fell silent in one window.
    """
    try:
        require_same_block(chain, window, recorded)
    except ChainSilent as error:
        detail = f"uploaded without asking whether block {window} is still {recorded}: {error}"
        return [DroppedGroup(WHOLE_WINDOW, "upload", "ChainSilent", detail)]
    return []


def _foreign(lake: Lake, window: int, hotkey: str, key: str, held: str) -> list[DroppedGroup]:
    """A fault where the bucket holds a file that this lake has no record of uploading."""
    known = lake.exists("uploads", window, hotkey)
    if known and held == stored_row(lake, "uploads", window, hotkey)["sha256"]:
        return []
    detail = (
        f"{key} held a file (sha256 {held}) that was not uploaded from here: another miner uses "
        f"the hotkey {hotkey}, or a run was killed right after its upload. Two miners with one "
        "hotkey replace each other's files; stop one of them, or give it a hotkey of its own."
    )
    return [DroppedGroup(WHOLE_WINDOW, "upload", "ForeignUpload", detail)]
