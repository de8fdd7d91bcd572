"""Gonka: what a model's arguments make of a node's GPUs."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from windrow.networks.gonka.model_args import (
    Layout,
    instances,
    merged_args,
    network_layout,
    recipe,
    strict_layout,
)

from .framework import Case, VectorFile, handles

Row = dict[str, Any]


@handles("gonka/model_args.json")
def model_args(file: VectorFile) -> Iterator[Case]:
    def check(row: Row, rows: list[Row]) -> None:
        layout = Layout(row["tensor_parallel"], row["pipeline_parallel"])
        assert network_layout(row["args"]) == strict_layout(row["args"]) == layout
        gpus = row["gpu_count"]
        if row["vllm_instances"] is not None:
            devices = instances(gpus, layout)
            assert len(devices) == row["vllm_instances"]
            assert max(device for own in devices for device in own) < gpus
        if gpus is not None:
            found = recipe(rows, row["model"], row["gpu_type"], gpus)
            assert found["model"] == row["model"]
            assert network_layout(found["args"]).gpus <= gpus

    def check_merge(row: Row, governance: list[str]) -> None:
        merged = merged_args(governance, row["args"])
        keys = [arg for arg in merged if arg.startswith("--")]
        assert merged[: len(governance)] == governance
        assert len(set(keys)) == len(keys)
        assert {arg for arg in row["args"] if arg.startswith("--")} <= set(keys)

    document = file.load_json()
    governance = {row["model"]: row.get("governance_args", []) for row in document["models"]}
    for table in ("seed", "repo_2025_08", "docs_2026_08"):
        rows = document[table]
        for index, row in enumerate(rows):
            yield Case(f"{table}-{index}", partial(check, row, rows))
            ruled = governance.get(row["model"], [])
            yield Case(f"{table}-{index}-merged", partial(check_merge, row, ruled))
