"""A language-model job: prompts nobody knew before, and a seed of its own.

Everything follows from one secret, drawn for this job alone: the prompts, the seed of the draws,
and which answer the network would have looked at. Its commitment is made public before the job
and the secret after it, so anyone can see that nothing was chosen for the node, and no node can
have known a prompt.
"""

import itertools
import re
from dataclasses import asdict, dataclass
from typing import Final

from windrow.engine.fleet.frames import from_json, to_json
from windrow.engine.fleet.llm_job_prompts import distinct_prompts
from windrow.engine.fleet.llm_job_requests import (
    MAX_PROMPTS,
    MAX_TOKENS,
    BadJob,
    Request,
    exact_fields,
    job_hash,
)
from windrow.networks.compute_horde import llm_samples

MAX_LIMIT_SECONDS: Final = 86_400

EXACT_BITS: Final = 32
LOW_BITS: Final = 16

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NODE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_SECRET = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Job:
    """One job for one node.

    secret: hex of 32 random bytes, shown to nobody until the answer is there. prompts: how many.
    max_tokens: of each answer. limit_seconds: from asking to the answer. bits: of the numbers that
    the coarser of node and trusted node computes in, which says how near their answers must be.
    """

    job_id: str
    node: str
    model: str
    secret: str
    prompts: int = MAX_PROMPTS
    max_tokens: int = MAX_TOKENS
    temperature: float = llm_samples.TEMPERATURE
    top_p: float = llm_samples.TOP_P
    limit_seconds: float = llm_samples.TIMEOUT_SECONDS
    bits: int = EXACT_BITS

    def __post_init__(self) -> None:
        if not (
            all(isinstance(text, str) for text in (self.job_id, self.node, self.secret))
            and _UUID.fullmatch(self.job_id)
            and _NODE.fullmatch(self.node)
            and _SECRET.fullmatch(self.secret)
            and type(self.prompts) is int
            and 0 < self.prompts <= MAX_PROMPTS
            and isinstance(self.limit_seconds, int | float)
            and 0 < self.limit_seconds <= MAX_LIMIT_SECONDS
            and type(self.bits) is int
            and self.bits in (EXACT_BITS, LOW_BITS)
        ):
            raise BadJob(
                f"job {str(self.job_id)[:40]!r} for {str(self.node)[:40]!r}: a UUID, a node's "
                f"name, a secret of 32 bytes in hex, up to {MAX_PROMPTS} prompts, a limit up to "
                f"a day, and {EXACT_BITS} or {LOW_BITS} bits are needed"
            )
        self.request()

    def commitment(self) -> str:
        """SHA-256 of all of it, hex: made public before the job, opened by the job itself."""
        return job_hash("commitment", to_json(asdict(self))).hex()

    def texts(self) -> tuple[str, ...]:
        """The prompts, each once."""
        digests = (self._part(f"prompt {place}") for place in itertools.count())
        return distinct_prompts(digests, self.prompts)

    def known(self) -> int:
        """The place of the one prompt that the network would know the answer of."""
        return int.from_bytes(self._part("known"), "big") % self.prompts

    def request(self) -> "Request":
        """What is sent: nothing of it tells the secret, or another job's prompts."""
        return Request(
            self.job_id,
            self.model,
            self._part("draws").hex()[:32],
            self.texts(),
            self.max_tokens,
            self.temperature,
            self.top_p,
        )

    def to_json(self) -> bytes:
        """The job as it is kept and, after its end, made public."""
        return to_json(asdict(self))

    @classmethod
    def from_json(cls, data: bytes) -> "Job":
        """Raises BadFrame and BadJob."""
        return cls(**exact_fields(cls, from_json(data)))

    def _part(self, label: str) -> bytes:
        return job_hash(label, bytes.fromhex(self.secret))
