"""Settings of the network: folders, chain, wallet, bucket and beacon.

Defaults belong to the embedded set-up, no account, no GPU, no network, until a part is chosen to be
live: by its own setting, or by a variable of the miner guide.
"""

from collections.abc import Callable
from typing import Final

from windrow.networks.grail.windows import DRAND_RELAYS
from windrow.resources.configuration import values
from windrow.resources.configuration.setting import Found, Setting, on_bittensor


def _in_home(folder: str) -> Callable[[Found], str]:
    return lambda found: f"{found['home']}/{folder}"


def _bucket(found: Found) -> str:
    account = found["bucket_account"]
    return f"s3://{account}" if account else f"{found['home']}/bucket"


def _endpoint(found: Found) -> str:
    account = found["bucket_account"]
    return f"https://{account}.r2.cloudflarestorage.com" if account else "none"


_secret = values.optional(values.secret)

NETWORK_SETTINGS: Final = (
    Setting("home", values.folder, ".windrow", "folder of everything Windrow keeps"),
    Setting("lake", values.folder, _in_home("lake"), "folder of the Parquet lake and catalogue"),
    Setting(
        "cache",
        values.folder,
        _in_home("cache"),
        "folder of downloaded checkpoints",
        guide=("GRAIL_CACHE_DIR",),
        # What is there belongs to another program.
        guide_parse=lambda raw: values.folder(raw) / "windrow",
    ),
    # --- the fleet
    Setting("fleet", values.folder, "fleet.yaml", "file that declares your nodes"),
    Setting(
        "trusted_node",
        values.optional(values.text),
        "none",
        "node whose answers are believed; none is this machine",
    ),
    Setting(
        "node_models",
        values.optional(values.folder),
        "none",
        "as a node: folder of the models it answers with; none is ~/.windrow/models",
    ),
    Setting(
        "job_bucket",
        values.bucket_url,
        _in_home("jobs"),
        "bucket of language-model jobs: a folder, or s3:// with the write key",
    ),
    Setting(
        "answer_bucket",
        values.bucket_url,
        lambda found: str(found["job_bucket"]),
        "bucket of their answers, of the same kind; both may be one",
    ),
    Setting(
        "callback",
        values.several(values.listener, most=4),
        "none",
        "http://ADDRESS:PORT at which your nodes reach this machine; tells where they come from",
    ),
    Setting(
        "pod_image",
        values.optional(values.text),
        "none",
        "container image of the pods that ask nodes of a cluster; it holds Windrow",
    ),
    Setting("pod_namespace", values.text, "default", "namespace of the cluster they run in"),
    Setting(
        "pod_gpu_resource",
        values.optional(values.extended_resource),
        "nvidia.com/gpu",
        "what the device plugin calls GPUs; none where the runtime hands all of them out",
    ),
    Setting(
        "pod_runtime_class",
        values.optional(values.kubernetes_name),
        "none",
        "runtime class of the pods; none is the cluster's own",
    ),
    Setting(
        "pod_pull_secret",
        values.optional(values.kubernetes_name),
        "none",
        "name of the secret that the image is pulled with",
    ),
    Setting("pod_cpus", values.whole(1, 1024), "2", "processors a pod asks for and is held to"),
    Setting("pod_memory_gib", values.whole(1, 8192), "16", "GiB of memory, likewise"),
    Setting("pod_disk_gib", values.whole(1, 8192), "10", "GiB of its own folder, likewise"),
    # --- chain
    Setting(
        "chain",
        values.one_of("development", "bittensor"),
        lambda found: "bittensor" if "chain" in found["guide"] else "development",
        "the local development chain, or Bittensor",
    ),
    Setting("chain_seed", values.text, "windrow", "seed of the development chain's block hashes"),
    Setting(
        "chain_clock",
        values.one_of("wall", "stepped"),
        "wall",
        "development chain: real time, or moved by hand",
    ),
    Setting(
        "chain_block_seconds", values.seconds, "12", "development chain: seconds between blocks"
    ),
    Setting(
        "chain_genesis",
        values.instant,
        "2024-01-01T00:00:00Z",
        "development chain: time of block 0",
    ),
    Setting(
        "network",
        values.one_of("finney", "test", "local", "custom"),
        "finney",
        "Bittensor network; local is a node on this machine, custom the one at the endpoint",
        guide=("BT_NETWORK",),
        part="chain",
    ),
    Setting(
        "chain_endpoint",
        values.optional(values.url("ws", "wss")),
        "none",
        "Bittensor node to ask instead of the network's own",
        guide=("BT_CHAIN_ENDPOINT",),
        part="chain",
    ),
    Setting(
        "netuid",
        values.whole(0, 65535),
        "81",
        "number of the subnet",
        guide=("NETUID", "BT_NETUID"),
        part="chain",
    ),
    # --- wallet
    Setting(
        "wallet",
        values.one_of("development", "bittensor"),
        on_bittensor("bittensor", "development"),
        "the development key, or a Bittensor wallet's hotkey",
    ),
    Setting(
        "wallet_uri", values.secret, "//Windrow", "development key that signs rollouts", secret=True
    ),
    Setting(
        "wallet_cold",
        values.name,
        "default",
        "Bittensor wallet: name of the coldkey",
        guide=("BT_WALLET_COLD",),
        part="wallet",
    ),
    Setting(
        "wallet_hot",
        values.name,
        "default",
        "Bittensor wallet: name of the hotkey",
        guide=("BT_WALLET_HOT",),
        part="wallet",
    ),
    Setting(
        "wallet_path",
        values.folder,
        "~/.bittensor/wallets",
        "folder of Bittensor wallets",
        guide=("BT_WALLET_PATH",),
        part="wallet",
    ),
    # --- bucket
    Setting(
        "bucket_account",
        values.optional(values.account),
        "none",
        "R2 account id of the bucket",
        guide=("R2_ACCOUNT_ID",),
        part="bucket",
    ),
    Setting(
        "bucket",
        values.bucket_url,
        _bucket,
        "object store: a folder, file:// URL or s3://NAME",
        guide=("R2_BUCKET_ID",),
        guide_parse=values.s3_name,
        part="bucket",
    ),
    Setting(
        "bucket_endpoint",
        values.optional(values.url("http", "https")),
        _endpoint,
        "S3 server of the bucket; none is Amazon's",
        guide=("R2_ENDPOINT_URL",),
        part="bucket",
    ),
    Setting(
        "bucket_region",
        values.text,
        "us-east-1",
        "S3 region of the bucket",
        guide=("R2_REGION",),
        part="bucket",
    ),
    Setting(
        "bucket_path_style",
        values.yes_or_no,
        "no",
        "whether the bucket's name goes into the path, as MinIO wants it",
        guide=("R2_FORCE_PATH_STYLE",),
        part="bucket",
    ),
    Setting(
        "bucket_windows",
        values.whole(0, 10_000_000),
        "3360",
        "newest windows whose files stay in the bucket; 0 keeps all, the lake always does",
    ),
    *(
        Setting(
            f"bucket_{right}_{half}",
            _secret,
            "none",
            meaning,
            guide=(f"R2_{right.upper()}_{variable}",),
            part="bucket",
            secret=True,
        )
        for right, meaning in (
            ("read", "key that may read, committed on chain for validators"),
            ("write", "key that may write, for this machine alone"),
        )
        for half, variable in (("key_id", "ACCESS_KEY_ID"), ("secret", "SECRET_ACCESS_KEY"))
    ),
    Setting(
        "trainer_hotkey",
        values.optional(values.ss58),
        "none",
        "SS58 address that must have signed every checkpoint on Bittensor; none is anybody",
    ),
    # --- beacon
    Setting(
        "beacon",
        values.one_of("block_hash", "recorded_drand", "drand"),
        on_bittensor("drand", "block_hash"),
        "window randomness: the block hash alone, or with drand rounds from a file or from relays",
    ),
    Setting(
        "drand_rounds", values.optional(values.folder), "none", "JSON file of recorded drand rounds"
    ),
    Setting(
        "drand_relays",
        values.several(values.url("http", "https"), 16),
        ",".join(DRAND_RELAYS),
        "drand relays, asked in this order",
    ),
    Setting("drand_seconds", values.seconds, "5", "time each drand relay has to answer"),
)
