"""Commands that an operator may paste, made so that pasting them loses nothing.

A word that a machine or a file gave is quoted, and where it cannot be said safely there is a
sentence in place of the command.
"""

import shlex
from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Final

from windrow.engine.fleet.ports import NEVER_OPENED
from windrow.networks.chutes.ports import NODE_PORTS

_SNAP: Final = "/var/snap"
_INSTALL: Final = {"ubuntu": "apt-get", "debian": "apt-get", "fedora": "dnf", "rhel": "dnf",
                   "centos": "dnf", "rocky": "dnf", "almalinux": "dnf"}  # fmt: skip


def is_plain(text: str) -> bool:
    """Whether a text can stand in a command: it has no control characters and is not an option."""
    return bool(text) and text.isprintable() and not text.startswith("-")


def install(package: str, system: str) -> str:
    """How a package is installed on a system, an ID of os-release."""
    tool = _INSTALL.get(system)
    return f"sudo {tool} install {package}" if tool else f"install the package {package}"


def open_port(port: int, private: Collection[int], *, chutes: bool) -> str:
    """How a public port is opened, TCP and UDP. No command opens a port that some network closes.

    private: ports of the node that must stay closed. chutes: the port is one of Chutes' NodePorts,
    which are opened together.
    """
    closed = NEVER_OPENED | set(private)
    also = "Open it in the provider's firewall too, 1:1."
    if port in closed:
        return (
            f"Port {port} is private on some machines of the networks. If it is public on this "
            "one, open it in the machine's and the provider's firewall; otherwise move it to "
            "private_ports in fleet.yaml"
        )
    if not chutes:
        return f"sudo ufw allow {port}. {also}"
    commands = [
        f"sudo ufw allow {first}:{last}/{transport}"
        for first, last in _node_ports_without(closed)
        for transport in ("tcp", "udp")
    ]
    return f"{' && '.join(commands)}. {also}"


def close_ports(ports: Sequence[int]) -> str:
    """How private ports are closed. ufw does not filter what Docker publishes."""
    first = ports[0]
    return (
        f"Bind port {first} to 127.0.0.1 or to a private address: in docker-compose.yml, "
        f'"ADDRESS:{first}:{first}" under ports. Without Docker: sudo ufw deny {first}/tcp. ufw '
        "does not filter ports that Docker publishes. If this machine may reach the port, name "
        "its address in reachable_by in fleet.yaml"
    )


def _node_ports_without(closed: Collection[int]) -> list[tuple[int, int]]:
    """First and last of each range of NodePorts without a closed port in it."""
    within = sorted(port for port in closed if port in NODE_PORTS)
    edges = [NODE_PORTS.start - 1, *within, NODE_PORTS.stop]
    return [(low + 1, high - 1) for low, high in pairwise(edges) if low + 1 < high]


def bind_snap(volume: str, mounted: bool) -> str:
    """How /var/snap gets onto a volume: what it holds is copied first, and nothing is deleted.

    volume: where the largest volume is mounted. mounted: whether /var/snap is a volume of its own.
    """
    if not is_plain(volume) or volume == "/" or (volume + "/").startswith((_SNAP + "/", "/snap/")):
        return (
            "Copy /var/snap to a folder of the largest volume (cp -a) while microk8s is stopped, "
            "and bind that folder to /var/snap in /etc/fstab. A mount without the copy hides "
            "microk8s' data"
        )
    if mounted:
        return (
            "/var/snap is a volume of its own. Stop microk8s, copy its data to a folder of "
            f"{shlex.quote(volume)} with cp -a, and replace its line in /etc/fstab by a bind mount "
            "of that folder. A mount without the copy hides microk8s' data"
        )
    target = f"{volume.rstrip('/')}/snap"
    folder = shlex.quote(target)
    line = shlex.quote(f"{_fstab(target)} {_SNAP} none bind 0 0")
    return (
        f"sudo mkdir -p {folder} {_SNAP} && (! snap list microk8s || sudo snap stop microk8s) && "
        f"sudo cp -a {_SNAP}/. {folder}/ && echo {line} | sudo tee -a /etc/fstab && "
        f"sudo mount --bind {folder} {_SNAP} && (! snap list microk8s || sudo snap start microk8s)"
    )


def _fstab(path: str) -> str:
    """A path as /etc/fstab wants it."""
    for letter in "\\ \t#":
        path = path.replace(letter, f"\\{ord(letter):03o}")
    return path


def download(model: str, cache: str) -> str:
    """How a model gets into a cache, HF_HOME."""
    if not is_plain(model) or not is_plain(cache):
        return "Download the model into the cache: hf download, with HF_HOME of that cache"
    return f"HF_HOME={shlex.quote(cache)} hf download {shlex.quote(model)}"


def rename_host(name: str) -> str:
    """How a machine gets the node's name."""
    return (
        f"Before the machine joins the cluster: sudo hostnamectl set-hostname {shlex.quote(name)}. "
        "A machine that has joined must keep its name: rename the node in fleet.yaml instead"
    )
