"""Numbers fixed by the Grail protocol (reference 0.0.60, proof version v5), grail-protocol §1."""

from typing import Final

PROOF_VERSION: Final = "v5"
ACCEPTED_PROOF_VERSIONS: Final = frozenset({"v4", "v5"})

WINDOW_BLOCKS: Final = 30
BLOCK_SECONDS: Final = 12.0
ROLLOUTS_PER_GROUP: Final = 16
MAX_COMPLETION_TOKENS: Final = 8192

# Activation sketch (§4)
SKETCH_MODULUS: Final = 2**31 - 1
SKETCH_TOP_K: Final = 16
SKETCH_BUCKETS: Final = 8
COEFFICIENT_RANGE: Final = 127
TOLERANCE_BASE: Final = 6000
TOLERANCE_GROWTH: Final = 5.0
LAYER_INDEX: Final = -1
PROOF_BATCH: Final = 16

# Challenge: opened completion positions of a rollout, and so the least completion length (§3.4)
CHALLENGE_POSITIONS: Final = 32

# Termination, log-probs, rewards, advantages (§11)
MIN_EOS_PROBABILITY: Final = 0.02
LOGPROB_EPSILON: Final = 0.10
REWARD_REL_TOLERANCE: Final = 0.02
REWARD_ABS_TOLERANCE: Final = 1e-6
ADVANTAGE_SUM_TOLERANCE: Final = 0.01
ADVANTAGE_TOLERANCE: Final = 1e-3

# Window file and deadline (§8)
MIN_FILE_BYTES: Final = 200
MAX_FILE_BYTES: Final = 350 * 1024 * 1024
DEADLINE_SLACK_SECONDS: Final = -4.0
MAX_UNIQUE_ROLLOUTS: Final = 5000
