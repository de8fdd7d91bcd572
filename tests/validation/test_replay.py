"""A stored verdict, run again from what was stored with it."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.validation.replaying import exact
from tests.validation.subnet import HONEST, HOSTILE, WINDOW, Subnet, miner
from windrow.engine.mining.packaging import token_hashes
from windrow.engine.validation.inputs import ReplayInputs
from windrow.engine.validation.proof_scores import LOGPROB_SCORES, SKETCH_SCORES
from windrow.engine.validation.replay import ReplayMismatch, replay
from windrow.engine.validation.validator import FileVerdict
from windrow.networks.grail.commit import commit_binding
from windrow.networks.grail.commitments import commitments_hash
from windrow.networks.grail.constants import LAYER_INDEX

ROOT = Path(__file__).parents[2]
ONE = miner(HONEST[0])


@pytest.fixture(scope="module")
def stored(subnet: Subnet) -> dict[str, Any]:
    """The validations row of one miner."""
    assert subnet.validate("verdicts").success
    (row,) = subnet.rows("validations", ONE)
    return row


def again(subnet: Subnet, text: str, data: bytes | None = None) -> FileVerdict:
    inference, checkpoint = subnet.resource("inference"), subnet.checkpoint
    return replay(
        data or subnet.object(ONE).read_bytes(),
        ReplayInputs.from_json(text),
        environment=subnet.environment,
        verifier=inference.verifier(checkpoint),
        weights_hash=checkpoint.weights_hash,
    )


def stored_verdicts(subnet: Subnet) -> list[dict[str, object]]:
    """The rows of the lake in the order in which they were made."""
    table = subnet.resource("lake").read("verdicts", WINDOW, subnet.validator)
    kept = [row["hotkey"] == ONE.hotkey for row in table.to_pylist()]
    return exact(table.filter(pa.array(kept)))


def test_a_new_process_gets_the_same_bits(subnet: Subnet, stored: dict[str, Any]) -> None:
    home = {"WINDROW_HOME": str(subnet.path), "WINDROW_CHAIN_CLOCK": "stepped"}
    run = subprocess.run(
        [sys.executable, "-m", "tests.validation.replaying", str(WINDOW), ONE.hotkey],
        cwd=ROOT,
        env=os.environ | home,
        capture_output=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr.decode()
    verdicts = json.loads(run.stdout)
    assert verdicts == stored_verdicts(subnet)
    assert any(row["measured"] not in (None, "0x0.0p+0") for row in verdicts)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("context", "weights_hash"), "00" * 16),
        (("forward", "dtype"), "bfloat16"),
        (("forward", "attention"), "flash_attention_2"),
        (("versions", "torch"), "1.0"),
        (("versions", "python"), "3.11.0"),
    ],
)
def test_other_weights_or_packages_are_refused(
    subnet: Subnet, stored: dict[str, Any], where: tuple[str, ...], value: object
) -> None:
    with pytest.raises(ReplayMismatch):
        again(subnet, altered(stored["replay"], where, value))


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("context", "block_hash"), "0x" + "22" * 32),
        (("context", "miner_randomness"), "33" * 32),
        (("context", "checkpoint_window"), 30),
        (("context", "policy", "max_new_tokens"), 41),
        (("context", "policy", "temperature"), 0.71),
        (("context", "hotkey"), miner(HOSTILE).hotkey),
        (("context", "calibration"), None),
        (("unevaluated",), [3]),
        (("sub_batches",), [16, 1]),
    ],
)
def test_a_flipped_input_shows_in_the_verdicts(
    subnet: Subnet, stored: dict[str, Any], where: tuple[str, ...], value: object
) -> None:
    assert exact(again(subnet, stored["replay"]).verdicts) == stored_verdicts(subnet)
    changed = again(subnet, altered(stored["replay"], where, value))
    assert exact(changed.verdicts) != stored_verdicts(subnet)


def test_the_limits_of_the_model_are_used_and_stored(
    subnet: Subnet, stored: dict[str, Any]
) -> None:
    """Measured once for the checkpoint: two validations hold files to the same ones."""
    context = ReplayInputs.from_json(stored["replay"]).context
    assert context.calibration is not None
    assert context.calibration.rollouts == 32
    (kept,) = (subnet.settings.home / "calibrations").glob("*/*.json")
    assert json.loads(kept.read_bytes())["limits"] == asdict(context.calibration)
    assert kept.parent.name == context.weights_hash
    limits = {vars(context.calibration)[name] for name in (*SKETCH_SCORES, *LOGPROB_SCORES)}
    held = [
        r for r in stored_verdicts(subnet) if r["check"] in {"sketches_agree", "logprobs_agree"}
    ]
    assert len(held) == 32
    assert {float.fromhex(str(row["threshold"])) for row in held} <= limits


def altered(text: str, where: tuple[str, ...], value: object) -> str:
    document = json.loads(text)
    at = document
    for name in where[:-1]:
        at = at[name]
    assert at[where[-1]] != value
    at[where[-1]] = value
    return json.dumps(document)


def test_sketches_of_nothing_pass_the_network_and_not_windrow(
    subnet: Subnet, stored: dict[str, Any]
) -> None:
    """A signed file whose sketches are all zero (grail-validation §26.1)."""
    rollouts = subnet.rollouts(ONE)
    zeros = pa.array([[0] * len(t) for t in rollouts["tokens"].to_pylist()])
    zeros = zeros.cast(rollouts.schema.field("sketches").type)
    signed = [
        ONE.sign(commit_binding(tokens, randomness, name, LAYER_INDEX, digest)).hex()
        for tokens, randomness, name, digest in zip(
            token_hashes(rollouts["tokens"].combine_chunks()),
            rollouts["beacon_randomness"].to_pylist(),
            rollouts["model_name"].to_pylist(),
            commitments_hash(zeros),
            strict=True,
        )
    ]
    for name, values in (("sketches", zeros), ("commit_signature", pa.array(signed))):
        rollouts = rollouts.set_column(rollouts.column_names.index(name), name, values)
    file = subnet.file(ONE, rollouts)
    verdict = again(subnet, stored["replay"], file)
    rows = [row for row in verdict.verdicts.to_pylist() if row["check"] == "proof_valid"]
    assert len(rows) == 16
    assert all(row["network_verdict"] and not row["windrow_verdict"] for row in rows)
    assert all("sketches" in row["reason"] for row in rows)
    assert verdict.network_accepts
    assert not verdict.windrow_accepts
    assert np.isfinite([row["measured"] for row in rows]).all()
    elsewhere = altered(stored["replay"], ("context", "validator_randomness"), "11" * 32)
    assert exact(again(subnet, elsewhere, file).verdicts) != exact(verdict.verdicts)
