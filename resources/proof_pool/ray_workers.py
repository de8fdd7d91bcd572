"""Proof workers as actors of a Ray cluster, on this machine or on others.

Ray pickles what its own nodes say to each other, so whoever can reach a cluster's ports can run
code in it: they belong on a private network. What goes through it is the same frame as on a
socket, plain bytes, and only these are ever decoded as a worker's words.
"""

import importlib.util
import os
import threading
import time
from typing import Any, Final

from windrow import WindrowError
from windrow.engine.ports import ProofCancelled
from windrow.resources.proof_pool.client import WorkerDied, WorkerHung
from windrow.resources.proof_pool.frames import MalformedFrame, decode, encode
from windrow.resources.proof_pool.processes import POLL_SECONDS, START_SECONDS, scrubbed
from windrow.resources.proof_pool.service import ProofService, code_identity

NAMESPACE: Final = "windrow"
_connecting = threading.Lock()


class RayMissing(WindrowError):
    """Ray is not installed, or there is no cluster at the address."""


class ProofActor:
    """A proof worker in a Ray process. Ray pins its GPU."""

    def __init__(self, device: str) -> None:
        kept = scrubbed(os.environ, os.environ.get("CUDA_VISIBLE_DEVICES", ""), 1)
        for name in os.environ.keys() - kept.keys():
            if not name.startswith("RAY_"):
                del os.environ[name]
        os.environ.update(kept)
        self._service = ProofService(device)

    def answer(self, frame: bytes) -> bytes:
        """As `ProofService.answer`."""
        return self._service.answer(frame)


class RayHost:
    """One named actor that outlives the run; any run that asks the cluster for it finds it."""

    def __init__(self, address: str, number: int, device: str) -> None:
        """device: "cpu" or "cuda:0", as the actor sees it."""
        if importlib.util.find_spec("ray") is None:
            raise RayMissing("ray is not installed; pip install ray")
        self._address = address
        self._actor_name = f"proof-worker-{number}"
        self._device = device
        self._actor: Any = None

    @property
    def name(self) -> str:
        return f"{self._actor_name} at {self._address}"

    def ask(self, frame: bytes, seconds: float, told_to_stop: threading.Event) -> bytes:
        """As `Host.ask`. Raises RayMissing too."""
        if self._actor is None:
            self._actor = self._attach(told_to_stop)
        return self._answer(self._actor, frame, seconds, told_to_stop)

    def replace(self) -> None:
        import ray

        actor, self._actor = self._actor, None
        if actor is not None:
            ray.kill(actor)

    def _attach(self, told_to_stop: threading.Event) -> Any:
        import ray

        _connect(self._address)
        actor = self._named_actor()
        question = encode({"op": "hello"})
        try:
            # An actor that the cluster has no room for yet answers late rather than never.
            said = decode(self._answer(actor, question, START_SECONDS, told_to_stop)).header
        except (WorkerDied, WorkerHung):
            ray.kill(actor)
            raise
        if said.get("code") == code_identity() and said.get("device") == self._device:
            return actor
        ray.kill(actor)
        raise WorkerDied(f"{self.name} ran other code or on another device and was ended")

    def _named_actor(self) -> Any:
        import ray

        options = {"num_cpus": 1} if self._device == "cpu" else {"num_cpus": 1, "num_gpus": 1}
        return (
            ray.remote(ProofActor)
            .options(
                name=self._actor_name,
                namespace=NAMESPACE,
                lifetime="detached",
                get_if_exists=True,
                **options,
            )
            .remote(self._device)
        )

    def _answer(
        self, actor: Any, frame: bytes, seconds: float, told_to_stop: threading.Event
    ) -> bytes:
        import ray

        end = time.monotonic() + seconds
        try:
            reply = actor.answer.remote(frame)
            while time.monotonic() < end:
                ready, _ = ray.wait([reply], timeout=POLL_SECONDS)
                if ready:
                    answer = ray.get(reply)
                    if not isinstance(answer, bytes):
                        raise MalformedFrame(f"a proof worker answered {type(answer).__name__}")
                    return answer
                if told_to_stop.is_set():
                    raise ProofCancelled("told to stop while a proof worker was at work")
        except ray.exceptions.RayError as error:
            raise WorkerDied(f"{type(error).__name__}: {error!s:.600}") from error
        raise WorkerHung(f"{self.name} gave no answer in {seconds:g} s; has the cluster room?")


def _connect(address: str) -> None:
    """Join the cluster, once in a process. Raises RayMissing."""
    import ray

    with _connecting:
        if not ray.is_initialized():
            try:
                ray.init(address, namespace=NAMESPACE, log_to_driver=False)
            except ConnectionError as error:
                raise RayMissing(
                    f"there is no Ray cluster at {address} ({error}); start one with `ray start`, "
                    "or set the address of one that runs"
                ) from error
