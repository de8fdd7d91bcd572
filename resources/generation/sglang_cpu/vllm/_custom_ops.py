"""Rotary position embedding, in place, with the arguments of the CUDA kernel it stands for."""

import torch


def rotary_embedding(
    positions: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor | None,
    head_size: int,
    cos_sin_cache: torch.Tensor,
    is_neox: bool = True,
) -> None:
    """Rotate query and key [tokens, heads * head_size] in place; the cache is [positions, dim]."""
    rows = cos_sin_cache.index_select(0, positions.flatten()).float()
    cos, sin = (half.unsqueeze(1) for half in rows.chunk(2, dim=-1))
    width = rows.shape[-1]
    for states in (query, key):
        if states is None:
            continue
        heads = states.view(positions.numel(), -1, head_size)
        turned = heads[..., :width].float()
        if is_neox:
            first, second = turned.chunk(2, dim=-1)
            turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
        else:
            first, second = turned[..., ::2], turned[..., 1::2]
            pairs = (first * cos - second * sin, second * cos + first * sin)
            turned = torch.stack(pairs, dim=-1).flatten(-2)
        heads[..., :width] = turned.to(states.dtype)
