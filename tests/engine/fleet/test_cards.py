"""Declared cards against those that answer."""

import pytest

from windrow.engine.fleet.cards import cards_check, is_same_card, needs_cards
from windrow.engine.fleet.drift import drift_checks
from windrow.engine.fleet.facts import Facts, GpuFacts, answer, challenge, parse_facts
from windrow.engine.fleet.inventory import Node

H200, B300 = "NVIDIA H200", "NVIDIA B300 SXM6 AC"


def node(**fields: object) -> Node:
    return Node(**{"name": "n", "transport": "local", **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("declared", "name", "same"),
    [
        ("h200", H200, True),
        ("h200", "NVIDIA GH200 480GB", False),
        ("gh200", "NVIDIA GH200 480GB", True),
        ("h100", "NVIDIA H100 80GB HBM3", False),
        ("h100_sxm", "NVIDIA H100 80GB HBM3", True),
        ("b300", B300, True),
        ("b300_sxm6_ac", B300, True),
        ("b300", "NVIDIA B200", False),
        ("t4", "Tesla T4", True),
        ("t4", "Tesla T40", False),
        ("rtx-2080-ti", "NVIDIA GeForce RTX 2080 Ti", True),
        ("rtx_2080_ti", "NVIDIA GeForce RTX 2080", False),
    ],
)
def test_a_card_is_known_by_its_name(declared: str, name: str, *, same: bool) -> None:
    assert is_same_card(declared, name) is same


def test_who_needs_cards() -> None:
    assert needs_cards(node(gpu="h200", gpu_count=8))
    for network in ("gonka", "compute-subnet", "compute-horde"):
        assert needs_cards(node(networks=[network]))
    for networks in ([], ["chutes"], ["grail"]):  # Chutes has CPU nodes, Grail runs on a processor
        assert not needs_cards(node(networks=networks))


@pytest.mark.parametrize(
    ("answered", "verdict", "label"),
    [
        ([H200] * 8, True, ""),
        ([H200] * 9, True, ""),
        ([], None, "no card"),
        ([H200] * 7, None, "7 of 8"),
        ([H200] * 7 + ["NVIDIA H20"], None, "7 of 8"),
        (["NVIDIA GeForce RTX 3090"] * 8, None, "other card"),
    ],
)
def test_what_answers_for_eight_cards(
    answered: list[str], verdict: bool | None, label: str
) -> None:
    check = cards_check(node(gpu="h200", gpu_count=8), answered)
    assert check.windrow_verdict is verdict
    assert check.reason.partition(":")[0] == label
    assert bool(check.remedy) is (verdict is None)


def seen(*names: str) -> Facts:
    gpus = tuple(
        GpuFacts(index=n, uuid=f"GPU-{n}", name=name, vram_bytes=1, vram_used_bytes=0)
        for n, name in enumerate(names)
    )
    return parse_facts(answer(challenge())).model_copy(update={"gpus": gpus})


def wrong(declared: Node, facts: Facts) -> list[str]:
    checks = drift_checks(declared, facts, before=None, elsewhere={})
    return [check.check for check in checks if check.windrow_verdict is False]


def test_cards_that_are_not_declared_are_one_finding_with_what_to_write() -> None:
    facts = seen(*[B300] * 8)
    checks = drift_checks(node(networks=["gonka"]), facts, before=None, elsewhere={})
    (check,) = [check for check in checks if check.windrow_verdict is False]
    assert check.reason == f"no card is declared, 8 x {B300} are seen"
    assert "gpu_count: 8" in check.remedy
    assert wrong(node(networks=["gonka"], gpu="b300", gpu_count=8), facts) == []
    (known,) = drift_checks(node(), seen(H200), before=None, elsewhere={})[:1]
    assert "gpu: h200" in known.remedy


def test_fewer_or_other_cards_are_found() -> None:
    declared = node(gpu="h200", gpu_count=2)
    assert wrong(declared, seen(H200, H200)) == []
    assert wrong(declared, seen(H200)) == ["drift_gpu_count"]
    assert wrong(declared, seen()) == ["drift_gpu_count"]
    assert wrong(declared, seen(B300, B300)) == ["drift_gpu"]
