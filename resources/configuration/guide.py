"""The miner guide's own variables: which live parts they ask for, and what they cannot ask for."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from windrow.resources.configuration import values
from windrow.resources.configuration.grail_variables import CALLS, IGNORED
from windrow.resources.configuration.setting import Setting

FAMILIES: Final = ("BT_", "R2_", "GRAIL_", "WANDB_")
NAMES: Final = frozenset({"NETUID", "KERNEL_EVAL_GPU_IDS"})

_CHAIN: Final = ("BT_", "NETUID")
_PIPELINE: Final = "GRAIL_PIPELINE_"


def _must_be_false(raw: str) -> bool:
    if values.yes_or_no(raw):
        raise ValueError(
            "leave it at false; Windrow proves with the attention that validators use "
            "(flash_attention_2 on CUDA, sdpa on the CPU) and has no other"
        )
    return False


WITHOUT_EFFECT: Final[Mapping[str, tuple[Callable[[str], object], str]]] = MappingProxyType(
    {
        "GRAIL_PIPELINE_PROOF_FLASH_ATTN": (
            _must_be_false,
            "proofs have the attention that validators use, whatever this says",
        ),
        "GRAIL_GENERATION_BATCH_SIZE": (
            values.whole(1, 1024),
            "a group is always 16 rollouts; GRAIL_PIPELINE_GROUPS_PER_BATCH says how many groups",
        ),
        "GRAIL_PIPELINE_SYMLINK_DIR": (
            values.folder,
            "servers are given checkpoints where they are, and need no link",
        ),
        "BT_CALL_TIMEOUT": (values.seconds, CALLS),
        "BT_CALL_RETRIES": (values.whole(0, 1000), CALLS),
        "BT_CALL_BACKOFF": (values.seconds, CALLS),
        "DRAND_CHAIN": (values.one_of("quicknet"), "rounds are those of drand's chain quicknet"),
        "GRAIL_WINDOW_LENGTH": (values.one_of("30"), "a window has 30 blocks"),
        "UPLOAD_TIMEOUT": (
            values.seconds,
            "an upload is tried until the window's deadline, however long one attempt takes",
        ),
        "KERNEL_EVAL_GPU_IDS": (
            values.several(values.whole(0, 99)),
            "the environment triton_kernel is not active on the network",
        ),
    }
)
"""Variables that are taken and change nothing: what they may hold, and why."""


def of_family(name: str) -> bool:
    """Whether a variable is one of the guide's, or looks like one; an empty one counts as unset."""
    return name in NAMES or name.startswith(FAMILIES)


def must_be_known(name: str) -> bool:
    """Whether it is an error not to know a name; W&B's library reads more variables of its own."""
    return of_family(name) and not name.startswith("WANDB_") and name not in IGNORED


def parts_asked_for(given: Mapping[str, str]) -> frozenset[str]:
    """The live parts that an environment's guide variables ask for.

    "chain" is all of them: whoever names a wallet or a subnet mines there, with the guide's
    defaults for what is not said. "pipeline": generation and proofs on GPUs alone.
    """
    asked = set()
    given = {name: text for name, text in given.items() if not _changes_nothing(name)}
    if any(name.startswith(_CHAIN) for name in given):
        asked.add("chain")
    if any(name.startswith(_PIPELINE) for name in given):
        asked.add("pipeline")
    return frozenset(asked)


def _changes_nothing(name: str) -> bool:
    return name in IGNORED or name in WITHOUT_EFFECT


def unused(
    settings: Iterable[Setting], found: Mapping[str, Any], given: Mapping[str, str]
) -> dict[str, str]:
    """Variables of the guide that are set and change nothing, and why."""
    idle = {
        "chain": None if found["chain"] == "bittensor" else "WINDROW_CHAIN=development",
        "wallet": None if found["wallet"] == "bittensor" else "WINDROW_WALLET=development",
        "bucket": None if found["bucket"].startswith("s3://") else "the bucket is a folder",
        "generation": (
            "WINDROW_GENERATION=transformers" if found["generation"] == "transformers" else None
        ),
        "tracker": "WINDROW_TRACKER=none" if found["tracker"] == "none" else None,
    }
    reasons = {name: reason for name, reason in IGNORED.items() if given.get(name)}
    reasons |= {name: reason for name, (_, reason) in WITHOUT_EFFECT.items() if given.get(name)}
    for setting in settings:
        if reason := idle.get(setting.part):
            reasons |= {name: reason for name in setting.guide if name in given}
    return reasons


def contradictions(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each setting that does not go with the others, and what would."""
    if found["beacon"] == "recorded_drand" and found["drand_rounds"] is None:
        yield (
            "drand_rounds",
            "WINDROW_BEACON=recorded_drand needs the path of a JSON file of drand rounds here",
        )
    if found["beacon"] == "drand" and not found["drand_relays"]:
        yield "drand_relays", "WINDROW_BEACON=drand needs a relay here"
    if found["proof_ray"] and found["proof_gpus"]:
        yield "proof_gpus", "WINDROW_PROOF_RAY's cluster proves; set WINDROW_PROOF_WORKERS instead"
    if found["proof_ray"] and found["proof_subprocess"]:
        yield (
            "proof_subprocess",
            "workers of WINDROW_PROOF_RAY's cluster are processes of their own",
        )
    if found["network"] == "custom" and found["chain_endpoint"] is None:
        yield "chain_endpoint", "the network `custom` needs the node's ws:// or wss:// URL here"
    if found["bucket"].startswith("s3://"):
        yield from _keys(found)
    if found["chain"] == "bittensor":
        yield from _published(found)


def _keys(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for right in ("write", "read"):
        halves = [f"bucket_{right}_key_id", f"bucket_{right}_secret"]
        missing = [name for name in halves if found[name] is None]
        if len(missing) == 1 or (missing and right == "write"):
            yield missing[0], f"the bucket {found['bucket']} needs this key, id and secret"
    if found["bucket_write_key_id"] == found["bucket_read_key_id"]:
        yield (
            "bucket_read_key_id",
            "it is the write key, and the read key is published on chain: make a key that only "
            "reads",
        )


def _published(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What validators must be able to reach (grail-validation §17.1, §18.1)."""
    if not found["bucket"].startswith("s3://"):
        yield (
            "bucket",
            "validators fetch from an S3 bucket: set R2_ACCOUNT_ID, R2_BUCKET_ID and both pairs of "
            "keys; for a trial without one, set WINDROW_CHAIN=development",
        )
    if found["bucket_account"] is None:
        yield "bucket_account", "validators find the bucket by its R2 account id"
    elif found["bucket"] != f"s3://{found['bucket_account']}":
        yield (
            "bucket",
            f"validators look for a bucket with the name of the account, {found['bucket_account']}",
        )
    for name in ("bucket_read_key_id", "bucket_read_secret"):
        if found[name] is None:
            yield name, "validators read with this key: make one that only reads"
