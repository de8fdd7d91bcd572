"""A Grail miner's `.env`: every variable of the guide, under its own name."""

import io
from pathlib import Path

import pytest
from dotenv import dotenv_values

from windrow.resources.configuration.settings import SettingError, Settings, UnknownSetting
from windrow.resources.secret import Secret

ACCOUNT = "0123456789abcdef0123456789abcdef"
MINER = {
    "BT_NETWORK": "finney",
    "NETUID": "81",
    "BT_WALLET_COLD": "cold",
    "BT_WALLET_HOT": "hot",
    "R2_BUCKET_ID": ACCOUNT,
    "R2_ACCOUNT_ID": ACCOUNT,
    "R2_READ_ACCESS_KEY_ID": "reads",
    "R2_READ_SECRET_ACCESS_KEY": "hunter1",
    "R2_WRITE_ACCESS_KEY_ID": "writes",
    "R2_WRITE_SECRET_ACCESS_KEY": "hunter2",
    "GRAIL_MONITORING_BACKEND": "wandb",
    "WANDB_API_KEY": "hunter3",
}
TWO_GPUS = """
# .env configuration for the default coding/math envs with pipeline mode
GRAIL_PIPELINE_BACKEND=sglang   # Default and recommended
GRAIL_PIPELINE_VLLM_GPU=0       # Relative to CUDA_VISIBLE_DEVICES
GRAIL_PIPELINE_PROOF_GPU=1      # Relative to CUDA_VISIBLE_DEVICES
GRAIL_PIPELINE_VLLM_TP=1        # Bump only if you have spare GPUs
GRAIL_PIPELINE_MAX_MODEL_LEN=12288
GRAIL_PIPELINE_PROOF_FLASH_ATTN=false  # MUST stay false to match validator SDPA
"""
EIGHT_GPUS = """
GRAIL_PIPELINE_VLLM_GPU=0
GRAIL_PIPELINE_VLLM_TP=4               # GPUs 0-3 → SGLang TP=4 instance
GRAIL_PIPELINE_PROOF_GPU=4             # primary in-process worker
GRAIL_PIPELINE_PROOF_GPU_IDS=4,5,6,7   # GPUs 4-7 → proof workers
GRAIL_PIPELINE_PROOF_SUBPROCESS=true   # GIL-free subprocess pool
GRAIL_PIPELINE_GROUPS_PER_BATCH=72     # send 72×16=1152 prompts per SGLang call
GRAIL_PIPELINE_GPU_MEM_UTIL=0.88
GRAIL_PIPELINE_MAX_MODEL_LEN=4096
GRAIL_PIPELINE_MAX_NUM_SEQS=512
GRAIL_PIPELINE_MAX_CONCURRENT=512
"""


def of_file(text: str) -> dict[str, str]:
    return {name: value or "" for name, value in dotenv_values(stream=io.StringIO(text)).items()}


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("BT_NETWORK", "test", "network", "test"),
        ("BT_CHAIN_ENDPOINT", "wss://node:9944/", "chain_endpoint", "wss://node:9944"),
        ("NETUID", "429", "netuid", 429),
        ("BT_NETUID", "429", "netuid", 429),
        ("BT_WALLET_COLD", "my cold", "wallet_cold", "my cold"),
        ("BT_WALLET_HOT", "miner-1", "wallet_hot", "miner-1"),
        ("BT_WALLET_PATH", "/wallets", "wallet_path", Path("/wallets")),
        ("GRAIL_PIPELINE_BACKEND", "vllm", "generation", "vllm"),
        ("GRAIL_PIPELINE_VLLM_GPU", "2", "generation_gpu", 2),
        ("GRAIL_PIPELINE_VLLM_TP", "4", "tensor_parallel", 4),
        ("GRAIL_PIPELINE_PROOF_GPU", "3", "proof_gpu", 3),
        ("GRAIL_PIPELINE_PROOF_GPU_IDS", "4, 5,6", "proof_gpus", (4, 5, 6)),
        ("GRAIL_PIPELINE_PROOF_GPU_IDS", "", "proof_gpus", ()),
        ("GRAIL_PIPELINE_PROOF_SUBPROCESS", "True", "proof_subprocess", True),
        ("GRAIL_PIPELINE_GROUPS_PER_BATCH", "24", "groups_per_batch", 24),
        ("GRAIL_PIPELINE_MAX_MODEL_LEN", "4096", "context_length", 4096),
        ("GRAIL_PIPELINE_MAX_NUM_SEQS", "512", "max_sequences", 512),
        ("GRAIL_PIPELINE_MAX_CONCURRENT", "512", "max_concurrent", 512),
        ("GRAIL_PIPELINE_GPU_MEM_UTIL", ".88", "gpu_memory", 0.88),
        ("GRAIL_PIPELINE_DISABLE_CUDA_GRAPH", "1", "disable_cuda_graph", True),
        ("GRAIL_PIPELINE_SERVER_TIMEOUT", "600", "server_timeout", 600.0),
        ("GRAIL_MINER_SAFETY_BLOCKS", "2", "safety_blocks", 2),
        ("GRAIL_CACHE_DIR", "/big", "cache", Path("/big/windrow")),
        ("R2_ENDPOINT_URL", "http://minio:9000", "bucket_endpoint", "http://minio:9000"),
        ("R2_REGION", "auto", "bucket_region", "auto"),
        ("R2_FORCE_PATH_STYLE", "true", "bucket_path_style", True),
        ("R2_READ_SECRET_ACCESS_KEY", "x", "bucket_read_secret", Secret("x")),
        ("R2_WRITE_ACCESS_KEY_ID", "x", "bucket_write_key_id", Secret("x")),
        ("GRAIL_MONITORING_BACKEND", "null", "tracker", "none"),
        ("GRAIL_MONITORING_BACKEND", "wandb", "tracker", "wandb"),
        ("WANDB_API_KEY", "x", "wandb_api_key", Secret("x")),
        ("WANDB_PROJECT", "mine", "wandb_project", "mine"),
        ("WANDB_ENTITY", "tplr", "wandb_entity", "tplr"),
        ("WANDB_MODE", "offline", "wandb_mode", "offline"),
    ],
)
def test_every_variable_of_the_guide_is_honoured(
    variable: str, text: str, field: str, value: object
) -> None:
    environment = {k: v for k, v in MINER.items() if k != "NETUID"} | {variable: text}
    assert getattr(Settings.read(environment), field) == value


def test_a_miners_env_makes_every_part_live_with_the_guides_defaults() -> None:
    settings = Settings.read(MINER)
    assert (settings.chain, settings.wallet, settings.network) == (
        "bittensor",
        "bittensor",
        "finney",
    )
    assert settings.bucket == f"s3://{ACCOUNT}"
    assert settings.bucket_endpoint == f"https://{ACCOUNT}.r2.cloudflarestorage.com"
    assert (settings.beacon, settings.tasks, settings.max_groups) == ("drand", "hub", 312)
    assert (settings.generation, settings.generation_gpu, settings.tensor_parallel) == (
        "sglang",
        0,
        1,
    )
    assert (settings.proof_gpu, settings.proof_gpus, settings.proof_subprocess) == (1, (), False)
    assert (settings.groups_per_batch, settings.context_length, settings.gpu_memory) == (
        1,
        12288,
        0.9,
    )
    assert (settings.max_sequences, settings.max_concurrent) == (64, 48)
    assert settings.tracker == "wandb"
    assert not settings.unused
    sources = {row.name: row.source for row in settings.describe()}
    assert sources["WINDROW_WALLET_HOT"] == "BT_WALLET_HOT"
    assert sources["WINDROW_GPU_MEMORY"] == "default"
    assert not any(f"hunter{n}" in repr(settings.describe()) for n in (1, 2, 3))


def test_the_guides_two_gpus() -> None:
    settings = Settings.read(of_file(TWO_GPUS))
    assert (settings.generation, settings.generation_gpu, settings.proof_gpu) == ("sglang", 0, 1)
    assert settings.chain == "development"
    assert list(settings.unused) == ["GRAIL_PIPELINE_PROOF_FLASH_ATTN"]


def test_the_guides_eight_gpus() -> None:
    settings = Settings.read(MINER | of_file(TWO_GPUS) | of_file(EIGHT_GPUS))
    assert settings.tensor_parallel == 4
    assert settings.proof_gpus == (4, 5, 6, 7)
    assert settings.proof_subprocess
    assert (settings.groups_per_batch, settings.groups_in_flight) == (72, 144)
    assert (settings.context_length, settings.max_sequences, settings.max_concurrent) == (
        4096,
        512,
        512,
    )


@pytest.mark.parametrize(
    ("change", "named", "said"),
    [
        ({"BT_NETWORK": "mainnet"}, "BT_NETWORK", "finney, test, local, custom"),
        ({"BT_NETWORK": "custom"}, "WINDROW_CHAIN_ENDPOINT", "ws://"),
        ({"BT_NETUID": "1"}, "BT_NETUID", "NETUID says otherwise"),
        ({"WINDROW_NETUID": "1"}, "NETUID", "WINDROW_NETUID says otherwise"),
        ({"GRAIL_PIPELINE_BACKEND": "tgi"}, "GRAIL_PIPELINE_BACKEND", "sglang, vllm"),
        ({"GRAIL_PIPELINE_PROOF_FLASH_ATTN": "true"}, "GRAIL_PIPELINE_PROOF_FLASH_ATTN", "false"),
        ({"GRAIL_PIPELINE_PROOF_GPU_IDS": "4,4"}, "GRAIL_PIPELINE_PROOF_GPU_IDS", "different"),
        ({"GRAIL_PIPELINE_VLLM_TP": "0"}, "GRAIL_PIPELINE_VLLM_TP", "from 1"),
        ({"GRAIL_PIPELINE_GPU_MEM_UTIL": "88"}, "GRAIL_PIPELINE_GPU_MEM_UTIL", "between 0 and 1"),
        ({"GRAIL_GENERATION_BATCH_SIZE": "many"}, "GRAIL_GENERATION_BATCH_SIZE", "whole number"),
        ({"GRAIL_PIPELINE_PROOF_GPUS": "1"}, "GRAIL_PIPELINE_PROOF_GPUS", "PROOF_GPU"),
        ({"BT_WALLET_COLDKEY": "x"}, "BT_WALLET_COLDKEY", "did you mean BT_WALLET_COLD?"),
        ({"WINDROW_BUCKET": "/a/folder"}, "R2_BUCKET_ID", "WINDROW_BUCKET says otherwise"),
        ({"R2_BUCKET_ID": "other-name"}, "R2_BUCKET_ID", "name of the account"),
        ({"R2_WRITE_SECRET_ACCESS_KEY": ""}, "WINDROW_BUCKET_WRITE_SECRET", "needs this key"),
        ({"R2_READ_ACCESS_KEY_ID": "writes"}, "R2_READ_ACCESS_KEY_ID", "only reads"),
        (
            {"R2_READ_ACCESS_KEY_ID": "", "R2_READ_SECRET_ACCESS_KEY": ""},
            "WINDROW_BUCKET_READ_KEY_ID",
            "validators read with this key",
        ),
        ({"R2_ACCOUNT_ID": "", "R2_BUCKET_ID": ""}, "WINDROW_BUCKET", "R2_ACCOUNT_ID"),
        ({"WANDB_MODE": "sometimes"}, "WANDB_MODE", "online, offline, disabled"),
        ({"BT_CALL_TIMEOUT": "soon"}, "BT_CALL_TIMEOUT", "number of seconds"),
        (
            {"WINDROW_PROOF_RAY": "auto", "GRAIL_PIPELINE_PROOF_GPU_IDS": "4,5"},
            "GRAIL_PIPELINE_PROOF_GPU_IDS",
            "WINDROW_PROOF_WORKERS",
        ),
    ],
)
def test_what_cannot_be_honoured_is_named_at_the_start(
    change: dict[str, str], named: str, said: str
) -> None:
    with pytest.raises(SettingError) as caught:
        Settings.read(MINER | change)
    assert caught.value.variable == named
    assert said in str(caught.value)
    assert "hunter" not in str(caught.value)


def test_an_unknown_variable_of_the_guides_families_is_an_error() -> None:
    with pytest.raises(UnknownSetting, match="no release of the network reads it"):
        Settings.read({"GRAIL_FAVOURITE_COLOUR": "gsm8k"})
    assert Settings.read({"WANDB_SILENT": "true"}).tracker == "none"


def test_empty_variables_are_not_set() -> None:
    assert Settings.read(dict.fromkeys(MINER, "")).chain == "development"


def test_what_changes_nothing_is_listed_with_the_reason() -> None:
    """A part that Windrow's own setting keeps embedded has no use for the guide's variables."""
    environment = MINER | {
        "WINDROW_CHAIN": "development",
        "WINDROW_GENERATION": "transformers",
        "WINDROW_TRACKER": "none",
        "GRAIL_MONITORING_BACKEND": "",
        "GRAIL_PIPELINE_VLLM_TP": "2",
        "GRAIL_GENERATION_BATCH_SIZE": "16",
        "GRAIL_PIPELINE_SYMLINK_DIR": "/fast",
        "KERNEL_EVAL_GPU_IDS": "0",
        "BT_CALL_TIMEOUT": "20",
        "UPLOAD_TIMEOUT": "120",
    }
    settings = Settings.read(environment)
    idle = {row.name: row.meaning for row in settings.describe() if not row.used}
    assert set(idle) == {
        "BT_NETWORK",
        "NETUID",
        "BT_WALLET_COLD",
        "BT_WALLET_HOT",
        "WANDB_API_KEY",
        "GRAIL_PIPELINE_VLLM_TP",
        "GRAIL_GENERATION_BATCH_SIZE",
        "GRAIL_PIPELINE_SYMLINK_DIR",
        "KERNEL_EVAL_GPU_IDS",
        "BT_CALL_TIMEOUT",
        "UPLOAD_TIMEOUT",
    }
    assert idle["NETUID"] == "not used: WINDROW_CHAIN=development"
    assert settings.bucket == f"s3://{ACCOUNT}"
