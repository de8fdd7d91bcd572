"""`fleet.yaml` on disk: read whole, changed a node at a time, its comments left alone."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from windrow.engine.fleet.inventory import (
    MAX_BYTES,
    Fleet,
    InvalidFleet,
    NodeExists,
    UnknownNode,
    WireGuard,
    parse_fleet,
    safe_yaml,
)
from windrow.engine.fleet.merging import Merged, merge
from windrow.resources.files import naming_disk_errors, published
from windrow.resources.fleet.inventory_text import block_of, changed_entry, is_assumed
from windrow.resources.locks import file_lock


class FleetFile:
    """The inventory at a path; without the file the fleet is empty."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    def load(self) -> Fleet:
        """The fleet. Raises InvalidFleet."""
        text = self._text()
        return Fleet({}, WireGuard()) if text is None else parse_fleet(text, str(self.path))

    def add(self, node: Mapping[str, Any]) -> Fleet:
        """Declare one more node. Raises NodeExists, InvalidFleet; leaves the file then."""
        with file_lock(self._lock()):
            text = self._text()
            names = [] if text is None else _names(self._entries(text))
            if node["name"] in names:
                raise NodeExists(
                    f"{self.path} already declares a node {node['name']!r}. Choose another name, "
                    "or edit its entry in the file."
                )
            return self._store(self._with(text, block_of(node)), [*names, str(node["name"])])

    def remove(self, name: str) -> Fleet:
        """Forget a node; what the lake has of it stays. Raises UnknownNode, InvalidFleet."""
        with file_lock(self._lock()):
            text = self._text()
            names = [] if text is None else _names(self._entries(text))
            if text is None or name not in names:
                raise UnknownNode(
                    f"{self.path} has no node {name[:80]!r}; it has {names or 'none'}"
                )
            return self._store(self._without(text, name), [n for n in names if n != name])

    def merge(self, nodes: Sequence[Mapping[str, Any]], source: str) -> Merged:
        """Merge nodes that another tool declares, all or none, in one write.

        source: that tool's name, for the lines that say what became of them. A file that says it
        all is not written. Raises InvalidFleet, and leaves the file as it was.
        """
        with file_lock(self._lock()):
            text = self._text()
            places = [] if text is None else self._entries(text)
            before = [] if text is None else _declared(safe_yaml(text, str(self.path)))
            made_up = {
                str(entry["name"])
                for entry, place in zip(before, places, strict=True)
                if is_assumed(text or "", place)
            }
            merged = merge(before, nodes, source, made_up.__contains__)
            if merged.entries == before:
                return merged
            for name in merged.removed:
                text = self._without(text or "", name)
            text = self._changed(text, merged)
            if text is None:
                return merged
            said = safe_yaml(text, str(self.path))
            if _declared(said) != merged.entries:
                raise InvalidFleet(
                    str(self.path), ["its layout cannot be changed by an import; add the fields "
                                     "by hand, or write each node's fields one below the other"]
                )  # fmt: skip
            self._store(text, [str(entry["name"]) for entry in merged.entries])
            return merged

    def _changed(self, text: str | None, merged: Merged) -> str | None:
        """The text with what is new in the merged entries."""
        old = {new: old for old, new in merged.renamed.items()}
        names = [] if text is None else _names(self._entries(text))
        for entry in merged.entries:
            name = str(entry["name"])
            made_up = name in merged.assumed
            before = old.get(name, name)
            if before not in names:
                text = self._with(text, block_of(entry, assumed=made_up))
                continue
            assert text is not None  # it names the node
            place = yaml.compose(text, yaml.SafeLoader)
            node = dict(zip(names, _nodes_of(place), strict=False))[before]
            was = yaml.safe_load(yaml.serialize(node))
            text = changed_entry(text, node, was, entry, assumed=made_up)
        return text

    def _with(self, text: str | None, block: str) -> str:
        """The text with one more node."""
        if text is None:
            return f"nodes:\n{textwrap.indent(block, '  ')}"
        entries = _nodes_of(yaml.compose(text, yaml.SafeLoader))
        lines = text.rstrip("\n").split("\n")
        if entries:
            end = _end(entries[-1])
            indent = " " * max(entries[0].start_mark.column - 2, 0)
        else:
            end = next(n for n, line in enumerate(lines) if line.startswith("nodes:")) + 1
            lines[end - 1] = "nodes:"
            indent = "  "
        lines.insert(end, textwrap.indent(block, indent).rstrip("\n"))
        return "\n".join(lines) + "\n"

    def _without(self, text: str, name: str) -> str:
        """The text without a node."""
        entries = _nodes_of(yaml.compose(text, yaml.SafeLoader))
        names = _names(entries)
        entry = entries[names.index(name)]
        lines = text.splitlines(keepends=True)
        del lines[entry.start_mark.line : _end(entry)]
        return "".join(lines)

    def _store(self, text: str, expected: list[str]) -> Fleet:
        fleet = parse_fleet(text, str(self.path))
        if list(fleet.nodes) != expected:
            raise InvalidFleet(
                str(self.path),
                ["its nodes are not written one below the other, so it is yours to change"],
            )
        with published(self.path, replace=True) as temporary:
            temporary.write_text(text)
        return fleet

    def _text(self) -> str | None:
        with naming_disk_errors(self.path):
            try:
                with self.path.open("rb") as file:
                    content = file.read(MAX_BYTES + 1)
            except FileNotFoundError:
                return None
            except IsADirectoryError:
                raise InvalidFleet(
                    str(self.path), ["it is a folder; move it away, or name a file"]
                ) from None
        try:
            return content.decode()
        except UnicodeDecodeError:
            raise InvalidFleet(str(self.path), ["it is not UTF-8 text"]) from None

    def _entries(self, text: str) -> list[yaml.MappingNode]:
        """The nodes' places in the text. Raises InvalidFleet."""
        safe_yaml(text, str(self.path))
        parse_fleet(text, str(self.path))
        root = yaml.compose(text, yaml.SafeLoader)
        for key, value in root.value:
            listed = key.value == "nodes" and isinstance(value, yaml.SequenceNode)
            if listed and value.flow_style and value.value:
                raise InvalidFleet(
                    str(self.path), ["its nodes are in [ ]; write them one below the other"]
                )
        return _nodes_of(root)

    def _lock(self) -> Path:
        return self.path.with_name(f".{self.path.name}.lock")


def _nodes_of(root: yaml.Node) -> list[yaml.MappingNode]:
    for key, value in root.value:
        if key.value == "nodes" and isinstance(value, yaml.SequenceNode):
            return list(value.value)
    return []


def _end(node: yaml.Node) -> int:
    """The line after a node's last one; a block's own mark is past the comments that follow it."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    line: int = node.end_mark.line
    return line + (node.end_mark.column > 0)


def _names(entries: Sequence[yaml.Node]) -> list[str]:
    return [yaml.safe_load(yaml.serialize(entry))["name"] for entry in entries]


def _declared(document: Any) -> list[dict[str, Any]]:
    return list(document.get("nodes") or ()) if isinstance(document, dict) else []
