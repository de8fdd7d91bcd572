"""The embedded parts: a chain, a bucket, a wallet and a model on this machine, no account."""

from typing import Any

from windrow.environments.sandbox import Sandbox
from windrow.environments.sources import HubTasks, ShippedTasks
from windrow.pipelines.demo.network import ensure_published, trainer
from windrow.resources.beacon import BeaconSource, BlockHashBeacon, LiveDrand, RecordedDrand
from windrow.resources.chain import Chain
from windrow.resources.checkpoints import CheckpointCache
from windrow.resources.development_chain import DevelopmentChain
from windrow.resources.inference import Inference
from windrow.resources.lake import Lake
from windrow.resources.miners import SharedBucket
from windrow.resources.object_store import open_bucket
from windrow.resources.progress import ProgressDisplay
from windrow.resources.settings import Settings
from windrow.resources.tracking import NoTracker, Tracker, WandbTracker
from windrow.resources.wallet import DevelopmentWallet


def embedded_chain(settings: Settings) -> DevelopmentChain:
    """The development chain these settings describe."""
    return DevelopmentChain(
        settings.home / "chain.sqlite",
        seed=settings.chain_seed,
        genesis=settings.chain_genesis.timestamp(),
        block_seconds=settings.chain_block_seconds,
        stepped=settings.chain_clock == "stepped",
    )


def embedded_resources(settings: Settings) -> dict[str, Any]:
    """Every resource by the name assets ask for it. Loads no model and starts no process."""
    chain = embedded_chain(settings)
    bucket = open_bucket(settings.bucket)
    ensure_published(bucket)
    return {
        "settings": settings,
        "chain": chain,
        "beacon_source": beacon_source(settings, chain),
        "bucket": bucket,
        "checkpoints": CheckpointCache(bucket, settings.cache / "checkpoints", trainer().hotkey),
        "inference": Inference(
            HubTasks() if settings.tasks == "hub" else ShippedTasks(),
            # A file evaluates one completion at a time, so none ever waits for another file's.
            Sandbox(max(settings.reward_workers, settings.validation_workers)),
            _device(settings.generation_gpu),
            _device(settings.proof_gpu),
        ),
        "lake": Lake(settings.lake),
        "miners": SharedBucket(bucket, trainer().hotkey),
        "wallet": DevelopmentWallet(settings.wallet_uri),
        "progress": ProgressDisplay(),
        "tracker": tracker(settings),
    }


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


def _device(gpu: int | None) -> str:
    return "cpu" if gpu is None else f"cuda:{gpu}"
