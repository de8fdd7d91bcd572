"""Sensors: every window opens once, every checkpoint is announced once."""

import dagster as dg

from windrow.assets.window.faults import record_faults
from windrow.assets.window.partitions import OPEN_WINDOW_TAG, windows
from windrow.engine.mining.spool import DroppedGroup
from windrow.networks.grail.checkpoint import CHECKPOINTS_PREFIX, parse_ready_key
from windrow.networks.grail.constants import WINDOW_BLOCKS
from windrow.networks.grail.windows import validator_target, window_start
from windrow.pipelines.jobs import mine_window, validate_window
from windrow.resources.chain import Chain, ReorganisedWindow
from windrow.resources.checkpoints.cache import CheckpointCache
from windrow.resources.wallet import Wallet
from windrow.resources.warehouse.lake import Lake

MISSED_ROWS = 240
"""A day of windows: after a longer pause the newest are written down, with the true number."""

CATCH_UP = 20
"""Windows requested in one tick after a pause; the next tick goes on from there."""

VALIDATION_PRIORITY = {"dagster/priority": "1"}
"""Validations of windows as they close come before backfills, oldest first among themselves."""


@dg.sensor(
    job=mine_window,
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Mines the open window, once a first block; writes down windows missed.",
)
def open_window(
    context: dg.SensorEvaluationContext,
    chain: dg.ResourceParam[Chain],
    lake: dg.ResourceParam[Lake],
    wallet: dg.ResourceParam[Wallet],
) -> dg.SensorResult | dg.SkipReason:
    """One run for the window that holds the chain's newest block (grail-protocol §2).

    A second one where the chain has put another block at its beginning and the first run gave up.
    A tick that cannot read the chain fails, and its cursor stays: what passed meanwhile is written
    down by the next one.
    """
    window = window_start(chain.block())
    last = int(context.cursor) if context.cursor else window - WINDOW_BLOCKS
    if window == last and (block_hash := _replaced(chain, lake, wallet.hotkey, window)):
        # Named by the block, so that each one the chain puts there is worked on once.
        request = _mining(window, f"mine:{window}:{block_hash}")
        return dg.SensorResult(run_requests=[request], cursor=context.cursor)
    if window <= last:
        return dg.SkipReason(
            f"window {last} was opened already; the next opens in block {last + WINDOW_BLOCKS}"
        )
    missed = range(last + WINDOW_BLOCKS, window, WINDOW_BLOCKS)
    for skipped in missed[-MISSED_ROWS:]:
        reason = f"{len(missed)} windows passed while nobody looked, or the chain was silent"
        fault = DroppedGroup(-1, "open_window", "missed", reason)
        record_faults(lake, skipped, wallet.hotkey, "open_window", [fault])
    return dg.SensorResult(
        run_requests=[_mining(window, f"mine:{window}")],
        dynamic_partitions_requests=[windows.build_add_request([str(window)])],
        cursor=str(window),
    )


def _mining(window: int, run_key: str) -> dg.RunRequest:
    # The newest window has the most time left and the only one that counts: it leaves the queue
    # first, whatever waits there from before a crash.
    tags = {"dagster/priority": str(window), **OPEN_WINDOW_TAG}
    return dg.RunRequest(run_key, partition_key=str(window), tags=tags)


def _replaced(chain: Chain, lake: Lake, hotkey: str, window: int) -> str | None:
    """The hash of a window's first block where it replaced the one its run gave up for it."""
    if not lake.exists("faults", window):
        return None
    faults = lake.read("faults", window).select(["hotkey", "reason"]).to_pylist()
    if {"hotkey": hotkey, "reason": ReorganisedWindow.__name__} not in faults:
        return None
    block_hash = chain.block_hash(window)
    drawn = lake.read("beacons", window, hotkey).column("block_hash").to_pylist()
    return block_hash if drawn != [block_hash] else None


@dg.sensor(
    job=validate_window,
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Validates every window once it has closed, oldest first, none skipped.",
)
def closed_window(
    context: dg.SensorEvaluationContext,
    chain: dg.ResourceParam[Chain],
) -> dg.SensorResult | dg.SkipReason:
    """A run for every closed window since the last tick, at most CATCH_UP at a time (§2.1)."""
    target = validator_target(chain.block())
    last = int(context.cursor) if context.cursor else target - WINDOW_BLOCKS
    due = [str(w) for w in range(last + WINDOW_BLOCKS, target + 1, WINDOW_BLOCKS)][:CATCH_UP]
    if not due:
        return dg.SkipReason(f"window {last} was the last to close")
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(f"validate:{key}", partition_key=key, tags=VALIDATION_PRIORITY)
            for key in due
        ],
        dynamic_partitions_requests=[windows.build_add_request(due)],
        cursor=due[-1],
    )


@dg.sensor(
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    asset_selection=["checkpoint"],
    description="Announces checkpoints as the trainer marks them READY.",
)
def new_checkpoint(
    context: dg.SensorEvaluationContext,
    checkpoints: dg.ResourceParam[CheckpointCache],
) -> dg.SensorResult | dg.SkipReason:
    """One materialization of the trainer's bucket for every new READY marker (§9.2)."""
    seen = set((context.cursor or "").split())
    markers = {}
    for info in checkpoints.store.list(CHECKPOINTS_PREFIX):
        if parsed := parse_ready_key(info.key):
            markers[f"{parsed[0]}/{parsed[1]}"] = info
    new = sorted(markers.keys() - seen)
    if not new:
        return dg.SkipReason(f"{len(markers)} checkpoints are ready, none of them new")
    return dg.SensorResult(
        asset_events=[
            dg.AssetMaterialization(
                "trainer_bucket",
                metadata={
                    "checkpoint_window": int(marker.split("/")[0]),
                    "ready_window": int(marker.split("/")[1]),
                    "ready_at": dg.MetadataValue.timestamp(markers[marker].last_modified),
                },
            )
            for marker in new
        ],
        # Markers come in any order, so the cursor names those there are; the trainer keeps few.
        cursor=" ".join(sorted(markers)),
    )
