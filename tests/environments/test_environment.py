"""Whole environments: seed to prompt to reward, on the shipped problems."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from windrow.engine import ports
from windrow.environments.environment import load_environment
from windrow.environments.errors import SandboxUnavailable, UnknownEnvironment
from windrow.environments.sandbox import Sandbox, executable
from windrow.environments.sources import ShippedTasks

MODEL = Path(__file__).parents[1] / "vectors/grail/model"
SOURCE = ShippedTasks()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_file(str(MODEL / "tokenizer.json")),
        chat_template=(MODEL / "chat_template.jinja").read_text(),
    )


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(workers=2, any_python=True) as started:
        yield started


def load(env_id: str, tokenizer: PreTrainedTokenizerFast, sandbox: Sandbox) -> ports.Environment:
    try:
        return load_environment(env_id, None, "instructed", tokenizer, SOURCE, sandbox)
    except SandboxUnavailable as error:
        pytest.skip(str(error))


def tokens(tokenizer: PreTrainedTokenizerFast, text: str) -> np.ndarray:
    return np.asarray(tokenizer(text)["input_ids"], np.int32)


@pytest.mark.parametrize("env_id", ["gsm8k", "math", "mbpp", "python_code", "humaneval"])
def test_right_answers_are_rewarded_and_wrong_ones_are_not(
    env_id: str, tokenizer: PreTrainedTokenizerFast, sandbox: Sandbox
) -> None:
    environment = load(env_id, tokenizer, sandbox)
    for seed in (0, 1, 12345, 2**31, 2**32 - 1):
        task = environment.task(seed)
        right = task.answer or task.solution
        if env_id == "humaneval":
            right = task.question + task.solution
        texts = [
            f"so</end_working_out><SOLUTION>{right}</SOLUTION><|im_end|>",
            f"</end_working_out><SOLUTION>{right} )</SOLUTION>" if task.tests else "<SOLUTION>-1",
            "",
        ]
        graded = environment.evaluate(task, [tokens(tokenizer, text) for text in texts])
        assert [evaluation.success for evaluation in graded] == [True, False, False]
        assert graded[0].reward > graded[1].reward >= graded[2].reward == 0.0


def test_the_prompt_asks_the_question(tokenizer: PreTrainedTokenizerFast, sandbox: Sandbox) -> None:
    environment = load("gsm8k", tokenizer, sandbox)
    task = environment.task(77)
    prompt = environment.prompt(task)
    assert prompt.dtype == np.int32
    text = tokenizer.decode(prompt.tolist(), skip_special_tokens=False)
    assert f"<|im_start|>user\n{task.question}<|im_end|>" in text
    assert text.endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize("env_id", ["sat", "triton_kernel", "GSM8K", ""])
def test_unknown_environments_are_named(
    env_id: str, tokenizer: PreTrainedTokenizerFast, sandbox: Sandbox
) -> None:
    with pytest.raises(UnknownEnvironment, match="it knows gsm8k, math, mbpp, humaneval, python"):
        load_environment(env_id, None, "instructed", tokenizer, SOURCE, sandbox)


def test_env_params_choose_the_split(tokenizer: PreTrainedTokenizerFast, sandbox: Sandbox) -> None:
    def first(params: dict[str, object]) -> str:
        args = ("instructed", tokenizer, SOURCE, sandbox)
        return load_environment("gsm8k", params, *args).task(0).id

    assert first({}) == first({"gpu_eval": False}) == "train_0"
    assert first({"split": "val"}) == "val_0"
    with pytest.raises(UnknownEnvironment, match="no split 'validation'"):
        first({"split": "validation"})


def test_without_a_sandbox_code_is_refused_and_the_others_go_on(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(executable, "_PACKAGE", "no_such_package")
    own = Sandbox(any_python=True)
    assert load_environment("gsm8k", None, "native", tokenizer, SOURCE, own).task(0)
    for env_id in ("mbpp", "humaneval"):
        with pytest.raises(SandboxUnavailable, match="bubblewrap"):
            load_environment(env_id, None, "native", tokenizer, SOURCE, own)
    algebra = load_environment("math", None, "native", tokenizer, SOURCE, own)
    task = algebra.task(0)

    def answer(text: str) -> np.ndarray:
        return np.array(tokenizer(f"<SOLUTION>{text}</SOLUTION>").input_ids, np.int32)

    assert algebra.evaluate(task, [answer(task.answer)])[0].success
    with pytest.raises(SandboxUnavailable, match="bubblewrap"):
        algebra.evaluate(task, [answer(f"({task.answer})+x-x")])


def test_an_unreachable_hub_is_named(tmp_path: Path) -> None:
    program = (
        "from windrow.environments.sources import HubTasks\n"
        "from windrow.environments import gsm8k\n"
        "gsm8k.tasks(HubTasks())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "DatasetUnavailable: data set openai/gsm8k (main, train)" in done.stderr
