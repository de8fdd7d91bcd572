"""The lake's datasets of nodes: what each row is, and every column with its type and meaning.

A node's rows lie in the scoring window they were observed in, so they are stored, compacted and
queried as everything else; their names are `<node>.<first digits of the run>`.
"""

from typing import Final

import pyarrow as pa

from windrow.resources.warehouse.dataset import Dataset, dataset

_I32 = pa.int32()
_I64 = pa.int64()
_F64 = pa.float64()
_TEXT = pa.string()
_BOOL = pa.bool_()

_OF_A_NODE = {
    "window_start": (_I64, "first block of the window it was observed in"),
    "node": (_TEXT, "name of the node in fleet.yaml"),
    "observed_at": (_F64, "when, unix seconds"),
}

FLEET_DATASETS: Final[tuple[Dataset, ...]] = (
    dataset(
        "nodes",
        "one row a node and look at the inventory: what fleet.yaml declares, and where it drifted",
        _OF_A_NODE
        | {
            "host": (_TEXT, "address the node is reached at"),
            "transport": (_TEXT, "local, agent or kubernetes"),
            "networks": (pa.list_(_TEXT), "networks it works for"),
            "gpu": (_TEXT, "short reference of its GPUs"),
            "gpu_count": (_I32, "GPUs declared"),
            "hourly_cost": (_F64, "US dollars per GPU and hour"),
            "hardware_class": (_TEXT, "ComputeHorde executor class"),
            "declared": (_TEXT, "the whole declaration, JSON"),
            "drift": (pa.list_(_TEXT), "what the node's facts say otherwise; empty is none"),
        },
    ),
    dataset(
        "node_facts",
        "one row a node and look: processor, memory, disk, network, system",
        _OF_A_NODE
        | {
            "hostname": (_TEXT, "what the machine calls itself"),
            "system": (_TEXT, "operating system and kernel"),
            "cpu_model": (_TEXT, "processor"),
            "cpu_cores": (_I32, "physical cores"),
            "cpu_threads": (_I32, "logical processors"),
            "cpu_mhz": (_F64, "highest clock, MHz"),
            "ram_bytes": (_I64, "memory"),
            "ram_available_bytes": (_I64, "memory available"),
            "disk_bytes": (_I64, "size of the disk that holds the model cache"),
            "disk_free_bytes": (_I64, "free space there"),
            "gpu_count": (_I32, "GPUs seen"),
            "driver": (_TEXT, "NVIDIA driver; null without one"),
            "cuda": (_TEXT, "CUDA version of the driver; null without one"),
            "address": (_TEXT, "public address others see; null where none was asked"),
            "clock_offset_seconds": (_F64, "the node's clock less the asker's"),
            "facts": (_TEXT, "everything, JSON"),
        },
    ),
    dataset(
        "node_gpus",
        "one row a node, look and GPU: what NVML says of it",
        _OF_A_NODE
        | {
            "gpu_index": (_I32, "index on the node"),
            "uuid": (_TEXT, "NVML uuid"),
            "name": (_TEXT, "product name"),
            "gpu": (_TEXT, "short reference the name stands for; null when unknown"),
            "vram_bytes": (_I64, "memory"),
            "vram_used_bytes": (_I64, "memory in use"),
            "processors": (_I32, "streaming multiprocessors"),
            "clock_mhz": (_F64, "largest processor clock that NVML lists, MHz"),
            "memory_clock_mhz": (_F64, "largest memory clock that NVML lists, MHz"),
            "cuda_clock_khz": (_F64, "clock rate of CUDA, kHz; null when not measured"),
            "cuda_memory_bytes": (_I64, "memory of CUDA; null when not measured"),
            "power_limit_watts": (_F64, "power limit"),
            "temperature": (_F64, "degrees Celsius"),
            "ecc": (_BOOL, "whether memory errors are corrected"),
            "mig": (_BOOL, "whether the card is split"),
            "pcie_generation": (_I32, "PCIe generation now"),
            "pcie_width": (_I32, "PCIe lanes now"),
            "throttle": (pa.list_(_TEXT), "reasons the clock is held down"),
            "processes": (_I32, "other processes on the card; null when not measured"),
            "unread": (pa.list_(_TEXT), "queries that NVML did not answer, with its code"),
        },
    ),
    dataset(
        "node_checks",
        "one row a node and check: what was measured, what was needed, what mends it",
        _OF_A_NODE
        | {
            "run_id": (_TEXT, "the Dagster run that checked"),
            "stage": (_TEXT, "asset that checked: preflight, attestation, hash_challenge, …"),
            "check": (_TEXT, "name of the rule"),
            "network": (_TEXT, "whose rule it is; windrow for our own"),
            "gpu_uuid": (_TEXT, "the GPU it is about; null is the whole node"),
            "network_verdict": (_BOOL, "what that network says; null where it does not look"),
            "windrow_verdict": (_BOOL, "what is true; null where it could not be measured"),
            "measured": (_F64, "number that was measured"),
            "needed": (_F64, "number it was held against"),
            "unit": (_TEXT, "unit of both"),
            "reason": (_TEXT, "what is wrong, in words; empty where nothing is"),
            "remedy": (_TEXT, "the command or act that mends it"),
        },
    ),
    dataset(
        "attestations",
        "one row a node, GPU and proof of work: what was asked, how long it took, how sure we are",
        _OF_A_NODE
        | {
            "run_id": (_TEXT, "the Dagster run that asked"),
            "kind": (_TEXT, "attestation, hash_challenge, gemm_proof, proof_of_compute or llm_job"),
            "gpu_uuid": (_TEXT, "the GPU that worked; null is the whole node"),
            "backend": (_TEXT, "device that says it computed: cuda, cpu, …"),
            "driver": (_TEXT, "the GPUs' driver when it worked; null is none, or not looked at"),
            "way": (_TEXT, "how it multiplied, by its own word: int8, float32, …"),
            "seed": (_TEXT, "seed of the challenge, hex"),
            "size": (_I64, "rows of the matrices, nonces or prompts"),
            "bytes": (_I64, "bytes of device memory that took part"),
            "operations": (_F64, "integer or floating-point operations asked for"),
            "claimed_seconds": (_F64, "time the node says it took"),
            "seconds": (_F64, "time the asker measured, the way there and back included"),
            "verify_seconds": (_F64, "processor time the verification took"),
            "error_probability": (_F64, "largest chance that a wrong answer passes"),
            "passed": (_BOOL, "whether it proves what was claimed"),
            "digest": (_TEXT, "digest of the answer, hex"),
            "replay": (_TEXT, "what to verify it again for the same verdict, JSON"),
        },
    ),
    dataset(
        "node_states",
        "one row a node and step of its verification: where it is, or why it failed",
        _OF_A_NODE
        | {
            "run_id": (_TEXT, "the Dagster run"),
            "stage": (_TEXT, "asset the step belongs to"),
            "state": (_TEXT, "started, done or failed"),
            "reason": (_TEXT, "short name of the reason it failed, or showed nothing: GpuBusy"),
            "detail": (_TEXT, "what happened and what to do"),
        },
    ),
)
