"""`windrow node import` over files as hosts write them, in every order, and over hostile ones."""

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from windrow.engine.fleet.inventory import Fleet, InvalidFleet, Node, parse_fleet
from windrow.networks.chutes.add_node import BadNodeImport
from windrow.networks.foreign import BadImport
from windrow.networks.gonka.node_config import BadNodeConfig
from windrow.pipelines.cli import app
from windrow.resources.fleet.inventory_file import FleetFile

FILES = Path(__file__).parent / "imports"
BY_HAND = parse_fleet((FILES / "fleet-by-hand.yaml").read_text())
KEY = "ab" * 32
HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"

ARGUMENTS = {
    "ansible": ("--ansible", str(FILES / "hosts.yml")),
    "add-node": ("--chutes", (FILES / "add-node.txt").read_text()),
    "node-config": ("--gonka", str(FILES / "node-config.json")),
}


@pytest.fixture(autouse=True)
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FleetFile:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return FleetFile(tmp_path / "fleet.yaml")


def windrow(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["node", "import", *arguments])


def imported(*arguments: str) -> str:
    result = windrow(*arguments)
    assert result.exit_code == 0, result.exception
    return result.output


def nodes_of(fleet: Fleet) -> dict[str, Node]:
    return dict(sorted(fleet.nodes.items()))


@pytest.mark.parametrize("order", list(permutations(ARGUMENTS)), ids=" ".join)
def test_any_order_gives_the_nodes_that_one_writes_by_hand(
    fleet: FleetFile, order: tuple[str, ...]
) -> None:
    for tool in order:
        imported(*ARGUMENTS[tool])
    assert nodes_of(fleet.load()) == nodes_of(BY_HAND)
    text = fleet.path.read_text()
    for tool in order:
        imported(*ARGUMENTS[tool])
    assert fleet.path.read_text() == text


@pytest.mark.parametrize("order", list(permutations(ARGUMENTS)), ids=" ".join)
def test_an_agent_that_an_import_names_wins_in_any_order(
    fleet: FleetFile, order: tuple[str, ...]
) -> None:
    agent = ("--agent", f"ML_Node.1={HOTKEY}:{KEY}:9000")
    for tool in order:
        imported(*ARGUMENTS[tool], *(agent if tool == "node-config" else ()))
    node = fleet.load().node("chutes-miner-gpu-0")
    assert (node.transport, node.agent_port, node.agent_key) == ("agent", 9000, KEY)
    assert {"gpu_count": 8, "hourly_cost": 1.5}.items() <= node.model_dump().items()


def test_what_is_written_by_hand_is_kept_and_differences_are_named(fleet: FleetFile) -> None:
    text = """\
# my machines
nodes:
  - name: chutes-miner-gpu-0   # the fast one
    transport: local
    networks:
      - chutes   # since May
    gpu: h100_sxm
    gpu_count: 4   # four are lent
    hourly_cost: 2
  - {name: chutes-miner-cpu-0, transport: local, wireguard_address: 192.168.0.1,
     wireguard_primary: true}
"""
    fleet.path.write_text(text)
    said = "".join(imported(*arguments) for arguments in ARGUMENTS.values())
    node = fleet.load().node("chutes-miner-gpu-0")
    assert (node.gpu_count, node.hourly_cost, node.transport) == (4, 2.0, "local")
    assert node.networks == ("chutes", "gonka")
    assert "gpu_count 4 of fleet.yaml is kept; node-config.json has 8" in said
    assert "hourly_cost 2 of fleet.yaml is kept; add-node has 1.5" in said
    after = fleet.path.read_text()
    for comment in ("# my machines", "# the fast one", "# since May", "# four are lent"):
        assert comment in after
    assert fleet.load().node("chutes-miner-cpu-0").host == "203.0.113.11"


def test_an_import_says_what_it_does_not_take_and_no_secret(fleet: FleetFile) -> None:
    said = imported("--gonka", str(FILES / "base_url.json"))
    assert "node1: 'auth_token' is not taken" in said
    assert "only the host is taken" in said
    assert "t0ken" not in said + fleet.path.read_text()
    assert fleet.load().node("node1").host == "abc.example-cloud.test"
    said = imported(*ARGUMENTS["ansible"])
    assert "variable 'hotkey_seed' of 2 hosts is not taken: it is encrypted" in said
    assert "variable 'ansible_user' of 2 hosts is not taken" in said
    assert "--validator is not taken" in imported(*ARGUMENTS["add-node"])


@pytest.mark.parametrize(
    ("file", "name", "fields"),
    [
        ("one_port.json", "node1", {"gpu": "h100_sxm", "gpu_count": 8}),
        ("id_forms.json", "ml-node-1", {"gonka_id": "ML_Node.1", "host": "10.0.0.5"}),
        ("null_args.json", "node1", {"gpu": None}),
        ("admin_api_answer.json", "node1", {"host": "10.0.0.5"}),
        ("base_url.json", "node1", {"private_ports": []}),
    ],
)
def test_node_configs_as_hosts_write_them(
    fleet: FleetFile, file: str, name: str, fields: dict[str, Any]
) -> None:
    imported("--gonka", str(FILES / file))
    node = fleet.load().node(name)
    assert fields.items() <= node.model_dump(mode="json").items()
    assert node.public_ports == ()
    ports = {entry.port for entry in node.private_ports}
    assert ports == {
        "one_port.json": {8080}, "base_url.json": set(),
    }.get(file, {5000, 8080})  # fmt: skip


@pytest.mark.parametrize(
    ("file", "primary", "hosts"),
    [
        ("merge_key.yml", None, {"gpu-0": "203.0.113.10"}),
        ("primary_text.yml", "cpu-0", {"cpu-0": "203.0.113.11", "gpu-0": "203.0.113.10"}),
        (
            "underscore.yml",
            "chutes-miner-cpu-0",
            {"chutes-miner-cpu-0": "203.0.113.11", "chutes-miner-gpu-0": "203.0.113.10"},
        ),
    ],
)
def test_ansible_inventories_as_they_are(
    fleet: FleetFile, file: str, primary: str | None, hosts: dict[str, str]
) -> None:
    imported("--ansible", str(FILES / file))
    nodes = fleet.load().nodes
    assert {name: node.host for name, node in nodes.items()} == hosts
    assert [name for name, node in nodes.items() if node.wireguard_primary] == (
        [primary] if primary else []
    )


def test_a_card_outside_one_networks_table_is_declared_for_the_others() -> None:
    text = (FILES / "unknown_card.yaml").read_text()
    assert (parse_fleet(text).node("box").gpu, parse_fleet(text).node("box").gpu_count) == (
        "b300",
        8,
    )
    with pytest.raises(InvalidFleet, match="Chutes' table has no card 'b300'"):
        parse_fleet(text.replace("[gonka]", "[chutes, gonka]"))


def test_nodes_of_one_host_stay_apart(fleet: FleetFile, tmp_path: Path) -> None:
    """Two of Gonka's nodes on one machine are not the one that Ansible names."""
    two = [
        {"id": f"node{n}", "host": "203.0.113.10", "poc_port": 8080 + n, "models": {}}
        for n in (1, 2)
    ]
    (tmp_path / "two.json").write_text(json.dumps(two))
    for first, second in permutations((("--gonka", "two.json"), ARGUMENTS["ansible"])):
        fleet.path.unlink(missing_ok=True)
        imported(*first)
        imported(*second)
        assert sorted(fleet.load().nodes) == [
            "chutes-miner-cpu-0", "chutes-miner-gpu-0", "node1", "node2",
        ]  # fmt: skip


def test_an_older_fleet_file_is_read_and_imported_into(fleet: FleetFile) -> None:
    fleet.path.write_text(
        "nodes:\n  - name: ml-node-1\n    transport: kubernetes\n    networks: [gonka]\n"
        "    ports: [5050, 8080]\n"
    )
    imported(*ARGUMENTS["node-config"])
    node = fleet.load().node("ml-node-1")
    assert node.public_ports == ()
    assert [entry.port for entry in node.private_ports] == [5050, 8080]


HOSTILE_GONKA = [
    ({}, ["not a list of nodes"]),
    ([1, {"id": 3}], ["entry 0 is not an object", "entry 1 has no id"]),
    ([{"id": "a_b", "models": {}}, {"id": "a.b", "models": {}}], ["would both be node a-b"]),
    ([{"id": "...", "models": {}}], ["has no letter or digit"]),
    (
        [{"id": "n", "poc_port": 70000, "inference_port": "80", "models": {"m": {"args": [4]}}}],
        ["poc_port is not a port", "inference_port is not a port", "args[0]"],
    ),
    ([{"id": "n", "host": "http://x", "models": {}}], ["host has a scheme"]),
    ([{"id": "n", "host": "h", "base_url": "http://x", "models": {}}], ["exactly one"]),
    ([{"id": "n", "base_url": "ftp://x", "models": {}}], ["base_url"]),
    ([{"id": "n", "base_url": "http://[", "models": {}}], ["base_url"]),
    ([{"id": "n", "hardware": [1], "models": {}}], ["hardware[0]"]),
    ([{"id": "n", "hardware": [{"type": 1}], "models": {}}], ["hardware[0].type"]),
    ([{"id": "n", "models": {"m": {"args": "--x"}}}], ["args of model 'm' are not a list"]),
    ([{"id": "\x1b[2Jx", "models": {"\x1b]0;": 1}}], [r"\x1b[2Jx", r"\x1b]0;"]),
]  # fmt: skip


@pytest.mark.parametrize(("document", "said"), HOSTILE_GONKA)
def test_a_wrong_node_config_is_refused_whole(
    fleet: FleetFile, tmp_path: Path, document: Any, said: list[str]
) -> None:
    (tmp_path / "bad.json").write_text(json.dumps(document))
    result = windrow("--gonka", "bad.json")
    assert isinstance(result.exception, BadNodeConfig), result.output
    for words in said:
        assert words in str(result.exception)
    assert "\x1b" not in str(result.exception)
    assert not fleet.path.exists()


def bomb(leaf: str, of: str) -> str:
    lines = [f"a0: &a0 {leaf}"]
    lines += [f"a{n}: &a{n} {of % ', '.join([f'*a{n - 1}'] * 10)}" for n in range(1, 10)]
    return "\n".join(lines) + "\n"


HOSTILE_ANSIBLE = [
    ("[all]\ngpu-0 ansible_host=1.2.3.4\n", "INI file"),
    ("# mine\ngpu-0 ansible_host=1.2.3.4\n", "INI file"),
    ("$ANSIBLE_VAULT;1.1;AES256\n6162\n", "encrypted with Ansible Vault"),
    ("all: {hosts: {x: {ansible_host: !vault 'a'}}}", "ansible_host is encrypted"),
    ("all: {hosts: {x: {ansible_host: '{{ ip }}'}}}", "is a template"),
    ("all: {hosts: {x: {is_primary: perhaps}}}", "is_primary is neither true nor false"),
    ("all: {hosts: {x: {wireguard_ip: 1.2.3}}}", "wireguard_ip is not an IP address"),
    ("all: {hosts: {x: {gpu_count: 99}}}", "gpu_count is not"),
    ("all: {hosts: {x: {ansible_host: [a]}}}", "ansible_host is not a single value"),
    ("all: {hosts: {a_b: , a.b: }}", "would both be node a-b"),
    ("all: {hosts: {'n[1:99999999]': }}", "more than 10000 hosts"),
    ("all: {hosts: {'n[9:1]': }}", "is not a range"),
    ("all: {hosts: [a, b]}", "have no names"),
    ("a: {children: {b: {children: {a: }}}, hosts: {x: }}", "child of itself"),
    ("a: &a {b: *a}", "contains itself"),
    (bomb("[x, x]", "[%s]"), "more than 200000 values"),
    (bomb("{k: 1}", "{<<: [%s]}"), "more than 200000 values"),
    ("[" * 9000, "nested too deeply"),
    ("a: !!python/object/apply:os.system [id]", "could not determine a constructor"),
    ("plugin: aws_ec2\nregions: [x]", "dynamic inventory"),
    ('{"_meta": {"hostvars": {}}, "all": {"children": ["x"]}}', "dynamic inventory"),
    ("all: {hosts: {x: {is_primary: \x07}}}", "not valid YAML"),
    ("", "not a mapping of groups"),
    ("all:", "names no hosts"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), HOSTILE_ANSIBLE, ids=[s for _, s in HOSTILE_ANSIBLE])
def test_a_wrong_inventory_is_refused_whole(
    fleet: FleetFile, tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "bad.yml").write_text(text)
    result = windrow("--ansible", "bad.yml")
    assert isinstance(result.exception, BadImport), result.exception
    assert said in str(result.exception)
    assert "\x07" not in str(result.exception)
    assert not fleet.path.exists()


def test_every_fault_of_a_file_is_named(tmp_path: Path) -> None:
    hosts = {"a": {"is_primary": "x"}, "b": {"wireguard_ip": "y"}, "...": {}}
    (tmp_path / "bad.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    said = str(windrow("--ansible", "bad.yml").exception)
    for words in ("host 'a': is_primary", "host 'b': wireguard_ip", "'...' has no letter"):
        assert words in said


def test_an_escape_of_a_stranger_never_reaches_the_terminal(tmp_path: Path) -> None:
    text = 'all: {hosts: {gpu-0: {ansible_host: a, "\\e[2J[red]x": 1, gpu_short_ref: "\\e[2J"}}}'
    (tmp_path / "odd.yml").write_text(text)
    result = windrow("--ansible", "odd.yml")
    assert isinstance(result.exception, InvalidFleet)
    assert "\x1b" not in str(result.exception) + result.output
    (tmp_path / "odd.yml").write_text(text.replace('gpu_short_ref: "\\e[2J"', "a: b"))
    said = imported("--ansible", "odd.yml")
    assert "\x1b" not in said
    assert r"'\x1b[2J[red]x'" in said


@pytest.mark.parametrize(
    "command", ["add-node --name x", "add-node --what 1", "'unclosed", "add-node --name '...' "
                "--validator v --hourly-cost 1 --gpu-short-ref l4"],
)  # fmt: skip
def test_a_wrong_command_is_refused(fleet: FleetFile, command: str) -> None:
    assert isinstance(windrow("--chutes", command).exception, BadNodeImport)
    assert not fleet.path.exists()


def test_an_import_that_cannot_be_used_leaves_the_file(fleet: FleetFile, tmp_path: Path) -> None:
    fleet.path.write_text("nodes:\n  - {name: a, transport: local, public_ports: [9000]}\n")
    before = fleet.path.read_text()
    config = [{"id": "a", "poc_port": 9000, "models": {}}]
    (tmp_path / "nc.json").write_text(json.dumps(config))
    result = windrow("--gonka", "nc.json")
    assert isinstance(result.exception, InvalidFleet)
    assert "port 9000 is there 2 times" in str(result.exception)
    assert fleet.path.read_text() == before


def test_groups_follow_ansibles_precedence(fleet: FleetFile, tmp_path: Path) -> None:
    (tmp_path / "h.yml").write_text("""\
all:
  vars: {external_ip: 203.0.113.1, gpu_short_ref: l40s, gpu_count: "2"}
  children:
    zone:
      vars: {external_ip: 203.0.113.2}
      children: {rack: {hosts: {"gpu[1:3:2].dc_x": {ansible_host: "2001:db8::1"}}}}
rack: {vars: {external_ip: 203.0.113.3}}
solo: {hosts: {gpu-9:22: {external_ip: 203.0.113.9}}}
""")
    result = windrow("--ansible", "h.yml")
    assert "the public address 203.0.113.3 is there 2 times" in str(result.exception)
    text = (tmp_path / "h.yml").read_text().replace("[1:3:2]", "[01:01]")
    (tmp_path / "h.yml").write_text(text)
    imported("--ansible", "h.yml")
    nodes = fleet.load().nodes
    assert nodes["gpu01-dc-x"].public_address == "203.0.113.3"
    assert (nodes["gpu01-dc-x"].gpu, nodes["gpu01-dc-x"].gpu_count) == ("l40s", 2)
    assert nodes["gpu01-dc-x"].host == "2001:db8::1"
    assert (nodes["gpu-9"].public_address, nodes["gpu-9"].host) == ("203.0.113.9", "gpu-9")


def test_an_import_into_the_example_keeps_its_comments(fleet: FleetFile) -> None:
    example = (Path(__file__).parents[3] / "fleet.example.yaml").read_text()
    fleet.path.write_text(example)
    imported(*ARGUMENTS["ansible"])
    imported(*ARGUMENTS["node-config"])
    assert sorted(fleet.load().nodes) == ["chutes-miner-cpu-0", "chutes-miner-gpu-0"]
    assert [line for line in example.splitlines() if line not in fleet.path.read_text()] == []
