"""Upkeep of the lake itself."""

import dagster as dg

from windrow.networks.grail.windows import window_start
from windrow.resources.chain import Chain
from windrow.resources.warehouse.lake import Lake


@dg.asset(group_name="lake", kinds={"duckdb", "parquet"})
def compacted_lake(
    context: dg.AssetExecutionContext,
    chain: dg.ResourceParam[Chain],
    lake: dg.ResourceParam[Lake],
) -> dg.MaterializeResult:
    """Many small window files merged into few; queries read the same rows, only faster."""
    done = lake.compact(before=window_start(chain.block()))
    merged = sum(compaction.files for compaction in done)
    context.log.info(f"merged {merged} files into {len(done)}")
    return dg.MaterializeResult(metadata={"merged_files": merged, "written_files": len(done)})
