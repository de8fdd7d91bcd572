"""fleet.yaml changed a node at a time."""

from pathlib import Path

import pytest

from windrow.engine.fleet.inventory import InvalidFleet, NodeExists, UnknownNode
from windrow.resources.fleet.inventory_file import FleetFile

COMMENTED = """\
# our machines
nodes:
  # the first
  - name: a   # bought in May
    transport: local
  - name: b
    transport: local
wireguard:
  cidr: 10.99.0.0/23
"""


@pytest.fixture
def file(tmp_path: Path) -> FleetFile:
    return FleetFile(tmp_path / "fleet.yaml")


def test_without_a_file_the_fleet_is_empty(file: FleetFile) -> None:
    assert file.load().nodes == {}


def test_the_first_node_makes_the_file(file: FleetFile) -> None:
    file.add({"name": "here", "transport": "local"})
    assert list(file.load().nodes) == ["here"]


def test_a_node_is_added_and_removed_and_comments_stay(file: FleetFile) -> None:
    file.path.write_text(COMMENTED)
    file.add({"name": "c", "transport": "local", "models": [{"name": "m", "args": ["--x"]}]})
    assert list(file.load().nodes) == ["a", "b", "c"]
    assert file.load().node("c").models[0].args == ("--x",)
    assert file.load().wireguard.cidr == "10.99.0.0/23"
    file.remove("b")
    assert list(file.load().nodes) == ["a", "c"]
    for comment in ("# our machines", "# the first", "# bought in May"):
        assert comment in file.path.read_text()
    file.remove("a")
    file.remove("c")
    assert file.load().nodes == {}
    file.add({"name": "d", "transport": "local"})
    assert list(file.load().nodes) == ["d"]


def test_comments_below_the_last_node_stay(file: FleetFile) -> None:
    example = (Path(__file__).parents[2] / "fleet.example.yaml").read_text()
    file.path.write_text(example)
    models = [{"name": "m", "args": ["--x", "a\nb"]}]
    file.add({"name": "here", "transport": "local"})
    file.add({"name": "far", "host": "h", "transport": "kubernetes", "models": models})
    assert list(file.load().nodes) == ["here", "far"]
    file.remove("far")
    file.remove("here")
    assert file.path.read_text() == example
    below = "nodes:\n  - name: a\n    transport: local  # ours\n\n# to do: more\n"
    file.path.write_text(below + "wireguard: {cidr: 10.9.0.0/20}\n")
    file.add({"name": "b", "transport": "local"})
    file.remove("a")
    assert list(file.load().nodes) == ["b"]
    assert "# to do: more\nwireguard" in file.path.read_text()


def test_a_node_that_cannot_be_changes_nothing(file: FleetFile) -> None:
    file.path.write_text(COMMENTED)
    for wrong in ({"name": "a", "transport": "local"}, {"name": "!"}, {"name": "x", "zz": 1}):
        with pytest.raises((InvalidFleet, NodeExists)):
            file.add(wrong)
    with pytest.raises(UnknownNode):
        file.remove("nobody")
    assert file.path.read_text() == COMMENTED


def test_nodes_in_brackets_are_left_to_their_owner(file: FleetFile) -> None:
    text = "nodes: [{name: a, transport: local}]\n"
    file.path.write_text(text)
    with pytest.raises(InvalidFleet, match="one below the other"):
        file.add({"name": "b", "transport": "local"})
    assert file.path.read_text() == text


def test_a_file_that_is_not_text_is_named(file: FleetFile) -> None:
    file.path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidFleet, match="UTF-8"):
        file.load()


def test_a_folder_in_the_place_of_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "fleet.yaml").mkdir()
    with pytest.raises(InvalidFleet, match="it is a folder"):
        FleetFile(tmp_path / "fleet.yaml").load()
