"""The demo's broken submission: another miner's file, signed by a key of its own.

Every signature holds, and all sketches are zero. The network's sketch check lets zeros pass; its
prompt check does not let copies pass, as prompts follow from the hotkey that uploads.
"""

import io
from itertools import pairwise

import pyarrow as pa

from windrow.networks.grail.bucket import window_file_key
from windrow.networks.grail.commit import commit_binding
from windrow.networks.grail.commitments import commitments_hash
from windrow.networks.grail.constants import LAYER_INDEX
from windrow.networks.grail.tokens import token_hash
from windrow.networks.grail.window_file import read_window_file, write_window_file
from windrow.networks.grail.window_schema import FLAT_SCHEMA
from windrow.resources.secret import Secret
from windrow.resources.storage.object_store import ObjectStore
from windrow.resources.wallet import DevelopmentWallet, Wallet


def broken_miner(window: int) -> Wallet:
    """A development key for one window: a ban by an earlier demo does not spare it the verdict."""
    return DevelopmentWallet(Secret(f"//Windrow//broken//{window}"))


def upload_broken_copy(bucket: ObjectStore, window: int, victim: str, timestamp: float) -> str:
    """Upload a broken copy of the victim's file of a window; the copier's hotkey.

    timestamp: of the file, unix seconds.
    """
    copier = broken_miner(window)
    rollouts = read_window_file(bucket.get(window_file_key(victim, window))).rollouts
    sink = io.BytesIO()
    write_window_file(
        sink,
        resigned(rollouts, copier).to_batches(),
        wallet=copier.hotkey,
        window_start=window,
        timestamp=timestamp,
    )
    bucket.put(window_file_key(copier.hotkey, window), sink.getvalue())
    return copier.hotkey


def resigned(rollouts: pa.Table, copier: Wallet) -> pa.Table:
    """Another miner's rollouts (FLAT_SCHEMA) with zeros for sketches, signed by the copier."""
    rollouts = rollouts.combine_chunks()
    tokens = rollouts["tokens"].combine_chunks()
    zeros = pa.ListArray.from_arrays(
        tokens.offsets, pa.repeat(pa.scalar(0, pa.int64()), len(tokens.values))
    )
    commits = zip(
        pairwise(tokens.offsets.to_pylist()),
        rollouts["beacon_randomness"].to_pylist(),
        rollouts["model_name"].to_pylist(),
        commitments_hash(zeros),
        strict=True,
    )
    values = tokens.values.to_numpy()
    commit_signatures = [
        copier.sign(
            commit_binding(token_hash(values[a:b]), randomness, model, LAYER_INDEX, sketches)
        ).hex()
        for (a, b), randomness, model, sketches in commits
    ]
    row_signatures = [
        copier.sign(text.encode()).hex() for text in rollouts["challenge"].to_pylist()
    ]
    replaced = {
        "sketches": zeros,
        "commit_signature": pa.array(commit_signatures),
        "signature": pa.array(row_signatures),
        "hotkey": pa.repeat(copier.hotkey, rollouts.num_rows),
    }
    return pa.table(
        {name: replaced.get(name, rollouts[name]) for name in FLAT_SCHEMA.names},
        schema=FLAT_SCHEMA,
    )
