"""YAML from outside, refused before it can cost more than its size.

The parser takes time and memory with the square of the depth, so the depth is looked at first,
event by event.
"""

from typing import Final

import yaml

MOST_DEPTH: Final = 32
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The faster of the two that PyYAML was built with."""


class UnboundedYaml(ValueError):
    """A text that is nested too deeply, or whose aliases are not wanted."""


def refuse_unbounded(text: str, *, aliases: bool, most_depth: int = MOST_DEPTH) -> None:
    """Raise UnboundedYaml for a text that is nested deeper than `most_depth`.

    aliases: whether `*name` is allowed; a few lines of them can stand for billions of values.
    Raises yaml.YAMLError for what is not YAML.
    """
    depth = 0
    for event in yaml.parse(text, Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        line = event.start_mark.line + 1
        if depth > most_depth:
            raise UnboundedYaml(f"line {line}: it is nested more than {most_depth} levels deep")
        if isinstance(event, yaml.AliasEvent) and not aliases:
            raise UnboundedYaml(f"line {line}: it uses aliases (*name); write the values out")
