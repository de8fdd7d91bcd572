"""YAML that would cost more than its size is refused at once, wherever it comes from."""

import time

import pytest
import yaml

from windrow.engine.fleet.inventory import InvalidFleet, parse_fleet
from windrow.networks.bounded_yaml import MOST_DEPTH, UnboundedYaml, refuse_unbounded
from windrow.networks.chutes.add_node import BadNodeImport
from windrow.networks.chutes.ansible import read_inventory

DEEP = {
    "lists": "[" * 40_000,
    "mappings": "{" * 40_000,
    "items": "- " * 40_000,
    "keys": "? " * 20_000,
    "lists of a key": "a: " + "[" * 40_000,
    "indented": "".join(" " * depth + "a:\n" for depth in range(300)),
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_nesting_is_refused_before_it_is_parsed(name: str) -> None:
    began = time.process_time()
    with pytest.raises(InvalidFleet, match="nested more than 32 levels"):
        parse_fleet(DEEP[name])
    with pytest.raises(BadNodeImport, match="nested too deeply"):
        read_inventory(DEEP[name])
    assert time.process_time() - began < 5  # it took over 40 s


def test_as_deep_as_is_allowed_is_read() -> None:
    text = "[" * MOST_DEPTH + "1" + "]" * MOST_DEPTH
    refuse_unbounded(text, aliases=False)
    with pytest.raises(UnboundedYaml, match="line 1"):
        refuse_unbounded(f"[{text}]", aliases=False)


def test_aliases_are_refused_where_they_are_not_wanted() -> None:
    refuse_unbounded("a: &x 1\nb: *x", aliases=True)
    with pytest.raises(UnboundedYaml, match=r"line 2: it uses aliases"):
        refuse_unbounded("a: &x 1\nb: *x", aliases=False)


@pytest.mark.parametrize("text", ["\t", "a: b: c", '"', "\x00"])
def test_what_is_not_yaml_is_named_by_the_parser(text: str) -> None:
    with pytest.raises(yaml.YAMLError):
        refuse_unbounded(text, aliases=False)
