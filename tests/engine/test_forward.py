import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from tests.support.tiny_qwen2 import random_sequences, tiny_qwen2
from windrow.engine.forward import (
    CausalModel,
    ForwardOutOfMemory,
    InvalidSequence,
    NonFiniteActivations,
    UnsupportedArchitecture,
    hidden_states,
    in_sub_batches,
)


@torch.inference_mode()
def test_padding_does_not_show() -> None:
    model = CausalModel.of(tiny_qwen2())
    sequences = random_sequences(9, 30, 1)
    for sequence, together in zip(sequences, hidden_states(model, sequences), strict=True):
        (alone,) = hidden_states(model, [sequence])
        assert together.shape == (len(sequence), 32)
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_eos_pads_when_there_is_no_pad_token() -> None:
    assert CausalModel.of(tiny_qwen2()).pad_token_id == 0
    assert CausalModel.of(tiny_qwen2(pad_token_id=None)).pad_token_id == 2
    with pytest.raises(UnsupportedArchitecture, match="pad token"):
        CausalModel.of(tiny_qwen2(pad_token_id=None, eos_token_id=[2, 3]))


def test_other_architectures_are_named() -> None:
    other = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=32, n_layer=1, n_head=2))
    with pytest.raises(UnsupportedArchitecture, match="GPT2LMHeadModel"):
        CausalModel.of(other)


@pytest.mark.parametrize(
    "tokens", [[], [3, 50], [-1, 3], [3] * 65], ids=["empty", "unknown", "negative", "too long"]
)
def test_unreadable_sequences_are_named(tokens: list[int]) -> None:
    with pytest.raises(InvalidSequence):
        CausalModel.of(tiny_qwen2()).check(np.array(tokens, np.int32))


@torch.inference_mode()
def test_nan_weights_give_no_hidden_states() -> None:
    model = tiny_qwen2()
    model.model.layers[1].mlp.down_proj.weight[3, 4] = torch.nan
    with pytest.raises(NonFiniteActivations):
        hidden_states(CausalModel.of(model), random_sequences(5))


def test_out_of_memory_halves_once_and_stays() -> None:
    tried = []

    def step(start: int, stop: int) -> list[int]:
        tried.append(stop - start)
        if stop - start > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return list(range(start, stop))

    assert in_sub_batches(21, 16, step) == list(range(21))
    assert tried == [16, 8, 4, 4, 4, 4, 4, 1]


def test_one_sequence_too_large_is_named() -> None:
    def step(start: int, stop: int) -> list[int]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(ForwardOutOfMemory):
        in_sub_batches(3, 16, step)
