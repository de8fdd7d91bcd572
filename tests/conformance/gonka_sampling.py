"""Gonka: who computes which nonce, on which GPUs, and who looks at what."""

from collections.abc import Iterator
from functools import partial
from itertools import combinations, islice
from typing import Any

from windrow.kernels.go_random import GoRandom
from windrow.networks.gonka import poc_capacity, sampling
from windrow.networks.gonka.poc_model import PARAMETER_SETS

from .framework import Case, VectorFile, handles

Row = dict[str, Any]


@handles("gonka/03_nonce_partition.json")
def partitions(file: VectorFile) -> Iterator[Case]:
    def check(case: Row) -> None:
        names = ("node_id", "n_nodes", "group_id", "n_groups")
        mine = poc_capacity.network_partition(*(case[name] for name in names))
        assert list(islice(mine, len(case["first"]))) == case["first"]
        assert all(nonce in mine for nonce in case["first"])

    def check_collision(case: Row) -> None:
        groups = {
            (index, group): poc_capacity.network_partition(
                node["node_id"], node["node_count"], group, node["n_groups"]
            )
            for index, node in enumerate(case["nodes"])
            for group in range(node["n_groups"])
        }
        first = {name: set(islice(group, 200)) for name, group in groups.items()}
        seen = any(first[a] & first[b] for a, b in combinations(groups, 2))
        assert seen == case["collides_within_first_200_per_group"]
        # The proof knows of every collision, seen so early or not.
        assert not seen or poc_capacity.collisions(list(groups.values()))

    document = file.load_json()
    for index, case in enumerate(document["cases"]):
        yield Case(f"case-{index}", partial(check, case))
    for index, case in enumerate(document.get("collision_cases", [])):
        yield Case(f"collision-{index}", partial(check_collision, case))


@handles("gonka/08_gpu_groups_batch_size.json")
def capacity(file: VectorFile) -> Iterator[Case]:
    def check_groups(case: Row) -> None:
        groups = poc_capacity.gpu_groups(case["vram_gb_per_device"], case["min_group_vram_gb"])
        assert groups == case["groups"]

    def check_size(case: Row) -> None:
        if case["params"] == "V1":
            size = poc_capacity.batch_size_v1(case["total_mb"], case["target_memory_usage"])
        else:
            shape = PARAMETER_SETS[case["params"]]
            size = poc_capacity.batch_size_v2(case["free_mb_per_device"], shape)
        assert size == case["batch_size"]

    document = file.load_json()
    for index, case in enumerate(document["cases"]):
        yield Case(f"groups-{index}", partial(check_groups, case))
    for index, case in enumerate(document.get("batch_sizes", [])):
        yield Case(f"batch-{index}", partial(check_size, case))


def go_math_rand(given: Row, expected: Row) -> None:
    seed, n = given["seed"], given["n"]
    random = GoRandom(seed)
    assert [str(random.int63()) for _ in expected["int63"]] == expected["int63"]
    random = GoRandom(seed)
    assert [random.intn(100) for _ in expected["intn100"]] == expected["intn100"]
    assert GoRandom(seed).perm(n) == expected["perm"]
    items = list(range(n))
    GoRandom(seed).shuffle(items)
    assert items == expected["shuffle"]


def sample_v1(given: Row, expected: Row) -> None:
    names = ("Pk", "Hash", "Height", "T", "N")
    found = sampling.network_sample(*(given[name] for name in names))
    assert found == expected["indices"]


def sample_v2(given: Row, expected: Row) -> None:
    names = ("Pk", "Hash", "Height", "Model", "Count", "N")
    found = sampling.network_leaves(*(given[name] for name in names))
    assert found == expected["indices"]


def serving_slots(given: Row, expected: Row) -> None:
    epoch, address, model = given["epoch_index"], given["participant"], given["model_id"]
    found = sampling.serving_slots(epoch, address, model, given["nodes"])
    assert found == expected["poc_slot_true"]
    seed = sampling.signed_seed(f"{epoch}_{address}_{model}")
    assert str(seed) == expected["seed"]
    order = list(range(len(given["nodes"])))
    GoRandom(seed).shuffle(order)
    assert order == expected["shuffled_indices"]


def validator_slots(given: Row, expected: Row) -> None:
    names = ("app_hash", "participant", "model_id", "weights", "n_slots")
    assert sampling.validator_slots(*(given[name] for name in names)) == expected["slots"]


@handles("gonka/16_sampling.json")
def samples(file: VectorFile) -> Iterator[Case]:
    checks = {
        "go_math_rand": go_math_rand,
        "poc_v1_sample_indices": sample_v1,
        "poc_v2_sample_leaf_indices": sample_v2,
        "poc_slot_allocation": serving_slots,
        "poc_v2_validator_slots": validator_slots,
    }
    for index, case in enumerate(file.load_json()["cases"]):
        check = checks[case["function"]]
        yield Case(f"{case['function']}-{index}", partial(check, case["input"], case["expected"]))
