"""The hosts of an Ansible inventory, as Ansible itself would read it (chutes §4, §12.5-9).

YAML is composed, bounded and only then constructed, so aliases cannot stand for billions of
values. Groups, their variables and their precedence follow Ansible's rules.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from windrow.networks.bounded_yaml import UnboundedYaml, refuse_unbounded
from windrow.networks.chutes.add_node import BadNodeImport, kubernetes_name
from windrow.networks.foreign import Say, ignore, name_faults, node_name, quoted

MAX_VALUES: Final = 200_000
MAX_DEPTH: Final = 32
MAX_HOSTS: Final = 10_000
ADVICE: Final = (
    "let Ansible write it as YAML: ansible-inventory -i INVENTORY --list --yaml > inventory.yml"
)
WHAT: Final = "The Ansible inventory"

_HOST: Final = ("ansible_host", "ansible_ssh_host")
_CARD: Final = ("gpu_short_ref", "gpu-short-ref")
_PRIMARY: Final = ("is_primary", "wireguard_primary")
_TAKEN: Final = frozenset(
    {*_HOST, *_CARD, *_PRIMARY, "wireguard_ip", "external_ip", "gpu_count", "gpu_enabled",
     "hourly_cost", "ansible_group_priority"}
)  # fmt: skip
_TRUE: Final = frozenset({"true", "yes", "on", "y", "t", "1"})
_FALSE: Final = frozenset({"false", "no", "off", "n", "f", "0"})
_RANGE: Final = re.compile(r"\[([0-9]+|[A-Za-z]):([0-9]+|[A-Za-z])(?::([0-9]+))?\]")
_PORT: Final = re.compile(r"(?P<host>(?:[^:\[\]]|\[[^\[\]]*\])+):[0-9]{1,5}")


class Vaulted:
    """A value that Ansible Vault has encrypted."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc] # PyYAML has no types
    """Plain data and Ansible's two tags. A date stays the text that it is."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as the base class has it
        first: [(tag, pattern) for tag, pattern in found if not tag.endswith(":timestamp")]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_constructor("!vault", lambda _loader, _node: Vaulted())
_Loader.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))


def read_inventory(text: str) -> Any:
    """An inventory's data. Raises BadNodeImport.

    Anchors and merge keys are honoured as long as the whole has at most MAX_VALUES values.
    """
    first = next(iter(re.findall(r"^(?!\s*(?:[#;]|---|$)).*$", text, re.MULTILINE)), "").strip()
    if first.startswith("$ANSIBLE_VAULT"):
        raise BadNodeImport(
            WHAT, ["it is encrypted with Ansible Vault; decrypt a copy with ansible-vault view"]
        )
    if re.fullmatch(r"\[[\w.:-]+\]\s*([#;].*)?", first) or re.match(r"[^\s:{]+\s+\w+=", first):
        raise BadNodeImport(WHAT, [f"it is an INI file; {ADVICE}"])
    try:
        refuse_unbounded(text, aliases=True, most_depth=4 * MAX_DEPTH)
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            if root is None:
                return None
            _bound(root)
            return loader.construct_document(root)
        finally:
            loader.dispose()
    except (RecursionError, UnboundedYaml):
        raise BadNodeImport(WHAT, ["its values are nested too deeply"]) from None
    except (yaml.YAMLError, ValueError) as error:
        raise BadNodeImport(WHAT, [_yaml_fault(error)]) from None


def _yaml_fault(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f" in line {mark.line + 1}" if mark is not None else ""
    problem = str(getattr(error, "problem", None) or error).partition("\n")[0]
    shown = "".join(letter if letter.isprintable() else "?" for letter in problem[:200])
    return f"it is not valid YAML{where}: {shown}"


def _bound(root: yaml.Node) -> None:
    """Count values with every alias written out. Raises BadNodeImport."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node, depth: int) -> int:
        if id(node) in sizes:
            return sizes[id(node)]
        if id(node) in open_nodes:
            raise BadNodeImport(WHAT, ["an alias contains itself"])
        if depth > 4 * MAX_DEPTH:
            raise BadNodeImport(WHAT, ["its values are nested too deeply"])
        open_nodes.add(id(node))
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        total = 1 + sum(size(part, depth + 1) for part in parts)
        open_nodes.discard(id(node))
        if total > MAX_VALUES:
            raise BadNodeImport(
                WHAT, [f"with its aliases written out it has more than {MAX_VALUES} values"]
            )
        sizes[id(node)] = total
        return total

    size(root, 0)


@dataclass
class _Group:
    variables: dict[str, Any] = field(default_factory=dict)
    hosts: set[str] = field(default_factory=set)
    parents: set[str] = field(default_factory=set)


@dataclass
class _Inventory:
    groups: dict[str, _Group] = field(default_factory=dict)
    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)


def from_ansible(inventory: Any, say: Say = ignore) -> list[dict[str, Any]]:
    """The hosts of an inventory, wherever they are in its groups, as fields of fleet.yaml.

    Of each: name, host, addresses, whether it is the primary of the private network, and its card,
    by the variables and groups of Chutes' playbooks. Raises BadNodeImport with every fault.
    """
    found = _collected(inventory)
    nodes = []
    left: Counter[str] = Counter()
    secret: Counter[str] = Counter()
    depths = _depths(found)
    for host in found.hosts if not found.faults else ():
        values, groups = _values(found, host, depths)
        wrong = list(_host_faults(values))
        found.faults += [f"host {quoted(host)}: {fault}" for fault in wrong]
        if not wrong:
            nodes.append(_node(host, values, groups, say))
        for name, value in values.items():
            if name not in _TAKEN:
                (secret if isinstance(value, Vaulted) else left)[name] += 1
    found.faults += name_faults("host", list(found.hosts))
    if not found.hosts and not found.faults:
        found.faults.append(f"it names no hosts; {ADVICE}")
    if found.faults:
        raise BadNodeImport(WHAT, found.faults)
    for name in sorted(found.unknown):
        say(f"{quoted(name)} of a group is not taken: a group has vars, hosts and children")
    for names, why in ((left, "fleet.yaml has no field for it"), (secret, "it is encrypted")):
        for name, count in sorted(names.items()):
            hosts = "1 host" if count == 1 else f"{count} hosts"
            say(f"variable {quoted(name)} of {hosts} is not taken: {why}")
    return nodes


def _collected(document: Any) -> _Inventory:
    """Groups and hosts of every place; a group may be written in parts."""
    found = _Inventory()
    if not isinstance(document, dict):
        found.faults.append(f"it is not a mapping of groups; {ADVICE}")
        return found
    if "plugin" in document:
        found.faults.append(f"it configures the plugin of a dynamic inventory; {ADVICE}")
        return found
    if "_meta" in document:
        found.faults.append(f"it is the JSON of a dynamic inventory; {ADVICE}")
        return found
    if document and set(document) <= {"vars", "hosts", "children"}:
        document = {"all": document}
    for name, body in document.items():
        _collect(found, str(name), body, None, 0)
    return found


def _collect(found: _Inventory, name: str, body: Any, parent: str | None, depth: int) -> None:
    group = found.groups.setdefault(name, _Group())
    if parent is not None:
        group.parents.add(parent)
    if depth > MAX_DEPTH:
        found.faults.append(f"groups are nested more than {MAX_DEPTH} deep")
        return
    if not isinstance(body, dict | None):
        found.faults.append(f"group {quoted(name)} has no vars, hosts or children by name")
        return
    parts = {}
    for key, value in (body or {}).items():
        if key not in ("vars", "hosts", "children"):
            found.unknown.add(str(key))
            continue
        part = {value: None} if isinstance(value, str) and key != "vars" else value or {}
        if isinstance(part, dict):
            parts[key] = part
        else:
            found.faults.append(f"{key} of group {quoted(name)} have no names, as {key}: {{a: }}")
    group.variables |= {str(key): value for key, value in parts.get("vars", {}).items()}
    for pattern, values in parts.get("hosts", {}).items():
        if not isinstance(values, dict | None):
            found.faults.append(f"host {quoted(pattern)} has no variables by name")
            continue
        for host in _hosts_of(found, str(pattern)):
            known = {str(key): value for key, value in (values or {}).items()}
            found.hosts.setdefault(host, {}).update(known)
            group.hosts.add(host)
    for child, inner in parts.get("children", {}).items():
        _collect(found, str(child), inner, name, depth + 1)


def _hosts_of(found: _Inventory, pattern: str) -> list[str]:
    """The hosts a pattern names, as node[01:10], without the port that may follow it."""
    match = _PORT.fullmatch(pattern)
    hosts = [match["host"] if match else pattern]
    while any(_RANGE.search(host) for host in hosts):
        wider = []
        for host in hosts:
            match = _RANGE.search(host)
            if match is None:
                wider.append(host)
                continue
            steps = _steps(*match.groups())
            if steps is None or len(hosts) * len(steps) + len(found.hosts) > MAX_HOSTS:
                why = "is not a range" if steps is None else f"names more than {MAX_HOSTS} hosts"
                found.faults.append(f"host pattern {quoted(pattern)} {why}")
                return []
            wider += [host[: match.start()] + step + host[match.end() :] for step in steps]
        hosts = wider
    if len(found.hosts) + len(hosts) > MAX_HOSTS:
        found.faults.append(f"it names more than {MAX_HOSTS} hosts")
        return []
    return hosts


def _steps(first: str, last: str, by: str | None) -> list[str] | None:
    """01, 02 … of a range; None where its ends are not of one kind, or in the wrong order."""
    stride = int(by or 1)
    if stride < 1 or first.isdigit() != last.isdigit():
        return None
    if not first.isdigit():
        codes = range(ord(first), ord(last) + 1, stride)
        return [chr(code) for code in codes] if codes else None
    if len(first) > 9 or len(last) > 9 or int(last) - int(first) > MAX_HOSTS * stride:
        return [""] * (MAX_HOSTS + 1)
    width = len(first) if first.startswith("0") else 0
    numbers = range(int(first), int(last) + 1, stride)
    return [str(number).zfill(width) for number in numbers] if numbers else None


def _depths(found: _Inventory) -> dict[str, int]:
    """How far each group is below `all`, by the longest way, as Ansible counts."""
    depths: dict[str, int] = {"all": 0}
    open_groups: set[str] = set()

    def depth(name: str) -> int:
        if name in depths:
            return depths[name]
        if name in open_groups:
            found.faults.append(f"group {quoted(name)} is a child of itself")
            return 0
        open_groups.add(name)
        depths[name] = 1 + max((depth(up) for up in found.groups[name].parents), default=0)
        return depths[name]

    for name in found.groups:
        depth(name)
    return depths


def _values(
    found: _Inventory, host: str, depths: Mapping[str, int]
) -> tuple[dict[str, Any], set[str]]:
    """A host's variables and the groups it is in: the deeper group wins, and the host over all."""
    groups = {"all"} & found.groups.keys()
    todo = [name for name, group in found.groups.items() if host in group.hosts]
    while todo:
        name = todo.pop()
        if name not in groups or name == "all":
            groups.add(name)
            todo += found.groups[name].parents - groups
    values: dict[str, Any] = {}
    for name in sorted(groups, key=lambda name: (depths[name], _priority(found, name), name)):
        values |= found.groups[name].variables
    return values | found.hosts[host], groups


def _priority(found: _Inventory, name: str) -> int:
    value = str(found.groups[name].variables.get("ansible_group_priority", 1))
    return int(value) if value.lstrip("-").isdigit() and len(value) < 9 else 1


def _given(values: Mapping[str, Any], names: tuple[str, ...] | str) -> Any:
    """The first of some variables that has a value."""
    names = (names,) if isinstance(names, str) else names
    return next((values[name] for name in names if values.get(name) not in (None, "")), None)


def _host_faults(values: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(_TAKEN & values.keys()):
        value = values[name]
        if isinstance(value, Vaulted):
            yield f"{name} is encrypted with Ansible Vault; write its value in a copy"
        elif isinstance(value, list | dict | tuple | set):
            yield f"{name} is not a single value"
        elif isinstance(value, str) and ("{{" in value or "{%" in value):
            yield f"{name} is a template, which only Ansible can fill in; write its value"
        elif isinstance(value, str) and len(value) > 253:
            yield f"{name} has more than 253 characters"
        elif name in (*_PRIMARY, "gpu_enabled") and value is not None and _truth(value) is None:
            yield f"{name} is neither true nor false"
        elif name in ("wireguard_ip", "external_ip") and value and not _is_address(value):
            yield f"{name} is not an IP address"
        elif name == "gpu_count" and value is not None and _count(value) is None:
            yield f"{name} is not a whole number from 0 to 16"
        elif name == "hourly_cost" and value is not None and _cost(value) is None:
            yield f"{name} is not a number of US dollars"


def _truth(value: Any) -> bool | None:
    text = str(value).strip().lower()
    return True if text in _TRUE else False if text in _FALSE else None


def _is_address(value: Any) -> bool:
    try:
        ipaddress.ip_address(str(value).strip())
    except ValueError:
        return False
    return True


def _count(value: Any) -> int | None:
    text = str(value).strip()
    return int(text) if re.fullmatch(r"[0-9]|1[0-6]", text) else None


def _cost(value: Any) -> float | None:
    try:
        cost = float(str(value))
    except ValueError:
        return None
    return cost if 0 <= cost <= 10_000 else None


def _node(host: str, values: Mapping[str, Any], groups: set[str], say: Say) -> dict[str, Any]:
    name = node_name(host)
    node: dict[str, Any] = {"name": name, **kubernetes_name(host)}
    address = str(_given(values, _HOST) or host).strip()
    node["host"] = address.removeprefix("[").removesuffix("]")
    for mine, theirs in (("wireguard_address", "wireguard_ip"), ("public_address", "external_ip")):
        if _given(values, theirs) is not None:
            node[mine] = str(values[theirs]).strip()
    primary = _given(values, _PRIMARY)
    if _truth(primary) if primary is not None else "primary" in groups:
        node["wireguard_primary"] = True
    node["networks"] = ["chutes"]
    if (cost := _cost(_given(values, "hourly_cost"))) is not None:
        node["hourly_cost"] = cost
    gpu, count = _given(values, _CARD), _count(_given(values, "gpu_count"))
    enabled = _given(values, "gpu_enabled")
    if enabled is not None and _truth(enabled) is False:
        if gpu is not None:
            say(f"{name}: its card is not taken: gpu_enabled is false")
    elif gpu is not None:
        node["gpu"] = str(gpu).strip().lower()
        if count:
            node["gpu_count"] = count
    elif count:
        say(f"{name}: gpu_count is not taken: no variable names the card")
    return node
