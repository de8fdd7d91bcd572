"""GPUs as they are declared, alone and whole (chutes §12.15-16, compute-horde §2)."""

from collections.abc import Iterator, Sequence
from typing import Final

from windrow.engine.fleet.cards import is_same_card
from windrow.engine.fleet.checks import WINDROW, NodeCheck
from windrow.engine.fleet.drift import count_remedy
from windrow.engine.fleet.fact_formats import chutes_device, short_ref
from windrow.engine.fleet.facts import GpuFacts
from windrow.engine.fleet.nvml_errors import ERRORS, NvmlError
from windrow.engine.fleet.preflight_looked import GIB, Looked, at_least, exactly
from windrow.networks.chutes.gpus import CARDS, device_problem
from windrow.networks.gonka.model_args import strict_layout

DRIVER: Final = 580
CUDA: Final = (12, 6)
RESET: Final = (
    "nvidia-smi -q -d ECC shows which card. Stop its work and reboot the machine; if the errors "
    "come back, replace the card"
)
XID: Final = "sudo dmesg | grep Xid. NVIDIA's list of Xid errors explains the numbers"
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
    if node.gpu is not None or not gpus:  # that none is declared is said once, by `facts`
        yield exactly(
            "gpu_count", len(gpus), node.gpu_count, "GPUs are seen", count_remedy(looked.facts)
        )
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
            remedy=""
            if len(gpus) <= MOST_GPUS
            else f"A machine with more than {MOST_GPUS} cards cannot be a node of Chutes",
        )
    if not gpus:
        return
    kinds = {gpu.name for gpu in gpus}
    yield exactly(
        "gpu_kinds",
        len(kinds),
        1,
        f"kinds of card: {', '.join(sorted(kinds))}",
        "declare the cards of each kind as a node of their own",
    )
    for gpu in gpus:
        if node.gpu is not None or looked.serves("chutes"):
            yield _as_declared(looked, gpu)
        yield from _state(gpu)
        yield from _unread(gpu)


def _as_declared(looked: Looked, gpu: GpuFacts) -> NodeCheck:
    """Whether a card is the declared one, by the numbers that Chutes compares (chutes §6.3).

    Without the clock rate the network's verdict is open: it compares CUDA's, and nothing else has
    it. Name, memory and processors are enough for Windrow's own.
    """
    declared, seen, chutes = looked.node.gpu, short_ref(gpu), looked.serves("chutes")
    unmeasured: list[str] = []
    if declared is None and seen is None:
        problem = f"{gpu.name!a} is a card nobody knows, and none is declared"
    elif not chutes and not gpu.name:
        problem, unmeasured = "", ["name"]
    elif not chutes and not is_same_card(str(declared), gpu.name):
        problem = f"it is a {gpu.name!a}, not a {declared}"
    elif declared is not None and declared not in CARDS:
        problem = ""  # no table has the numbers of this card
    else:
        device = chutes_device(gpu, declared or seen or "")
        problem = device_problem(device) or ""
        numbers = {
            "memory": device.memory,
            "processors": device.processors,
            "clock rate": device.clock_rate,
        }
        unmeasured = [name for name, number in numbers.items() if number is None]
    accepted = False if problem else None if unmeasured else True
    known = False if problem else None if {*unmeasured} - {"clock rate"} else True
    return NodeCheck(
        "gpu_as_declared",
        "chutes" if chutes else WINDROW,
        accepted if chutes else None,
        known,
        reason=problem or (f"not measured: {', '.join(unmeasured)}" if unmeasured else ""),
        remedy=_remedy_for_card(declared, seen, chutes=chutes) if problem else "",
        gpu=gpu.uuid,
    )


def _state(gpu: GpuFacts) -> Iterator[NodeCheck]:
    """Whether a card is whole, free and at full speed."""
    for check, fine, wrong, remedy in (
        (
            "gpu_not_split",
            None if gpu.mig is None and "mig" in _failed(gpu) else not gpu.mig,
            "MIG is on: the card is split",
            f"Stop all work on the card, then: sudo nvidia-smi -i {gpu.index} -mig 0. This deletes "
            "the card's MIG instances",
        ),
        (
            "gpu_alone",
            None if gpu.processes is None else not gpu.processes,
            f"{gpu.processes} other processes use the card",
            "nvidia-smi lists the processes. Stop those that do not belong to this node's work",
        ),
        (
            "gpu_full_speed",
            None if "throttle" in _failed(gpu) else not gpu.throttle,
            f"the card is held down: {', '.join(gpu.throttle)}",
            f"nvidia-smi -i {gpu.index} -q -d PERFORMANCE,POWER,TEMPERATURE shows the limits",
        ),
    ):
        yield NodeCheck(
            check,
            WINDROW,
            None,
            fine,
            measured=float(gpu.processes)
            if check == "gpu_alone" and gpu.processes is not None
            else None,
            reason="not measured" if fine is None else "" if fine else wrong,
            remedy=remedy if fine is False else "",
            gpu=gpu.uuid,
        )


def _failed(gpu: GpuFacts) -> dict[str, NvmlError]:
    """Queries that failed for another reason than that the card has no such number."""
    known = {fact: ERRORS.get(code, ERRORS["Unknown"]) for fact, code in gpu.unread.items()}
    return {fact: error for fact, error in known.items() if error.remedy}


def _unread(gpu: GpuFacts) -> Iterator[NodeCheck]:
    """A row a reason why the driver did not tell something: the card works without it."""
    facts_of: dict[str, list[str]] = {}
    for fact, error in _failed(gpu).items():
        facts_of.setdefault(error.name, []).append(fact.replace("_", " "))
    for name, facts in facts_of.items():
        yield NodeCheck(
            "gpu_facts",
            WINDROW,
            None,
            None,
            reason=f"not measured: {', '.join(facts)}; {ERRORS[name].meaning}",
            remedy=ERRORS[name].remedy.replace("INDEX", str(gpu.index)),
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
            remedy="" if major >= DRIVER else _newer_driver(looked.measured.system_id),
        )
    if looked.serves("gonka"):
        cuda = looked.facts.cuda
        found = tuple(int(part) for part in (cuda or "0").split("."))
        enough = None if cuda is None else found >= CUDA
        wrong = "not measured" if enough is None else f"the driver supports CUDA {cuda} at most"
        yield NodeCheck(
            "cuda_version",
            "gonka",
            None,
            enough,
            measured=None if cuda is None else float(cuda),
            needed=float(".".join(map(str, CUDA))),
            unit="CUDA",
            reason="" if enough else wrong,
            remedy=""
            if enough
            else "Stop all work on the cards, install a driver for CUDA 12.6 or later, and reboot: "
            "the images need CUDA 12.6 to 12.9",
        )


def _health(looked: Looked) -> Iterator[NodeCheck]:
    """Cards ready to work: no faults, persistent, together (chutes §12.16, gonka P02 and P20)."""
    measured, count = looked.measured, len(looked.facts.gpus)
    if not count:
        return
    for check, found, most, what, remedy in (
        ("ecc_errors", measured.ecc_errors, 0, "uncorrected memory errors", RESET),
        ("xid_errors", measured.xid_errors, 0, "faults in the kernel's log", XID),
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
            remedy=""
            if runs
            else "sudo systemctl enable --now nvidia-fabricmanager. Its package must have the very "
            "version of the driver",
        )


def _gonka(looked: Looked) -> Iterator[NodeCheck]:
    """Whether the cards make groups, are free, and fit the models (gonka P03-P04, P20)."""
    gpus = looked.facts.gpus
    if not gpus or not looked.serves("gonka"):
        return
    sizes = [gpu.vram_bytes / GIB for gpu in gpus if gpu.vram_bytes is not None]
    if len(sizes) < len(gpus):
        yield NodeCheck("poc_groups", "gonka", None, None, reason="not measured: memory of a card")
    else:
        yield _groups(sizes)
    taken = [
        gpu.vram_used_bytes / max(gpu.vram_bytes, 1)
        for gpu in gpus
        if gpu.vram_used_bytes is not None and gpu.vram_bytes is not None
    ]
    if len(taken) == len(gpus):
        yield at_least(
            "gpu_memory_free",
            "gonka",
            None,
            round(1 - max(taken), 4),
            0.9,
            "a card's memory is taken before the proof of compute begins",
            "nvidia-smi lists the processes. Stop those that do not belong to this node's work",
            "of all",
        )
    else:
        yield NodeCheck("gpu_memory_free", "gonka", None, None, reason="not measured")
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
            remedy=""
            if fits
            else "Set --tensor-parallel-size and --pipeline-parallel-size in args of the model",
        )


def _groups(sizes: Sequence[float]) -> NodeCheck:
    """Whether every card is in a group of the proof of compute. sizes: GiB."""
    # It imports torch, for which whoever only declares assets does not wait.
    from windrow.networks.gonka.poc_capacity import LEAST_GROUP_GIB, gpu_groups

    grouped = sum(map(len, gpu_groups(sizes, LEAST_GROUP_GIB["V2"])))
    return NodeCheck(
        "poc_groups",
        "gonka",
        grouped > 0,
        grouped == len(sizes),
        measured=float(grouped),
        needed=float(len(sizes)),
        unit="GPUs",
        reason="" if grouped == len(sizes) else f"{len(sizes) - grouped} cards are in no group",
        remedy=""
        if grouped == len(sizes)
        else "Use cards of which 1, 2, 4 or 8 together have at least 38 GiB: they make a group",
    )


def _remedy_for_card(declared: str | None, seen: str | None, *, chutes: bool) -> str:
    if seen is None and chutes:
        return "Chutes takes no such card: remove chutes from networks of the node in fleet.yaml"
    if seen is None:
        return "Correct gpu of the node in fleet.yaml: a word or two of the card's product name"
    if seen != declared:
        return f"Set gpu of the node to {seen} in fleet.yaml"
    return "Compare with nvidia-smi -q: memory, multiprocessors and clocks of the card"


def _newer_driver(system: str) -> str:
    """How the guide's driver is installed; its packages have these names on Ubuntu alone."""
    done = "Stop all work on the cards first, and reboot afterwards"
    if system == "ubuntu":
        return f"sudo apt-get install nvidia-driver-{DRIVER}-server. {done}"
    return f"Install NVIDIA driver {DRIVER} as your system's guide says. {done}"


def _class(looked: Looked) -> Iterator[NodeCheck]:
    """ComputeHorde's classes are declarations: nothing there measures them (compute-horde §2)."""
    needed = CLASS_MEMORY.get(looked.node.hardware_class or "")
    if needed is None:
        return
    sizes = [gpu.vram_bytes for gpu in looked.facts.gpus if gpu.vram_bytes is not None]
    if looked.facts.gpus and not sizes:
        yield NodeCheck("class_memory", "compute-horde", True, None, reason="not measured")
        return
    most = max(sizes, default=0)
    yield at_least(
        "class_memory",
        "compute-horde",
        True,
        most,
        needed * 0.95 * 10**9,
        f"no GPU has the {needed} GB of {looked.node.hardware_class}",
        "Declare another hardware_class in fleet.yaml",
    )


RULES: Final = (
    _gpus,
    _class,
    _driver,
    _health,
    _gonka,
)
