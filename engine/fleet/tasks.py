"""What a node can be asked: tasks by name, each a function from request bytes to answer bytes.

The same bytes go to this machine, to a node agent and to a Kubernetes job; a task knows nothing of
how it was asked. A task is loaded when it is first asked for, so an agent without torch can still
tell its facts.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Final

from windrow import WindrowError

Task = Callable[[bytes], bytes]

MAX_REQUEST_BYTES: Final = 1 << 20
"""A challenge is small; whoever sends more wants something else."""

TASKS: Final = {
    "ping": "windrow.engine.fleet.tasks:ping",
    "facts": "windrow.engine.fleet.facts:answer",
    "preflight": "windrow.engine.fleet.preflight:answer",
    "attestation.commit": "windrow.engine.fleet.attestation:answer_commit",
    "attestation.open": "windrow.engine.fleet.attestation:answer_open",
    "hash_challenge": "windrow.engine.fleet.hash_challenge:answer",
    "gemm_proof.commit": "windrow.engine.fleet.gemm_proof:answer_commit",
    "gemm_proof.open": "windrow.engine.fleet.gemm_proof:answer_open",
    "network_gemm.benchmark": "windrow.engine.fleet.network_gemm:answer_benchmark",
    "network_gemm.compute": "windrow.engine.fleet.network_gemm:answer_compute",
    "network_gemm.proof": "windrow.engine.fleet.network_gemm:answer_proof",
    "proof_of_compute": "windrow.engine.fleet.proof_of_compute:answer",
    "llm_job": "windrow.engine.fleet.llm_job:answer",
}
"""Where each task is implemented, as module:function."""


class UnknownTask(WindrowError):
    """A node was asked for something it does not do."""


class BadRequest(WindrowError):
    """A request is too large, or is not what the task expects."""


def ping(request: bytes) -> bytes:
    """The request again: what the way there and back takes."""
    return request


def answer(task: str, request: bytes) -> bytes:
    """A task's answer to a request.

    Raises UnknownTask, BadRequest, DeviceFailed for what PyTorch says of CUDA, and what the task
    raises.
    """
    if task not in TASKS:
        raise UnknownTask(f"A node does not do {task[:60]!r}; it does {', '.join(TASKS)}.")
    if len(request) > MAX_REQUEST_BYTES:
        raise BadRequest(
            f"A request for {task} has {len(request)} bytes; at most {MAX_REQUEST_BYTES} are read."
        )
    module, function = TASKS[task].split(":")
    run: Task = getattr(import_module(module), function)
    try:
        return run(request)
    except RuntimeError as error:
        said = str(error)
        if not any(word in said for word in ("CUDA", "cuda", "NVIDIA")):
            raise
        from windrow.engine.fleet.gpu_facts import DeviceFailed

        raise DeviceFailed(
            f"PyTorch cannot use a GPU for {task}: {said[:300]}. To do: run nvidia-smi, and look "
            "for NVRM and Xid lines: sudo dmesg | grep -iE 'nvrm|xid'"
        ) from error
