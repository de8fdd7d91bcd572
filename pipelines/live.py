"""The parts that settings ask for, each embedded or live. Nothing is started, nobody is asked yet.

A live part is made from explicit settings and answers when it is first used; what it needs and
does not find is an error with a name, here or at that first use.
"""

import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import dagster as dg

from windrow import WindrowError
from windrow.environments.sandbox import Sandbox
from windrow.environments.sources import HubTasks, ShippedTasks
from windrow.pipelines.demo.network import ensure_published, trainer
from windrow.pipelines.embedded import embedded_chain
from windrow.pipelines.fleet_parts import fleet_resources
from windrow.resources.admission import Admission, Open, SubnetAdmission
from windrow.resources.beacon import BeaconSource, BlockHashBeacon, LiveDrand, RecordedDrand
from windrow.resources.chain import Chain
from windrow.resources.checkpoints.cache import CheckpointCache
from windrow.resources.committed_miners import CommittedMiners, TrainerBucket
from windrow.resources.configuration.settings import Settings
from windrow.resources.generation.dispatch import GenerationServer
from windrow.resources.generation.launch import ServerLaunch
from windrow.resources.generation.pool import GenerationServers
from windrow.resources.gpu_turns import GpuTurns
from windrow.resources.gpus import named_gpus, visible_gpus
from windrow.resources.inference import Inference
from windrow.resources.miners import Miners, SharedBucket
from windrow.resources.progress import ProgressDisplay
from windrow.resources.proof_pool.pool import ProofPool
from windrow.resources.storage.object_store import ObjectStore, open_bucket
from windrow.resources.storage.read_credentials import CommittedBuckets, read_commitment
from windrow.resources.storage.s3_access import S3Access
from windrow.resources.tracking.tracker import NoTracker, Tracker, WandbTracker
from windrow.resources.wallet import DevelopmentWallet, Wallet
from windrow.resources.warehouse.lake import Lake

if TYPE_CHECKING:
    from dagster_aws.s3 import S3Resource


class NoReadKey(WindrowError):
    """The bucket's read key is not set."""


def window_resources(settings: Settings) -> dict[str, Any]:
    """Every resource by the name assets ask for it. Loads no model and starts no process.

    Raises WalletError, ObjectStoreError, S3AccessMissing, NoSuchGpu, InvalidServerAddress.
    """
    wallet = open_wallet(settings)
    bucket = open_store(settings)
    chain: Chain
    miners: Miners
    signer: str | None
    admission: Admission = Open()
    if settings.chain == "development":
        ensure_published(bucket)
        chain, trainers, signer = embedded_chain(settings), bucket, trainer().hotkey
        miners = SharedBucket(bucket, trainer().hotkey)
    else:
        chain = bittensor_chain(settings, wallet)
        miners = committed_miners(settings, chain)
        trainers, signer = cast(ObjectStore, TrainerBucket(miners)), settings.trainer_hotkey
        admission = _admission(settings, chain, wallet, bucket)
    return {
        "settings": settings,
        **fleet_resources(
            settings,
            wallet,
            open_store(settings, settings.job_bucket),
            open_store(settings, settings.answer_bucket),
        ),
        "mining_gpus": GpuTurns(settings.home / "locks", mining_gpus(settings)),
        "chain": chain,
        "admission": admission,
        "beacon_source": beacon_source(settings, chain),
        "bucket": bucket,
        "s3": s3_resource(settings),
        "checkpoints": CheckpointCache(trainers, settings.cache / "checkpoints", signer),
        "inference": inference(settings),
        "lake": Lake(settings.lake),
        "miners": miners,
        "wallet": wallet,
        "progress": ProgressDisplay(),
        "tracker": tracker(settings),
    }


def open_wallet(settings: Settings) -> Wallet:
    """The key that signs. Raises WalletError."""
    if settings.wallet == "development":
        return DevelopmentWallet(settings.wallet_uri)
    from windrow.resources.bittensor.wallet import BittensorWallet

    return BittensorWallet(settings.wallet_cold, settings.wallet_hot, settings.wallet_path)


def open_chain(settings: Settings) -> Chain:
    """The chain, for reading."""
    return (
        embedded_chain(settings)
        if settings.chain == "development"
        else bittensor_chain(settings, None)
    )


def bittensor_chain(settings: Settings, wallet: Wallet | None) -> Any:
    """The subnet these settings name, a `BittensorChain`. Raises UnknownNetwork."""
    from windrow.resources.bittensor.chain import BittensorChain
    from windrow.resources.bittensor.connection import BittensorConnection
    from windrow.resources.bittensor.endpoints import endpoints

    connection = BittensorConnection(endpoints(settings.network, settings.chain_endpoint))
    return BittensorChain(connection, settings.netuid, wallet)


def committed_miners(settings: Settings, chain: Any) -> CommittedMiners:
    """The subnet's miners, over the buckets they have committed."""
    # R2_ENDPOINT_URL and its kin are for every bucket of the network (grail-protocol §8.1).
    own = settings.given.get("bucket_endpoint") is not None
    buckets = CommittedBuckets(
        chain.commitment,
        endpoint=settings.bucket_endpoint if own else None,
        region=settings.bucket_region if own else None,
        path_style=(settings.bucket_path_style or None) if own else None,
    )
    return CommittedMiners(lambda: chain.metagraph().hotkeys, cache(buckets.open))


def open_store(settings: Settings, bucket: str | None = None) -> ObjectStore:
    """The miner's bucket, or another one: a folder, or S3 with the write key."""
    bucket = bucket or settings.bucket
    if not bucket.startswith("s3://"):
        return open_bucket(bucket)
    return open_bucket(bucket, _access(settings, "write"))


def open_reader(settings: Settings) -> ObjectStore:
    """The miner's S3 bucket with the key that is published. Raises NoReadKey."""
    return open_bucket(settings.bucket, _access(settings, "read"))


def s3_resource(settings: Settings) -> "S3Resource | None":
    """Dagster's own client of the miner's S3 bucket, with the write key; None for a folder.

    It is given the names of the variables that hold the key, for Dagster shows what it is given.
    With an endpoint its requests name the bucket in their path, as those of `S3Access` do.
    """
    if not settings.bucket.startswith("s3://"):
        return None
    # boto3 takes 0.2 s, for which the definitions of an embedded set-up do not wait.
    from dagster_aws.s3 import S3Resource

    halves = ("bucket_write_key_id", "bucket_write_secret")
    key_id, secret = (dg.EnvVar(settings.given[half]) for half in halves)
    return S3Resource(
        region_name=settings.bucket_region,
        endpoint_url=settings.bucket_endpoint,
        aws_access_key_id=key_id,
        aws_secret_access_key=secret,
    )


def inference(settings: Settings) -> Inference:
    """Generation and proofs where these settings put them. Raises NoSuchGpu, RayMissing."""
    visible = visible_gpus()
    proving = proof_gpus(settings)
    named_gpus(proving, "a proof worker", visible)
    devices = [f"cuda:{gpu}" for gpu in proving] or ["cpu"] * settings.proof_workers
    pool = None
    if settings.proof_ray:
        device = "cuda:0" if settings.proof_ray_gpu else "cpu"
        pool = ProofPool.ray(settings.proof_ray, settings.proof_workers, device)
        devices = devices[:1]
    elif settings.proof_subprocess:
        pool = ProofPool.processes(settings.home / "proof-workers", devices)
    elif len(devices) > 1:
        pool = ProofPool.in_process(devices)
    served = settings.generation != "transformers"
    return Inference(
        HubTasks() if settings.tasks == "hub" else ShippedTasks(),
        sandbox(settings),
        "cpu" if served or settings.generation_gpu is None else f"cuda:{settings.generation_gpu}",
        devices[0],
        servers=generation_servers(settings, visible) if served else None,
        proofs=pool,
    )


def sandbox(settings: Settings) -> Sandbox:
    """What runs submitted programs and algebra with these settings."""
    return Sandbox(
        # A file evaluates one completion at a time, so none ever waits for another file's.
        max(settings.reward_workers, settings.validation_workers),
        python=settings.program_python,
        any_python=settings.any_program_python,
    )


def proof_gpus(settings: Settings) -> tuple[int, ...]:
    """Indices of the GPUs that prove."""
    return settings.proof_gpus or (() if settings.proof_gpu is None else (settings.proof_gpu,))


def mining_gpus(settings: Settings) -> tuple[str, ...]:
    """The GPUs of this machine that a window works on, as CUDA_VISIBLE_DEVICES names them.

    Without any it is the processor, which two windows at once would only slow down.
    """
    visible = visible_gpus()
    used = {*generation_gpus(settings), *proof_gpus(settings)}
    gpus = tuple(visible[index] for index in sorted(used) if index < len(visible))
    return gpus or ("processor",)


def generation_gpus(settings: Settings) -> tuple[int, ...]:
    """Indices of the GPUs that generate: consecutive ones for a server over several."""
    if settings.generation_gpu is None or settings.generation_servers:
        return ()
    first = settings.generation_gpu
    served = settings.generation != "transformers"
    return tuple(range(first, first + (settings.tensor_parallel if served else 1)))


def generation_servers(settings: Settings, visible: tuple[str, ...]) -> GenerationServers:
    """The servers that generate: those named, or one that the first window starts."""
    # They import torch, for which the definitions of an embedded set-up do not wait.
    from windrow.resources.generation.sglang_server import SGLangServer
    from windrow.resources.generation.vllm_server import VLLMServer

    key = settings.generation_api_key
    make = SGLangServer if settings.generation == "sglang" else VLLMServer
    servers: list[GenerationServer]
    if settings.generation_servers:
        servers = [make(url, api_key=key) for url in settings.generation_servers]
    else:
        gpus = named_gpus(generation_gpus(settings), "the generation server", visible)
        launch = ServerLaunch(
            python=settings.generation_python or Path(sys.executable),
            port=settings.generation_port,
            gpus=gpus,
            memory_fraction=settings.gpu_memory,
            context_length=settings.context_length,
            dtype="bfloat16" if gpus else "float32",
            max_running=settings.max_sequences,
            cuda_graphs=not settings.disable_cuda_graph,
            start_seconds=settings.server_timeout,
        )
        servers = [make.started(launch, settings.home / "servers", api_key=key)]
    return GenerationServers(
        servers,
        groups_in_flight=settings.groups_per_batch,
        max_in_flight=settings.max_concurrent,
        max_context=settings.context_length,
    )


def tracker(settings: Settings) -> Tracker:
    """Where these settings send metrics."""
    if settings.tracker == "none":
        return NoTracker()
    return WandbTracker(
        settings.home / "wandb",
        project=settings.wandb_project,
        entity=settings.wandb_entity,
        mode=settings.wandb_mode,
        api_key=settings.wandb_api_key,
    )


def beacon_source(settings: Settings, chain: Chain) -> BeaconSource:
    """The randomness these settings ask for, over any chain."""
    if settings.beacon == "drand":
        return LiveDrand(chain, settings.drand_relays, settings.drand_seconds)
    # Settings refuse recorded_drand without a file of rounds.
    if settings.beacon == "recorded_drand" and settings.drand_rounds is not None:
        return RecordedDrand(chain, settings.drand_rounds)
    return BlockHashBeacon(chain)


def _admission(
    settings: Settings, chain: Any, wallet: Wallet, bucket: ObjectStore
) -> SubnetAdmission:
    name = settings.bucket.removeprefix("s3://")
    commitment = read_commitment(settings.bucket_account or name, name, _access(settings, "read"))
    reader = open_reader(settings)
    return SubnetAdmission(chain, chain, wallet.hotkey, bucket, reader, commitment)


def _access(settings: Settings, right: str) -> S3Access:
    key = getattr(settings, f"bucket_{right}_key_id")
    secret = getattr(settings, f"bucket_{right}_secret")
    if key is None or secret is None:
        raise NoReadKey(
            f"the bucket {settings.bucket} has no {right} key: set "
            f"R2_{right.upper()}_ACCESS_KEY_ID and R2_{right.upper()}_SECRET_ACCESS_KEY."
        )
    return S3Access(
        key.reveal(),
        secret,
        None,
        settings.bucket_region,
        settings.bucket_endpoint,
        settings.bucket_path_style or None,
    )
