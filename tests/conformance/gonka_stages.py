"""Gonka: which height of an epoch starts what, and which epoch a height is in."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from windrow.networks.gonka.stages import (
    EpochParams,
    NoSuchEpoch,
    current,
    following,
    stages,
)

from .framework import Case, VectorFile, handles

Row = dict[str, Any]


@handles("gonka/10_epoch_stages.json")
def epochs(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, expected: Row) -> None:
        params = EpochParams(**given["params"])
        epoch = stages(given["index"], given["poc_start_block_height"], params)
        assert epoch.to_dict() == expected["epoch_stages"]
        assert following(epoch, params).to_dict() == expected["next_epoch_stages"]
        for height, row in zip(given["heights"], expected["phases"], strict=True):
            found = epoch.due(height) | {
                "height": height,
                "phase": epoch.phase(height),
                "poc_exchange_open": epoch.exchange_open(height),
                "validation_exchange_open": epoch.validation_exchange_open(height),
            }
            assert found == row

    def check_current(given: Row, expected: Row) -> None:
        params, height = EpochParams(**given["params"]), given["height"]
        effective = stages(given["index"], given["poc_start_block_height"], params)
        if "panic" in expected:
            with pytest.raises(NoSuchEpoch):
                current(effective, height, params)
            return
        epoch = current(effective, height, params)
        assert epoch.epoch_index == expected["epoch_index"]
        assert epoch.poc_start == expected["poc_start_block_height"]
        assert epoch.phase(height) == expected["phase"]

    document = file.load_json()
    for index, case in enumerate(document["cases"]):
        yield Case(f"stages-{index}", partial(check, case["input"], case["expected"]))
    for index, case in enumerate(document.get("from_effective_epoch", [])):
        yield Case(f"current-{index}", partial(check_current, case["input"], case["expected"]))
