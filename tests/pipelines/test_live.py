"""Which part each setting makes; nothing is started and nobody asked."""

import os
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster_shared.serdes import serialize_value

from tests.resources.test_guide_settings import MINER
from windrow.pipelines.build import build
from windrow.pipelines.demo.run import DemoFailed, own_installation
from windrow.pipelines.live import generation_gpus, proof_gpus, s3_resource, window_resources
from windrow.resources.admission import Open, SubnetAdmission
from windrow.resources.beacon import BlockHashBeacon, LiveDrand
from windrow.resources.committed_miners import CommittedMiners, TrainerBucket
from windrow.resources.configuration.settings import Settings
from windrow.resources.gpus import NoSuchGpu
from windrow.resources.proof_pool.ray_workers import RayMissing
from windrow.resources.storage.s3_bucket import S3Bucket
from windrow.resources.tracking.tracker import NoTracker, WandbTracker


def test_nothing_set_is_all_embedded(tmp_path: Path) -> None:
    parts = window_resources(Settings.read({"WINDROW_HOME": str(tmp_path)}))
    assert isinstance(parts["admission"], Open)
    assert isinstance(parts["beacon_source"], BlockHashBeacon)
    assert isinstance(parts["tracker"], NoTracker)
    assert parts["s3"] is None
    assert parts["inference"]._servers is None
    assert parts["inference"]._proofs is None


def test_a_miners_env_is_all_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6,7")
    environment = MINER | {
        "WINDROW_HOME": str(tmp_path),
        "WINDROW_WALLET": "development",
        "BT_WALLET_COLD": "",
        "BT_WALLET_HOT": "",
    }
    parts = window_resources(Settings.read(environment))
    assert type(parts["chain"]).__name__ == "BittensorChain"
    assert isinstance(parts["admission"], SubnetAdmission)
    assert isinstance(parts["beacon_source"], LiveDrand)
    assert isinstance(parts["bucket"], S3Bucket)
    assert isinstance(parts["checkpoints"].store, TrainerBucket)
    assert isinstance(parts["miners"], CommittedMiners)
    assert isinstance(parts["tracker"], WandbTracker)
    (server,) = parts["inference"]._servers._servers
    assert server._starter is not None
    assert not (tmp_path / "servers").exists()


def test_the_s3_client_shows_where_its_key_is_and_not_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = {
        "R2_WRITE_ACCESS_KEY_ID": "id-of-the-write-key",
        "R2_WRITE_SECRET_ACCESS_KEY": "secret-of-the-write-key",
    }
    for name, text in {**key, "CUDA_VISIBLE_DEVICES": "6,7"}.items():
        monkeypatch.setenv(name, text)
    endpoint = "https://s3.example.org"
    environment = {
        "WINDROW_HOME": str(tmp_path),
        "WINDROW_WALLET": "development",
        "BT_WALLET_COLD": "",
        "BT_WALLET_HOT": "",
        "R2_ENDPOINT_URL": endpoint,
    }
    settings = Settings.read(MINER | environment | key)
    repository = build(settings).get_repository_def()
    shown = serialize_value(RepositorySnap.from_def(repository))
    assert [name for name in key if name not in shown] == []
    hidden = [*key.values(), MINER["R2_READ_SECRET_ACCESS_KEY"], MINER["WANDB_API_KEY"]]
    assert [text for text in hidden if text in shown] == []

    with dg.build_resources({"s3": s3_resource(settings)}) as made:
        url = made.s3.generate_presigned_url(
            "list_multipart_uploads", Params={"Bucket": "a-bucket"}
        )
    assert url.startswith(f"{endpoint}/a-bucket?uploads")
    assert "id-of-the-write-key" in url


def test_two_gpus_that_are_not_visible_are_an_error_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(NoSuchGpu, match="a proof worker would need GPU 1, but 1 are visible"):
        window_resources(
            Settings.read({"WINDROW_HOME": str(tmp_path), "GRAIL_PIPELINE_BACKEND": "sglang"})
        )
    with pytest.raises(NoSuchGpu, match="the generation server would need GPU 1"):
        window_resources(
            Settings.read(
                {
                    "WINDROW_HOME": str(tmp_path),
                    "GRAIL_PIPELINE_VLLM_TP": "2",
                    "GRAIL_PIPELINE_PROOF_GPU": "0",
                }
            )
        )


def test_tensor_parallel_takes_consecutive_gpus() -> None:
    assert generation_gpus(Settings.read({"GRAIL_PIPELINE_VLLM_TP": "4"})) == (0, 1, 2, 3)
    assert generation_gpus(Settings.read({"WINDROW_GENERATION_GPU": "2"})) == (2,)
    assert generation_gpus(Settings.read({})) == ()


def test_proof_workers_on_the_cpu(tmp_path: Path) -> None:
    given = {"WINDROW_HOME": str(tmp_path), "WINDROW_PROOF_WORKERS": "2"}
    in_process = window_resources(Settings.read(given))["inference"]._proofs
    processes = window_resources(Settings.read(given | {"WINDROW_PROOF_SUBPROCESS": "yes"}))[
        "inference"
    ]._proofs
    assert [type(worker).__name__ for worker in in_process.workers] == ["LocalWorker"] * 2
    assert [type(worker).__name__ for worker in processes.workers] == ["RemoteWorker"] * 2


def test_proof_workers_on_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine that runs the window needs no GPU for them, and no Ray without the setting."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    given = {
        "WINDROW_HOME": str(tmp_path),
        "WINDROW_GENERATION": "sglang",
        "WINDROW_PROOF_RAY": "10.0.0.1:6379",
        "WINDROW_PROOF_WORKERS": "4",
    }
    settings = Settings.read(given)
    assert proof_gpus(settings) == ()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RayMissing, match="pip install ray"):
        window_resources(settings)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    pool = window_resources(settings)["inference"]._proofs
    hosts = [worker._host for worker in pool.workers]
    assert [host.name for host in hosts] == [f"proof-worker-{n} at 10.0.0.1:6379" for n in range(4)]
    assert {host._device for host in hosts} == {"cuda:0"}


def test_the_demo_takes_no_setting_of_the_operator(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text("WINDROW_LAKE=elsewhere\nWINDROW_CHAIN_SEED=mine\n")
    given = {**MINER, "WINDROW_HOME": str(tmp_path / "mine"), "DAGSTER_HOME": str(tmp_path)}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    demo = tmp_path / "windrow-demo"
    demo.mkdir()
    before = dict(os.environ)
    with own_installation(demo, {"WINDROW_MAX_GROUPS": "5"}) as settings:
        assert settings.chain == settings.wallet == "development"
        assert settings.bucket == str(demo / ".windrow" / "bucket")
        assert {settings.home, settings.lake.parent} == {demo / ".windrow"}
        assert (settings.fleet, settings.chain_seed) == (demo / "fleet.yaml", "windrow")
        assert settings.max_groups == 5
        assert os.environ["DAGSTER_HOME"] == str(demo)
        assert not any(name in os.environ for name in MINER)
    assert dict(os.environ) == before
    assert Path.cwd() == tmp_path
    with (demo / ".env").open("a") as env:
        env.writelines(f"{name}={value}\n" for name, value in MINER.items())
    with pytest.raises(DemoFailed, match="asks for live parts"), own_installation(demo, {}):
        pass
