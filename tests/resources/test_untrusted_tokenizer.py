"""Tokenizers and chat templates of strangers: bounded in time, memory and text, refused by name."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from windrow.environments.prompts import SYSTEM_PROMPTS, prompt_ids
from windrow.environments.sandbox import Sandbox
from windrow.environments.sources import ShippedTasks
from windrow.resources.checkpoints import untrusted_tokenizer
from windrow.resources.checkpoints.files import verify_checkpoint
from windrow.resources.checkpoints.tokenizer import load_tokenizer
from windrow.resources.checkpoints.untrusted_tokenizer import (
    CheckpointTextRefused,
    UntrustedTokenizer,
)
from windrow.resources.inference import Inference

DEMO = Path(__file__).parents[2] / "pipelines/demo/checkpoint"
VOCABULARY = json.loads((DEMO / "config.json").read_text())["vocab_size"]
TALK = [{"role": "user", "content": "1 + 1?"}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(DEMO, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.fixture(scope="module")
def sound() -> Iterator[UntrustedTokenizer]:
    made = UntrustedTokenizer(DEMO, VOCABULARY)
    yield made
    made.close()


@pytest.mark.parametrize("mode", SYSTEM_PROMPTS)
def test_prompts_and_texts_are_those_of_the_tokenizer(sound: UntrustedTokenizer, mode: str) -> None:
    plain = load_tokenizer(DEMO, VOCABULARY)
    for question in ("What is 17 * 23?", "ünïcödé 日本 \U0001f600", "<|im_end|>", "\x00 \n\t"):
        own = prompt_ids(plain, question, mode)
        assert np.array_equal(prompt_ids(sound, question, mode), own)
        for skip in (True, False):
            assert sound.decode(own.tolist(), skip_special_tokens=skip) == plain.decode(
                own.tolist(), skip_special_tokens=skip
            )


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for a in range(99999) %}" * 6 + "x" + "{% endfor %}" * 6, "took more than 3 s"),
        ("{{ 'a' * 3000000000 }}", "MemoryError"),
        ("{{ 'a' * 30000000 }}", "more than 16 MiB"),
        ("{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}", "Recursion"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "failed: "),
        ("{{ raise_exception('no') }}", "no"),
        ("{% if %}", "TemplateSyntaxError"),
        ("{{ messages[9].x.y }}", "UndefinedError"),
    ],
)
def test_a_hostile_template_is_refused_by_name(
    folder: Path, template: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(untrusted_tokenizer, "ANSWER_SECONDS", 3.0)
    (folder / "chat_template.jinja").write_text(template)
    tokenizer = UntrustedTokenizer(folder, VOCABULARY)
    began = time.monotonic()
    with pytest.raises(CheckpointTextRefused, match=said):
        tokenizer.apply_chat_template(TALK, tokenize=False, add_generation_prompt=True)
    assert time.monotonic() - began < 20
    tokenizer.close()


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[" * 100_000, b"\xff\xfe", b'{"model": {"type": "BPE", "vocab": {"a": -1}}}'],
)
def test_a_damaged_tokenizer_is_refused_by_name(folder: Path, content: bytes) -> None:
    (folder / "tokenizer.json").write_bytes(content)
    with pytest.raises(CheckpointTextRefused, match=r"tokenizer\.json"):
        UntrustedTokenizer(folder, VOCABULARY)


def test_a_child_that_ended_is_started_again(sound: UntrustedTokenizer) -> None:
    assert sound._process is not None
    sound._process.kill()
    sound._process.wait()
    assert sound.decode(sound("2")["input_ids"], skip_special_tokens=False) == "2"


def test_only_a_checkpoint_without_a_key_has_a_child() -> None:
    checkpoint = verify_checkpoint(DEMO)
    assert checkpoint.notes
    inference = Inference(ShippedTasks(), Sandbox(), "cpu", "cpu")
    environment = inference.environment(checkpoint)
    assert isinstance(environment.tokenizer, UntrustedTokenizer)  # type: ignore[attr-defined]
    assert len(environment.prompt(environment.task(1))) > 10
    inference._bounded(checkpoint).close()
