"""GPUs as they are declared, alone and whole (chutes §12.15-16, compute-horde §2)."""

from collections.abc import Iterator
from typing import Final

from windrow.engine.fleet.checks import WINDROW, NodeCheck
from windrow.engine.fleet.fact_formats import chutes_device, short_ref
from windrow.engine.fleet.preflight_looked import GIB, Looked, at_least, exactly
from windrow.networks.chutes.gpus import CARDS, device_problem
from windrow.networks.gonka.model_args import strict_layout

DRIVER: Final = 580
CUDA: Final = (12, 6)
MOST_GPUS: Final = 10
SWITCHED: Final = frozenset({"a100_40gb_sxm", "a100_sxm", "h100_sxm", "h200", "b200"})
"""Cards whose machines join them by switches, which the fabric manager sets up."""
CLASS_MEMORY: Final = {
    "spin_up-4min.gpu-24gb": 24,
    "always_on.gpu-24gb": 24,
    "always_on.llm.a6000": 48,
}
"""GB of GPU memory of ComputeHorde's classes (compute-horde §2)."""


def _gpus(looked: Looked) -> Iterator[NodeCheck]:
    """Declared against seen; one kind of card; nobody else on it (chutes §12.15-16, gonka P02)."""
    node, gpus = looked.node, looked.facts.gpus
    yield exactly("gpu_count", len(gpus), node.gpu_count, "GPUs are seen")
    if looked.serves("chutes") and gpus:
        yield NodeCheck(
            "gpus_per_node",
            "chutes",
            len(gpus) <= MOST_GPUS,
            len(gpus) <= MOST_GPUS,
            measured=float(len(gpus)),
            needed=float(MOST_GPUS),
            unit="GPUs",
            reason="" if len(gpus) <= MOST_GPUS else "more cards than the validator takes at once",
            remedy="" if len(gpus) <= MOST_GPUS else "split the machine into two nodes",
        )
    if not gpus:
        return
    kinds = {gpu.name for gpu in gpus}
    yield exactly("gpu_kinds", len(kinds), 1, f"kinds of card: {', '.join(sorted(kinds))}")
    for gpu in gpus:
        problem = (
            device_problem(chutes_device(gpu, node.gpu))
            if node.gpu
            else f"it is a {short_ref(gpu) or 'card nobody knows'}, and none is declared"
        )
        yield NodeCheck(
            "gpu_as_declared",
            "chutes" if looked.serves("chutes") else WINDROW,
            problem is None if looked.serves("chutes") else None,
            problem is None,
            reason=problem or "",
            remedy="" if problem is None else f"name the card in fleet.yaml: {_refs(gpu.name)}",
            gpu=gpu.uuid,
        )
        for check, wrong, remedy in (
            ("gpu_not_split", bool(gpu.mig), "sudo nvidia-smi -mig 0"),
            ("gpu_alone", gpu.processes > 0, "nvidia-smi names the processes; end them"),
            ("gpu_full_speed", bool(gpu.throttle), "see power, cooling and clock settings"),
        ):
            said = ", ".join(gpu.throttle) if check == "gpu_full_speed" else ""
            yield NodeCheck(
                check,
                WINDROW,
                None,
                not wrong,
                measured=float(gpu.processes) if check == "gpu_alone" else None,
                reason=f"{check.replace('_', ' ')} is not so{': ' + said if said else ''}"
                if wrong
                else "",
                remedy=remedy if wrong else "",
                gpu=gpu.uuid,
            )


def _driver(looked: Looked) -> Iterator[NodeCheck]:
    """The driver's version in the guides' window (chutes §12.2, gonka §1.4 and P02)."""
    if not looked.facts.gpus or looked.facts.driver is None:
        return
    if looked.serves("chutes"):
        major = int("0" + looked.facts.driver.partition(".")[0].strip())
        older = 555 if (looked.node.gpu or "").startswith("h200") else 560
        yield NodeCheck(
            "driver",
            "chutes",
            None,
            None if older <= major < DRIVER else major >= DRIVER,
            measured=float(major),
            needed=float(DRIVER),
            unit="version",
            reason=""
            if major >= DRIVER
            else f"driver {looked.facts.driver}; the guide is for {DRIVER}, before it for {older}",
            remedy="" if major >= DRIVER else f"sudo apt install nvidia-driver-{DRIVER}-server",
        )
    if looked.serves("gonka"):
        found = tuple(int(part) for part in (looked.facts.cuda or "0").split(".") if part.isdigit())
        enough = found >= CUDA
        yield NodeCheck(
            "cuda_version",
            "gonka",
            None,
            enough,
            measured=float(".".join(map(str, found[:2])) or 0),
            needed=float(".".join(map(str, CUDA))),
            unit="CUDA",
            reason="" if enough else f"the driver knows CUDA {looked.facts.cuda or 'none'} at most",
            remedy="" if enough else "install a newer driver: the images need CUDA 12.6 to 12.9",
        )


def _health(looked: Looked) -> Iterator[NodeCheck]:
    """Cards ready to work: no faults, persistent, together (chutes §12.16, gonka P02 and P20)."""
    measured, count = looked.measured, len(looked.facts.gpus)
    if not count:
        return
    for check, found, most, what, remedy in (
        ("ecc_errors", measured.ecc_errors, 0, "uncorrected memory errors", "nvidia-smi -r"),
        ("xid_errors", measured.xid_errors, 0, "faults in the kernel's log", "dmesg | grep Xid"),
        (
            "persistence_mode",
            None if measured.persistent_gpus is None else count - measured.persistent_gpus,
            0,
            "cards are not in persistence mode",
            "sudo nvidia-smi -pm 1",
        ),
    ):
        if found is not None:
            yield NodeCheck(
                check,
                "gonka" if looked.serves("gonka") else WINDROW,
                None,
                found <= most,
                measured=float(found),
                needed=float(most),
                reason="" if found <= most else f"{found} {what}",
                remedy="" if found <= most else remedy,
            )
    if count > 1 and (looked.node.gpu or "") in SWITCHED:
        runs = measured.fabric_manager
        yield NodeCheck(
            "fabric_manager",
            "chutes" if looked.serves("chutes") else WINDROW,
            None,
            runs,
            reason=""
            if runs
            else "the fabric manager does not run: the cards do not work together",
            remedy="" if runs else "sudo systemctl enable --now nvidia-fabricmanager",
        )


def _gonka(looked: Looked) -> Iterator[NodeCheck]:
    """Whether the cards make groups, are free, and fit the models (gonka P03-P04, P20)."""
    gpus = looked.facts.gpus
    if not gpus or not looked.serves("gonka"):
        return
    # It imports torch, for which whoever only declares assets does not wait.
    from windrow.networks.gonka.poc_capacity import LEAST_GROUP_GIB, gpu_groups

    sizes = [gpu.vram_bytes / GIB for gpu in gpus]
    grouped = sum(map(len, gpu_groups(sizes, LEAST_GROUP_GIB["V2"])))
    yield NodeCheck(
        "poc_groups",
        "gonka",
        grouped > 0,
        grouped == len(gpus),
        measured=float(grouped),
        needed=float(len(gpus)),
        unit="GPUs",
        reason="" if grouped == len(gpus) else f"{len(gpus) - grouped} cards are in no group",
        remedy="" if grouped == len(gpus) else "a group of 1, 2, 4 or 8 cards needs 38 GiB",
    )
    free = min(1 - gpu.vram_used_bytes / max(gpu.vram_bytes, 1) for gpu in gpus)
    yield at_least(
        "gpu_memory_free",
        "gonka",
        None,
        round(free, 4),
        0.9,
        "a card's memory is taken before the proof of compute begins",
        "nvidia-smi names the processes; end them",
        "of all",
    )
    for model in looked.node.models:
        each = strict_layout(model.args).gpus
        fits = each <= len(gpus) and len(gpus) % each == 0 if each else False
        yield NodeCheck(
            "model_layout",
            "gonka",
            None,
            fits,
            measured=float(each),
            needed=float(len(gpus)),
            unit="GPUs",
            reason=""
            if fits
            else f"{model.name} takes {each} GPUs a server, which do not make up {len(gpus)}",
            remedy="" if fits else "set --tensor-parallel-size and --pipeline-parallel-size",
        )


def _refs(name: str) -> str:
    found = [ref for ref, card in CARDS.items() if card.pattern.split("(")[0].strip() in name]
    return ", ".join(found) or "no card of the table has this name"


def _class(looked: Looked) -> Iterator[NodeCheck]:
    """ComputeHorde's classes are declarations: nothing there measures them (compute-horde §2)."""
    needed = CLASS_MEMORY.get(looked.node.hardware_class or "")
    if needed is None:
        return
    most = max((gpu.vram_bytes for gpu in looked.facts.gpus), default=0)
    yield at_least(
        "class_memory",
        "compute-horde",
        True,
        most,
        needed * 0.95 * 10**9,
        f"no GPU has the {needed} GB of {looked.node.hardware_class}",
        "declare another hardware_class",
    )


RULES: Final = (
    _gpus,
    _class,
    _driver,
    _health,
    _gonka,
)
