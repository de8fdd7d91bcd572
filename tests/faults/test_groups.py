"""Groups that a validator would refuse or that cannot be made: dropped whole, the others kept."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.faults.runs import Home, assert_completes, assert_named, assert_refused, publish
from tests.support.embedded import WINDOW
from windrow.engine.ports import Completion
from windrow.networks.grail.checkpoint import GenerationPolicy
from windrow.resources.generation.transformers_generator import TransformersGenerator

Make = Callable[..., Path]
VOCABULARY = 600
CONTEXT = 365
"""With 40 new tokens the first prompt, of 326 tokens, is one too long; the next two fit."""


def outside_vocabulary(completion: Completion) -> Completion:
    tokens = completion.tokens.copy()
    tokens[3] = VOCABULARY
    return Completion(tokens, completion.finish_reason)


def short(completion: Completion) -> Completion:
    return Completion(completion.tokens[:31], "stop")


@pytest.fixture
def spoil_second_group(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has the generator change one completion of the second group that it makes."""

    def spoil(change: Callable[[Completion], Completion]) -> None:
        honest, calls = TransformersGenerator.generate, []

        def generate(
            self: TransformersGenerator,
            prompt: np.ndarray,
            seeds: Sequence[int],
            policy: GenerationPolicy,
        ) -> list[Completion]:
            calls.append(prompt)
            made = honest(self, prompt, seeds, policy)
            return [*made[:7], change(made[7]), *made[8:]] if len(calls) == 2 else made

        monkeypatch.setattr(TransformersGenerator, "generate", generate)

    return spoil


@pytest.mark.parametrize(
    ("change", "reason", "detail"),
    [
        (outside_vocabulary, "token_outside_vocabulary", "rollout 7 holds token id 600"),
        (short, "short_completion", "rollout 7 has 31 tokens; 32 are needed"),
    ],
)
def test_a_bad_completion_costs_its_group_and_no_other(
    home: Home,
    undisturbed: pa.Table,
    spoil_second_group: Callable[..., None],
    change: Callable[[Completion], Completion],
    reason: str,
    detail: str,
) -> None:
    spoil_second_group(change)
    result = home.mine()
    assert result.success
    (fault,) = home.faults()
    assert (fault["rollout_group"], fault["stage"], fault["reason"]) == (1, "check", reason)
    assert detail in fault["detail"]
    assert home.spooled() == [0, 2]
    others = pa.concat_tables([undisturbed.slice(0, 16), undisturbed.slice(32, 16)])
    assert home.groups().equals(others)


@pytest.mark.parametrize(
    ("options", "reason", "words"),
    [
        ({"max_tokens": 31}, "short_completion", "31 tokens; 32 are needed"),
        ({"max_context": 120}, "PromptTooLong", "exceed the context of 120"),
    ],
)
def test_a_checkpoint_no_group_can_be_made_with(
    home: Home,
    make_checkpoint: Make,
    undisturbed: pa.Table,
    options: dict[str, int],
    reason: str,
    words: str,
) -> None:
    publish(home.path / "bucket", make_checkpoint(300, **options), ready_window=300)
    refused = home.mine()
    assert_refused(home, refused, "window_stream", "WindowAborted", reason, words, "Mend that")
    groups = [row for row in home.faults() if row["rollout_group"] is not None]
    assert [row["rollout_group"] for row in groups] == list(range(8))
    assert {row["reason"] for row in groups} == {reason}
    assert home.spooled() == []
    assert home.uploaded() is None
    publish(home.path / "bucket", make_checkpoint(330), ready_window=330)
    assert_completes(home, undisturbed)


def test_prompts_longer_than_the_context_are_skipped(
    home: Home, make_checkpoint: Make, undisturbed: pa.Table
) -> None:
    publish(home.path / "bucket", make_checkpoint(300, max_context=CONTEXT), ready_window=300)
    assert home.mine().success
    (fault,) = home.faults()
    assert (fault["rollout_group"], fault["stage"]) == (0, "generation")
    assert (fault["reason"], home.spooled()) == ("PromptTooLong", [1, 2])
    assert home.groups().equals(undisturbed.slice(16, 32))


def test_a_stored_rollout_outside_the_vocabulary_gets_no_proof(
    home: Home, undisturbed: pa.Table
) -> None:
    assert home.mine().success
    lake = home.resource("lake")
    rollouts = lake.read("rollouts", WINDOW, home.hotkey)
    rows = rollouts.to_pylist()
    rows[20]["tokens"][-1] = VOCABULARY
    damaged = pa.Table.from_pylist(rows, rollouts.schema)
    lake.write("rollouts", WINDOW, home.hotkey, damaged, replace=True)

    refused = home.materialize("proofs", "submission", job="prove_window")
    assert_refused(home, refused, "window_stream", "InvalidSequence", "600", "0 to 599")
    refused = home.materialize("submission")
    assert_refused(home, refused, "submission", "UnmatchedProofs", "nonce 20", "other tokens")
    assert_completes(home, undisturbed)


def test_a_damaged_group_in_the_spool_is_named_and_made_again(
    home: Home, undisturbed: pa.Table
) -> None:
    assert home.mine().success
    (path,) = (home.path / "spool").rglob("group-000001.parquet")
    path.write_bytes(path.read_bytes()[:500])
    refused = home.mine(3)
    assert_named(home, refused, "window_stream", "SpoolError", str(path), "delete it")
    assert home.spooled() == [0, 1, 2]
    path.unlink()
    home.resource("bucket").delete(home.key())
    assert_completes(home, undisturbed, groups=3)
