from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support.tiny_checkpoint import EOS_ID, make_tiny_checkpoint
from windrow.engine.ports import GenerationCancelled
from windrow.networks.grail.checkpoint import GenerationPolicy
from windrow.resources.checkpoints.files import verify_checkpoint
from windrow.resources.generation.prompt import InvalidPrompt, PromptTooLong
from windrow.resources.generation.transformers_generator import TransformersGenerator
from windrow.resources.models.loading import load_checkpoint

POLICY = GenerationPolicy(40, 0.7, 0.9, 50, 1.0)
GREEDY = replace(POLICY, temperature=0.01, top_k=1)
PROMPT = np.array([1, 87, 85, 71, 84, 201, 343, 300, 2, 201], dtype=np.int32)


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> TransformersGenerator:
    """Of a model that often ends a completion."""
    directory = make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"), eos_scale=1.3)
    return TransformersGenerator(load_checkpoint(verify_checkpoint(directory)))


def sampled(
    generator: TransformersGenerator, seeds: list[int], policy: GenerationPolicy = POLICY
) -> list[list[int]]:
    return [c.tokens.tolist() for c in generator.generate(PROMPT, seeds, policy)]


def test_completion_ends_with_eos_or_at_the_limit(generator: TransformersGenerator) -> None:
    completions = generator.generate(PROMPT, range(32), POLICY)
    assert {completion.finish_reason for completion in completions} == {"stop", "length"}
    for completion in completions:
        tokens = completion.tokens
        assert tokens.dtype == np.int32
        assert EOS_ID not in tokens[:-1]
        if completion.finish_reason == "stop":
            assert tokens[-1] == EOS_ID
        else:
            assert len(tokens) == POLICY.max_new_tokens
            assert tokens[-1] != EOS_ID


def test_completion_depends_on_its_own_seed_alone(generator: TransformersGenerator) -> None:
    together = sampled(generator, [11, 12, 13, 14, 15, 16, 17])
    assert together == sampled(generator, [11, 12, 13, 14, 15, 16, 17])
    assert sampled(generator, [14]) == [together[3]]
    assert sampled(generator, [17, 99, 11, 11])[::2] == [together[6], together[0]]
    assert len({tuple(tokens) for tokens in together}) > 1


def test_shorter_limit_gives_a_prefix(generator: TransformersGenerator) -> None:
    short = sampled(generator, [11, 12, 13], replace(POLICY, max_new_tokens=7))
    assert short == [tokens[:7] for tokens in sampled(generator, [11, 12, 13])]


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_limit_is_that_of_transformers(
    generator: TransformersGenerator, penalty: float
) -> None:
    ids = torch.from_numpy(PROMPT.astype(np.int64))[None]
    reference = generator.checkpoint.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        repetition_penalty=penalty,
        max_new_tokens=GREEDY.max_new_tokens,
        eos_token_id=EOS_ID,
        pad_token_id=0,
    )[0, len(PROMPT) :]
    policy = replace(GREEDY, repetition_penalty=penalty)
    assert sampled(generator, [1, 2], policy) == [reference.tolist()] * 2


def test_first_token_is_distributed_as_by_transformers(generator: TransformersGenerator) -> None:
    count = 4000
    ours = torch.tensor(
        [
            c.tokens[0]
            for c in generator.generate(PROMPT, range(count), replace(POLICY, max_new_tokens=1))
        ]
    )
    ids = torch.from_numpy(PROMPT.astype(np.int64))[None]
    torch.manual_seed(0)
    theirs = generator.checkpoint.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        temperature=POLICY.temperature,
        top_k=POLICY.top_k,
        top_p=POLICY.top_p,
        max_new_tokens=1,
        num_return_sequences=count,
        pad_token_id=0,
    )[:, -1]
    size = generator.checkpoint.vocab_size
    a, b = torch.bincount(ours, minlength=size), torch.bincount(theirs, minlength=size)
    # Five standard deviations of the difference of two counts.
    assert ((a - b).abs() <= 5 * (a + b).double().sqrt() + 5).all()


def test_sampled_tokens_lie_within_the_filters(generator: TransformersGenerator) -> None:
    """Replay each completion through one full forward pass and transformers' top-k."""
    for completion in generator.generate(PROMPT, range(8), replace(POLICY, top_k=5, top_p=1.0)):
        tokens = torch.from_numpy(np.concatenate([PROMPT, completion.tokens]).astype(np.int64))
        with torch.inference_mode():
            logits = generator.checkpoint.model(tokens[None]).logits[0, len(PROMPT) - 1 : -1]
        chosen = tokens[len(PROMPT) :, None]
        assert (logits.topk(5).indices == chosen).any(-1).all()


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        (np.array([], dtype=np.int32), "non-empty"),
        (np.array([[1, 2]], dtype=np.int32), "non-empty"),
        (np.array([1.0, 2.0]), "non-empty"),
        (np.array([1, -1], dtype=np.int32), "prompt id -1 is outside the vocabulary of 600"),
        (np.array([1, 600], dtype=np.int32), "prompt id 600 is outside the vocabulary of 600"),
    ],
)
def test_bad_prompt_is_named(
    generator: TransformersGenerator, prompt: np.ndarray, reason: str
) -> None:
    with pytest.raises(InvalidPrompt, match=reason):
        generator.generate(prompt, [1], POLICY)


def test_prompt_must_leave_room_for_the_completion(generator: TransformersGenerator) -> None:
    room = generator.checkpoint.max_context - POLICY.max_new_tokens
    with pytest.raises(PromptTooLong, match=f"prompt of {room + 1} and 40 new tokens"):
        generator.generate(np.ones(room + 1, dtype=np.int32), [1], POLICY)
    assert len(generator.generate(np.ones(room, dtype=np.int32), [1], POLICY)) == 1


def test_no_seeds_give_no_completions(generator: TransformersGenerator) -> None:
    assert generator.generate(PROMPT, [], POLICY) == []


def test_generation_told_to_stop_ends_and_the_next_one_works(
    generator: TransformersGenerator,
) -> None:
    model = generator.checkpoint.model
    handle = model.register_forward_pre_hook(lambda module, args: generator.cancel())
    with pytest.raises(GenerationCancelled, match="after 0 tokens"):
        sampled(generator, [11])
    handle.remove()
    assert sampled(generator, [11])
