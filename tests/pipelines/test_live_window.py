"""A miner's `.env` over real clients of chain and S3: a local node, a server in memory."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from tests.support import small_s3 as small_s3_module
from tests.support.bittensor import MINER, NETUID, TRAINER, WINDOW, Network, network
from tests.support.bittensor import own_client_files as client_files
from tests.support.embedded import mine
from tests.support.radosgw import KEY_ID, READ_KEY_ID, READ_SECRET, SECRET
from tests.support.small_s3 import SmallS3, small_s3
from tests.support.tiny_checkpoint import make_tiny_checkpoint
from windrow.networks.grail.bucket import BucketCommitment, window_file_key
from windrow.pipelines.build import build
from windrow.pipelines.commands import doctor_network
from windrow.pipelines.commands.doctor_findings import State
from windrow.pipelines.live import window_resources
from windrow.resources.chain import NotRegistered
from windrow.resources.checkpoints.files import verify_checkpoint
from windrow.resources.checkpoints.publishing import publish_full
from windrow.resources.committed_miners import NoTrainerBucket
from windrow.resources.configuration.settings import Settings
from windrow.resources.secret import Secret
from windrow.resources.storage.rights import WrongRights
from windrow.resources.storage.s3_access import S3Access
from windrow.resources.storage.s3_bucket import S3Bucket

OWN, TRAINERS = "minerminer0001", "trainer0001"


@pytest.fixture(scope="module", autouse=True)
def own_client_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with client_files(tmp_path_factory):
        yield


@pytest.fixture
def net() -> Iterator[Network]:
    with network(newest=time.time() - 1) as running:
        running.state.commit(TRAINER, committed(TRAINERS).encode().encode())
        yield running


@pytest.fixture
def s3() -> Iterator[SmallS3]:
    with small_s3(OWN, TRAINERS) as server:
        yield server


def committed(account: str) -> BucketCommitment:
    return BucketCommitment(account, READ_KEY_ID, READ_SECRET)


def of_miner(home: Path, net: Network, s3: SmallS3, **more: str) -> Settings:
    """As the guide has it, but for a key without a file, and models on the CPU."""
    return Settings.read(
        {
            "BT_NETWORK": "custom",
            "BT_CHAIN_ENDPOINT": net.node.url,
            "NETUID": str(NETUID),
            "R2_ACCOUNT_ID": OWN,
            "R2_BUCKET_ID": OWN,
            "R2_ENDPOINT_URL": s3.url,
            "R2_READ_ACCESS_KEY_ID": READ_KEY_ID,
            "R2_READ_SECRET_ACCESS_KEY": READ_SECRET,
            "R2_WRITE_ACCESS_KEY_ID": KEY_ID,
            "R2_WRITE_SECRET_ACCESS_KEY": SECRET,
            "WINDROW_HOME": str(home),
            "WINDROW_WALLET": "development",
            "WINDROW_GENERATION": "transformers",
            "WINDROW_TASKS": "shipped",
            "WINDROW_BEACON": "block_hash",
            **more,
        }
    )


def parts_of(settings: Settings, net: Network) -> dict[str, Any]:
    parts = window_resources(settings)
    net.opened.append(parts["chain"])
    return parts


def publish(s3: SmallS3, folder: Path) -> None:
    access = S3Access(KEY_ID, Secret(SECRET), None, "us-east-1", s3.url)
    checkpoint = verify_checkpoint(make_tiny_checkpoint(folder, max_tokens=40))
    publish_full(S3Bucket(TRAINERS, access), checkpoint, ready_window=0, sign=lambda m: b"\0" * 64)


def test_a_window_is_mined_over_chain_and_buckets(
    tmp_path: Path, net: Network, s3: SmallS3, instance: dg.DagsterInstance
) -> None:
    publish(s3, tmp_path / "made")
    settings = of_miner(tmp_path / "home", net, s3)
    definitions = build(settings)
    parts = definitions.resources or {}
    net.opened.append(parts["chain"])
    result = mine(definitions, instance, WINDOW, groups=1)
    assert result.success
    assert window_file_key(MINER, WINDOW) in s3.buckets[OWN]
    miners = parts["miners"]
    assert net.chain().commitment(MINER) == committed(OWN).encode()
    found = miners.find(MINER, WINDOW, time.time() + 60)
    assert found.info is not None
    assert miners.fetch(MINER, found)[:4] == b"PAR1"
    assert miners.find(TRAINER, WINDOW, time.time() + 60).info is None
    assert not [key for key in s3.buckets[OWN] if "probe" in key]


def test_doctor_finds_a_live_set_up_sound(tmp_path: Path, net: Network, s3: SmallS3) -> None:
    publish(s3, tmp_path / "made")
    settings = of_miner(tmp_path / "home", net, s3)
    looks = (
        doctor_network.chain,
        doctor_network.wallet,
        doctor_network.bucket,
        doctor_network.checkpoint,
    )
    findings = [finding for look in looks for finding in look(settings)]
    (key,) = [finding for finding in findings if finding.state is not State.FINE]
    assert (key.state, key.about) == (State.DOUBTFUL, "checkpoint")
    assert "WINDROW_TRAINER_HOTKEY" in key.todo
    said = {finding.about: finding.found for finding in findings}
    assert f"subnet {NETUID}" in said["chain"]
    assert said["registration"] == f"uid 1 on subnet {NETUID}"
    assert "the read key only reads" in said["bucket"]
    assert "s old" in said["clock"]


def test_a_read_key_that_can_write_is_never_published(
    tmp_path: Path, net: Network, s3: SmallS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small_s3_module, "READ_KEY_ID", "nobody")
    monkeypatch.setattr(small_s3_module, "KEY_ID", AnyOf(KEY_ID, READ_KEY_ID))
    settings = of_miner(tmp_path / "home", net, s3)
    with pytest.raises(WrongRights, match="read key can write"):
        parts_of(settings, net)["admission"].ensure()
    assert net.chain().commitment(MINER) is None
    assert s3.buckets[OWN] == {}
    (finding,) = doctor_network.bucket(settings)
    assert (finding.state, finding.found) == (State.MISSING, "WrongRights")


class AnyOf:
    """Equal to each of some texts."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def __eq__(self, other: object) -> bool:
        return other in self.texts

    def __hash__(self) -> int:
        return hash(self.texts)


def test_a_hotkey_that_is_not_registered_stops_at_the_beacon(
    tmp_path: Path, net: Network, s3: SmallS3
) -> None:
    settings = of_miner(tmp_path / "home", net, s3, WINDROW_WALLET_URI="//Nobody")
    with pytest.raises(NotRegistered, match="btcli subnet register"):
        parts_of(settings, net)["admission"].ensure()
    _, registration = doctor_network.wallet(settings)
    assert registration.state is State.MISSING
    assert f"--netuid {NETUID}" in registration.todo


def test_a_trainer_without_a_bucket_is_named(tmp_path: Path, net: Network, s3: SmallS3) -> None:
    net.state.commit(TRAINER, b"x" * 20)
    settings = of_miner(tmp_path / "home", net, s3)
    with pytest.raises(NoTrainerBucket, match=TRAINER):
        parts_of(settings, net)["checkpoints"].select(WINDOW)
