"""A Llama-style decoder without a class of modules: its weights are asked for by name (gonka §9.2).

Whoever calls it decides where the weights are, so weights that are slices of one tensor need no
more memory than that tensor.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import silu


@dataclass(frozen=True)
class DecoderShape:
    """Sizes of a decoder, by the names Gonka gives them."""

    dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    vocab_size: int
    ffn_dim_multiplier: float
    multiple_of: int
    norm_eps: float
    rope_theta: float
    seq_len: int

    @property
    def head_dim(self) -> int:
        return self.dim // self.n_heads

    @property
    def hidden(self) -> int:
        """Width of the feed-forward block."""
        width = int(self.ffn_dim_multiplier * int(8 * self.dim / 3))
        return -(-width // self.multiple_of) * self.multiple_of

    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter; the token embedding is one though it is not used."""
        keys = self.n_kv_heads * self.head_dim
        named: dict[str, tuple[int, ...]] = {
            "tok_embeddings.weight": (self.vocab_size, self.dim),
        }
        for layer in range(self.n_layers):
            at = f"layers.{layer}"
            named |= {
                f"{at}.attention.wq.weight": (self.dim, self.dim),
                f"{at}.attention.wk.weight": (keys, self.dim),
                f"{at}.attention.wv.weight": (keys, self.dim),
                f"{at}.attention.wo.weight": (self.dim, self.dim),
                f"{at}.feed_forward.w1.weight": (self.hidden, self.dim),
                f"{at}.feed_forward.w2.weight": (self.dim, self.hidden),
                f"{at}.feed_forward.w3.weight": (self.hidden, self.dim),
                f"{at}.attention_norm.weight": (self.dim,),
                f"{at}.ffn_norm.weight": (self.dim,),
            }
        return named | {
            "norm.weight": (self.dim,),
            "output.weight": (self.vocab_size, self.dim),
        }

    @property
    def flops(self) -> float:
        """Operations of one sequence's forward pass, multiplications and additions counted."""
        keys = self.n_kv_heads * self.head_dim
        matrices = 2 * self.dim * (self.dim + keys) + 3 * self.dim * self.hidden
        attention = 2 * self.seq_len * self.dim
        per_token = 2.0 * self.n_layers * (matrices + attention)
        return per_token * self.seq_len + 2.0 * self.vocab_size * self.dim


Weights = Callable[[str], Tensor]


@torch.inference_mode()
def last_logits(shape: DecoderShape, weights: Weights, inputs: Tensor) -> Tensor:
    """Logits of the last position, float32[B, vocab].

    inputs: [B, seq, dim], fed after the embedding layer, of the dtype and device of the weights.
    """
    x = inputs
    rotation = _rotation(shape, x)
    masked = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
    for layer in range(shape.n_layers):
        at = f"layers.{layer}"
        normed = _norm(x, weights(f"{at}.attention_norm.weight"), shape.norm_eps)
        x = x + _attention(shape, weights, f"{at}.attention", normed, rotation, masked)
        normed = _norm(x, weights(f"{at}.ffn_norm.weight"), shape.norm_eps)
        gate = silu(normed @ weights(f"{at}.feed_forward.w1.weight").T)
        gate *= normed @ weights(f"{at}.feed_forward.w3.weight").T
        x = x + gate @ weights(f"{at}.feed_forward.w2.weight").T
    last = _norm(x[:, -1], weights("norm.weight"), shape.norm_eps)
    return (last @ weights("output.weight").T).float()


def _attention(
    shape: DecoderShape, weights: Weights, at: str, x: Tensor, rotation: Tensor, masked: Tensor
) -> Tensor:
    rows, length, _ = x.shape

    def heads(name: str, count: int) -> Tensor:
        return (x @ weights(f"{at}.{name}.weight").T).view(rows, length, count, shape.head_dim)

    repeats = shape.n_heads // shape.n_kv_heads
    queries = _rotated(heads("wq", shape.n_heads), rotation).transpose(1, 2)
    keys = _rotated(heads("wk", shape.n_kv_heads), rotation)
    keys = keys.repeat_interleave(repeats, 2).transpose(1, 2)
    values = heads("wv", shape.n_kv_heads).repeat_interleave(repeats, 2).transpose(1, 2)
    scores = queries @ keys.transpose(2, 3) / shape.head_dim**0.5
    scores = scores.masked_fill_(masked, float("-inf")).float().softmax(-1).to(x.dtype)
    mixed = (scores @ values).transpose(1, 2).reshape(rows, length, shape.dim)
    out: Tensor = mixed @ weights(f"{at}.wo.weight").T
    return out


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = x.float()
    normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    scaled: Tensor = normed.to(x.dtype) * weight
    return scaled


def _rotation(shape: DecoderShape, x: Tensor) -> Tensor:
    """Unit complex numbers [seq, 1, head / 2]."""
    half = torch.arange(0, shape.head_dim, 2, device=x.device)[: shape.head_dim // 2].float()
    frequencies = 1.0 / shape.rope_theta ** (half / shape.head_dim)
    angles = torch.outer(torch.arange(x.shape[1], device=x.device).float(), frequencies)
    return torch.polar(torch.ones_like(angles), angles)[:, None]


def _rotated(x: Tensor, rotation: Tensor) -> Tensor:
    """Adjacent pairs of the last dimension turned by their angle. x: [B, seq, heads, head]."""
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * rotation).flatten(-2).to(x.dtype)
