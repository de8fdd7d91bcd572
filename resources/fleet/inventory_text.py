"""Entries of fleet.yaml changed in its text, so that comments and layout stay as they are.

Whatever is changed here is read again by the caller and held against what it should say: a layout
that these edits do not understand is refused, never spoilt.
"""

import textwrap
from collections.abc import Mapping
from typing import Any, Final

import yaml

ASSUMED: Final = "# assumed: the import does not say how many"
"""Marks a gpu_count that an import had to make up, until another one knows it."""


def block_of(node: Mapping[str, Any], *, assumed: bool = False) -> str:
    """A node as an item of a block list."""
    text = yaml.safe_dump(dict(node), sort_keys=False, allow_unicode=True)
    if assumed:
        text = text.replace(
            f"gpu_count: {node['gpu_count']}\n", f"gpu_count: {node['gpu_count']}  {ASSUMED}\n"
        )
    return "- " + textwrap.indent(text, "  ").lstrip()


def is_assumed(text: str, entry: yaml.MappingNode) -> bool:
    """Whether an entry's gpu_count has the mark."""
    value = _value(entry, "gpu_count")
    return value is not None and text[value.end_mark.index :].partition("\n")[0].strip() == ASSUMED


def changed_entry(
    text: str,
    entry: yaml.MappingNode,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    *,
    assumed: bool = False,
) -> str:
    """The text with an entry that says `after` in place of `before`; no key is taken away."""
    edits: list[tuple[int, int, str]] = []
    for key, new in after.items():
        value = _value(entry, key)
        if value is not None and new != before.get(key):
            edits.append(_replacement(text, value, before.get(key), new))
    added = {key: new for key, new in after.items() if _value(entry, key) is None}
    if added:
        edits.append(_addition(text, entry, added, assumed=assumed))
    for start, end, new_text in sorted(edits, reverse=True):
        text = text[:start] + new_text + text[end:]
    return text


def _replacement(text: str, value: yaml.Node, old: Any, new: Any) -> tuple[int, int, str]:
    start = value.start_mark.index
    longer = isinstance(old, list) and isinstance(new, list) and new[: len(old)] == old
    if longer and old and isinstance(value, yaml.SequenceNode) and not value.flow_style:
        end = _end(value)
        line_end = _line_end(text, end)
        indent = " " * value.start_mark.column
        more = "".join(f"\n{indent}- {_flow(part)}" for part in new[len(old) :])
        return line_end, line_end, more
    end = _end(value)
    rest = text[end:].partition("\n")[0]
    return start, end + (len(rest) if rest.strip() == ASSUMED else 0), _flow(new)


def _addition(
    text: str, entry: yaml.MappingNode, added: Mapping[str, Any], *, assumed: bool
) -> tuple[int, int, str]:
    if entry.flow_style:
        end = entry.end_mark.index - 1
        while text[end - 1] in " \n,":
            end -= 1
        pairs = "".join(f", {key}: {_flow(value)}" for key, value in added.items())
        return end, end, pairs
    end = _line_end(text, _end(entry))
    indent = " " * entry.start_mark.column
    mark = f"  {ASSUMED}" if assumed else ""
    lines = (
        f"\n{indent}{key}: {_flow(value)}{mark if key == 'gpu_count' else ''}"
        for key, value in added.items()
    )
    return end, end, "".join(lines)


def _flow(value: Any) -> str:
    text = yaml.safe_dump(
        value, default_flow_style=True, allow_unicode=True, width=10**9, sort_keys=False
    )
    return text.removesuffix("\n").removesuffix("\n...")


def _end(node: yaml.Node) -> int:
    """Where the text of a value ends; that of a block ends with its last part."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)


def _line_end(text: str, index: int) -> int:
    end = text.find("\n", index)
    return len(text) if end < 0 else end


def _value(entry: yaml.MappingNode, key: str) -> yaml.Node | None:
    return next((value for name, value in entry.value if name.value == key), None)
