"""What a miner claims of rollouts, as it stands in a signed window file."""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.soundness.world import BLOCK_HASH, GROUPS, WINDOW, Rollouts, World, wallet
from windrow.engine.mining.packaging import Origin, package
from windrow.networks.grail.constants import ROLLOUTS_PER_GROUP, WINDOW_BLOCKS
from windrow.networks.grail.tokens import token_hash
from windrow.networks.grail.window_file import WindowFile, WindowHeader

ROWS = len(GROUPS) * ROLLOUTS_PER_GROUP
"""Rollouts of a file."""


@dataclass(frozen=True)
class Claims:
    """Rollouts with a proof of each.

    sketches: int64 [L], logprobs: float32 [L] each. randomness: of the commits' beacon.
    signers: int64 [n], the miner that signs each row; another than the row's where it is copied.
    """

    rollouts: Rollouts
    sketches: tuple[NDArray[np.int64], ...]
    logprobs: tuple[NDArray[np.float32], ...]
    randomness: str
    signers: NDArray[np.int64]

    def changed(self, **new: Any) -> "Claims":
        """The same claims with other fields, of the proof or of the rollouts."""
        own = {name: new.pop(name) for name in list(new) if name in self.__annotations__}
        return replace(self, rollouts=replace(self.rollouts, **new), **own)

    def files(self, world: World) -> list[tuple[int, WindowFile]]:
        """A signed window file of each miner, in order."""
        return [
            (int(self.rollouts.miners[start]), self._file(world, slice(start, start + ROWS)))
            for start in range(0, len(self.rollouts), ROWS)
        ]

    def _file(self, world: World, rows: slice) -> WindowFile:
        part = self._part(rows)
        header = WindowHeader(
            wallet=wallet(int(part.rollouts.miners[0])).hotkey,
            window_start=WINDOW,
            window_length=WINDOW_BLOCKS,
            inference_count=len(part.rollouts),
            timestamp=0.0,
            rows=len(part.rollouts),
        )
        return WindowFile(header, part._table(world), ())

    def _part(self, rows: slice) -> "Claims":
        cut = {f.name: getattr(self.rollouts, f.name)[rows] for f in fields(self.rollouts)}
        return Claims(
            Rollouts(**cut),
            self.sketches[rows],
            self.logprobs[rows],
            self.randomness,
            self.signers[rows],
        )

    def _table(self, world: World) -> pa.Table:
        rollouts = self.rollouts
        count = len(rollouts)
        index = np.arange(count) % ROLLOUTS_PER_GROUP
        nonces = rollouts.groups * ROLLOUTS_PER_GROUP + index
        mined = pa.table(
            {
                "nonce": nonces,
                "block": pa.array([WINDOW] * count, pa.int64()),
                "rollout_group": rollouts.groups,
                "rollout_index": pa.array(index, pa.int32()),
                "tokens": _lists(rollouts.sequences, np.int32),
                "reward": rollouts.rewards,
                "advantage": rollouts.advantages,
                "success": rollouts.successes,
                "prompt_length": pa.array(rollouts.prompt_lengths, pa.int32()),
                "completion_length": pa.array(map(len, rollouts.completions), pa.int32()),
                "finished_at": pa.array([0.0] * count),
            }
        )
        proofs = pa.table(
            {
                "nonce": nonces,
                "tokens_hash": [token_hash(sequence).hex() for sequence in rollouts.sequences],
                "sketches": _lists(self.sketches, np.int64),
                "token_logprobs": _lists(self.logprobs, np.float32),
            }
        )
        signer = wallet(int(self.signers[0]))
        origin = Origin(
            window_start=WINDOW,
            block_hash=BLOCK_HASH,
            randomness=self.randomness,
            use_drand=False,
            checkpoint_window=world.loaded.checkpoint_window,
            model_name=world.loaded.model_name,
            hotkey=signer.hotkey,
        )
        return package(mined, proofs, origin, signer.sign)


def _lists(parts: tuple[NDArray[Any], ...], dtype: type) -> pa.ListArray:
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(parts).astype(dtype)))
