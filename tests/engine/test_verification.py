from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import TopKLogitsWarper, TopPLogitsWarper

from tests.support.tiny_qwen2 import random_sequences, tiny_qwen2
from windrow.engine.forward import InvalidSequence
from windrow.engine.validation.verification import ModelVerifier, Question
from windrow.kernels.logprobs import CPU_BLOCK
from windrow.kernels.sketch import activation_sketches, sketch_margins
from windrow.networks.grail.checkpoint import GenerationPolicy
from windrow.networks.grail.prf import sketch_coefficients
from windrow.networks.grail.validation.drawing import SLACK

EOS = 2
POLICY = GenerationPolicy(64, temperature=0.7, top_p=0.9, top_k=50, repetition_penalty=1.2)
WINDOW, OTHER = sketch_coefficients("ab"), sketch_coefficients("cd")


def questions(*lengths: int) -> list[Question]:
    """Every third rollout also asks for sketches of its own."""
    return [
        Question(sequence, len(sequence) // 3, (WINDOW, OTHER) if index % 3 == 0 else (WINDOW,))
        for index, sequence in enumerate(random_sequences(*lengths))
    ]


@torch.inference_mode()
def test_measures_equal_one_plain_pass_per_rollout() -> None:
    model = tiny_qwen2()
    with torch.no_grad():
        model.model.norm.weight.mul_(30)  # activations that reach every bucket
    asked = questions(20, 9, 41, 64, 12, 33, 18, 50, 27, 40, 11, 36, 22, 60, 15, 48, 31)

    measured = ModelVerifier(model, EOS).measure(asked, POLICY)

    assert measured.sub_batches == (4, 4, 4, 4, 1)
    for question, found in zip(asked, measured.rollouts, strict=True):
        assert found is not None
        tokens, first = torch.from_numpy(question.tokens).long(), question.prompt_length
        output = model(tokens[None], output_hidden_states=True)
        states, logits = output.hidden_states[-1][0], output.logits[0].float()
        assert len(found.sketches) == len(question.coefficients)
        for own, coefficients in zip(found.sketches, question.coefficients, strict=True):
            plain = activation_sketches(states, torch.tensor(coefficients)).numpy()
            assert np.mean(own == plain) > 0.9  # padding may move one over a bucket edge
        np.testing.assert_allclose(found.margins, sketch_margins(states), atol=1e-4)
        at = torch.arange(first, len(tokens))
        np.testing.assert_allclose(found.totals, logits[at - 1].logsumexp(-1), atol=2e-5)
        logprobs = logits.log_softmax(-1)[at - 1, tokens[at]]
        np.testing.assert_allclose(found.logprobs, logprobs, atol=2e-5)
        np.testing.assert_allclose(
            found.probabilities, [sampled(logits[t - 1], tokens, t) for t in at], atol=2e-5
        )
        assert found.eos_probability == pytest.approx(logits[-2].softmax(-1)[EOS].item(), abs=1e-6)


def sampled(logits: torch.Tensor, tokens: torch.Tensor, at: torch.Tensor) -> float:
    scores = logits.clone()
    for token in set(tokens[:at].tolist()):
        scores[token] *= POLICY.repetition_penalty ** (-1 if scores[token] >= 0 else 1)
    return (scores / POLICY.temperature).softmax(-1)[tokens[at]].item()


def test_how_tokens_were_drawn_is_told_where_it_is_asked() -> None:
    model, policy = tiny_qwen2(), replace(POLICY, top_p=0.8, top_k=5, repetition_penalty=1.0)
    asked = [replace(question, drawn=at == 0) for at, question in enumerate(questions(20, 41))]
    first, second = ModelVerifier(model, EOS).measure(asked, policy).rollouts
    assert first is not None
    assert second is not None
    assert second.draw_logprobs is None
    assert first.draw_logprobs is not None
    tokens = torch.from_numpy(asked[0].tokens).long()
    at = torch.arange(asked[0].prompt_length, len(tokens))
    with torch.inference_mode():
        scores = model(tokens[None]).logits[0].float()[at - 1] / policy.temperature
    kept = TopPLogitsWarper(0.8)(None, TopKLogitsWarper(5)(None, scores)).log_softmax(-1)
    drawn = torch.maximum(
        kept.gather(1, tokens[at, None])[:, 0],
        kept.masked_fill(kept.isinf(), 0.0).amin(1),
    )
    np.testing.assert_allclose(first.draw_logprobs, drawn, atol=2e-5)
    own = scores.gather(1, tokens[at, None])
    assert first.better_count == int((scores > own + SLACK).sum(1).max())


def test_recorded_sub_batches_give_the_same_bits() -> None:
    model = tiny_qwen2()
    verifier, asked = ModelVerifier(model, EOS), questions(*range(12, 32))

    def full_device(module: torch.nn.Module, args: object, kwargs: dict[str, torch.Tensor]) -> None:
        if len(kwargs["input_ids"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    hook = model.model.register_forward_pre_hook(full_device, with_kwargs=True)
    halved = verifier.measure(asked, POLICY)
    hook.remove()
    again = verifier.measure(asked, POLICY, sub_batches=halved.sub_batches)

    assert halved.sub_batches == again.sub_batches == (2,) * 10
    for first, second in zip(halved.rollouts, again.rollouts, strict=True):
        assert first is not None
        assert second is not None
        for name in ("margins", "logprobs", "totals", "probabilities"):
            assert getattr(first, name).tobytes() == getattr(second, name).tobytes()
        assert np.array_equal(first.sketches, second.sketches)
        assert first.eos_probability == second.eos_probability
    with pytest.raises(InvalidSequence, match="sub-batches"):
        verifier.measure(asked, POLICY, sub_batches=(8, 8))


def test_the_end_is_judged_in_the_dtype_of_the_logits() -> None:
    model = tiny_qwen2().to(torch.bfloat16)
    (found,) = ModelVerifier(model, EOS).measure(questions(20), POLICY).rollouts
    assert found is not None
    assert torch.tensor(found.eos_probability).bfloat16().item() == found.eos_probability
    assert ModelVerifier(model, EOS).setting.dtype == "bfloat16"


def test_tokens_without_finite_numbers_spoil_no_other_rollout() -> None:
    model, asked = tiny_qwen2(), questions(20, 30, 25)
    poison = 49
    for question in asked:
        question.tokens[question.tokens == poison] = 3
    asked[1].tokens[5] = poison
    with torch.no_grad():
        model.model.embed_tokens.weight[poison] = torch.inf
    found = ModelVerifier(model, EOS).measure(asked, POLICY).rollouts
    assert [measure is None for measure in found] == [False, True, False]


def test_logits_of_a_whole_vocabulary_never_exist_for_all_positions() -> None:
    model = tiny_qwen2(vocab_size=4 * CPU_BLOCK.vocabulary, max_position_embeddings=1024)
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest = max(largest, out.numel())
            return out

    with Watch():
        ModelVerifier(model, EOS).measure(questions(*[200] * 8), POLICY)
    assert 0 < largest <= CPU_BLOCK.rows * CPU_BLOCK.vocabulary


@pytest.mark.parametrize("prompt", [0, 20, -1])
def test_a_rollout_has_a_prompt_and_a_completion(prompt: int) -> None:
    (sequence,) = random_sequences(20)
    with pytest.raises(InvalidSequence, match="prompt length"):
        ModelVerifier(tiny_qwen2(), EOS).measure([Question(sequence, prompt, ())], POLICY)
