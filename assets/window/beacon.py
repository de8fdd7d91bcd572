"""The randomness of a window: drawn once, then kept."""

from typing import Any

import dagster as dg

from windrow.assets.window.faults import WHOLE_WINDOW, faults_kept
from windrow.assets.window.partitions import OPEN_WINDOW_TAG, windows
from windrow.assets.window.stored import stored_row
from windrow.engine.mining.spool import DroppedGroup
from windrow.networks.grail.constants import WINDOW_BLOCKS
from windrow.resources.admission import Admission
from windrow.resources.beacon import BeaconSource
from windrow.resources.chain import Chain, require_open
from windrow.resources.wallet import Wallet
from windrow.resources.warehouse.lake import Lake
from windrow.resources.warehouse.schema import DATASETS


@dg.asset(partitions_def=windows, group_name="window", kinds={"bittensor"})
def beacon(
    context: dg.AssetExecutionContext,
    chain: dg.ResourceParam[Chain],
    beacon_source: dg.ResourceParam[BeaconSource],
    lake: dg.ResourceParam[Lake],
    wallet: dg.ResourceParam[Wallet],
    admission: dg.ResourceParam[Admission],
) -> dg.MaterializeResult:
    """Block hash of the window's first block and the randomness R_m (grail-protocol §2).

    A window that has its beacon keeps it, so groups made before a crash stay valid, unless the
    chain now gives its first block another hash. Where no drand relay can be had, the block hash
    stands in, the row says so, and what each relay did is a fault that stops nothing.
    """
    window = int(context.partition_key)
    with faults_kept(
        lake, window, wallet.hotkey, "beacon", context.run.run_id, chain=chain
    ) as faults:
        admission.ensure()
        if OPEN_WINDOW_TAG.items() <= context.run.tags.items():
            require_open(chain, window)
        block_hash = chain.block_hash(window)
        row = _kept(lake, window, wallet.hotkey, block_hash)
        if row is None:
            drawn = beacon_source.beacon(window)
            faults += [
                DroppedGroup(WHOLE_WINDOW, "beacon", concern.name, concern.detail)
                for concern in beacon_source.concerns()
            ]
            row = {
                "window_start": window,
                "hotkey": wallet.hotkey,
                "block_hash": drawn.block_hash,
                "randomness": drawn.randomness,
                "use_drand": drawn.use_drand,
                "drand_round": drawn.drand_round,
                "source": drawn.source,
                "relay": drawn.relay,
                "fallback": drawn.fallback,
                "opened_at": chain.timestamp(window),
            }
            table = DATASETS["beacons"].table([row])
            lake.write(
                "beacons", window, wallet.hotkey, table, run_id=context.run.run_id, replace=True
            )
        deadline = chain.deadline(window)
        return dg.MaterializeResult(
            metadata={
                "blocks": dg.MetadataValue.text(f"{window}..{window + WINDOW_BLOCKS - 1}"),
                "block_hash": row["block_hash"],
                "randomness": row["randomness"],
                "source": row["source"],
                "fallback": row["fallback"] or "none",
                "drand_round": row["drand_round"] if row["use_drand"] else "none",
                "deadline": dg.MetadataValue.timestamp(deadline),
                "seconds_left": round(deadline - chain.now(), 1),
            }
        )


def _kept(lake: Lake, window: int, hotkey: str, block_hash: str) -> dict[str, Any] | None:
    if not lake.exists("beacons", window, hotkey):
        return None
    row = stored_row(lake, "beacons", window, hotkey)
    return row if row["block_hash"] == block_hash else None
