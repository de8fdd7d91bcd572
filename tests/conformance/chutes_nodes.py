"""Chutes: cards, devices, proof times, node resources, names, selectors."""

from collections.abc import Iterator
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
    """Every card of the table of September 2025, and the ranges derived from it."""

    def check(name: str, row: Row) -> None:
        card = gpus.CARDS[name]
        expected = (
            row["name_pattern"],
            row["vram_gb"],
            row["processors"],
            row["clock_base_mhz"],
            row["clock_boost_mhz"],
            row["usd_per_hour"],
            row["graval_iterations"],
            row["graval_estimate_s"],
        )
        assert (
            card.pattern,
            card.memory,
            card.processors,
            card.base_clock,
            card.boost_clock,
            card.price,
            card.iterations,
            card.estimate,
        ) == expected
        least, most = gpus.gigabytes_of_memory(card)
        assert least * 10**9 == row["accept"]["memory_bytes_min"]
        assert (most + 1) * 10**9 == row["accept"]["memory_bytes_max_exclusive"]
        best = max(other.price for other in gpus.CARDS.values())
        assert_close([card.price / best], [row["compute_multiplier"]])

    for name, row in file.load_json()["gpus"].items():
        if row["in_2025_09_table"]:
            yield Case(name, partial(check, name, row))


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

    for case in file.load_json()["cases"]:
        yield Case(case["id"], partial(check, case))
