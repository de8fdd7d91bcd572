"""Settings of the work: generation, proofs, how much a window may take, and tracking."""

from collections.abc import Callable
from typing import Final

from windrow.networks.grail.constants import (
    MAX_UNIQUE_ROLLOUTS,
    ROLLOUTS_PER_GROUP,
    WINDOW_BLOCKS,
)
from windrow.resources.configuration import values
from windrow.resources.configuration.setting import Found, Setting, on_bittensor

MAX_GROUPS: Final = MAX_UNIQUE_ROLLOUTS // ROLLOUTS_PER_GROUP
"""More earns nothing (grail-protocol §1)."""


def _with_a_server(live: str) -> Callable[[Found], str]:
    return lambda found: "none" if found["generation"] == "transformers" else live


def _proof_gpu(found: Found) -> str:
    alone = found["generation"] == "transformers" or found["proof_ray"]
    return "none" if alone else "1"


def _generation(found: Found) -> str:
    guided = "pipeline" in found["guide"] or found["chain"] == "bittensor"
    return "sglang" if guided else "transformers"


def _enough_groups(found: Found) -> str:
    """So many that no lane waits for another: one a lane, and two between the stages."""
    proving = len(found["proof_gpus"] or ()) or found["proof_workers"]
    generating = found["groups_per_batch"]
    return str(max(4, 2 * generating, generating + proving + 2))


_gpu = values.whole(0, 99)
_secret = values.optional(values.secret)

WORK_SETTINGS: Final = (
    # --- generation
    Setting(
        "generation",
        values.one_of("transformers", "sglang", "vllm"),
        _generation,
        "what generates: transformers in the run, or a server of its own",
        guide=("GRAIL_PIPELINE_BACKEND",),
        guide_parse=values.one_of("sglang", "vllm"),
    ),
    Setting(
        "generation_gpu",
        values.optional(_gpu),
        _with_a_server("0"),
        "GPU that generates, the first of them; none is the CPU",
        guide=("GRAIL_PIPELINE_VLLM_GPU",),
        guide_parse=_gpu,
    ),
    Setting(
        "tensor_parallel",
        values.whole(1, 64),
        "1",
        "GPUs a generation server is spread over",
        guide=("GRAIL_PIPELINE_VLLM_TP",),
        part="generation",
    ),
    Setting(
        "generation_servers",
        values.several(values.url("http", "https")),
        "none",
        "running generation servers to use; none starts one",
        part="generation",
    ),
    Setting(
        "generation_api_key",
        _secret,
        "none",
        "key of the generation servers",
        part="generation",
        secret=True,
    ),
    Setting(
        "generation_python",
        values.optional(values.folder),
        "none",
        "Python of the environment the server is installed in; none is Windrow's own",
        part="generation",
    ),
    Setting(
        "generation_port",
        values.whole(1024, 65535),
        "30000",
        "port of a server that is started, on 127.0.0.1",
        part="generation",
    ),
    Setting(
        "groups_per_batch",
        values.whole(1, 1024),
        "1",
        "groups sent to the server at a time",
        guide=("GRAIL_PIPELINE_GROUPS_PER_BATCH",),
        part="generation",
    ),
    Setting(
        "max_concurrent",
        values.whole(1, 65536),
        "48",
        "requests in flight at a time",
        guide=("GRAIL_PIPELINE_MAX_CONCURRENT",),
        part="generation",
    ),
    Setting(
        "max_sequences",
        values.whole(1, 65536),
        "64",
        "sequences the server works on at a time",
        guide=("GRAIL_PIPELINE_MAX_NUM_SEQS",),
        part="generation",
    ),
    Setting(
        "context_length",
        values.whole(128, 16_777_216),
        "12288",
        "tokens of the server's context, prompt and completion",
        guide=("GRAIL_PIPELINE_MAX_MODEL_LEN",),
        part="generation",
    ),
    Setting(
        "gpu_memory",
        values.share,
        "0.9",
        "share of a GPU's memory the server takes",
        guide=("GRAIL_PIPELINE_GPU_MEM_UTIL",),
        part="generation",
    ),
    Setting(
        "disable_cuda_graph",
        values.yes_or_no,
        "no",
        "whether SGLang runs without CUDA graphs",
        guide=("GRAIL_PIPELINE_DISABLE_CUDA_GRAPH",),
        part="generation",
    ),
    Setting(
        "server_timeout",
        values.seconds,
        "300",
        "time a server has to start and to reload",
        guide=("GRAIL_PIPELINE_SERVER_TIMEOUT",),
        part="generation",
    ),
    # --- proofs
    Setting(
        "proof_ray",
        values.optional(values.ray),
        "none",
        "Ray cluster that proves, instead of this machine: auto, HOST:PORT or ray://HOST:PORT",
    ),
    Setting(
        "proof_ray_gpu",
        values.yes_or_no,
        "yes",
        "whether each proof worker of the cluster has a GPU, or a processor",
    ),
    Setting(
        "proof_gpu",
        values.optional(_gpu),
        _proof_gpu,
        "GPU that proves; none is the CPU",
        guide=("GRAIL_PIPELINE_PROOF_GPU",),
        guide_parse=_gpu,
    ),
    Setting(
        "proof_gpus",
        values.several(_gpu),
        "none",
        "GPUs that prove side by side, instead of one",
        guide=("GRAIL_PIPELINE_PROOF_GPU_IDS",),
    ),
    Setting(
        "proof_subprocess",
        values.yes_or_no,
        "no",
        "whether every proof GPU has a process of its own",
        guide=("GRAIL_PIPELINE_PROOF_SUBPROCESS",),
    ),
    Setting(
        "proof_workers",
        values.whole(1, 64),
        "1",
        "proof workers on the CPU or a Ray cluster; on GPUs of this machine there is one each",
    ),
    # --- one window
    Setting(
        "groups_in_flight",
        values.whole(1, 4096),
        _enough_groups,
        "groups held in memory at once, over all stages",
    ),
    Setting(
        "reward_workers", values.whole(1, 256), "2", "sandboxed processes that evaluate completions"
    ),
    Setting(
        "program_python",
        values.optional(values.folder),
        "none",
        "Python that runs submitted programs; none searches for the network's version, 3.12",
    ),
    Setting(
        "any_program_python",
        values.yes_or_no,
        "no",
        "whether programs may run under another Python than 3.12, with other results for some",
    ),
    Setting(
        "max_groups",
        values.whole(1, 100_000),
        on_bittensor(str(MAX_GROUPS), "8"),
        f"most groups of 16 mined in one window; more than {MAX_GROUPS} earn nothing",
    ),
    Setting(
        "safety_blocks",
        values.whole(0, WINDOW_BLOCKS - 1),
        "3",
        "blocks kept free before the window closes",
        guide=("GRAIL_MINER_SAFETY_BLOCKS",),
    ),
    Setting(
        "verify_submission",
        values.yes_or_no,
        "no",
        "whether a window file is put to the full verifier, model included, before its upload",
    ),
    Setting(
        "validation_workers",
        values.whole(1, 64),
        "2",
        "files validated at a time, at most 1.5 GiB each",
    ),
    Setting(
        "evaluation_seconds",
        values.seconds,
        "120",
        "time to evaluate one miner's completions; others are refused",
    ),
    Setting(
        "calibration",
        values.yes_or_no,
        "yes",
        "whether the limits of Windrow's own proof check are measured on each checkpoint",
    ),
    Setting(
        "set_weights", values.yes_or_no, "no", "whether a validator's weights are sent to the chain"
    ),
    Setting(
        "tasks",
        values.one_of("shipped", "hub"),
        on_bittensor("hub", "shipped"),
        "tasks: shipped with Windrow, or a hub dataset",
    ),
    # --- tracking
    Setting(
        "tracker",
        values.one_of("none", "wandb"),
        "none",
        "where metrics of every window go besides the lake",
        guide=("GRAIL_MONITORING_BACKEND",),
        guide_parse=values.monitoring,
    ),
    Setting(
        "wandb_mode",
        values.one_of("online", "offline", "disabled"),
        "online",
        "W&B: send at once, or keep for `wandb sync`",
        guide=("WANDB_MODE",),
        part="tracker",
    ),
    Setting(
        "wandb_project",
        values.name,
        "grail",
        "W&B project",
        guide=("WANDB_PROJECT",),
        part="tracker",
    ),
    Setting(
        "wandb_entity",
        values.optional(values.name),
        "none",
        "W&B team or user; none is the key's own",
        guide=("WANDB_ENTITY",),
        part="tracker",
    ),
    Setting(
        "wandb_api_key",
        _secret,
        "none",
        "W&B key",
        guide=("WANDB_API_KEY",),
        part="tracker",
        secret=True,
    ),
)
