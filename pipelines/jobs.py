"""Jobs: one run works on one window, in one process, so nothing is loaded twice."""

import dagster as dg

from windrow.assets.fleet.partitions import nodes
from windrow.engine.fleet.stages import STAGES

WINDOW_TAGS = {"lane": "window"}
UPKEEP_TAGS = {"lane": "upkeep"}

mine_window = dg.define_asset_job(
    "mine_window",
    selection=dg.AssetSelection.assets(
        "beacon", "checkpoint", "rollouts", "proofs", "submission", "upload"
    ),
    executor_def=dg.in_process_executor,
    tags=WINDOW_TAGS,
    description="Generate, prove, sign, check and upload one window.",
)

prove_window = dg.define_asset_job(
    "prove_window",
    selection=dg.AssetSelection.assets("proofs", "submission"),
    executor_def=dg.in_process_executor,
    tags=WINDOW_TAGS,
    description="Prove the stored rollouts of one window again and rebuild its file; no upload.",
)

validate_window = dg.define_asset_job(
    "validate_window",
    selection=dg.AssetSelection.assets("verdicts", "scores", "weights"),
    executor_def=dg.in_process_executor,
    tags={"lane": "validation"},
    description="Check, score and weigh every miner's file of one closed window.",
)

verify_node = dg.define_asset_job(
    "verify_node",
    selection=dg.AssetSelection.assets(*STAGES),
    config=dg.PartitionedConfig(
        partitions_def=nodes,
        run_config_for_partition_key_fn=lambda _node: {},
        # The queue lets one run a node through at a time (dagster.yaml).
        tags_for_partition_key_fn=lambda node: {"node": node},
    ),
    executor_def=dg.in_process_executor,
    tags={"lane": "fleet"},
    description="Look at one node, check it, and have it prove what it has and can do.",
)

show_fleet = dg.define_asset_job(
    "show_fleet",
    selection=dg.AssetSelection.assets("fleet_page"),
    executor_def=dg.in_process_executor,
    tags=UPKEEP_TAGS,
    description="Bring the page of the whole fleet up to date.",
)

compact_lake = dg.define_asset_job(
    "compact_lake",
    selection=dg.AssetSelection.assets("compacted_lake"),
    executor_def=dg.in_process_executor,
    tags=UPKEEP_TAGS,
    description="Merge the lake's many small files.",
)

compact_schedule = dg.ScheduleDefinition(
    name="daily_compaction",
    job=compact_lake,
    cron_schedule="41 4 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
