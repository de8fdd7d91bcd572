"""What a proof worker answers, wherever it runs: frames in, frames out.

It holds no key and signs nothing: commitments and log-probs go back, the run signs them.
"""

import hashlib
import os
import platform
import threading
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import windrow
from windrow import WindrowError
from windrow.networks.grail.constants import SKETCH_TOP_K
from windrow.resources.proof_pool.frames import MalformedFrame, Message, decode, encode

CODE: Final = (
    "kernels/*.py",
    "engine/forward.py",
    "engine/proving.py",
    "resources/models/*.py",
    "resources/proof_pool/*.py",
)
LIBRARIES: Final = ("torch", "transformers", "safetensors", "numpy")


class ProofService:
    """Answers the questions of runs over one model. Thread-safe; one question at a time works.

    answer: hello (who are you), load (turn to a checkpoint), prove. An error that has a name goes
    back under that name; any other escapes, for a process in a state nobody foresaw must end.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._code = code_identity()
        self._model: Any = None
        self._lock = threading.Lock()

    def answer(self, frame: bytes) -> bytes:
        """The answer to a question. Raises what is no WindrowError."""
        try:
            question = decode(frame)
            operation = question.header.get("op")
            if operation == "hello":
                return encode({"ok": True, **self._identity()})
            with self._lock:
                if operation == "load":
                    return encode({"ok": True, **self._loaded(question)})
                if operation == "prove":
                    return self._proofs(question)
            raise MalformedFrame(f"a proof worker knows no {operation!r:.40}")
        except WindrowError as error:
            return encode({"ok": False, "error": type(error).__name__, "message": str(error)})

    def _identity(self) -> dict[str, object]:
        model = self._model
        return {
            "pid": os.getpid(),
            "host": platform.node(),
            "code": self._code,
            "device": self._device,
            "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "weights_hash": model.weights_hash if model else None,
            "reloads_in_place": model.reloads_in_place if model else 0,
        }

    def _loaded(self, question: Message) -> dict[str, object]:
        # torch and transformers are imported here: a worker says hello long before.
        from windrow.resources.proof_pool.worker_model import WorkerModel

        directory, weights_hash = question.header.get("directory"), question.header.get("weights")
        if not isinstance(directory, str) or not isinstance(weights_hash, str):
            raise MalformedFrame("a question names no checkpoint")
        if self._model is None:
            self._model = WorkerModel(self._device)
        loaded = self._model.turn_to(Path(directory), weights_hash)
        return {
            "weights": loaded.weights_hash,
            "device": str(loaded.device),
            "dtype": str(loaded.dtype).removeprefix("torch."),
            "attention": loaded.attention,
        }

    def _proofs(self, question: Message) -> bytes:
        lengths = question.header.get("prompt_lengths")
        if not isinstance(lengths, list) or len(question.arrays) != len(lengths) + 1:
            raise MalformedFrame("a question to prove lists other prompts than sequences")
        if not all(type(length) is int for length in lengths):
            raise MalformedFrame("a question to prove lists other prompts than sequences")
        coefficients, *sequences = question.arrays
        kinds = [array.dtype.name for array in question.arrays]
        if kinds != ["int8", *["int32"] * len(sequences)] or len(coefficients) != SKETCH_TOP_K:
            raise MalformedFrame(f"a question to prove holds {sorted(set(kinds))}")
        header = self._loaded(question)
        proofs = self._model.prover.prove(sequences, lengths, coefficients)
        arrays = [part for proof in proofs for part in (proof.sketches, proof.logprobs)]
        return encode({"ok": True, **header}, arrays)


def code_identity() -> str:
    """SHA-256 over the code and libraries a proof depends on; a worker of others is out of date."""
    root = Path(windrow.__file__).parent
    digest = hashlib.sha256()
    for library in LIBRARIES:
        digest.update(f"{library}=={metadata.version(library)}\n".encode())
    for path in sorted(path for pattern in CODE for path in root.glob(pattern)):
        digest.update(f"{path.name}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
