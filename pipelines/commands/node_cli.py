"""`windrow node`: the words of the command line; the work is in the modules beside it."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(
    help="Declare, verify and list the machines of your fleet.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
out = Console()

Name = Annotated[str, typer.Argument(help="name of the node: a-z, 0-9 and '-'")]
Names = Annotated[list[str] | None, typer.Argument(help="nodes; none: all that are declared")]


@app.command()
def add(
    name: Name,
    host: Annotated[str, typer.Option(help="name or address it is reached at")] = "127.0.0.1",
    transport: Annotated[str, typer.Option(help="local, agent or kubernetes")] = "agent",
    agent_port: Annotated[int | None, typer.Option(help="port of its agent")] = None,
    agent_hotkey: Annotated[str | None, typer.Option(help="whom its agent answers for")] = None,
    agent_key: Annotated[str | None, typer.Option(help="key its agent signs with, hex")] = None,
    agent_tls: Annotated[
        str | None, typer.Option(help="certificate its agent answers with, PEM, on this machine")
    ] = None,
    network: Annotated[list[str] | None, typer.Option(help="network it works for; again")] = None,
    gpu: Annotated[str | None, typer.Option(help="its card, as h100_sxm or b300")] = None,
    gpu_count: Annotated[int, typer.Option(help="how many")] = 0,
    hourly_cost: Annotated[float, typer.Option(help="US dollars per GPU and hour")] = 0.0,
    hardware_class: Annotated[str | None, typer.Option(help="ComputeHorde's class")] = None,
    public_address: Annotated[str | None, typer.Option(help="static address, in and out")] = None,
    wireguard_address: Annotated[str | None, typer.Option(help="in the private network")] = None,
    port: Annotated[list[int] | None, typer.Option(help="public port it needs; again")] = None,
    private_port: Annotated[
        list[int] | None, typer.Option(help="port that must be closed to the internet; again")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="model it serves; again")] = None,
) -> None:
    """Declare a node in fleet.yaml; what is there already stays as it is written."""
    from windrow.pipelines.commands.node_declare import declare

    declare(
        out,
        {
            "name": name,
            "host": host,
            "transport": transport,
            "agent_port": agent_port,
            "agent_hotkey": agent_hotkey,
            "agent_key": agent_key,
            "agent_tls": agent_tls,
            "networks": network,
            "gpu": gpu,
            "gpu_count": gpu_count,
            "hourly_cost": hourly_cost,
            "hardware_class": hardware_class,
            "public_address": public_address,
            "wireguard_address": wireguard_address,
            "public_ports": port,
            "private_ports": [{"port": each} for each in private_port or ()],
            "models": [{"name": each} for each in model or ()],
        },
    )


@app.command(name="import")
def import_(
    gonka: Annotated[
        Path | None, typer.Option(help="Gonka's node-config.json, or its GET /admin/v1/nodes")
    ] = None,
    chutes: Annotated[str | None, typer.Option(help="a chutes-miner add-node command")] = None,
    ansible: Annotated[Path | None, typer.Option(help="an Ansible inventory in YAML")] = None,
    agent: Annotated[
        list[str] | None, typer.Option(help="NODE=HOTKEY:KEY[:PORT] of its agent; again")
    ] = None,
    gpu_count: Annotated[
        int | None, typer.Option(min=1, max=16, help="GPUs of a node of add-node, 1 if not known")
    ] = None,
) -> None:
    """Declare the nodes of another tool's file; those without --agent are asked through Kubernetes.

    All of them, or none. A node that fleet.yaml has is joined: what it says is kept, and whatever
    differs or is not taken is printed.
    """
    from windrow.pipelines.commands.node_import import import_nodes

    import_nodes(out, gonka=gonka, chutes=chutes, ansible=ansible, agents=agent or [],
                 gpu_count=gpu_count)  # fmt: skip


@app.command()
def remove(name: Name) -> None:
    """Take a node out of fleet.yaml and out of Dagster; what the lake has of it stays."""
    from windrow.pipelines.commands.node_declare import forget

    forget(out, name)


@app.command(name="list")
def list_() -> None:
    """Every declared node: where it stands, when it was verified, and what is wrong with it."""
    from windrow.pipelines.commands.node_table import show

    show(out)


@app.command()
def verify(
    names: Names = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="from the start, not on from where it failed")
    ] = False,
    at_once: Annotated[int, typer.Option(min=1, max=32, help="nodes at the same time")] = 4,
) -> None:
    """Verify nodes now, each in a run of its own.

    Exit status 0: nothing is wrong with any. 1: something is, or one was too busy to attest.
    2: a node could not be verified.
    """
    from windrow.pipelines.commands.node_verify import verify_nodes

    raise typer.Exit(verify_nodes(out, names or [], whole=whole, at_once=at_once))
