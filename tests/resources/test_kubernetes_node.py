"""A node asked through a pod: the real client, a small API server, the pod's real program."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import kubernetes
import pytest
import yaml

from tests.support.small_kubernetes import TOKEN, SmallKubernetes, small_kubernetes
from windrow.engine.fleet import facts, gemm_proof, tasks
from windrow.resources.fleet import (
    kubernetes_cluster,
    kubernetes_job,
    kubernetes_messages,
    kubernetes_node,
    nodes,
)
from windrow.resources.fleet.kubernetes_cluster import Cluster
from windrow.resources.fleet.kubernetes_job import PodShape
from windrow.resources.fleet.kubernetes_node import KubernetesNode

ROOM = {"cpu": 8, "memory": 64, "ephemeral-storage": 100, "nvidia.com/gpu": 2}
ASK = {"timeout": 60.0, "max_bytes": 1 << 24}
DYING = ("python", "-c", "print('no torch'); raise SystemExit(3)")
NOTHING = ("python", "-c", "import time; time.sleep(60)")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_node, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(kubernetes_node, "LAST_SECONDS", 1.0)


@pytest.fixture
def server() -> Iterator[SmallKubernetes]:
    with small_kubernetes(worker_3=dict(ROOM)) as state:
        yield state


def cluster_of(server: SmallKubernetes, token: str = TOKEN) -> Cluster:
    configuration = kubernetes.client.Configuration(host=server.url)
    configuration.api_key = {"authorization": f"Bearer {token}"}
    configuration.retries = False
    return Cluster(kubernetes.client.ApiClient(configuration))


def asking(server: SmallKubernetes, *, node: str = "worker-3", **shape: object) -> KubernetesNode:
    made = PodShape(**{"image": "windrow:1", **shape})  # type: ignore[arg-type]
    return KubernetesNode(
        "gpu-1", cluster=cluster_of(server), node=node, shape=made, start_seconds=30.0
    )


def test_the_same_bytes_as_here_and_one_pod_for_a_session(server: SmallKubernetes) -> None:
    node = asking(server)
    asked = gemm_proof.Product("ab" * 32, 512, (0,))
    request = gemm_proof.open_request(asked, list(range(64)))
    answer = node.ask("gemm_proof.open", request, **ASK)
    assert answer.body == tasks.answer("gemm_proof.open", request)
    assert len(answer.body) > 8 * kubernetes_messages.PART_BYTES
    assert 0 < answer.seconds < 60
    seen = facts.parse_facts(node.ask("facts", facts.challenge(), **ASK).body)
    assert seen.cpu_threads > 0
    with pytest.raises(nodes.TaskFailed, match="UnknownTask"):
        node.ask("rm", b"", **ASK)
    assert server.seen.count("POST jobs") == 1
    node.close()
    assert server.jobs == {}
    assert server.pods == {}


def test_the_pod_is_pinned_bounded_and_without_rights() -> None:
    job = kubernetes_job.manifest("j", "worker-3", PodShape("i", gpus=2), {"A": "b"})
    spec = job["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert spec["nodeName"] == "worker-3"
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert container["resources"]["limits"] == container["resources"]["requests"]
    assert "NVIDIA_VISIBLE_DEVICES" not in {entry["name"] for entry in container["env"]}
    assert job["spec"]["ttlSecondsAfterFinished"] > 0
    bare = PodShape("i", gpus=2, gpu_resource=None, runtime_class="nvidia-container-runtime")
    spec = kubernetes_job.manifest("j", "n", bare, {})["spec"]["template"]["spec"]
    assert {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"} in spec["containers"][0]["env"]
    assert spec["runtimeClassName"] == "nvidia-container-runtime"
    kubernetes.client.ApiClient()._ApiClient__deserialize(job, "V1Job")  # the client knows it all


def test_no_secret_of_the_asker_is_in_the_pod(
    server: SmallKubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WINDROW_WALLET_URI", "//Secret")
    node = asking(server)
    node.ask("facts", facts.challenge(), **ASK)
    (pod,) = server.pods.values()
    assert pod.process is not None
    assert b"Secret" not in Path(f"/proc/{pod.process.pid}/environ").read_bytes()
    assert "Secret" not in str(server.jobs)
    node.close()


def test_a_log_that_breaks_off_is_read_on(server: SmallKubernetes) -> None:
    server.cut = 20_000
    request = gemm_proof.open_request(gemm_proof.Product("ab" * 32, 256, (0,)), list(range(64)))
    node = asking(server)
    body = node.ask("gemm_proof.open", request, **ASK).body
    assert body == tasks.answer("gemm_proof.open", request)
    assert server.seen.count("GET log") >= 2
    node.close()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"gpus": 3}, kubernetes_job.PodUnschedulable, "OutOfnvidia.com/gpu"),
        ({"image": "windrow:2"}, kubernetes_job.ImageUnavailable, "ImagePullBackOff"),
        ({"node": "worker-4"}, kubernetes_cluster.NotInCluster, "worker-4"),
        ({"command": DYING}, kubernetes_job.PodFailed, "ended with 3.*no torch"),
        ({"command": ("python", "-c", "")}, kubernetes_job.PodFailed, "ended with 0"),
        ({"command": NOTHING}, nodes.NodeTimedOut, "did not answer in time"),
    ],
)
def test_a_pod_that_does_not_begin_says_why_and_is_deleted(
    server: SmallKubernetes, change: dict[str, object], error: type[Exception], words: str
) -> None:
    node = asking(server, **change)  # type: ignore[arg-type]
    node._start_seconds = 2.0
    with pytest.raises(error, match=words):
        node.ask("facts", facts.challenge(), **ASK)
    assert server.jobs == {}
    assert len(server.deleted) == server.seen.count("POST jobs")


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        ("OOMKilled", kubernetes_job.PodOutOfMemory),
        ("Evicted", kubernetes_job.PodEvicted),
        ("Error", kubernetes_job.PodFailed),
        ("", kubernetes_job.PodEvicted),
    ],
)
def test_a_pod_lost_at_its_task_says_how_and_the_next_question_gets_another(
    server: SmallKubernetes, reason: str, error: type[Exception]
) -> None:
    node = asking(server)
    node.ask("facts", facts.challenge(), **ASK)
    (pod,) = server.pods.values()
    assert pod.process is not None
    pod.process.send_signal(19)
    end = server.remove if not reason else lambda: server.kill(reason)
    threading.Timer(0.3, end).start()
    with pytest.raises(error):
        node.ask("facts", facts.challenge(), **ASK)
    assert server.jobs == {}
    assert node.ask("facts", facts.challenge(), **ASK).body
    node.close()


def test_a_task_that_hangs_is_given_up_and_its_pod_deleted(server: SmallKubernetes) -> None:
    node = asking(server)
    node.ask("facts", facts.challenge(), **ASK)
    (pod,) = server.pods.values()
    assert pod.process is not None
    pod.process.send_signal(19)
    with pytest.raises(nodes.NodeTimedOut, match="did not answer in time"):
        node.ask("facts", facts.challenge(), timeout=0.5, max_bytes=1 << 20)
    assert server.pods == {}


def test_an_answer_may_be_too_large_and_a_request_too(server: SmallKubernetes) -> None:
    node = asking(server)
    with pytest.raises(nodes.NodeAnswerTooLarge):
        node.ask("facts", facts.challenge(), timeout=60.0, max_bytes=10)
    assert server.jobs == {}
    with pytest.raises(tasks.BadRequest):
        node.ask("facts", bytes(tasks.MAX_REQUEST_BYTES + 1), **ASK)
    with pytest.raises(nodes.TaskFailed, match="BadFacts"):
        node.ask("facts", bytes(tasks.MAX_REQUEST_BYTES), **ASK)
    node.close()


@pytest.mark.parametrize("call", ["GET nodes", "POST jobs", "GET pods"])
def test_a_refusal_of_the_api_names_the_call(server: SmallKubernetes, call: str) -> None:
    server.refuse[call] = 403
    with pytest.raises(kubernetes_cluster.ClusterRefused, match="403"):
        asking(server).ask("facts", facts.challenge(), **ASK)
    assert server.jobs == {}


def test_a_delete_that_fails_hides_nothing(server: SmallKubernetes) -> None:
    server.refuse["DELETE jobs"] = 403
    with pytest.raises(nodes.NodeAnswerTooLarge) as caught:
        asking(server).ask("facts", facts.challenge(), timeout=60.0, max_bytes=10)
    assert "could not be deleted" in caught.value.__notes__[0]
    (pod,) = server.pods.values()
    deadline = time.monotonic() + 10
    while not pod.ended and time.monotonic() < deadline:
        time.sleep(0.05)
    assert pod.status["phase"] == "Succeeded"  # without its asker its input ended, and so did it


def test_a_wrong_token_an_absent_api_and_a_node_that_is_not_ready(server: SmallKubernetes) -> None:
    node = KubernetesNode(
        "n", cluster=cluster_of(server, "wrong"), node="worker-3", shape=PodShape("windrow:1")
    )
    with pytest.raises(kubernetes_cluster.ClusterRefused, match="401"):
        node.ask("facts", facts.challenge(), **ASK)
    server.not_ready.add("worker-3")
    with pytest.raises(kubernetes_cluster.NotInCluster, match="not ready"):
        asking(server).ask("facts", facts.challenge(), **ASK)
    server.url = "http://127.0.0.1:1"
    with pytest.raises(kubernetes_cluster.ClusterUnreachable):
        asking(server).ask("facts", facts.challenge(), **ASK)


def test_a_pod_on_another_node_is_not_believed(server: SmallKubernetes) -> None:
    server.misplaced = "worker-4"
    with pytest.raises(nodes.ForgedAnswer, match="worker-4"):
        asking(server).ask("facts", facts.challenge(), **ASK)
    assert server.jobs == {}


def test_a_pod_nobody_asks_is_deleted(server: SmallKubernetes) -> None:
    node = KubernetesNode(
        "n",
        cluster=cluster_of(server),
        node="worker-3",
        shape=PodShape("windrow:1"),
        keep_seconds=0.3,
    )
    node.ask("facts", facts.challenge(), **ASK)
    deadline = time.monotonic() + 10
    while server.jobs and time.monotonic() < deadline:
        time.sleep(0.05)
    assert server.jobs == {}
    node.close()


def test_a_cluster_is_configured_by_a_file(server: SmallKubernetes, tmp_path: Path) -> None:
    path = tmp_path / "config"
    with pytest.raises(kubernetes_cluster.NoCluster):
        Cluster.configured(kubeconfig=path)
    entry = {
        "clusters": [{"name": "c", "cluster": {"server": server.url}}],
        "users": [{"name": "u", "user": {"token": TOKEN}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(yaml.safe_dump(entry))
    Cluster.configured(kubeconfig=path).check_node("worker-3")
