"""The model of a block on one device, and the distances it gives (gonka §9)."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from windrow.kernels.decoder import DecoderShape, last_logits
from windrow.networks.gonka.poc_model import draw_pool, placed, placement, pool_size
from windrow.networks.gonka.poc_nonces import block_target, nonce_distances, nonce_input


class BlockModel:
    """The weights of one block on a device, as slices of one pool.

    dtype: float16 is the network's; on a processor float32 is faster, and differs by less than
    1e-4 in a distance.
    """

    def __init__(
        self,
        block_hash: str,
        shape: DecoderShape,
        *,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
        pool: NDArray[np.float16] | None = None,
    ) -> None:
        """pool: drawn before for the same block and shape, else it is drawn here."""
        if dtype is None:
            dtype = torch.float32 if device == "cpu" else torch.float16
        if pool is None:
            pool = draw_pool(block_hash, pool_size(shape))
        self.block_hash = block_hash
        self.shape = shape
        self.device = device
        self.dtype = dtype
        self._pool = torch.from_numpy(pool).to(device, dtype)
        self._target = block_target(block_hash, shape.vocab_size)
        self._sizes = shape.parameters()

    def parameter(self, name: str) -> Tensor:
        """A weight by name, a view of the pool where it fits into it."""
        size = self._sizes[name]
        where = placement(self.block_hash, name, int(np.prod(size)), len(self._pool))
        return placed(self._pool, where, size)

    def logits(self, inputs: NDArray[np.float16]) -> Tensor:
        """float32[B, vocab] on the device. inputs: [B, seq, dim]."""
        moved = torch.from_numpy(inputs).to(self.device, self.dtype)
        return last_logits(self.shape, self.parameter, moved)

    def inputs(self, public_key: str, nonces: Sequence[int]) -> NDArray[np.float16]:
        """What the decoder is fed: [B, seq, dim]."""
        drawn = (nonce_input(self.block_hash, public_key, n, self.shape) for n in nonces)
        return np.stack(list(drawn))

    def distances(
        self, public_key: str, nonces: Sequence[int], *, batch_size: int
    ) -> NDArray[np.float64]:
        """Distance of every nonce, in order: float64[N]."""
        found = list(self._in_batches(public_key, nonces, batch_size))
        return np.concatenate(found) if found else np.empty(0)

    def _in_batches(
        self, public_key: str, nonces: Sequence[int], batch_size: int
    ) -> Iterator[NDArray[np.float64]]:
        batches = [nonces[i : i + batch_size] for i in range(0, len(nonces), batch_size)]
        inputs = self.inputs(public_key, batches[0]) if batches else None
        for index, batch in enumerate(batches):
            assert inputs is not None
            logits = self.logits(inputs)
            # A GPU is at work now: draw the next inputs before waiting for it.
            more = index + 1 < len(batches)
            inputs = self.inputs(public_key, batches[index + 1]) if more else None
            yield nonce_distances(
                self.block_hash, public_key, batch, logits.cpu().numpy(), self._target
            )
