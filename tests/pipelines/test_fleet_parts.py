"""The fleet's parts as settings want them: pods of a cluster."""

import sys
from pathlib import Path

import kubernetes
import pytest
import yaml

from tests.support.small_kubernetes import TOKEN, small_kubernetes
from windrow.engine.fleet import facts
from windrow.engine.fleet.inventory import Node
from windrow.pipelines.build import build
from windrow.resources.configuration.settings import SettingError, Settings
from windrow.resources.fleet.access import FleetAccess
from windrow.resources.fleet.kubernetes_job import KubernetesMissing, PodUnschedulable

NODE = Node(name="g1", transport="kubernetes", kubernetes_node="worker-3", gpu="l40s", gpu_count=1)
ASK = {"timeout": 60.0, "max_bytes": 1 << 20}


def fleet(home: Path, **pod: str) -> FleetAccess:
    variables = {f"WINDROW_POD_{name.upper()}": value for name, value in pod.items()}
    settings = Settings.read(
        {"WINDROW_HOME": str(home), "WINDROW_POD_IMAGE": "windrow:1"} | variables
    )
    found: FleetAccess = (build(settings).resources or {})["fleet"]
    return found


def configured(monkeypatch: pytest.MonkeyPatch, path: Path, url: str) -> None:
    """A kubeconfig of the small cluster, where the client looks for one."""
    entry = {
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": TOKEN}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(yaml.safe_dump(entry))
    place = kubernetes.config.kube_config
    monkeypatch.setattr(place, "KUBE_CONFIG_DEFAULT_LOCATION", str(path))


def test_a_pod_is_what_the_settings_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster without a device plugin: the runtime hands GPUs out, and no room is asked for."""
    room = {"cpu": 8, "memory": 64, "ephemeral-storage": 100}
    with small_kubernetes(worker_3=room) as server:
        configured(monkeypatch, tmp_path / "config", server.url)
        with_plugin = fleet(tmp_path)
        with pytest.raises(PodUnschedulable, match=r"nvidia\.com/gpu"):
            with_plugin.access(NODE).ask("facts", facts.challenge(), **ASK)  # type: ignore[arg-type]
        made = fleet(
            tmp_path,
            gpu_resource="none",
            runtime_class="nvidia",
            pull_secret="registry",
            cpus="3",
            memory_gib="5",
            disk_gib="7",
        )
        made.access(NODE).ask("facts", facts.challenge(), **ASK)  # type: ignore[arg-type]
        (job,) = server.jobs.values()
        made.close()
        with_plugin.close()
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    wanted = {"cpu": "3", "memory": "5Gi", "ephemeral-storage": "7Gi"}
    assert container["resources"] == {"requests": wanted, "limits": wanted}
    assert {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"} in container["env"]
    assert pod["runtimeClassName"] == "nvidia"
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["nodeName"] == "worker-3"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gpu_resource", "gpu"),
        ("gpu_resource", "NVIDIA.com/gpu"),
        ("runtime_class", "Nvidia runtime"),
        ("pull_secret", "../secret"),
        ("cpus", "0"),
        ("memory_gib", "8Gi"),
    ],
)
def test_what_no_cluster_takes_is_refused(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(SettingError, match=f"WINDROW_POD_{name.upper()}"):
        fleet(tmp_path, **{name: value})


def test_without_the_client_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    with pytest.raises(KubernetesMissing, match=r"pip install kubernetes"):
        fleet(tmp_path).access(NODE)
