"""`windrow install`: programs that need a Python environment of their own."""

import os
from pathlib import Path
from typing import Annotated

import typer
from dotenv import dotenv_values
from rich.console import Console

app = typer.Typer(
    help="Install programs that need a Python environment of their own.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
out = Console()
VARIABLE = "WINDROW_GENERATION_PYTHON"


@app.command()
def sglang(
    cpu: Annotated[bool, typer.Option("--cpu", help="for the CPU")] = False,
    cuda: Annotated[bool, typer.Option("--cuda", help="for NVIDIA GPUs")] = False,
    path: Annotated[
        Path | None, typer.Option(help="its folder; default: sglang below WINDROW_HOME")
    ] = None,
    setting: Annotated[bool, typer.Option(help="write WINDROW_GENERATION_PYTHON into .env")] = True,
) -> None:
    """Make SGLang's environment, for CUDA where there is an NVIDIA driver, else for the CPU."""
    from windrow.resources.configuration.settings import Settings
    from windrow.resources.generation.sglang_environment import Environment
    from windrow.resources.torch_build import has_nvidia_driver

    if cpu and cuda:
        raise typer.BadParameter("choose one of --cpu and --cuda")
    settings = Settings.read()  # before gigabytes are fetched: a wrong .env is an error now
    found = has_nvidia_driver()
    device = "cpu" if cpu else "cuda" if cuda or found else "cpu"
    if not (cpu or cuda):
        out.print(f"This machine has {'an' if found else 'no'} NVIDIA driver: installing for "
                  f"{device}. Choose yourself with --cpu or --cuda.", soft_wrap=True)  # fmt: skip
    environment = Environment((path or settings.home / "sglang").expanduser().absolute(), device)
    if environment.complete():
        out.print(f"{environment.folder} is complete already", soft_wrap=True, highlight=False)
    else:
        environment.make(lambda text: out.print(f"{text} ...", highlight=False))
    if setting:
        _write_setting(environment.python)
    else:
        out.print(f"{VARIABLE}={environment.python}", soft_wrap=True, highlight=False)


def _write_setting(python: Path) -> None:
    """Name the environment in `.env`. Raises CannotInstall, DiskFull, PathRefused."""
    from windrow.pipelines.commands.folder import exported_settings, write_setting
    from windrow.resources.generation.sglang_environment import CannotInstall

    env = Path.cwd() / ".env"
    write_setting(env, VARIABLE, str(python))
    if dotenv_values(env).get(VARIABLE) != str(python):
        raise CannotInstall(
            f"{env} cannot hold the path {python}. Choose a plainer one with --path."
        )
    out.print(f"{VARIABLE} is set in {env}. To generate with SGLang, set WINDROW_GENERATION=sglang "
              "there, or a variable of the miner guide that implies it.",
              soft_wrap=True, highlight=False)  # fmt: skip
    if VARIABLE in exported_settings() and (given := os.environ[VARIABLE]) != str(python):
        out.print(f"[yellow]Your environment sets {VARIABLE}={given}, which comes first: "
                  f"unset {VARIABLE}[/]", soft_wrap=True, highlight=False)  # fmt: skip
