"""The model a window is mined with."""

import json
import time

import dagster as dg

from windrow.assets.window.faults import faults_kept
from windrow.assets.window.partitions import windows
from windrow.resources.checkpoints.cache import CheckpointCache
from windrow.resources.wallet import Wallet
from windrow.resources.warehouse.lake import Lake
from windrow.resources.warehouse.schema import DATASETS


@dg.asset(
    partitions_def=windows,
    group_name="window",
    deps=["trainer_bucket"],
    kinds={"s3", "safetensors"},
)
def checkpoint(
    context: dg.AssetExecutionContext,
    checkpoints: dg.ResourceParam[CheckpointCache],
    lake: dg.ResourceParam[Lake],
    wallet: dg.ResourceParam[Wallet],
) -> dg.MaterializeResult:
    """The checkpoint ready before the window, every file verified (grail-protocol §9).

    Metadata that lacks something mining needs fails the window with that reason.
    """
    window = int(context.partition_key)
    with faults_kept(lake, window, wallet.hotkey, "checkpoint", context.run.run_id):
        began = time.perf_counter()
        verified = checkpoints.fetch(checkpoints.select(window))
        for note in verified.notes:
            context.log.warning(f"Checkpoint {verified.metadata.window}: {note}")
        seconds = time.perf_counter() - began
        size = sum(file.stat().st_size for file in verified.directory.rglob("*") if file.is_file())
        metadata = verified.metadata
        policy = metadata.policy
        row = {
            "window_start": window,
            "hotkey": wallet.hotkey,
            "checkpoint_window": metadata.window,
            "model_name": metadata.model_name,
            "weights_hash": verified.weights_hash,
            "env_id": metadata.env_id,
            "env_params": json.dumps(dict(metadata.env_params), sort_keys=True),
            "thinking_mode": metadata.thinking_mode,
            "max_new_tokens": policy.max_new_tokens,
            "temperature": policy.temperature,
            "top_p": policy.top_p,
            "top_k": policy.top_k,
            "repetition_penalty": policy.repetition_penalty,
            "bytes": size,
            "seconds": seconds,
        }
        table = DATASETS["checkpoints"].table([row])
        lake.write(
            "checkpoints", window, wallet.hotkey, table, run_id=context.run.run_id, replace=True
        )
    return dg.MaterializeResult(
        metadata={
            "checkpoint_window": metadata.window,
            "model": metadata.model_name,
            "environment": metadata.env_id,
            "thinking_mode": metadata.thinking_mode,
            "policy": dg.MetadataValue.json(
                {
                    "max_new_tokens": policy.max_new_tokens,
                    "temperature": policy.temperature,
                    "top_p": policy.top_p,
                    "top_k": policy.top_k,
                    "repetition_penalty": policy.repetition_penalty,
                }
            ),
            "weights_hash": verified.weights_hash,
            "bytes": size,
            "seconds": round(seconds, 3),
            "folder": dg.MetadataValue.path(str(verified.directory)),
            "not_checked": "; ".join(verified.notes) or "nothing",
        },
        data_version=dg.DataVersion(verified.weights_hash),
    )
