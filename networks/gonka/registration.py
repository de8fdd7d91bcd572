"""What the network's API makes of a node that is registered (§2.3, §4.1, §4.3).

That of August 2025 checks next to nothing, that of 2026 a little. What an inventory is held to is
in `strict_registration`.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from windrow import WindrowError

PORTS: Final = range(1, 65536)
MOST_COUNT: Final = 2**32 - 1
RESERVED_FLAGS: Final = ("--model", "--served-model-name")
OVERRIDE_RESERVED_FLAGS: Final = (*RESERVED_FLAGS, "--revision")

TEXTS: Final = ("id", "host", "inference_segment", "poc_segment", "version")
NUMBERS: Final = ("inference_port", "poc_port", "max_concurrent")
FIELDS: Final = (*TEXTS, *NUMBERS, "models", "hardware")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


class UndecodableBody(WindrowError):
    """A body that the network's API cannot read as a node."""


@dataclass(frozen=True)
class Registered:
    """What a registry holds of a node that endpoints may clash with."""

    id: str
    host: str
    inference_port: int
    poc_port: int


def decoded(body: object) -> dict[str, Any]:
    """A body as the API's decoder reads it: every field, absent ones empty (§4.1).

    Keys count in any case, unknown ones not at all, null is nothing. Raises UndecodableBody.
    """
    if body is not None and not isinstance(body, dict):
        raise UndecodableBody("a node is registered by one JSON object")
    given = {key.lower(): value for key, value in (body or {}).items()}
    node: dict[str, Any] = {name: _typed(name, given.get(name), str) for name in TEXTS}
    node |= {name: _typed(name, given.get(name), int) for name in NUMBERS}
    models = _typed("models", given.get("models"), dict)
    node["models"] = {name: _model(name, model) for name, model in models.items()}
    node["hardware"] = [_card(card) for card in _typed("hardware", given.get("hardware"), list)]
    return node


def registered(body: object) -> list[Registered]:
    """What a registry holds of a body once it is taken: one node, none where it is none."""
    try:
        node = decoded(body)
    except UndecodableBody:
        return []
    return [Registered(node["id"], node["host"], node["inference_port"], node["poc_port"])]


def network_status_2025(body: object, governed: Collection[str]) -> int:
    """The HTTP status of August 2025; only 200 registers, over a node of the same id (§4.1)."""
    try:
        node = decoded(body)
    except UndecodableBody:
        return 400
    return 200 if node["models"].keys() <= set(governed) else 500


def network_findings_2026(
    body: object, governed: Collection[str], others: Iterable[Registered]
) -> frozenset[str]:
    """Codes of what the API of 2026 refuses a node for, none where it takes it (§4.3)."""
    try:
        node = decoded(body)
        models = [
            (model["args"], _override(name, model["override"]))
            for name, model in node["models"].items()
        ]
    except UndecodableBody:
        return frozenset({"BAD_BODY"})
    found = set(endpoint_clashes(node, others))
    found |= {f"{name.upper()}_REQUIRED" for name in ("id", "host") if not node[name].strip()}
    found |= {
        f"{name.upper()}_RANGE"
        for name in ("inference_port", "poc_port")
        if node[name] not in PORTS
    }
    if node["max_concurrent"] <= 0:
        found.add("MAX_CONCURRENT_POSITIVE")
    if not node["models"]:
        found.add("MODELS_REQUIRED")
    if not node["models"].keys() <= set(governed):
        found.add("MODEL_NOT_GOVERNED")
    for args, override in models:
        found |= _override_findings(args, override)
    return frozenset(found)


def is_of(value: object, kind: type) -> bool:
    """Whether JSON gave a value of a type; true and false are no numbers."""
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))


def _typed(name: str, value: Any, kind: type) -> Any:
    if value is None:
        return kind()
    if not is_of(value, kind):
        raise UndecodableBody(f"{name} is {value!r:.60}, no {kind.__name__}")
    return value


def _model(name: str, model: object) -> dict[str, Any]:
    fields = {key.lower(): value for key, value in _typed(name, model, dict).items()}
    args = _typed(f"{name}.args", fields.get("args"), list)
    return {
        "args": [_typed(f"{name}.args", arg, str) for arg in args],
        # Unknown to the API of 2025, which therefore never looks at it.
        "override": fields.get("model_override"),
    }


def _override(name: str, override: object) -> dict[str, str] | None:
    """A model's override as the API of 2026 decodes it. Raises UndecodableBody."""
    if override is None:
        return None
    given = _typed(f"{name}.model_override", override, dict)
    fields = {key.lower(): value for key, value in given.items()}
    return {key: _typed(f"{name}.{key}", fields.get(key), str) for key in ("hf_repo", "hf_commit")}


def _card(card: object) -> dict[str, Any]:
    fields = {key.lower(): value for key, value in _typed("hardware", card, dict).items()}
    count = _typed("hardware.count", fields.get("count"), int)
    if not 0 <= count <= MOST_COUNT:
        raise UndecodableBody(f"hardware.count is {count}, not 0 to {MOST_COUNT}")
    return {"type": _typed("hardware.type", fields.get("type"), str), "count": count}


def endpoint_clashes(node: Mapping[str, Any], others: Iterable[Registered]) -> Iterator[str]:
    """Codes of endpoints that another node of the registry has."""
    for other in others:
        if other.id == node.get("id") or other.host != node.get("host"):
            continue
        if other.inference_port == node.get("inference_port"):
            yield "DUPLICATE_INFERENCE_ENDPOINT"
        if other.poc_port == node.get("poc_port"):
            yield "DUPLICATE_POC_ENDPOINT"


def _override_findings(args: Iterable[str], override: Mapping[str, str] | None) -> set[str]:
    if override is None:
        return set()
    found = set()
    if not override["hf_repo"]:
        found.add("OVERRIDE_REPO_REQUIRED")
    if not override["hf_commit"]:
        found.add("OVERRIDE_COMMIT_REQUIRED")
    elif not _COMMIT.fullmatch(override["hf_commit"]):
        found.add("OVERRIDE_COMMIT_FORMAT")
    if any(arg.partition("=")[0] in OVERRIDE_RESERVED_FLAGS for arg in args):
        found.add("OVERRIDE_RESERVED_ARG")
    return found
