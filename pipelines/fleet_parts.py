"""The parts that the fleet's assets ask for, as settings want them. Nobody is asked yet."""

from typing import Any

from windrow.resources.fleet.access import FleetAccess
from windrow.resources.fleet.inventory_file import FleetFile
from windrow.resources.gpu_turns import GpuTurns
from windrow.resources.gpus import visible_gpus
from windrow.resources.object_store import ObjectStore
from windrow.resources.settings import Settings
from windrow.resources.wallet import Wallet


def fleet_resources(settings: Settings, wallet: Wallet, job_bucket: ObjectStore) -> dict[str, Any]:
    """Resources by name: who is declared and how each is asked, and where jobs are kept."""
    return {
        "fleet": FleetAccess(
            FleetFile(settings.fleet),
            wallet,
            settings.home,
            machine_turns(settings),
            trusted=settings.trusted_node,
        ),
        "job_bucket": job_bucket,
    }


def machine_turns(settings: Settings) -> GpuTurns:
    """Turns on all GPUs of this machine."""
    return GpuTurns(settings.home / "locks", visible_gpus())
