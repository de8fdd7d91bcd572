"""The models and the environment that work on a window, loaded once in a process."""

from pathlib import Path
from typing import TYPE_CHECKING

from windrow.engine.ports import Environment, Generator, Prover
from windrow.environments.environment import load_environment
from windrow.environments.sandbox import Sandbox
from windrow.environments.tasks import TaskSource
from windrow.resources.checkpoints import VerifiedCheckpoint

if TYPE_CHECKING:  # torch and transformers are imported when a model is, not with the definitions
    from windrow.engine.verification import ModelVerifier
    from windrow.resources.checkpoint_tokenizer import Lexicon
    from windrow.resources.models import LoadedCheckpoint


class Inference:
    """Embedded generation and proofs: transformers in this process.

    generation_device, proof_device: "cpu" or "cuda:<n>"; one model serves both where they agree.
    Only the checkpoint last asked for stays in memory.
    """

    def __init__(
        self, tasks: TaskSource, sandbox: Sandbox, generation_device: str, proof_device: str
    ) -> None:
        self._tasks = tasks
        self._sandbox = sandbox
        self._generation_device = generation_device
        self._proof_device = proof_device
        self._checkpoint: tuple[Path, str] | None = None
        self._loaded: dict[str, LoadedCheckpoint] = {}
        self._lexicon: Lexicon | None = None

    def generator(self, checkpoint: VerifiedCheckpoint) -> Generator:
        """Samples from this checkpoint. Raises as `load_checkpoint`."""
        from windrow.resources.generation import TransformersGenerator

        return TransformersGenerator(self._load(checkpoint, self._generation_device))

    def prover(self, checkpoint: VerifiedCheckpoint) -> Prover:
        """Proves with this checkpoint. Raises as `load_checkpoint`."""
        from windrow.engine.proving import ModelProver

        return ModelProver(self._load(checkpoint, self._proof_device).model)

    def verifier(self, checkpoint: VerifiedCheckpoint) -> "ModelVerifier":
        """Measures rollouts with this checkpoint. Raises as `load_checkpoint`."""
        from windrow.engine.verification import ModelVerifier

        loaded = self._load(checkpoint, self._proof_device)
        return ModelVerifier(loaded.model, loaded.eos_token_id)

    def proof_model(self, checkpoint: VerifiedCheckpoint) -> "LoadedCheckpoint":
        """The model that proves, with its dtype, attention, vocabulary and context."""
        return self._load(checkpoint, self._proof_device)

    def lexicon(self, checkpoint: VerifiedCheckpoint) -> "Lexicon":
        """The tokenizer and its limits; loads no weights. Raises as `load_lexicon`."""
        from windrow.resources.checkpoint_tokenizer import load_lexicon

        self._turn_to(checkpoint)
        if self._lexicon is None:
            self._lexicon = load_lexicon(checkpoint)
        return self._lexicon

    def environment(self, checkpoint: VerifiedCheckpoint) -> Environment:
        """The checkpoint's environment; loads no weights. Raises as `load_environment`."""
        metadata = checkpoint.metadata
        return load_environment(
            metadata.env_id,
            metadata.env_params,
            metadata.thinking_mode,
            self.lexicon(checkpoint).tokenizer,
            self._tasks,
            self._sandbox,
        )

    def _load(self, checkpoint: VerifiedCheckpoint, device: str) -> "LoadedCheckpoint":
        from windrow.resources.models import load_checkpoint

        self._turn_to(checkpoint)
        if device not in self._loaded:
            self._loaded[device] = load_checkpoint(checkpoint, device=device)
        return self._loaded[device]

    def _turn_to(self, checkpoint: VerifiedCheckpoint) -> None:
        """Forget what another checkpoint left."""
        identity = (checkpoint.directory, checkpoint.weights_hash)
        if self._checkpoint != identity:
            self._loaded.clear()
            self._lexicon = None
            self._checkpoint = identity
