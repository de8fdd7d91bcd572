"""What the doctor looks at beyond this machine: chain, wallet, bucket, checkpoint, drand, clock."""

import netrc
import os
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from windrow.networks.grail.constants import WINDOW_BLOCKS
from windrow.networks.grail.windows import QUICKNET, drand_round, window_start
from windrow.pipelines.commands.doctor_findings import (
    Finding,
    Look,
    doubtful,
    fine,
    look,
    missing,
)
from windrow.pipelines.instance import open_instance
from windrow.pipelines.live import (
    bittensor_chain,
    open_chain,
    open_reader,
    open_store,
    open_wallet,
    window_resources,
)
from windrow.pipelines.runs.queue import Trouble, inspect_queue
from windrow.resources.chain import Chain
from windrow.resources.configuration.settings import Settings
from windrow.resources.drand import DrandRelays
from windrow.resources.storage.object_store import ObjectStore
from windrow.resources.storage.rights import check_key_pair, probe_condition
from windrow.resources.storage.s3_bucket import S3Bucket

T = TypeVar("T")

SKEW_SECONDS = 2.0
"""The deadline leaves 4 s of the window's last block (grail-protocol §8.4)."""


@runtime_checkable
class Closing(Protocol):
    """What holds a connection."""

    def close(self) -> None: ...


@look("chain")
def chain(settings: Settings) -> Sequence[Finding]:
    """Whether the chain answers, and the time by it."""
    with _closed_after(open_chain(settings)) as asked:
        return _chain(settings, asked)


def _chain(settings: Settings, asked: Chain) -> Sequence[Finding]:
    block = asked.block()
    window = window_start(block)
    name = (
        "development chain"
        if settings.chain == "development"
        else f"subnet {settings.netuid} of {settings.chain_endpoint or settings.network}"
    )
    found = [
        fine(
            "chain",
            f"{name} at block {block}, window {window} open for {window + WINDOW_BLOCKS - block} "
            "more blocks",
        )
    ]
    found += [
        doubtful("chain", concern.detail, "Check the endpoint, or set BT_CHAIN_ENDPOINT to another")
        for concern in asked.concerns()
    ]
    if settings.chain == "bittensor":
        found.append(_clock(time.time() - asked.timestamp(block)))
    return found


@look("queue")
def queue(settings: Settings) -> Sequence[Finding]:
    """Whether runs get on: none stuck without a process, starving or late."""
    if not os.environ.get("DAGSTER_HOME"):
        return []  # the line on Dagster says so
    with open_instance() as instance, _closed_after(open_chain(settings)) as asked:
        found = inspect_queue(instance, asked)
    if found.waiting and not found.daemon_runs:
        todo = "start Dagster's daemon: it starts the runs that wait"
        return [missing("queue", found.summarise(), todo)]
    if not found.troubled:
        return [fine("queue", found.summarise())]
    return [
        doubtful(
            "queue",
            f"{run.job} {run.run_id[:8]} is {run.trouble} for {run.seconds:.0f} s: {run.reason}",
            TODO[run.trouble],
        )
        for run in found.troubled
    ]


TODO = {
    Trouble.STUCK: "start Dagster's daemon: it ends this run within 10 s",
    Trouble.STARVING: "see what holds the lane: the Runs page of the UI, or windrow status",
    Trouble.LATE: "start Dagster's daemon: it drops this run and writes its row",
}


def _clock(age: float) -> Finding:
    """age: seconds by this machine's clock since the newest block."""
    if age < -SKEW_SECONDS:
        return missing(
            "clock",
            f"the newest block is {-age:.0f} s in this machine's future",
            "Let NTP set the clock: sudo timedatectl set-ntp true",
        )
    if age > 60.0:
        return missing(
            "clock",
            f"the newest block is {age:.0f} s old: the clock is ahead, or the endpoint is behind",
            "Let NTP set the clock: sudo timedatectl set-ntp true. Or set BT_CHAIN_ENDPOINT to "
            "another endpoint",
        )
    return fine("clock", f"the newest block is {age:.0f} s old")


@look("wallet")
def wallet(settings: Settings) -> Sequence[Finding]:
    """Whether the hotkey opens, and the subnet knows it."""
    opened = open_wallet(settings)
    if settings.wallet == "development":
        found = [fine("wallet", f"development hotkey {opened.hotkey}")]
    else:
        name = f"{settings.wallet_cold}/{settings.wallet_hot}"
        found = [fine("wallet", f"{name}: hotkey {opened.hotkey}")]
    if settings.chain == "bittensor":
        with _closed_after(bittensor_chain(settings, None)) as asked:
            uid = asked.registered(opened.hotkey)
        if uid is None:
            return [
                *found,
                missing(
                    "registration",
                    f"{opened.hotkey} is not registered on subnet {settings.netuid}",
                    f"btcli subnet register --netuid {settings.netuid} "
                    f"--wallet.name {shlex.quote(settings.wallet_cold)} "
                    f"--wallet.hotkey {shlex.quote(settings.wallet_hot)} "
                    f"--subtensor.network {shlex.quote(settings.network)}"
                    ". This costs TAO; btcli asks before it pays",
                ),
            ]
        found.append(fine("registration", f"uid {uid} on subnet {settings.netuid}"))
    return found


@look("bucket")
def bucket(settings: Settings) -> Sequence[Finding]:
    """Whether the write key writes and the read key can only read."""
    if not settings.bucket.startswith("s3://"):
        open_store(settings)
        return [fine("bucket", settings.bucket)]
    at = f"{settings.bucket} at {settings.bucket_endpoint or 'Amazon'}"
    store = open_store(settings)
    if settings.bucket_read_key_id is None:
        store.list("grail/windows/0")
        found = fine("bucket", f"{at}: the write key lists it; no read key is set")
    else:
        check_key_pair(store, open_reader(settings))
        found = fine("bucket", f"{at}: the write key writes, the read key only reads")
    return [found, *_condition(store)]


def _condition(store: ObjectStore) -> Sequence[Finding]:
    """Whether the server can create an object only where none is."""
    if not isinstance(store, S3Bucket) or (held := probe_condition(store)) == "kept":
        return []
    said = "does not support" if held == "unknown" else "ignores"
    return [
        doubtful(
            "bucket",
            f"the server {said} conditional creation (If-None-Match). Windrow looks an object up "
            "before it stores it",
            "run one miner for each hotkey: a second machine could replace a file in between. A "
            "newer server or R2 and Amazon S3 support it",
        )
    ]


@look("checkpoint")
def checkpoint(settings: Settings) -> Sequence[Finding]:
    """Whether there is a model to mine with."""
    parts = window_resources(settings)
    with _closed_after(parts["chain"]) as asked:
        window = window_start(asked.block())
        chosen = parts["checkpoints"].select(window)
    found = [fine("checkpoint", f"checkpoint {chosen} is ready for window {window}")]
    if settings.chain == "bittensor" and settings.trainer_hotkey is None:
        found.append(
            doubtful(
                "checkpoint",
                "no trainer's key is set, so whoever can write the trainer's bucket chooses the "
                "model and its chat template",
                "set WINDROW_TRAINER_HOTKEY to the trainer's hotkey",
            )
        )
    return found


@contextmanager
def _closed_after(asked: T) -> Iterator[T]:
    """A chain, hung up in the end where it holds a connection."""
    try:
        yield asked
    finally:
        if isinstance(asked, Closing):
            asked.close()


@look("drand")
def drand(settings: Settings) -> Sequence[Finding]:
    """Whether relays answer with rounds that hold, and the time by them."""
    if settings.beacon != "drand":
        return [fine("drand", f"not asked: WINDROW_BEACON={settings.beacon}")]
    number = drand_round(int(time.time()) - 2 * QUICKNET.period, QUICKNET)
    found = []
    for relay in settings.drand_relays:
        one = DrandRelays([relay], settings.drand_seconds)
        try:
            answer = one.round(number)
        except Exception as error:  # noqa: BLE001 - every way to fail is the finding
            said = str(error).partition(". ")[0]
            found.append(doubtful("drand", said, "other relays stand in; see WINDROW_DRAND_RELAYS"))
        else:
            said = f"{answer.relay} has round {number}, and its signature holds"
            found.append(fine("drand", said))
    if not any(finding.state.value == "fine" for finding in found):
        todo = "Let this machine reach a relay; until then windows have the block hash alone. A "
        todo += "clock that is ahead asks for rounds that do not exist yet: let NTP set it"
        found.append(doubtful("drand", "no relay has given a round", todo))
    return found


@look("tracker")
def tracker(settings: Settings) -> Sequence[Finding]:
    """Whether W&B will know whom to believe."""
    if settings.tracker == "none" or settings.wandb_mode == "disabled":
        return [fine("tracker", "none; metrics are in the lake")]
    project = "/".join(filter(None, (settings.wandb_entity, settings.wandb_project)))
    if settings.wandb_mode == "offline":
        return [fine("tracker", f"W&B {project}, offline under {settings.home / 'wandb'}")]
    if settings.wandb_api_key is None and not _logged_in():
        return [
            missing("tracker", f"W&B {project}: no key", "Set WANDB_API_KEY, or run wandb login")
        ]
    return [fine("tracker", f"W&B {project}")]


def _logged_in() -> bool:
    file = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return netrc.netrc(str(file)).authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False


NETWORK: tuple[Look, ...] = (chain, wallet, bucket, checkpoint, drand, tracker, queue)
