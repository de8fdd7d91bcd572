"""vLLM through its completions interface, with token ids in and out (grail-protocol §10.4).

vLLM has no way to show which weights it holds, so weights are never exchanged in place: a new
checkpoint is a new start, and the served model is named after the hash of its weights.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from windrow.engine.ports import Completion
from windrow.resources.checkpoints.files import VerifiedCheckpoint
from windrow.resources.generation.client import (
    Flight,
    GenerationServerError,
    MalformedAnswer,
    ServerClient,
    succeeded,
)
from windrow.resources.generation.launch import ServerLaunch, Starter
from windrow.resources.generation.requests import (
    RequestAborted,
    SampleRequest,
    WrongWeights,
    checked_reason,
    checked_tokens,
)
from windrow.resources.secret import Secret

PROBE_SECONDS: Final = 12.0
OURS: Final = ("model", "served-model-name", "host", "port", "api-key", "generation-config")


def served_name(checkpoint: VerifiedCheckpoint) -> str:
    """What a vLLM server calls a checkpoint; with it a server says which weights it started on."""
    return f"windrow-{checkpoint.weights_hash}"


class VLLMCommand:
    """A `ServerCommand`; its key is in its environment, which only its user can read."""

    def __init__(self, launch: ServerLaunch, api_key: Secret | None = None) -> None:
        """Raises InvalidLaunch."""
        launch.refuse_options(OURS)
        self.name = f"vllm-{launch.port}"
        self.launch = launch
        self._api_key = api_key
        self.secrets: tuple[Secret, ...] = (api_key,) if api_key is not None else ()

    def argv(self, checkpoint: VerifiedCheckpoint) -> list[str]:
        """The command line that serves a checkpoint under the name of its weights."""
        launch = self.launch
        argv = [str(launch.python), "-m", "vllm.entrypoints.cli.main", "serve"]
        argv += [str(checkpoint.directory.absolute()), "--served-model-name"]
        argv += [served_name(checkpoint), "--host", launch.host, "--port", str(launch.port)]
        # The model's own defaults would fill in what a request leaves open.
        argv += ["--dtype", launch.dtype, "--generation-config", "vllm"]
        argv += ["--tensor-parallel-size", str(max(1, len(launch.gpus)))]
        if launch.gpus:
            argv += ["--gpu-memory-utilization", str(launch.memory_fraction)]
        if launch.context_length is not None:
            argv += ["--max-model-len", str(launch.context_length)]
        if launch.max_running is not None:
            argv += ["--max-num-seqs", str(launch.max_running)]
        if not launch.cuda_graphs:
            argv += ["--enforce-eager"]
        return [*argv, *launch.options]

    def variables(self) -> dict[str, str]:
        """Environment variables, in addition to those that every server is given."""
        given = {"VLLM_NO_USAGE_STATS": "1"} | self.launch.variables()
        if self.launch.deterministic:
            given["VLLM_BATCH_INVARIANT"] = "1"
        if self._api_key is not None:
            given["VLLM_API_KEY"] = self._api_key.reveal()
        return given

    def kept(self, checkpoint: VerifiedCheckpoint) -> object:
        """The weights and everything else of the checkpoint."""
        return [checkpoint.weights_hash, dict(checkpoint.metadata.file_manifest)]

    @contextmanager
    def sealed(self) -> Iterator[None]:
        """Nothing is to be put in place."""
        yield


class VLLMServer:
    """A `GenerationServer` that speaks vLLM's interface, one request a sequence for its seed."""

    sequences_a_request: int | None = 1

    def __init__(
        self,
        url: str,
        *,
        starter: Starter | None = None,
        api_key: Secret | None = None,
        reproducible: bool = False,
        request_seconds: float = 300.0,
    ) -> None:
        """A server at a URL; without a starter it must be running, on the checkpoint asked for,
        under its `served_name`. reproducible: it was started to give equal tokens whatever else is
        in the batch; it does not say so itself. Raises InvalidServerAddress.
        """
        self.name = url
        self.reproducible = reproducible
        self._client = ServerClient(url, api_key)
        self._starter = starter
        self._request_seconds = request_seconds
        self._lock = threading.Lock()
        self._max_context = 0
        self._model: str | None = None

    @classmethod
    def started(
        cls,
        launch: ServerLaunch,
        home: Path,
        *,
        api_key: Secret | None = None,
        request_seconds: float = 300.0,
    ) -> "VLLMServer":
        """A server that Windrow starts when none runs, and finds again in the next run."""
        return cls(
            launch.url,
            starter=Starter(VLLMCommand(launch, api_key), home),
            api_key=api_key,
            reproducible=launch.deterministic,
            request_seconds=request_seconds,
        )

    @property
    def weights_proof(self) -> str:
        """The name it serves the model under, which holds the weights hash; "none" until loaded."""
        return "none" if self._model is None else "version"

    @property
    def max_context(self) -> int:
        """Most tokens of prompt and completion together, once loaded."""
        return self._max_context

    def load(self, checkpoint: VerifiedCheckpoint) -> None:
        """Have it run on this checkpoint, started anew where it runs on another.

        Raises ServerStartFailed, WrongWeights, another GenerationServerError.
        """
        with self._lock:
            self._model = None
            if self._starter is not None:
                with self._starter.alone():
                    if not (self._starter.usable(checkpoint) and self._well()):
                        self._starter.start(checkpoint, self.probe)
            self._max_context = self._context_of(served_name(checkpoint))
            self._model = served_name(checkpoint)

    def sample(self, request: SampleRequest, flight: Flight) -> list[Completion]:
        """Raises GenerationServerError, and what the flight is cut with."""
        if self._model is None:
            raise WrongWeights(f"{self.name} holds no checkpoint")
        answer = self._client.call(
            "POST",
            "/v1/completions",
            completions_body(request, self._model),
            seconds=self._request_seconds,
            most=request.largest_answer() + 16 * len(request.prompt),
            flight=flight,
        )
        if self._starter is not None:
            self._starter.trim_log()
        document = succeeded(answer, f"{self.name}/v1/completions").document()
        return [read_completion(document, request, self._model)]

    def abandon(self, request: SampleRequest) -> None:
        """Nothing to do: vLLM gives a request up when its connection closes, as it has."""

    def probe(self) -> None:
        """Raises GenerationServerError unless its engine lives."""
        succeeded(self._client.get("/health", seconds=PROBE_SECONDS), f"{self.name}/health")

    def stop(self) -> None:
        """Stop a server that Windrow started; another is left alone. Raises ServerWouldNotStop."""
        with self._lock:
            self._model = None
            if self._starter is not None:
                with self._starter.alone():
                    self._starter.stop()

    def _well(self) -> bool:
        try:
            self.probe()
        except GenerationServerError:
            return False
        return True

    def _context_of(self, model: str) -> int:
        answer = self._client.get("/v1/models", seconds=PROBE_SECONDS)
        document = succeeded(answer, f"{self.name}/v1/models").document()
        served = document.get("data") if isinstance(document, dict) else None
        models = [each for each in served or [] if isinstance(each, dict)]
        for each in models:
            if each.get("id") == model:
                context = each.get("max_model_len")
                if type(context) is not int:
                    raise MalformedAnswer(f"{self.name}/v1/models tells no max_model_len")
                return context
        raise WrongWeights(
            f"{self.name} serves {[each.get('id') for each in models]!r:.200}, not {model}; start "
            f"it on this checkpoint with --served-model-name {model}"
        )


def completions_body(request: SampleRequest, model: str) -> dict[str, Any]:
    """The body of POST /v1/completions for a request of one sequence.

    Everything that sampling depends on is said, or the server's defaults would count.
    """
    policy = request.policy
    greedy = policy.top_p == 0.0  # refused by the server; it means the likeliest token alone
    return {
        "model": model,
        "prompt": request.prompt.tolist(),
        "request_id": request.names[0],
        "n": 1,
        "max_tokens": policy.max_new_tokens,
        "temperature": policy.temperature,
        "top_p": 1.0 if greedy else policy.top_p,
        "top_k": 1 if greedy else policy.top_k or 0,
        "min_p": 0.0,
        "repetition_penalty": policy.repetition_penalty,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "seed": request.seeds[0],
        "stop_token_ids": [request.eos_token_id],
        "return_token_ids": True,
        "skip_special_tokens": False,
        "spaces_between_special_tokens": False,
        "include_stop_str_in_output": True,
        "add_special_tokens": False,
    }


def read_completion(answer: object, request: SampleRequest, model: str) -> Completion:
    """The completion of an answer of POST /v1/completions.

    Raises MalformedAnswer, RequestAborted, WrongWeights.
    """
    name = request.names[0]
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(answer, dict) or not isinstance(choices, list) or len(choices) != 1:
        raise MalformedAnswer(f"completion {name} is no object with one choice")
    if name not in str(answer.get("id")):
        raise MalformedAnswer(f"{answer.get('id')!r:.80} is answered where {name} was asked")
    if answer.get("model") != model:
        raise WrongWeights(f"completion {name} is of {answer.get('model')!r:.80}, not of {model}")
    choice = choices[0] if isinstance(choices[0], dict) else {}
    kind = choice.get("finish_reason")
    if kind in ("abort", "error"):
        raise RequestAborted(f"the server gave up {name}: {kind}")
    if choice.get("prompt_token_ids") != request.prompt.tolist():
        raise MalformedAnswer(f"completion {name} is of another prompt than was sent")
    tokens = checked_tokens(choice.get("token_ids"), name, request)
    return Completion(tokens, checked_reason(kind, tokens, name, request))
