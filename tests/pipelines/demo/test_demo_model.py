from itertools import islice
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer, Qwen2ForCausalLM

from windrow.environments.data import make
from windrow.environments.prompts import prompt_ids, render
from windrow.environments.sources import ShippedTasks
from windrow.environments.tasks import DatasetSplit
from windrow.networks.grail.constants import CHALLENGE_POSITIONS
from windrow.pipelines.demo.corpus import EOS, THINKING_MODE, Corpus, completion, stories
from windrow.pipelines.demo.evaluate import evaluate
from windrow.pipelines.demo.network import CHECKPOINT
from windrow.pipelines.demo.train import Recipe, example_loss, train
from windrow.resources.checkpoints.files import verify_checkpoint
from windrow.resources.checkpoints.tokenizer import load_tokenizer

TINY = Recipe(hidden=32, layers=1, steps=2, batch=4)


def test_shipped_checkpoint_is_small_and_whole() -> None:
    checkpoint = verify_checkpoint(CHECKPOINT)

    assert sum(path.stat().st_size for path in CHECKPOINT.iterdir()) < 4_000_000
    assert checkpoint.metadata.thinking_mode == THINKING_MODE
    assert checkpoint.metadata.weights_hash == checkpoint.weights_hash


def test_rollouts_of_shipped_checkpoint_differ_and_pass_the_network_checks() -> None:
    measured = evaluate(CHECKPOINT, groups=4)

    assert 0 < measured.solved < 1
    assert measured.mixed > 0
    assert measured.shortest >= CHALLENGE_POSITIONS
    assert measured.ended == 1.0
    assert measured.least_eos > 0.5
    assert measured.ordinary == 1.0


def test_every_loader_makes_the_same_ids() -> None:
    ours = load_tokenizer(CHECKPOINT, vocab_size=2**16)
    by_class = AutoTokenizer.from_pretrained(CHECKPOINT)
    stored = Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))
    for story in islice(stories(5), 20):
        prompt = prompt_ids(ours, story.question, THINKING_MODE).tolist()
        text = render(ours, [{"role": "user", "content": story.question}], THINKING_MODE)
        answer = completion(story) + EOS

        assert prompt == prompt_ids(by_class, story.question, THINKING_MODE).tolist()
        assert prompt == stored.encode(text).ids
        assert ours.decode(ours(answer)["input_ids"], skip_special_tokens=False) == answer
        assert len(ours(answer)["input_ids"]) >= CHALLENGE_POSITIONS


def test_corpus_has_no_question_the_demo_asks() -> None:
    # The shipped rows come from this seed, so without the filter these would be the same.
    drawn = {story.question for story in islice(stories(make.SEED), 500)}
    for split in ("train", "test"):
        rows = ShippedTasks().rows(DatasetSplit("openai/gsm8k", "main", split))
        assert drawn.isdisjoint(row["question"] for row in rows)


def test_shared_prefix_changes_no_loss() -> None:
    tokenizer = load_tokenizer(CHECKPOINT, vocab_size=2**16)
    model = Qwen2ForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.float32)
    corpus = Corpus(tokenizer, seed=3)
    batch = corpus.take(3)
    log_probs = []
    for example in batch:
        tokens = torch.tensor([corpus.prefix + example.question + example.completion])
        of_next = model(tokens).logits[0, :-1].log_softmax(-1)
        chosen = of_next.gather(1, tokens[0, 1:, None])[-len(example.completion) :]
        log_probs.append(chosen)

    shared = example_loss(model, torch.tensor([corpus.prefix]), batch)

    assert shared.item() == pytest.approx(-torch.cat(log_probs).mean().item(), abs=1e-6)


def test_training_repeats(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    train(TINY, tmp_path / "a")
    train(TINY, tmp_path / "b")

    first, again = verify_checkpoint(tmp_path / "a"), verify_checkpoint(tmp_path / "b")
    assert first.weights_hash == again.weights_hash
    assert first.metadata.file_manifest == again.metadata.file_manifest
