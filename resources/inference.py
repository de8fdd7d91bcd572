"""The models and the environment that work on a window: in this process, or in servers and workers
that outlive it."""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from windrow.engine.ports import Environment, Generator, Prover
from windrow.environments.environment import load_environment
from windrow.environments.prompts import ChatTokenizer
from windrow.environments.sandbox import Sandbox
from windrow.environments.tasks import TaskSource
from windrow.resources.checkpoints.files import VerifiedCheckpoint
from windrow.resources.checkpoints.untrusted_tokenizer import UNSIGNED, UntrustedTokenizer
from windrow.resources.models.config import read_config
from windrow.resources.proof_pool.client import Placement
from windrow.resources.proof_pool.pool import PoolProver, ProofPool

if TYPE_CHECKING:  # torch and transformers are imported when a model is, not with the definitions
    from windrow.engine.validation.verification import ModelVerifier
    from windrow.resources.checkpoints.tokenizer import Lexicon
    from windrow.resources.models.loading import LoadedCheckpoint


class Sampler(Generator, Protocol):
    """A generator that says what its completions are worth to whoever looks at them later."""

    @property
    def reproducible(self) -> bool:
        """Whether equal seeds give equal completions."""
        ...

    @property
    def weights_proof(self) -> str:
        """What shows which weights it samples with: "own" of a model in this process, else as
        docs/generation.md says, for each server."""
        ...


class GenerationServers(Protocol):
    """Generation outside this process."""

    def generator(self, checkpoint: VerifiedCheckpoint, eos_token_id: int) -> Sampler:
        """Samples from this checkpoint, once the servers hold its weights."""
        ...


class Inference:
    """Generation and proofs of one checkpoint at a time; embedded, transformers in this process.

    generation_device, proof_device: "cpu" or "cuda:<n>" of this process; one model serves both
    where they agree. The verifier works on the proof device in any case.
    servers: generate instead of this process. proofs: prove instead of this process.
    """

    def __init__(
        self,
        tasks: TaskSource,
        sandbox: Sandbox,
        generation_device: str,
        proof_device: str,
        *,
        servers: GenerationServers | None = None,
        proofs: ProofPool | None = None,
    ) -> None:
        self._tasks = tasks
        self._sandbox = sandbox
        self._generation_device = generation_device
        self._proof_device = proof_device
        self._servers = servers
        self._proofs = proofs
        self._checkpoint: tuple[Path, str] | None = None
        self._loaded: dict[str, LoadedCheckpoint] = {}
        self._lexicon: Lexicon | None = None
        self._untrusted: UntrustedTokenizer | None = None
        self._pool_prover: PoolProver | None = None

    def generator(self, checkpoint: VerifiedCheckpoint) -> Sampler:
        """Samples from this checkpoint. Raises as `load_checkpoint`, or as the servers do."""
        if self._servers is not None:
            return self._servers.generator(checkpoint, self.lexicon(checkpoint).eos_token_id)
        from windrow.resources.generation.transformers_generator import TransformersGenerator

        return TransformersGenerator(self._load(checkpoint, self._generation_device))

    def prover(self, checkpoint: VerifiedCheckpoint) -> Prover:
        """Proves with this checkpoint. Raises as `load_checkpoint`, or as the pool does."""
        if self._proofs is not None:
            return self._pooled(self._proofs, checkpoint)
        from windrow.engine.proving import ModelProver

        return ModelProver(self._load(checkpoint, self._proof_device).model)

    def placement(self, checkpoint: VerifiedCheckpoint) -> Placement:
        """Where the prover's model is. Raises as `prover`."""
        if self._proofs is not None:
            return self._pooled(self._proofs, checkpoint).placement
        loaded = self._load(checkpoint, self._proof_device)
        dtype = str(loaded.dtype).removeprefix("torch.")
        return Placement(str(loaded.device), dtype, loaded.attention)

    def verifier(self, checkpoint: VerifiedCheckpoint) -> "ModelVerifier":
        """Measures rollouts with this checkpoint. Raises as `load_checkpoint`."""
        from windrow.engine.validation.verification import ModelVerifier

        loaded = self._load(checkpoint, self._proof_device)
        return ModelVerifier(loaded.model, loaded.eos_token_id)

    def proof_model(self, checkpoint: VerifiedCheckpoint) -> "LoadedCheckpoint":
        """The model of the proof device, in this process. Raises as `load_checkpoint`."""
        return self._load(checkpoint, self._proof_device)

    def lexicon(self, checkpoint: VerifiedCheckpoint) -> "Lexicon":
        """The tokenizer and its limits; loads no weights. Raises as `load_lexicon`.

        One that no trainer's key vouches for is loaded in a child first, which has limits.
        """
        from windrow.resources.checkpoints.tokenizer import load_lexicon

        self._turn_to(checkpoint)
        if self._lexicon is None:
            if _unsigned(checkpoint):
                self._bounded(checkpoint)
            self._lexicon = load_lexicon(checkpoint)
        return self._lexicon

    def _bounded(self, checkpoint: VerifiedCheckpoint) -> UntrustedTokenizer:
        """The tokenizer in a child. Raises CheckpointTextRefused, as `read_config`."""
        if self._untrusted is None:
            vocabulary = read_config(checkpoint.directory)["vocab_size"]
            self._untrusted = UntrustedTokenizer(checkpoint.directory, vocabulary)
        return self._untrusted

    def environment(self, checkpoint: VerifiedCheckpoint) -> Environment:
        """The checkpoint's environment; loads no weights. Raises as `load_environment`."""
        metadata = checkpoint.metadata
        tokenizer: ChatTokenizer = self.lexicon(checkpoint).tokenizer
        return load_environment(
            metadata.env_id,
            metadata.env_params,
            metadata.thinking_mode,
            self._bounded(checkpoint) if _unsigned(checkpoint) else tokenizer,
            self._tasks,
            self._sandbox,
        )

    def _pooled(self, pool: ProofPool, checkpoint: VerifiedCheckpoint) -> PoolProver:
        self._turn_to(checkpoint)
        if self._pool_prover is None:
            self._pool_prover = pool.prover(checkpoint)
        return self._pool_prover

    def _load(self, checkpoint: VerifiedCheckpoint, device: str) -> "LoadedCheckpoint":
        from windrow.resources.models.loading import load_checkpoint

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
            if self._untrusted is not None:
                self._untrusted.close()
                self._untrusted = None
            self._pool_prover = None
            self._checkpoint = identity


def _unsigned(checkpoint: VerifiedCheckpoint) -> bool:
    """Whether no trainer's key vouches for a checkpoint."""
    return any(note.startswith(UNSIGNED) for note in checkpoint.notes)
