"""Cards and nodes of Chutes beyond the measured cases."""

import pytest

from windrow.networks.chutes.gpus import (
    CARDS,
    Device,
    InvalidSelector,
    card_of,
    device_problem,
    select,
)
from windrow.networks.chutes.node_resources import needed_memory, node_resources


def test_every_pattern_finds_its_own_card_first() -> None:
    names = {"l4": "NVIDIA L4", "l40": "NVIDIA L40", "l40s": "NVIDIA L40S", "h20": "NVIDIA H20"}
    for short_ref, name in names.items():
        found = card_of(name)
        assert found is not None
        assert found.short_ref == short_ref


def test_a_problem_names_what_is_wrong() -> None:
    device = Device("NVIDIA L40S", 50 * 10**9, 128, 2_520_000.0, "l40s")
    assert device_problem(device) == "128 processors; a l40s has 142"


@pytest.mark.parametrize("selector", [{"gpu_count": True}, {"include": "l4"}, {"exclude": [4]}])
def test_a_selector_of_other_types_is_refused(selector: dict[str, object]) -> None:
    with pytest.raises(InvalidSelector):
        select(selector)


def test_a_table_of_another_time_changes_the_multiplier() -> None:
    cards = {name: CARDS[name] for name in ("l4", "h100")}
    assert select({}, cards).multiplier == pytest.approx(0.17 / 1.5)


def test_parity_of_memory_is_not_enough_for_pods() -> None:
    def memory_per_gpu(gib: int) -> int:
        return node_resources(
            cpus=64, memory=f"{gib}Gi", gpus=8, gpu_memory_mib=81920, disk="1000Gi", requests=[]
        ).memory_per_gpu

    assert memory_per_gpu(640) == 63
    assert memory_per_gpu(int(needed_memory(80, 8))) == 80
