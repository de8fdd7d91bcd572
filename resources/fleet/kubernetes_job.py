"""The job a node is asked by: its manifest, and what is wrong with its pod."""

import importlib.util
from dataclasses import dataclass, field
from typing import Any, Final

from windrow import WindrowError
from windrow.resources.fleet.nodes import NodeTimedOut, NodeUnreachable

CONTAINER: Final = "task"
PROGRAM: Final = ("python", "-m", "windrow.resources.fleet.kubernetes_task")
LIFE_SECONDS: Final = 7200
"""Most a pod may live, whatever becomes of its asker."""
TTL_SECONDS: Final = 60
USER: Final = 65532
SCRATCH: Final = "/tmp"  # noqa: S108 - of the pod, an empty folder of its own
GPU_RESOURCE: Final = "nvidia.com/gpu"

_NO_IMAGE: Final = ("ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
_CANNOT_START: Final = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")


class KubernetesMissing(WindrowError):
    """The client of the Kubernetes API is not installed."""


class PodUnschedulable(NodeUnreachable):
    """The node has no room for the pod, or does not admit it."""


class ImageUnavailable(NodeUnreachable):
    """The node cannot pull the pod's image."""


class PodOutOfMemory(NodeUnreachable):
    """The pod used more memory than its limit, and was killed."""


class PodEvicted(NodeUnreachable):
    """The node or the cluster removed the pod."""


class PodFailed(NodeUnreachable):
    """The pod's program ended, or never began."""


@dataclass(frozen=True)
class PodShape:
    """What the pod of a node is made of.

    image: holds Windrow and its Python. gpus: of the node, all of which it gets. gpu_resource: what
    the device plugin calls them; None where the runtime hands them out instead, as Chutes' does,
    and then runtime_class names it. memory_gib, disk_gib: requests and limits.
    """

    image: str
    gpus: int = 0
    gpu_resource: str | None = GPU_RESOURCE
    runtime_class: str | None = None
    cpus: int = 2
    memory_gib: int = 16
    disk_gib: int = 10
    pull_secret: str | None = None
    tolerations: tuple[dict[str, str], ...] = ()
    command: tuple[str, ...] = field(default=PROGRAM)

    @property
    def resources(self) -> dict[str, str]:
        """Requests, which are the limits as well."""
        amounts = {
            "cpu": str(self.cpus),
            "memory": f"{self.memory_gib}Gi",
            "ephemeral-storage": f"{self.disk_gib}Gi",
        }
        if self.gpus and self.gpu_resource:
            amounts[self.gpu_resource] = str(self.gpus)
        return amounts


def require_client() -> None:
    """Raises KubernetesMissing."""
    if importlib.util.find_spec("kubernetes") is None:
        raise KubernetesMissing(
            "nodes of a cluster are asked through the kubernetes package, which is not installed "
            "here: pip install kubernetes"
        )


def manifest(name: str, node: str, shape: PodShape, environment: dict[str, str]) -> dict[str, Any]:
    """A job of one pod, pinned to a node: no root, no token, nothing writable but /tmp.

    As chutes §7 has it where it can; the pod ends with its asker (stdinOnce), and what is left of
    a lost asker's job ends by its deadline and is removed by its time to live.
    """
    # Without a device plugin the runtime hands out what this names; with it, it must not be set.
    own = {"HOME": SCRATCH, "HF_HOME": f"{SCRATCH}/hf", "PYTHONUNBUFFERED": "1"}
    if shape.gpu_resource is None:
        own["NVIDIA_VISIBLE_DEVICES"] = "all" if shape.gpus else "void"
    labels = {"app.kubernetes.io/name": "windrow", "windrow/job": name}
    container = {
        "name": CONTAINER,
        "image": shape.image,
        "command": list(shape.command),
        "env": [{"name": key, "value": value} for key, value in (own | environment).items()],
        "stdin": True,
        "stdinOnce": True,
        "resources": {"requests": shape.resources, "limits": shape.resources},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": SCRATCH}],
    }
    pod: dict[str, Any] = {
        "nodeName": node,
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 5,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": f"{shape.disk_gib}Gi"}}],
        "tolerations": [dict(toleration) for toleration in shape.tolerations],
    }
    if shape.runtime_class:
        pod["runtimeClassName"] = shape.runtime_class
    if shape.pull_secret:
        pod["imagePullSecrets"] = [{"name": shape.pull_secret}]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "parallelism": 1,
            "completions": 1,
            "backoffLimit": 0,
            "activeDeadlineSeconds": LIFE_SECONDS,
            "ttlSecondsAfterFinished": TTL_SECONDS,
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def problem_of(pod: Any, where: str) -> NodeUnreachable | NodeTimedOut | None:
    """Why a pod will not answer, or None while it may. pod: a V1Pod."""
    status = pod.status
    reason, message = status.reason or "", (status.message or "")[:500]
    conditions = {condition.type: condition for condition in status.conditions or []}
    if reason == "Evicted":
        return PodEvicted(f"{where}: the pod was evicted: {message}")
    if disrupted := _true(conditions.get("DisruptionTarget")):
        return PodEvicted(f"{where}: the pod was removed: {disrupted}")
    if reason == "DeadlineExceeded":
        return NodeTimedOut(f"{where}: the pod lived longer than {LIFE_SECONDS} s")
    states = [container.state for container in status.container_statuses or []]
    for state in states:
        if state.waiting and (problem := _waiting(state.waiting, where)):
            return problem
        if state.terminated:
            return _ended(state.terminated, where)
    scheduled = conditions.get("PodScheduled")
    if scheduled is not None and scheduled.reason == "Unschedulable":
        return PodUnschedulable(f"{where}: no room for the pod: {scheduled.message}")
    if status.phase == "Failed":  # the kubelet did not admit it: OutOfcpu, NodeAffinity, ...
        return PodUnschedulable(
            f"{where}: the node does not admit the pod: {reason}: {message}. Something else holds "
            "what it needs, or the node has less than fleet.yaml says"
        )
    if status.phase == "Succeeded":
        return PodFailed(f"{where}: the pod's program ended without an answer")
    return None


def _true(condition: Any) -> str:
    if condition is None or condition.status != "True":
        return ""
    return f"{condition.reason}: {(condition.message or '')[:300]}"


def _waiting(waiting: Any, where: str) -> NodeUnreachable | None:
    detail = f"{waiting.reason}: {(waiting.message or '')[:300]}"
    if waiting.reason in _NO_IMAGE:
        return ImageUnavailable(f"{where}: the image cannot be pulled: {detail}")
    if waiting.reason in _CANNOT_START:
        return PodFailed(f"{where}: the container cannot start: {detail}")
    return None


def _ended(terminated: Any, where: str) -> NodeUnreachable:
    if terminated.reason == "OOMKilled":
        return PodOutOfMemory(
            f"{where}: the pod was killed at its memory limit; raise WINDROW_POD_MEMORY_GIB"
        )
    return PodFailed(
        f"{where}: the pod's program ended with {terminated.exit_code} "
        f"({terminated.reason}: {(terminated.message or '')[:300]})"
    )
