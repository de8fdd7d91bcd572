"""`windrow agent`: this machine, answering for callers on its list."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import yaml
from rich.console import Console

from windrow import WindrowError
from windrow.engine.fleet.inventory import NAME
from windrow.pipelines.fleet_parts import machine_turns, node_variables
from windrow.resources.configuration import values
from windrow.resources.configuration.settings import Settings
from windrow.resources.fleet.agent_identity import agent_key, public_half
from windrow.resources.fleet.nodes import LocalNode
from windrow.resources.fleet.turns import InTurn

if TYPE_CHECKING:
    from windrow.resources.guarded_server import TlsFiles


class NoCaller(WindrowError):
    """A hotkey that an agent is given is none."""


class NoNodeName(WindrowError):
    """What an agent is told to be called is no name of a node."""


def serve(
    out: Console,
    hotkey: str,
    callers: Sequence[str],
    host: str,
    port: int,
    name: str | None = None,
    tls: "TlsFiles | None" = None,
) -> None:
    """Answer until interrupted. name: of this machine in fleet.yaml, if it may have no other.

    Raises AddressTaken, AgentKeyError, NoCaller, NoNodeName, SettingError, TlsFilesUnusable.
    """
    from windrow.resources.fleet.agent_service import agent_app
    from windrow.resources.guarded_server import guarded_server, listening

    for address in (hotkey, *callers):
        try:
            values.ss58(address)
        except ValueError as error:
            raise NoCaller(f"{address[:60]!r} is no hotkey: {error}") from None
    if name is not None and not NAME.fullmatch(name):
        raise NoNodeName(
            f"--node {name[:80]!r} is no name of a node: use a-z, 0-9 and '-', at most 63 of them"
        )
    settings = Settings.read()
    key = agent_key(settings.home / "agent.key")
    worker = LocalNode("this machine", node_variables(settings))
    node = InTurn(worker, "this machine", machine_turns(settings))
    app = agent_app(node, hotkey=hotkey, callers=callers or [hotkey], key=key, name=name)
    server = guarded_server(app, tls=tls)
    opened = listening(host, port)
    port = opened.getsockname()[1]
    entry = {
        **({"name": name} if name else {}),
        "transport": "agent",
        "agent_port": port,
        "agent_hotkey": hotkey,
        "agent_key": public_half(key),
        **({"agent_tls": tls.certificate} if tls else {}),
    }
    out.print(
        f"answering at {host}:{port} for {', '.join(callers or [hotkey])}; in fleet.yaml:\n"
        + yaml.safe_dump(entry, sort_keys=False),
        highlight=False,
        soft_wrap=True,
    )
    try:
        server.run(sockets=[opened])
    finally:
        node.close()
