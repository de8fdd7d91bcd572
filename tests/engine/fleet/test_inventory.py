"""fleet.yaml: what it may say, and how a wrong one is refused."""

import re
from pathlib import Path

import pytest

from windrow.engine.fleet.inventory import InvalidFleet, parse_fleet
from windrow.networks.chutes.add_node import BadNodeImport, from_add_node
from windrow.networks.chutes.ansible import from_ansible
from windrow.networks.gonka.node_config import BadNodeConfig, from_node_config

KEY = "ab" * 32
HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"


def faults(text: str) -> str:
    with pytest.raises(InvalidFleet) as caught:
        parse_fleet(text)
    return str(caught.value)


def nodes(*entries: str) -> str:
    return "nodes:\n" + "".join(f"  - {{{entry}}}\n" for entry in entries)


def test_a_fleet_of_every_transport() -> None:
    fleet = parse_fleet(
        nodes(
            "name: here, transport: local",
            f"name: gpu-0, host: 203.0.113.7, agent_hotkey: {HOTKEY}, agent_key: {KEY}, "
            "gpu: l40s, gpu_count: 8, hourly_cost: 1, networks: [chutes, gonka]",
            "name: pod-0, transport: kubernetes, kubernetes_node: worker-3",
        )
    )
    assert list(fleet.nodes) == ["here", "gpu-0", "pod-0"]
    assert fleet.node("gpu-0").hourly_cost == 1.0


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("name: A_b", "'A_b' is no name"),
        ("name: ../etc", "is no name"),
        ("name: a, transport: ssh", "node a: transport"),
        ("name: a, transport: local, gpu: t4, gpu_count: 1, networks: [chutes]", "no card 't4'"),
        ("name: a, transport: local, gpu: 'A B', gpu_count: 1", "'A B' does not name a card"),
        ("name: a, transport: local, networks: [gonka], public_ports: [8080]", "private_ports"),
        ("name: a, transport: local, ports: [1], public_ports: [2]", "old name of `public_ports`"),
        (
            "name: a, transport: local, private_ports: [{port: 1, reachable_by: [0.0.0.0/0]}]",
            "is everyone",
        ),
        (
            "name: a, transport: local, private_ports: [{port: 1, reachable_by: [10.0.0.]}]",
            "private_ports.0.reachable_by",
        ),
        ("name: a, transport: local, ports: [[1]]", "node a: public_ports.0"),
        ("name: a, transport: local, gpu: l4", "gpu and gpu_count go together"),
        ("name: a, transport: local, gpu_count: '8'", "node a: gpu_count"),
        ("name: a, transport: local, hourly_cost: .nan", "node a: hourly_cost"),
        ("name: a, transport: local, hourly_cost: -1", "node a: hourly_cost"),
        ("name: a, transport: local, networks: [bitcoin]", "'bitcoin' is no network"),
        ("name: a, transport: local, hardware_class: fast", "'fast' is no class"),
        ("name: a, host: 'http://x'", "neither a host name nor an address"),
        ("name: a", "needs agent_hotkey and agent_key"),
        ("name: a, transport: local, typo: 1", "node a: typo"),
        ("name: a, transport: local, public_address: 1.2.3", "public_address"),
    ],
)
def test_a_wrong_node_is_named_with_what_is_wrong(entry: str, said: str) -> None:
    assert said in faults(nodes(entry))


def test_every_fault_is_named_at_once() -> None:
    said = faults(nodes("name: a, transport: local, gpu_count: x", "name: B, transport: local"))
    assert "node a: gpu_count" in said
    assert "'B' is no name" in said


def test_names_addresses_and_ports_are_there_once() -> None:
    agent = f"agent_hotkey: {HOTKEY}, agent_key: {KEY}, host: h"
    said = faults(
        nodes(
            f"name: a, {agent}, public_address: 203.0.113.7, ports: [30000, 30000]",
            f"name: a, {agent}, public_address: 203.0.113.7",
        )
    )
    for part in ("name a is there 2", "agent h:8790", "public address", "port 30000"):
        assert part in said


def test_ranges_of_the_private_network_do_not_overlap() -> None:
    said = faults("nodes: []\nwireguard: {cidr: 10.0.0.0/8}\n")
    assert "cidr 10.0.0.0/8 overlaps pods 10.1.0.0/16" in said
    assert "wireguard" in faults("nodes: []\nwireguard: {cidr: nonsense}\n")


def test_one_node_is_the_primary_and_addresses_are_inside() -> None:
    said = faults(nodes("name: a, transport: local, wireguard_address: 192.168.99.1"))
    assert "192.168.99.1 is not in 192.168.0.0/20" in said
    assert "0 nodes are its primary" in said


@pytest.mark.parametrize(
    "text",
    [
        "nodes: &a [*a]",
        "a: &a [x]\nb: [*a, *a]",
        "nodes: !!python/object/apply:os.system [id]",
        "[" * 5000,
        "nodes: {a: 1}",
        "- 1",
        "",
        "\t",
        "nodes: [" + "{name: a}," * 10_001 + "]",
        "#" * (1 << 20) + "\n",
    ],
)
def test_hostile_text_is_refused(text: str) -> None:
    assert "cannot be used" in faults(text)


def test_an_add_node_command_is_a_declaration() -> None:
    command = (
        "chutes-miner add-node --name gpu-0 --validator 5Dt7 --hourly-cost 1.5 \\\n"
        "  --gpu-short-ref h100_sxm --hotkey ~/.bittensor/x --miner-api http://1.2.3.4:32000"
    )
    assert from_add_node(command) == {
        "name": "gpu-0",
        "gpu": "h100_sxm",
        "hourly_cost": 1.5,
        "networks": ["chutes"],
    }
    for wrong in (
        "add-node --name x",
        "add-node --what 1",
        "'unclosed",
        "add-node --hourly-cost x",
    ):
        with pytest.raises(BadNodeImport):
            from_add_node(wrong)


def test_an_ansible_inventory_gives_its_hosts() -> None:
    inventory = {
        "all": {
            "vars": {"validator": "5Dt7"},
            "hosts": {"cpu-0": {"ansible_host": "203.0.113.1", "wireguard_ip": "192.168.0.1"}},
            "children": {
                "primary": {"hosts": {"cpu-0": None}},
                "workers": {"hosts": {"gpu-0": {"ansible_host": "203.0.113.2"}}},
            },
        }
    }
    found = {node["name"]: node for node in from_ansible(inventory)}
    assert found["cpu-0"]["wireguard_primary"]
    assert found["cpu-0"]["wireguard_address"] == "192.168.0.1"
    assert found["gpu-0"]["host"] == "203.0.113.2"
    for wrong in ([], {}, {"all": {"hosts": {}}}, {"all": {"children": 3}}):
        with pytest.raises(BadNodeImport):
            from_ansible(wrong)


def test_a_node_config_gives_its_nodes() -> None:
    found = from_node_config(
        [
            {
                "id": "node1",
                "host": "10.0.0.11",
                "inference_port": 5050,
                "poc_port": 8080,
                "models": {"Qwen/QwQ-32B": {"args": ["--quantization", "fp8"]}},
            }
        ]
    )
    assert found[0]["private_ports"] == [{"port": 5050}, {"port": 8080}]
    assert found[0]["models"] == [{"name": "Qwen/QwQ-32B", "args": ["--quantization", "fp8"]}]
    for wrong in ({}, [1], [{"id": 3}], [{"id": "a"}], [{"id": "a", "models": {"m": 1}}]):
        with pytest.raises(BadNodeConfig):
            from_node_config(wrong)


def test_the_example_declares_nothing_until_it_is_uncommented() -> None:
    example = (Path(__file__).parents[3] / "fleet.example.yaml").read_text()
    assert parse_fleet(example).nodes == {}
    fleet = parse_fleet(re.sub(r"^( *)# ", r"\1", example, flags=re.MULTILINE))
    assert {node.transport for node in fleet.nodes.values()} == {"local", "agent", "kubernetes"}
