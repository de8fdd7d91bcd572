"""The parts that the fleet's assets ask for, as settings want them. Nobody is asked yet."""

from collections.abc import Callable
from typing import Any

from windrow.engine.fleet.inventory import Node
from windrow.resources.configuration.settings import Settings
from windrow.resources.fleet.access import FleetAccess
from windrow.resources.fleet.callback import Callback
from windrow.resources.fleet.inventory_file import FleetFile
from windrow.resources.fleet.nodes import NodeAccess
from windrow.resources.gpu_keepers import keepers
from windrow.resources.gpu_turns import GpuTurns
from windrow.resources.gpus import visible_gpus
from windrow.resources.storage.object_store import ObjectStore
from windrow.resources.wallet import Wallet


def fleet_resources(
    settings: Settings, wallet: Wallet, job_bucket: ObjectStore, answer_bucket: ObjectStore
) -> dict[str, Any]:
    """Resources by name: who is declared and how each is asked, and where jobs are kept."""
    return {
        "fleet": FleetAccess(
            FleetFile(settings.fleet),
            wallet,
            settings.home,
            machine_turns(settings),
            trusted=settings.trusted_node,
            pods=_pods(settings),
            variables=node_variables(settings),
            callback=_callback(settings),
        ),
        "job_bucket": job_bucket,
        "answer_bucket": answer_bucket,
    }


def machine_turns(settings: Settings) -> GpuTurns:
    """Turns on all GPUs of this machine, where nothing of ours keeps their memory."""
    return GpuTurns(settings.home / "locks", visible_gpus(), lambda: keepers(settings.home))


def node_variables(settings: Settings) -> dict[str, str]:
    """What this machine's process sees of settings as a node, wherever they are written."""
    known = {
        "WINDROW_NODE_MODELS": settings.node_models,
        "WINDROW_BUCKET_ENDPOINT": settings.bucket_endpoint,
    }
    return {name: str(value) for name, value in known.items() if value is not None}


def _callback(settings: Settings) -> Callback | None:
    return Callback(settings.callback, settings.home / "callback") if settings.callback else None


def _pods(settings: Settings) -> Callable[[Node], NodeAccess] | None:
    if settings.pod_image is None:
        return None
    image = settings.pod_image

    def open_node(node: Node) -> NodeAccess:
        from windrow.resources.fleet.kubernetes_job import PodShape, require_client

        require_client()
        from windrow.resources.fleet.kubernetes_cluster import Cluster
        from windrow.resources.fleet.kubernetes_node import KubernetesNode

        return KubernetesNode(
            node.name,
            cluster=Cluster.configured(settings.pod_namespace),
            node=node.kubernetes_node or node.name,
            shape=PodShape(
                image,
                gpus=node.gpu_count,
                gpu_resource=settings.pod_gpu_resource,
                runtime_class=settings.pod_runtime_class,
                cpus=settings.pod_cpus,
                memory_gib=settings.pod_memory_gib,
                disk_gib=settings.pod_disk_gib,
                pull_secret=settings.pod_pull_secret,
            ),
        )

    return open_node
