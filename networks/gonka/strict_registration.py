"""What an inventory's node is held to before it is registered (§4.4, P17).

Findings are codes, all of them, never only the first.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from windrow.networks.gonka.registration import (
    FIELDS,
    NUMBERS,
    PORTS,
    RESERVED_FLAGS,
    TEXTS,
    Registered,
    endpoint_clashes,
    is_of,
    registered,
)

_LATER_FIELDS: Final = ("base_url", "auth_token")
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_HOST_AND_PORT: Final = re.compile(r"[^:]*:[0-9]+")
_SIZE: Final = re.compile(r"[0-9]{1,9}")
_PARALLEL: Final = (
    ("--tensor-parallel-size", "-tp"),
    ("--pipeline-parallel-size", "-pp"),
)


@dataclass(frozen=True)
class Findings:
    """Codes of what is wrong with a node, and of what is only odd (§4.4)."""

    errors: frozenset[str]
    warnings: frozenset[str]


def inventory_findings(nodes: Iterable[object]) -> list[Findings]:
    """What is wrong with each node of an inventory, the ones before it being registered."""
    registry: list[Registered] = []
    found = []
    for node in nodes:
        found.append(strict_findings(node, None, registry))
        registry += registered(node)
    return found


def strict_findings(
    body: object, governed: Collection[str] | None, others: Iterable[Registered] = ()
) -> Findings:
    """Everything wrong or odd about a node (§4.4); keys are taken as they are written.

    governed: ids of the models that are served, None where nobody has asked the chain.
    """
    if not isinstance(body, dict):
        return Findings(frozenset({"BODY_NOT_OBJECT"}), frozenset())
    others = list(others)
    node, errors, warnings = dict(body), set(), set()
    if not node.keys() <= {*FIELDS, *_LATER_FIELDS}:
        warnings.add("UNKNOWN_FIELD")
    kinds = dict.fromkeys(TEXTS, str) | dict.fromkeys(NUMBERS, int)
    for name, kind in (kinds | {"models": dict, "hardware": list}).items():
        if node.get(name) is None:
            node.pop(name, None)
        elif not is_of(node[name], kind):
            errors.add("FIELD_TYPE")
            node[name] = None  # there, and not to be looked at
    errors |= set(_identity_errors(node, {other.id for other in others}))
    errors |= set(_endpoint_errors(node))
    errors |= set(endpoint_clashes(node, others))
    if node.get("max_concurrent", 0) is not None and node.get("max_concurrent", 0) <= 0:
        errors.add("MAX_CONCURRENT_POSITIVE")
    ports = node.get("inference_port"), node.get("poc_port")
    segments = node.get("inference_segment") or "", node.get("poc_segment") or ""
    if ports[0] is not None and ports[0] == ports[1] and segments[0] == segments[1]:
        warnings.add("SAME_ENDPOINT_FOR_BOTH")
    gpus = _count_gpus(node, errors, warnings)
    _look_at_models(node, governed, gpus, errors, warnings)
    return Findings(frozenset(errors), frozenset(warnings))


def _identity_errors(node: Mapping[str, Any], taken: Collection[str]) -> Iterator[str]:
    name, host = node.get("id", ""), node.get("host", "")
    if name is not None and not name.strip():
        yield "ID_REQUIRED"
    elif name is not None and not _ID.fullmatch(name):
        yield "ID_FORMAT"
    if name in taken:
        yield "ID_DUPLICATE"
    if host is None:
        return
    if not host.strip():
        yield "HOST_REQUIRED"
    elif "://" in host:
        yield "HOST_HAS_SCHEME"
    elif "/" in host:
        yield "HOST_HAS_PATH"
    elif _HOST_AND_PORT.fullmatch(host):
        yield "HOST_HAS_PORT"
    elif not _HOST.fullmatch(host):
        yield "HOST_FORMAT"


def _endpoint_errors(node: Mapping[str, Any]) -> Iterator[str]:
    for name in ("inference_port", "poc_port"):
        port = node.get(name, 0)
        if port is not None and port not in PORTS:
            yield f"{name.upper()}_RANGE"
    for name in ("inference_segment", "poc_segment"):
        segment = node.get(name)
        if segment and (not segment.startswith("/") or segment.endswith("/")):
            yield "SEGMENT_FORMAT"


def _count_gpus(node: Mapping[str, Any], errors: set[str], warnings: set[str]) -> int | None:
    """The GPUs a node declares, None where it declares none or not properly."""
    cards = node.get("hardware", [])
    if cards is None:
        return None
    if not cards:
        warnings.add("HARDWARE_MISSING")
        return None
    total: int | None = 0
    for card in cards:
        if not isinstance(card, dict):
            errors.add("FIELD_TYPE")
            total = None
            continue
        kind, count = card.get("type"), card.get("count")
        if kind is not None and not isinstance(kind, str):
            errors.add("FIELD_TYPE")
        elif not (kind or "").strip():
            errors.add("HARDWARE_TYPE_REQUIRED")
        if count is not None and not is_of(count, int):
            errors.add("FIELD_TYPE")
            total = None
        elif count is None or count <= 0:
            errors.add("HARDWARE_COUNT_POSITIVE")
            total = None
        elif total is not None:
            total += count
    return total


def _look_at_models(
    node: Mapping[str, Any],
    governed: Collection[str] | None,
    gpus: int | None,
    errors: set[str],
    warnings: set[str],
) -> None:
    models = node.get("models", {})
    if models is None:
        return
    if not models:
        errors.add("MODELS_REQUIRED")
    if governed is not None and not models.keys() <= set(governed):
        errors.add("MODEL_NOT_GOVERNED")
    for model in models.values():
        if model is not None and not isinstance(model, dict):
            errors.add("FIELD_TYPE")
            continue
        args = (model or {}).get("args")
        if args is None:
            args = []
        if isinstance(args, list) and all(isinstance(arg, str) for arg in args):
            _look_at_args(args, gpus, errors, warnings)
        else:
            errors.add("ARGS_TYPE")


def _look_at_args(
    args: Sequence[str], gpus: int | None, errors: set[str], warnings: set[str]
) -> None:
    short = [name for names in _PARALLEL for name in names[1:]]
    options = [arg for arg in args if arg.startswith("--") or arg.partition("=")[0] in short]
    flags = [option.partition("=")[0] for option in options]
    if any(" " in option for option in options):
        errors.add("ARGS_NOT_TOKENISED")
    if len(set(flags)) < len(flags):
        errors.add("ARGS_DUPLICATE_FLAG")
    if not set(flags).isdisjoint(RESERVED_FLAGS):
        errors.add("ARGS_RESERVED_FLAG")
    if any("=" in option for option in options):
        warnings.add("ARGS_EQUALS_FORM")
    if gpus is None:
        return
    sizes = [_last_value(args, names) for names in _PARALLEL]
    if not all(_SIZE.fullmatch(size) and int(size) for size in sizes):
        errors.add("PARALLELISM_VALUE")
        return
    needed = int(sizes[0]) * int(sizes[1])
    if needed > gpus:
        errors.add("PARALLELISM_EXCEEDS_GPUS")
    elif gpus % needed:
        warnings.add("GPUS_LEFT_IDLE")


def _last_value(args: Sequence[str], names: Collection[str]) -> str:
    """What the last of some flags is set to, in either form; "1" where none is given."""
    value = "1"
    for index, arg in enumerate(args):
        name, equals, attached = arg.partition("=")
        if name in names:
            value = attached if equals else next(iter(args[index + 1 : index + 2]), "")
    return value
