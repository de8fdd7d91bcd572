"""An SGLang server: started, or found running, made to hold a checkpoint, and asked to sample."""

import logging
import threading
from pathlib import Path
from typing import Final

from windrow.engine.ports import Completion
from windrow.resources.checkpoints.files import VerifiedCheckpoint
from windrow.resources.generation.client import (
    Flight,
    GenerationServerError,
    ServerClient,
    succeeded,
)
from windrow.resources.generation.launch import ServerLaunch, Starter
from windrow.resources.generation.requests import SampleRequest, WrongWeights
from windrow.resources.generation.sglang_launch import SGLangCommand
from windrow.resources.generation.sglang_requests import generate_body, read_completions
from windrow.resources.generation.sglang_weights import LoadedWeights, ServerFacts, WeightsControl
from windrow.resources.secret import Secret

PROBE_SECONDS: Final = 12.0
ABORT_SECONDS: Final = 5.0

_log = logging.getLogger(__name__)


class SGLangServer:
    """A `GenerationServer` that speaks SGLang's native interface."""

    sequences_a_request: int | None = None

    def __init__(
        self,
        url: str,
        *,
        starter: Starter | None = None,
        api_key: Secret | None = None,
        admin_key: Secret | None = None,
        request_seconds: float = 300.0,
        load_seconds: float = 300.0,
    ) -> None:
        """A server at a URL; without a starter it must be running and is never stopped.

        admin_key: for control calls, where the server tells them apart. request_seconds: for all
        sequences of a request together. Raises InvalidServerAddress.
        """
        self.name = url
        self._client = ServerClient(url, api_key)
        self._control = ServerClient(url, admin_key or api_key)
        self._weights = WeightsControl(self._client, self._control, load_seconds)
        self._starter = starter
        self._request_seconds = request_seconds
        self._lock = threading.Lock()
        self._facts: ServerFacts | None = None
        self._loaded: LoadedWeights | None = None

    @classmethod
    def started(
        cls,
        launch: ServerLaunch,
        home: Path,
        *,
        api_key: Secret | None = None,
        admin_key: Secret | None = None,
        request_seconds: float = 300.0,
        load_seconds: float = 300.0,
    ) -> "SGLangServer":
        """A server that Windrow starts when none runs, and finds again in the next run."""
        return cls(
            launch.url,
            starter=Starter(SGLangCommand(launch, home, api_key, admin_key), home),
            api_key=api_key,
            admin_key=admin_key,
            request_seconds=request_seconds,
            load_seconds=load_seconds,
        )

    @property
    def max_context(self) -> int:
        """Most tokens of prompt and completion together, once loaded."""
        return self._facts.max_context if self._facts is not None else 0

    @property
    def reproducible(self) -> bool:
        """Whether it samples by the seeds it is sent; False until loaded."""
        return self._facts is not None and self._facts.deterministic

    @property
    def weights_proof(self) -> str:
        """As `LoadedWeights.proof`; "none" until loaded."""
        return "none" if self._loaded is None else self._loaded.proof

    @property
    def loaded(self) -> LoadedWeights | None:
        """The weights it was last seen to hold, and what shows it."""
        return self._loaded

    def load(self, checkpoint: VerifiedCheckpoint) -> LoadedWeights:
        """Have it run and hold these weights, in place if it can; returns the proof.

        A server that Windrow starts is started anew when it is not well, runs with other options
        or another config.json, or does not come out of a reload with the right weights.
        Raises ServerStartFailed, WrongWeights, WeightsNotLoaded, another GenerationServerError.
        """
        with self._lock:
            self._loaded = None
            if self._starter is None:
                self.probe()
                loaded = self._in_place(checkpoint)
            else:
                with self._starter.alone():
                    loaded = self._found(self._starter, checkpoint) or self._fresh(
                        self._starter, checkpoint
                    )
            self._loaded = loaded
            return loaded

    def sample(self, request: SampleRequest, flight: Flight) -> list[Completion]:
        """Raises GenerationServerError, and what the flight is cut with."""
        loaded = self._loaded
        if loaded is None:
            raise WrongWeights(f"{self.name} holds no checkpoint that was proved")
        answer = self._client.call(
            "POST",
            "/generate",
            generate_body(request, seeded=self.reproducible),
            seconds=self._request_seconds,
            most=request.largest_answer(),
            flight=flight,
        )
        if self._starter is not None:
            self._starter.trim_log()
        document = succeeded(answer, f"{self.name}/generate").document()
        return read_completions(document, request, loaded.version)

    def abandon(self, request: SampleRequest) -> None:
        """Abort every sequence of a request. Raises GenerationServerError."""
        for name in request.names:
            answer = self._control.post("/abort_request", {"rid": name}, seconds=ABORT_SECONDS)
            succeeded(answer, f"{self.name}/abort_request")

    def probe(self) -> None:
        """Raises GenerationServerError unless it can generate a token."""
        succeeded(self._client.get("/health", seconds=PROBE_SECONDS), f"{self.name}/health")

    def stop(self) -> None:
        """Stop a server that Windrow started; another is left alone. Raises ServerWouldNotStop."""
        with self._lock:
            self._loaded = None
            if self._starter is not None:
                with self._starter.alone():
                    self._starter.stop()

    def _found(self, starter: Starter, checkpoint: VerifiedCheckpoint) -> LoadedWeights | None:
        """Weights put into the server that runs; None where only a new start helps."""
        if not starter.usable(checkpoint):
            return None
        try:
            self.probe()
            return self._in_place(checkpoint)
        except GenerationServerError as error:
            _log.warning("%s is started anew: %s", self.name, error)
            return None

    def _fresh(self, starter: Starter, checkpoint: VerifiedCheckpoint) -> LoadedWeights:
        self._weights.forget()
        starter.start(checkpoint, self.probe)
        self._facts = self._weights.facts()
        return self._weights.prove(checkpoint, self._facts)

    def _in_place(self, checkpoint: VerifiedCheckpoint) -> LoadedWeights:
        self._facts = self._weights.facts()
        before = self._weights.held()
        if before[0] != checkpoint.weights_hash:
            self._weights.reload(checkpoint)
        return self._weights.prove(checkpoint, self._facts, before)
