"""Which weights an SGLang server holds: new ones loaded in place, and proof of it.

A server that says it has new weights may not: so its own checksums of its tensors are asked for.
On a CPU they are SHA-256 and follow from the checkpoint's files; on a GPU they are a hash of
SGLang's own and tell only that the weights changed, and that the same ones are back.
"""

import hashlib
import logging
import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open

from windrow.resources.checkpoints.files import VerifiedCheckpoint, stored_tensors
from windrow.resources.generation.client import (
    GenerationServerError,
    MalformedAnswer,
    ServerClient,
    error_text,
    succeeded,
)
from windrow.resources.generation.requests import WrongWeights
from windrow.resources.models.config import read_config

TOKENS_BEYOND_A_PROMPT: Final = 4
"""A server refuses prompts within 6 tokens of its context (or cache), and silently ends completions
2 tokens before it: too short for a validator."""
CONTROL_SECONDS: Final = 30.0
ROW_PADDING: Final = 64
"""Embedding and head have their rows filled up with zeros to a multiple of this."""
FUSED: Final = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
}
"""Tensors that the server keeps as one, in this order."""
_NOT_FLUSHED: Final = "cache was not flushed"
_CHECKSUM: Final = re.compile(r"[0-9a-f]{16,64}")

_DTYPES: Final = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}

_log = logging.getLogger(__name__)

Checksums = tuple[dict[str, str], ...]
"""By rank: name of a tensor -> its checksum."""


class WeightsNotLoaded(GenerationServerError):
    """A server refused new weights; it goes on with the old ones."""


@dataclass(frozen=True)
class ServerFacts:
    """What a server says of itself that sampling depends on.

    deterministic: samples by the seeds it is sent. max_context: most tokens of prompt and
    completion together that it does not shorten.
    """

    version: str
    device: str
    dtype: str
    ranks: int
    deterministic: bool
    max_context: int


@dataclass(frozen=True)
class LoadedWeights:
    """Weights that a server was seen to hold.

    version: the checkpoint's weights hash, which the server stamps on every completion.
    proof: "files" when its checksums are those of the checkpoint's files, "change" when they
    changed with the weights hash, "version" when no other weights were seen there to compare with.
    """

    version: str
    proof: str
    checksums: Checksums


class WeightsControl:
    """Loads weights into one running server, and keeps what it saw there."""

    def __init__(self, client: ServerClient, control: ServerClient, seconds: float) -> None:
        """control: with the key that control calls need; seconds: a load may take."""
        self._client = client
        self._control = control
        self._seconds = seconds
        self._seen: dict[str, Checksums] = {}

    def facts(self) -> ServerFacts:
        """Raises GenerationServerError."""
        info = self._document(self._client, "GET", "/server_info")
        numbers = [info.get(key) for key in ("max_req_input_len", "tp_size", "pp_size", "dp_size")]
        if any(type(number) is not int for number in numbers):
            raise MalformedAnswer(
                f"{self._client.url}/server_info tells no max_req_input_len, tp_size, pp_size and "
                "dp_size; is it an SGLang server of a version that Windrow knows?"
            )
        longest_prompt, *ranks = numbers
        return ServerFacts(
            version=str(info.get("version")),
            device=str(info.get("device")),
            dtype=str(info.get("dtype")),
            ranks=math.prod(ranks),
            deterministic=info.get("enable_deterministic_inference") is True,
            max_context=longest_prompt + TOKENS_BEYOND_A_PROMPT,
        )

    def weight_version(self) -> str:
        """What the server calls its weights. Raises GenerationServerError."""
        return str(self._document(self._client, "GET", "/model_info").get("weight_version"))

    def held(self) -> tuple[str, Checksums]:
        """What the server calls its weights, and their checksums. Raises GenerationServerError."""
        return self.weight_version(), self.checksums()

    def forget(self) -> None:
        """Of another start of the server nothing can be compared: it may lay out tensors anew."""
        self._seen.clear()

    def reload(self, checkpoint: VerifiedCheckpoint) -> None:
        """Put a checkpoint's weights in place of the server's; requests there are aborted.

        Raises WeightsNotLoaded when the old weights stay, another GenerationServerError when the
        server does not tell or dies, as it does of tensors of another shape.
        """
        body = {
            "model_path": str(checkpoint.directory.absolute()),
            "weight_version": checkpoint.weights_hash,
            "flush_cache": True,
            "abort_all_requests": True,
        }
        what = f"{self._client.url}/update_weights_from_disk"
        answer = self._control.post("/update_weights_from_disk", body, seconds=self._seconds)
        said = error_text(answer.body)
        if answer.status == 400 and _NOT_FLUSHED in said:
            # The weights have changed all the same; what the cache holds is of the old ones.
            _log.warning("%s: %s", what, said)
            self._flush()
            new = {"new_version": checkpoint.weights_hash, "abort_all_requests": False}
            succeeded(
                self._control.post("/update_weight_version", new, seconds=CONTROL_SECONDS), what
            )
            return
        if answer.status == 400:
            raise WeightsNotLoaded(
                f"{what}: {said}. The server keeps its old weights; check that it can read "
                f"{checkpoint.directory}"
            )
        if succeeded(answer, what).document().get("success") is not True:
            raise WeightsNotLoaded(f"{what}: {said}. The server keeps its old weights")

    def prove(
        self,
        checkpoint: VerifiedCheckpoint,
        facts: ServerFacts,
        before: tuple[str, Checksums] | None = None,
    ) -> LoadedWeights:
        """What shows that the server holds these weights.

        before: what `held` said before they were loaded. Raises WrongWeights.
        """
        version, name = checkpoint.weights_hash, self._client.url
        said, held = self.held()
        if said != version:
            raise WrongWeights(f"{name} calls its weights {said!r:.80}, not {version}")
        if facts.device == "cpu" and facts.ranks == 1:
            wanted = expected_checksums(checkpoint.directory, facts.dtype)
            wrong = sorted(
                key for key in wanted.keys() | held[0].keys() if wanted.get(key) != held[0].get(key)
            )
            if wrong:
                raise WrongWeights(
                    f"{name} says it holds weights {version}, but {len(wrong)} of its "
                    f"{len(held[0])} tensors are others than the checkpoint's, {wrong[0]} first; "
                    "restart it"
                )
            proof = "files"
        else:
            proof = self._compared(version, held, before)
        self._seen[version] = held
        return LoadedWeights(version, proof, held)

    def checksums(self) -> Checksums:
        """The server's own checksums of its tensors. Raises GenerationServerError."""
        document = self._document(self._control, "POST", "/weights_checker", {"action": "checksum"})
        ranks = document.get("ranks")
        found = [checksums_of(rank) for rank in ranks] if isinstance(ranks, list) else []
        if not found or None in found:
            raise MalformedAnswer(
                f"{self._client.url}/weights_checker gives no checksums; without them nobody knows "
                "which weights it samples with"
            )
        return tuple(sums for sums in found if sums is not None)

    def _compared(self, version: str, held: Checksums, before: tuple[str, Checksums] | None) -> str:
        known = self._seen.get(version)
        if known is not None:
            if known != held:
                raise WrongWeights(
                    f"{self._client.url} holds other tensors than when it last had weights "
                    f"{version}; restart it"
                )
            return "change" if len(self._seen) > 1 else "version"
        others = [*self._seen.items(), *([before] if before is not None else [])]
        for other, sums in others:
            if other != version and sums == held:
                raise WrongWeights(
                    f"{self._client.url} says it holds weights {version}, but still has those of "
                    f"{other}; restart it"
                )
        return "change" if any(other != version for other, _ in others) else "version"

    def _flush(self) -> None:
        until = time.monotonic() + self._seconds
        while True:
            self._control.post("/abort_request", {"abort_all": True}, seconds=CONTROL_SECONDS)
            answer = self._control.post("/flush_cache", None, seconds=CONTROL_SECONDS)
            if answer.status == 200:
                return
            if time.monotonic() > until:
                succeeded(answer, f"{self._client.url}/flush_cache")
            time.sleep(0.2)

    def _document(
        self, client: ServerClient, method: str, path: str, body: object = None
    ) -> dict[str, Any]:
        answer = client.call(method, path, body, seconds=self._seconds)
        document = succeeded(answer, f"{self._client.url}{path}").document()
        if not isinstance(document, dict):
            raise MalformedAnswer(f"{self._client.url}{path} answers with no object")
        return document


def expected_checksums(directory: Path, dtype: str) -> dict[str, str]:
    """The checksums that a single-rank CPU server has of a checkpoint's tensors.

    dtype: of the server, as torch names it. Tensors are converted, fused and padded as there.
    """
    if dtype not in _DTYPES:
        raise MalformedAnswer(f"the server computes in {dtype!r:.40}, not {', '.join(_DTYPES)}")
    kind = _DTYPES[dtype]
    tied = read_config(directory).get("tie_word_embeddings") is True
    files = {name: tensor.path for name, tensor in stored_tensors(directory).items()}
    found = {}
    for name in files:
        if tied and name == "lm_head.weight":
            continue
        parts = _parts(name)
        if parts is None:
            continue
        kept, names = parts
        digest = hashlib.sha256()
        for part in names:
            for piece in _pieces(files[part], part, kind):
                digest.update(piece.reshape(-1).view(torch.uint8).numpy().data)
        found[kept] = digest.hexdigest()[:16]
    return found


def checksums_of(rank: object) -> dict[str, str] | None:
    """The checksums of one rank; None when they are none."""
    sums = rank.get("checksums") if isinstance(rank, dict) else None
    if not isinstance(sums, dict) or not sums:
        return None
    fine = all(isinstance(value, str) and _CHECKSUM.fullmatch(value) for value in sums.values())
    return sums if fine else None


def _parts(name: str) -> tuple[str, tuple[str, ...]] | None:
    """What the server calls a tensor, and its parts in order; None for a part but the first."""
    for fused, parts in FUSED.items():
        if f".{parts[0]}." in name:
            return name.replace(parts[0], fused), tuple(
                name.replace(parts[0], part) for part in parts
            )
        if any(f".{part}." in name for part in parts):
            return None
    return name, (name,)


def _pieces(path: Path, name: str, dtype: torch.dtype) -> Iterator[torch.Tensor]:
    """A tensor as the server holds it, its padding apart."""
    with safe_open(path, framework="pt") as file:
        tensor = file.get_tensor(name).to(dtype).contiguous()
    yield tensor
    if name in ("model.embed_tokens.weight", "lm_head.weight"):
        yield torch.zeros((-tensor.shape[0] % ROW_PADDING, *tensor.shape[1:]), dtype=dtype)
