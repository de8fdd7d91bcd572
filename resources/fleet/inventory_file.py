"""`fleet.yaml` on disk: read whole, changed a node at a time, its comments left alone."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from windrow.engine.fleet.inventory import (
    MAX_BYTES,
    Fleet,
    InvalidFleet,
    UnknownNode,
    WireGuard,
    parse_fleet,
    safe_yaml,
)
from windrow.resources.files import naming_disk_errors, published
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
        """Declare one more node. Raises InvalidFleet, and leaves the file as it was."""
        with file_lock(self._lock()):
            text = self._text()
            block = _block(node)
            if text is None:
                return self._store(f"nodes:\n{textwrap.indent(block, '  ')}")
            entries = self._entries(text)
            lines = text.rstrip("\n").split("\n")
            if entries:
                end = _end(entries[-1])
                indent = " " * max(entries[0].start_mark.column - 2, 0)
            else:
                end = next(n for n, line in enumerate(lines) if line.startswith("nodes:")) + 1
                lines[end - 1] = "nodes:"
                indent = "  "
            lines.insert(end, textwrap.indent(block, indent).rstrip("\n"))
            return self._store(
                "\n".join(lines) + "\n", expected=[*_names(entries), str(node["name"])]
            )

    def remove(self, name: str) -> Fleet:
        """Forget a node; what the lake has of it stays. Raises UnknownNode, InvalidFleet."""
        with file_lock(self._lock()):
            text = self._text()
            entries = [] if text is None else self._entries(text)
            names = _names(entries)
            if text is None or name not in names:
                raise UnknownNode(
                    f"{self.path} has no node {name[:80]!r}; it has {names or 'none'}"
                )
            entry = entries[names.index(name)]
            lines = text.splitlines(keepends=True)
            del lines[entry.start_mark.line : _end(entry)]
            return self._store("".join(lines), expected=[n for n in names if n != name])

    def _store(self, text: str, expected: list[str] | None = None) -> Fleet:
        fleet = parse_fleet(text, str(self.path))
        if expected is not None and list(fleet.nodes) != expected:
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
        try:
            return content.decode()
        except UnicodeDecodeError:
            raise InvalidFleet(str(self.path), ["it is not UTF-8 text"]) from None

    def _entries(self, text: str) -> list[yaml.Node]:
        """The nodes' places in the text. Raises InvalidFleet."""
        safe_yaml(text, str(self.path))
        parse_fleet(text, str(self.path))
        root = yaml.compose(text, yaml.SafeLoader)
        for key, value in root.value:
            if key.value == "nodes" and isinstance(value, yaml.SequenceNode):
                if value.flow_style and value.value:
                    raise InvalidFleet(
                        str(self.path), ["its nodes are in [ ]; write them one below the other"]
                    )
                return list(value.value)
        return []

    def _lock(self) -> Path:
        return self.path.with_name(f".{self.path.name}.lock")


def _block(node: Mapping[str, Any]) -> str:
    text = yaml.safe_dump(dict(node), sort_keys=False, allow_unicode=True)
    return "- " + textwrap.indent(text, "  ").lstrip()


def _end(node: yaml.Node) -> int:
    """The line after a node's last one; a block's own mark is past the comments that follow it."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    line: int = node.end_mark.line
    return line + (node.end_mark.column > 0)


def _names(entries: list[yaml.Node]) -> list[str]:
    return [yaml.safe_load(yaml.serialize(entry))["name"] for entry in entries]
