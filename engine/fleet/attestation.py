"""The node's side of an attestation: commit to work on every device at once, then open it.

What the first answer commits to stays in the devices' memory until the last request of its
session, for a while at most, and only one session at a time: its matrices fill the devices. A
process that does not hold a session does its work again and says so; the bytes are the same.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from windrow import WindrowError
from windrow.engine.fleet.attestation_plan import (
    CPU_UUID,
    Challenge,
    Plan,
    parse_challenge,
    parse_opening,
)
from windrow.engine.fleet.attestation_work import DeviceWork
from windrow.engine.fleet.frames import pack
from windrow.engine.fleet.gpu_facts import DeviceFailed
from windrow.kernels.exact_matmul import way_of

KEEP_SECONDS: Final = 900.0
"""How long a session's matrices are kept for an asker that does not come back."""

_Result = TypeVar("_Result")


class AttestationBusy(WindrowError):
    """Another attestation is under way: two at once would measure neither."""


class NoSuchDevice(WindrowError):
    """A challenge names a device that this machine does not have, or no longer."""


class NotEnoughMemory(WindrowError):
    """A challenge asks for more memory than a device has free, or than its budget."""


class Sessions:
    """The one session whose work is kept, until its time is up."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.busy = threading.Lock()
        self._kept: tuple[str, list[DeviceWork]] | None = None
        self._timer: threading.Timer | None = None

    def get(self, session: str) -> list[DeviceWork] | None:
        return self._kept[1] if self._kept is not None and self._kept[0] == session else None

    def keep(self, session: str, works: list[DeviceWork]) -> None:
        self.drop()
        self._kept = session, works
        self._timer = threading.Timer(self.seconds, self._expire, [session])
        self._timer.daemon = True
        self._timer.start()

    def drop(self) -> None:
        """Let go of the matrices, on the devices too."""
        if self._timer is not None:
            self._timer.cancel()
        self._kept = self._timer = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _expire(self, session: str) -> None:
        with self.busy:
            if self._kept is not None and self._kept[0] == session:
                self.drop()


SESSIONS: Final = Sessions(KEEP_SECONDS)


def answer_commit(request: bytes) -> bytes:
    """Fill all devices, walk over them, and commit to both: a frame.

    request: of `attestation_plan.challenge`. The header has `session`, and `devices` in the order
    of their uuids, each with `uuid`, `backend`, `way`, `memory_bytes`, `fill_seconds` and
    `walk_seconds`; arrays are those of `DeviceWork.run`, named `<array>/<place of the device>`.
    Raises BadChallenge, BadFrame and this module's errors.
    """
    challenge = parse_challenge(request)
    with _alone():
        works, arrays = _commit(challenge)
        devices = [_described(work) for work in works]
        return pack({"session": challenge.session, "devices": devices}, _named(arrays))


def answer_open(request: bytes) -> bytes:
    """Prove that all is still there, and open steps of the walk: a frame.

    request: of `attestation_plan.opening_request`. The header has `session`, and `recomputed`
    where this process did not hold it; arrays are those of `DeviceWork.open`. Raises as
    `answer_commit`.
    """
    opening = parse_opening(request)
    session = opening.challenge.session
    with _alone():
        works = SESSIONS.get(session)
        recomputed = works is None
        if works is None:
            works, _ = _commit(opening.challenge)
        arrays = _on_all(works, lambda work: work.open(opening.steps[work.uuid], opening.seed))
        if opening.last:
            SESSIONS.drop()
        return pack({"session": session, "recomputed": recomputed}, _named(arrays))


def _commit(challenge: Challenge) -> tuple[list[DeviceWork], list[dict[str, NDArray[Any]]]]:
    SESSIONS.drop()
    works = [
        DeviceWork(challenge.seed, uuid, plan, device_of(uuid))
        for uuid, plan in sorted(challenge.plans.items())
    ]
    for work in works:
        _check_memory(work.plan, work.device, challenge.budget)
    arrays = _on_all(works, DeviceWork.run)
    SESSIONS.keep(challenge.session, works)
    return works, arrays


def _on_all(works: list[DeviceWork], act: Callable[[DeviceWork], _Result]) -> list[_Result]:
    """Every device's result, all of them at work at the same time."""

    def guarded(work: DeviceWork) -> _Result:
        try:
            return act(work)
        except torch.OutOfMemoryError as error:
            raise NotEnoughMemory(
                f"device {work.uuid} ran out of memory; end what else runs on it and ask again"
            ) from error
        except RuntimeError as error:  # what torch raises when a GPU falls off the bus
            raise DeviceFailed(
                f"device {work.uuid} failed: {str(error)[:300]}; look at the kernel's log for Xid"
            ) from error

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(guarded, works))


def device_of(uuid: str) -> torch.device:
    """The torch device of a uuid as NVML writes it. Raises NoSuchDevice."""
    if uuid == CPU_UUID:
        return torch.device("cpu")
    wanted = _plain(uuid)
    for index in range(torch.cuda.device_count()):
        if _plain(str(torch.cuda.get_device_properties(index).uuid)) == wanted:
            return torch.device("cuda", index)
    if torch.version.cuda is None:
        raise NoSuchDevice(
            f"PyTorch here is a CPU build and cannot use {uuid}. Compare with nvidia-smi -L; if "
            "the card is there, install a CUDA build of PyTorch"
        )
    raise NoSuchDevice(
        f"PyTorch does not see {uuid}; it sees {torch.cuda.device_count()} GPUs. Compare with "
        "nvidia-smi -L and CUDA_VISIBLE_DEVICES"
    )


def _plain(uuid: str) -> str:
    return uuid.lower().removeprefix("gpu-").replace("-", "")


def _check_memory(plan: Plan, device: torch.device, budget: int) -> None:
    """Never drives a machine into swap: refuses what is not free now. Raises NotEnoughMemory."""
    if device.type == "cpu":
        free = min(budget, int(0.9 * psutil.virtual_memory().available))
    else:
        free = torch.cuda.mem_get_info(device)[0]
    if plan.needed_bytes > free:
        raise NotEnoughMemory(
            f"{device}: the work takes {plan.needed_bytes} bytes and {free} are free or allowed; "
            "end what else uses it, or ask for fewer matrices"
        )


def _described(work: DeviceWork) -> dict[str, object]:
    memory = (
        psutil.virtual_memory().total
        if work.device.type == "cpu"
        else torch.cuda.mem_get_info(work.device)[1]
    )
    return {
        "uuid": work.uuid,
        "backend": work.device.type,
        "way": way_of(work.device),
        "memory_bytes": memory,
        "fill_seconds": work.fill_seconds,
        "walk_seconds": work.walk_seconds,
    }


def _named(devices: Iterable[dict[str, NDArray[np.generic]]]) -> dict[str, NDArray[np.generic]]:
    return {
        f"{name}/{place}": array
        for place, arrays in enumerate(devices)
        for name, array in arrays.items()
    }


@contextmanager
def _alone() -> Iterator[None]:
    """Holds SESSIONS.busy for a block. Raises AttestationBusy instead of waiting."""
    if not SESSIONS.busy.acquire(blocking=False):
        raise AttestationBusy("an attestation is under way on this machine; ask again later")
    try:
        yield
    finally:
        SESSIONS.busy.release()
