"""Chutes: cards, devices, proof times, node resources, names, selectors."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from windrow.networks.chutes import gpus, node_resources

from .framework import Case, VectorFile, assert_close, handles

Row = dict[str, Any]


@handles("chutes/node_validation.json")
def node_validation(file: VectorFile) -> Iterator[Case]:
    def check(case: Row) -> None:
        device = case["device"]
        problem = gpus.device_problem(
            gpus.Device(
                device["name"],
                device["memory"],
                device["processors"],
                device["clock_rate"],
                device["gpu_identifier"],
                device.get("verification_port"),
            )
        )
        assert ("accept" if problem is None else "reject") == case["expected"], problem

    for case in file.load_json()["cases"]:
        yield Case(case["id"], partial(check, case))


@handles("chutes/proof_timing.json")
def proof_timing(file: VectorFile) -> Iterator[Case]:
    def check(case: Row) -> None:
        elapsed, estimate = case["elapsed_s"], case["estimate_s"]
        assert gpus.registered_in_time(elapsed, estimate) == case["node_registration_ok"]
        assert gpus.launched_in_time(elapsed, estimate) == case["launch_ok"]

    for index, case in enumerate(file.load_json()["cases"]):
        yield Case(f"case-{index}", partial(check, case))


@handles("chutes/gpus.json")
def table(file: VectorFile) -> Iterator[Case]:
    """The table of September 2025, and what is derived of any card, one of a later table too."""
    data = file.load_json()
    rows = data["gpus"]
    listed = [name for name, row in rows.items() if row["in_2025_09_table"]]
    yield Case("table", partial(check_table, listed, data["_meta"]["price_basis_usd_per_hour"]))
    for name, row in rows.items():
        if name in listed:
            yield Case(name, partial(check_card, name, row))
        yield Case(f"{name}-accepted", partial(check_accepted, name, row))


def check_table(listed: list[str], basis: float) -> None:
    assert list(gpus.CARDS) == listed
    assert max(card.price for card in gpus.CARDS.values()) == basis


def card_of(name: str, row: Row) -> gpus.Card:
    return gpus.Card(
        name,
        row["name_pattern"],
        row["vram_gb"],
        row["processors"],
        row["clock_base_mhz"],
        row["clock_boost_mhz"],
        row["usd_per_hour"],
        row["graval_iterations"],
        row["graval_estimate_s"],
    )


def check_card(name: str, row: Row) -> None:
    card = gpus.CARDS[name]
    assert card == card_of(name, row)
    best = max(other.price for other in gpus.CARDS.values())
    assert_close([card.price / best], [row["compute_multiplier"]])


def check_accepted(name: str, row: Row) -> None:
    """Both ends of every range: what is just within is taken, what is just outside is not."""
    card, bounds = card_of(name, row), row["accept"]
    least, most = gpus.gigabytes_of_memory(card)
    assert least * 10**9 == bounds["memory_bytes_min"]
    assert (most + 1) * 10**9 == bounds["memory_bytes_max_exclusive"]

    def taken(memory: int, clock: float) -> bool:
        device = gpus.Device("any", memory, card.processors, clock, name)
        return gpus.device_problem(device, {name: replace(card, pattern="any")}) is None

    least, most = bounds["memory_bytes_min"], bounds["memory_bytes_max_exclusive"] - 1
    slowest, fastest = bounds["clock_khz_min"], bounds["clock_khz_max"]
    for memory in (least, most):
        for clock in (slowest, fastest):
            assert taken(memory, clock)
        assert not taken(memory, slowest - 1)
        assert not taken(memory, fastest + 1)
    assert not taken(least - 1, slowest)
    assert not taken(most + 1, slowest)

    estimate, proof = row["graval_estimate_s"], row["node_proof_seconds"]
    early, late = proof["min_exclusive"], proof["max_exclusive"]
    latest = row["launch_proof_seconds_max_exclusive"]
    nearly = 1e-9
    for in_time, ends in (
        (gpus.registered_in_time, (early * (1 + nearly), late * (1 - nearly))),
        (gpus.launched_in_time, (latest * (1 - nearly),)),
    ):
        assert all(in_time(end, estimate) for end in ends)
    assert not gpus.registered_in_time(early * (1 - nearly), estimate)
    assert not gpus.registered_in_time(late * (1 + nearly), estimate)
    assert not gpus.launched_in_time(latest * (1 + nearly), estimate)


@handles("chutes/node_resources_and_names.json")
def resources_and_names(file: VectorFile) -> Iterator[Case]:
    data = file.load_json()
    for index, case in enumerate(data["node_resources"]):
        yield Case(f"node-resources-{index}", partial(check_resources, case))
    for index, case in enumerate(data["code_configmap_names"]):
        made = node_resources.code_config_map(case["chute_id"], case["version"])
        yield Case(f"configmap-{index}", partial(check_same, made, case["code_configmap"]))
    for index, case in enumerate(data["gpu_device_names"]):
        made = node_resources.visible_device(case["gpu_id"])
        yield Case(f"device-{index}", partial(check_same, made, case["nvidia_visible_device"]))
    for index, case in enumerate(data["ip_tokens"]):
        made = node_resources.address_token(
            case["ip"], case["deployment_salt"], case["request_salt"]
        )
        yield Case(f"ip-token-{index}", partial(check_same, made, case["token"]))
    for index, case in enumerate(data["image_references"]):
        made = node_resources.image_reference(case["validator"], case["port"], case["image"])
        yield Case(f"image-{index}", partial(check_same, made, case["reference"]))


def check_same(made: str, expected: str) -> None:
    assert made == expected


def check_resources(case: Row) -> None:
    given, expected = case["inputs"], case["expected"]
    made = node_resources.node_resources(
        cpus=given["cpu_capacity"],
        memory=given["memory_capacity"],
        gpus=given["gpu_count"],
        gpu_memory_mib=given["gpu_memory_label_mib"],
        disk=given["ephemeral_storage_capacity"],
        requests=[tuple(request) for request in given["pod_ephemeral_requests"]],
    )
    assert made.cpu_per_gpu == expected["cpu_per_gpu"]
    assert made.memory_per_gpu == expected["memory_gb_per_gpu"]
    assert_close(
        [made.disk_total, made.disk_used, made.disk_available],
        [expected["disk_total_gb"], expected["disk_used_gb"], expected["disk_available_gb"]],
    )


@handles("chutes/node_selectors.json")
def node_selectors(file: VectorFile) -> Iterator[Case]:
    data = file.load_json()
    assert data["price_basis_usd_per_hour"] == max(card.price for card in gpus.CARDS.values())

    def check(case: Row) -> None:
        if "error" in case:
            with pytest.raises(gpus.InvalidSelector):
                gpus.select(case["node_selector"])
            return
        made = gpus.select(case["node_selector"])
        assert list(made.supported) == case["supported_gpus_sorted"]
        assert_close(
            [
                made.multiplier,
                made.price_per_hour,
                made.price_per_hour / 3600,
                made.private_multiplier,
            ],
            [
                case["compute_multiplier"],
                case["usd_per_hour"],
                case["usd_per_second"],
                case["private_instance_multiplier"],
            ],
        )

    for case in data["cases"]:
        yield Case(case["id"], partial(check, case))
