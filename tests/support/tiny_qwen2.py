"""A random Qwen2 in memory, small enough to run in milliseconds."""

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Qwen2Config, Qwen2ForCausalLM


def tiny_qwen2(**overrides: object) -> Qwen2ForCausalLM:
    """50 tokens, hidden size 32, 2 layers, context 64; overrides go to its config."""
    torch.manual_seed(0)
    config = {
        "vocab_size": 50,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "eos_token_id": 2,
    }
    return Qwen2ForCausalLM(Qwen2Config(**(config | overrides)))


def random_sequences(*lengths: int) -> list[NDArray[np.int32]]:
    """Sequences of tokens the tiny model knows, the same every time."""
    rng = np.random.default_rng(1)
    return [rng.integers(3, 50, length).astype(np.int32) for length in lengths]
