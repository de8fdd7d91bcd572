"""Gonka: what becomes of a node that is registered, and what its broker makes of arguments."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pytest

from windrow.networks.gonka.model_args import Layout, instances, merged_args
from windrow.networks.gonka.registration import (
    Registered,
    network_findings_2026,
    network_status_2025,
    registered,
)
from windrow.networks.gonka.strict_registration import strict_findings

from .framework import Case, VectorFile, handles

Row = dict[str, Any]


@handles("gonka/14_node_config_validation.json")
def node_configs(file: VectorFile) -> Iterator[Case]:
    document = file.load_json()
    governed = document["governance_models"]
    others = [one for node in document["existing_registry"] for one in registered(node)]
    for case in document["cases"]:
        for check in (check_2025, check_2026, check_strict):
            name = f"{case['name']}-{check.__name__.removeprefix('check_')}"
            yield Case(name, partial(check, case, governed, others))
    for case in document["batch_cases"]:
        yield Case(f"batch-{case['name']}", partial(check_batch, case, governed, others))


def check_2025(case: Row, governed: Sequence[str], others: Sequence[Registered]) -> None:
    expected, body = case["ref_2025_08"], case["body"]
    status = network_status_2025(body, governed)
    assert status == expected["http_status"]
    assert (status == 200) == expected["registered"]
    if expected["registered"]:
        named = body.get("id")
        assert any(other.id == named for other in others) == expected["overwrites_existing"]


def check_2026(case: Row, governed: Sequence[str], others: Sequence[Registered]) -> None:
    expected = case["ref_2026"]
    found = network_findings_2026(case["body"], governed, others)
    assert found == set(expected["codes"])
    assert (400 if found else 200) == expected["http_status"]


def check_strict(case: Row, governed: Sequence[str], others: Sequence[Registered]) -> None:
    found, expected = strict_findings(case["body"], governed, others), case["strict"]
    assert found.errors == set(expected["errors"])
    assert found.warnings == set(expected["warnings"])


def check_batch(case: Row, governed: Sequence[str], others: Sequence[Registered]) -> None:
    """Each body of a batch by itself; those taken count for what comes after them."""
    older, newer = case["ref_2025_08"], case["ref_2026"]
    taken = [body["id"] for body in case["body"] if network_status_2025(body, governed) == 200]
    assert (201, taken) == (older["http_status"], older["registered_ids"])
    assert taken or older["response_body"] is None

    known, accepted = list(others), []
    for body in case["body"]:
        if not network_findings_2026(body, governed, known):
            accepted.append(body["id"])
            known += registered(body)
    refused = len(case["body"]) - len(accepted)
    assert (accepted, refused) == (newer["registered_ids"], newer["error_count"])
    status = 201 if not refused else 206 if accepted else 400
    assert status == newer["http_status"]


@handles("gonka/15_broker_state.json")
def broker(file: VectorFile) -> Iterator[Case]:
    """What a model's arguments come to; the broker's own states are the network node's."""
    checks = {"merge_model_args": check_merge, "vllm_instances": check_instances}
    unbuilt = {
        "should_be_operational",
        "reconcile_action",
        "hardware_diff",
        "polled_status",
        "node_urls",
    }
    for index, case in enumerate(file.load_json()["cases"]):
        function = case["function"]
        if function in unbuilt:
            check = partial(pytest.skip, "functions of Gonka's broker: Windrow has no broker")
        else:
            check = partial(checks[function], case["input"], case["expected"])
        yield Case(f"{function}-{index}", check)


def check_merge(given: Row, expected: Row) -> None:
    assert merged_args(given["epoch_args"], given["local_args"]) == expected["merged"]


def check_instances(given: Row, expected: Row) -> None:
    layout = Layout(given["tensor_parallel"], given["pipeline_parallel"])
    found = instances(given["gpus"], layout, given["max_instances"])
    assert len(found) == expected["instances"]
    shown = expected["cuda_visible_devices_first2"]
    assert [",".join(map(str, devices)) for devices in found[:2]] == shown
    assert len(expected["ports_first4"]) == min(4, len(found))
