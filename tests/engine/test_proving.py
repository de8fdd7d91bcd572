import numpy as np
import pytest
import torch

from tests.support.tiny_qwen2 import random_sequences, tiny_qwen2
from windrow.engine.forward import InvalidSequence, NonFiniteActivations
from windrow.engine.ports import ProofCancelled, Prover
from windrow.engine.proving import ModelProver
from windrow.kernels.sketch import activation_sketches

COEFFICIENTS = np.arange(-120, 120, 15, dtype=np.int8)


@torch.inference_mode()
def test_proofs_equal_one_plain_pass_per_sequence() -> None:
    model = tiny_qwen2()
    with torch.no_grad():
        model.model.norm.weight.mul_(30)  # activations that reach every bucket
    lengths = (20, 9, 41, 64, 12, 33, 18, 50, 27, 40, 11, 36, 22, 60, 15, 48, 31)  # two sub-batches
    sequences = random_sequences(*lengths)
    prompts = [length // 3 for length in lengths[:-1]] + [31]  # the last has no completion
    prover: Prover = ModelProver(model)

    proofs = prover.prove(sequences, prompts, COEFFICIENTS)

    assert len(proofs) == len(sequences)
    for sequence, prompt, proof in zip(sequences, prompts, proofs, strict=True):
        output = model(torch.from_numpy(sequence).long()[None], output_hidden_states=True)
        sketches = activation_sketches(output.hidden_states[-1][0], torch.tensor(COEFFICIENTS))
        table = output.logits[0].float().log_softmax(-1)
        logprobs = [0.0] * prompt + [
            table[t - 1, sequence[t]].item() for t in range(prompt, len(sequence))
        ]
        assert proof.sketches.dtype == np.int32
        assert proof.logprobs.dtype == np.float32
        # A sketch may flip where padding shifts an activation over a bucket edge.
        assert np.mean(proof.sketches == sketches.numpy()) > 0.9
        np.testing.assert_allclose(proof.logprobs, logprobs, atol=2e-5)


def test_out_of_memory_gives_the_same_proofs_in_smaller_passes() -> None:
    model = tiny_qwen2()
    sequences = random_sequences(*range(10, 30))
    expected = ModelProver(model).prove(sequences, [4] * 20, COEFFICIENTS)
    passes = []

    def full_device(module: torch.nn.Module, args: object, kwargs: dict[str, torch.Tensor]) -> None:
        passes.append(len(kwargs["input_ids"]))
        if passes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.model.register_forward_pre_hook(full_device, with_kwargs=True)
    prover = ModelProver(model)
    proofs = prover.prove(sequences, [4] * 20, COEFFICIENTS)
    assert passes == [4, *[2] * 10]
    passes.clear()
    prover.prove(sequences[:4], [4] * 4, COEFFICIENTS)
    assert passes == [2, 2]
    for proof, whole in zip(proofs, expected, strict=True):
        np.testing.assert_allclose(proof.logprobs, whole.logprobs, atol=2e-5)


def test_a_call_told_to_stop_ends_and_the_next_one_works() -> None:
    model = tiny_qwen2()
    prover = ModelProver(model)
    handle = model.model.register_forward_pre_hook(lambda module, args: prover.cancel())
    with pytest.raises(ProofCancelled, match="after 4 of 8 proofs"):
        prover.prove(random_sequences(*[10] * 8), [4] * 8, COEFFICIENTS)
    handle.remove()
    assert len(prover.prove(random_sequences(*[10] * 8), [4] * 8, COEFFICIENTS)) == 8


@pytest.mark.parametrize("prompt", [0, 11, -1])
def test_prompts_outside_their_sequence_are_named(prompt: int) -> None:
    with pytest.raises(InvalidSequence):
        ModelProver(tiny_qwen2()).prove(random_sequences(10), [prompt], COEFFICIENTS)


def test_proofs_come_back_in_the_order_of_their_sequences() -> None:
    sequences = random_sequences(40, 12, 33, 12, 25)
    prover = ModelProver(tiny_qwen2())
    together = prover.prove(sequences, [4] * 5, COEFFICIENTS)
    for sequence, proof in zip(sequences, together, strict=True):
        (alone,) = prover.prove([sequence], [4], COEFFICIENTS)
        assert len(proof.sketches) == len(sequence)
        np.testing.assert_allclose(proof.logprobs, alone.logprobs, atol=2e-5)


def test_nothing_to_prove() -> None:
    assert ModelProver(tiny_qwen2()).prove([], [], COEFFICIENTS) == []


def test_damaged_output_head_gives_no_proof() -> None:
    model = tiny_qwen2()
    with torch.no_grad():
        model.lm_head.weight[7, 7] = torch.nan
    with pytest.raises(NonFiniteActivations):
        ModelProver(model).prove(random_sequences(10), [4], COEFFICIENTS)
