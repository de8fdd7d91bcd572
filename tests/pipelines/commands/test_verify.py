"""`windrow verify` on sound, forged and hostile files."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from tests.pipelines.demonstrated import Demonstrated
from tests.support.radosgw import KEY_ID, SECRET, make_bucket
from windrow.networks.grail.window_file import read_window_file
from windrow.networks.grail.windows import window_start
from windrow.pipelines.cli import app
from windrow.pipelines.commands.verify import (
    CannotVerify,
    Fate,
    Judged,
    Options,
    Unjudged,
    Verifier,
)
from windrow.pipelines.embedded import embedded_chain
from windrow.resources.storage.object_store import ObjectExists
from windrow.resources.storage.s3_access import S3Access
from windrow.resources.storage.s3_bucket import s3_bucket


@pytest.fixture(autouse=True)
def environment(demonstrated: Demonstrated, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINDROW_HOME", str(demonstrated.settings.home))
    monkeypatch.setenv("WINDROW_CHAIN_CLOCK", "stepped")
    monkeypatch.setenv("COLUMNS", "80")


def windrow(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["verify", *map(str, arguments)], catch_exceptions=False)


def judge(path: Path, **options: object) -> Judged:
    report = Verifier.embedded(Options(**options)).judge(str(path))
    assert isinstance(report, Judged), report
    return report


def changed(rollouts: pa.Table, column: str, change: Callable[[int, object], object]) -> pa.Table:
    """The rollouts with a column changed, value by value."""
    index = rollouts.schema.get_field_index(column)
    values = [change(row, value) for row, value in enumerate(rollouts[column].to_pylist())]
    return rollouts.set_column(
        index, rollouts.schema.field(index), pa.array(values, rollouts.schema.field(index).type)
    )


def test_an_honest_file_is_accepted_by_both(demonstrated: Demonstrated) -> None:
    ended = windrow(demonstrated.file(demonstrated.own), "--all", "--json")
    assert ended.exit_code == 0, ended.output
    document = json.loads(ended.output)
    (report,) = document["files"]
    assert (report["network_verdict"], report["windrow_verdict"]) == ("accepted", "accepted")
    assert report["metrics"]["total"] == 32
    assert report["chance_of_refusal"] == 0.0
    assert report["failures"] == report["skipped"] == report["faults"] == []
    assert {c["found"] for c in report["checks"] if c["check"] == "proof_valid"} == {32}
    # The window has closed, so its own randomness draws the groups, as it did for the verdicts.
    (stored,) = demonstrated.lake.query(
        "SELECT replay FROM validations WHERE hotkey = ?", [demonstrated.own]
    ).to_pylist()
    stored = json.loads(stored["replay"])
    assert report["randomness_from"] == "chain"
    assert report["replay"]["sampled_groups"] == stored["sampled_groups"]
    assert report["replay"]["context"] == stored["context"] | {"every_rollout": True}


def test_a_broken_copy_is_refused_and_explained(demonstrated: Demonstrated) -> None:
    ended = windrow(demonstrated.file(demonstrated.broken), "--all")
    assert ended.exit_code == 1
    assert "hard:env_prompt_valid" in ended.output
    assert "bans the miner for 14 windows (84" in ended.output
    assert "refuses it with probability 1" in ended.output
    assert "the network does not notice" in ended.output
    assert "change: env_prompt_valid: Derive the prompt from your own hotkey" in ended.output


def test_every_failure_is_listed_with_its_numbers(demonstrated: Demonstrated) -> None:
    ended = windrow(demonstrated.file(demonstrated.broken), "--all", "--json")
    (report,) = json.loads(ended.output)["files"]
    zeros = [f for f in report["failures"] if f["check"] == "sketches_agree"]
    assert len(zeros) == 32
    assert all(f["network_verdict"] and f["measured"] > f["threshold"] for f in zeros)
    assert all(f["margin"] == f["threshold"] - f["measured"] and f["reason"] for f in zeros)


def test_one_bad_group_of_two_is_caught_half_of_the_time(
    demonstrated: Demonstrated, tmp_path: Path
) -> None:
    rollouts = read_window_file(demonstrated.file(demonstrated.own)).rollouts
    bad = changed(rollouts, "total_reward", lambda row, value: value if row < 16 else 9.0)
    report = judge(demonstrated.rewritten(tmp_path, bad), model=False, every_rollout=True)
    assert report.chance == 0.5


def test_a_file_without_rollouts_has_no_group_to_name(
    demonstrated: Demonstrated, tmp_path: Path
) -> None:
    honest = demonstrated.file(demonstrated.own)
    empty = tmp_path / honest.name
    pq.write_table(pq.read_table(honest).slice(0, 0), empty)
    ended = windrow("--no-model", empty)
    assert "the network's sample is empty: the file has no group" in " ".join(ended.output.split())


def test_a_reward_that_is_no_number_ends_as_a_verdict(
    demonstrated: Demonstrated, tmp_path: Path
) -> None:
    rollouts = read_window_file(demonstrated.file(demonstrated.own)).rollouts
    nan = changed(rollouts, "total_reward", lambda _, value: float("nan"))
    ended = windrow(demonstrated.rewritten(tmp_path, nan), "--no-model", "--json")
    assert ended.exit_code == 1
    assert "NaN" not in ended.output
    (report,) = json.loads(ended.output)["files"]
    assert {"schema_valid", "reward_valid"} <= {f["check"] for f in report["failures"]}


def test_without_a_model_a_forged_signature_is_still_found(
    demonstrated: Demonstrated, tmp_path: Path
) -> None:
    honest = judge(demonstrated.file(demonstrated.own), model=False)
    assert honest.accepted
    assert honest.verdict is not None
    assert set(honest.verdict.skipped) == {
        "proof_valid",
        "termination_valid",
        "logprobs_valid",
        "token_distribution_valid",
    }
    rollouts = read_window_file(demonstrated.file(demonstrated.own)).rollouts
    forged = changed(rollouts, "commit_signature", lambda _, value: "00" * 64)
    report = judge(demonstrated.rewritten(tmp_path, forged), model=False)
    assert report.network_reason == "hard:proof_valid"


def test_randomness_is_given_or_drawn_and_always_repeatable(demonstrated: Demonstrated) -> None:
    path = demonstrated.file(demonstrated.own)
    given = judge(path, model=False, randomness="5e" * 32)
    assert given.randomness_from == "given"
    # Nothing says yet what will draw the groups of the open window.
    newest = window_start(embedded_chain(demonstrated.settings).block())
    drawn = judge(path, model=False, window=newest)
    assert drawn.randomness_from == "drawn"
    assert drawn.network_reason == "file:window_mismatch"
    assert drawn.verdict is not None
    context = drawn.verdict.replay.context
    again = judge(path, model=False, window=context.window, randomness=context.validator_randomness)
    assert again.verdict is not None
    assert again.verdict.verdicts.equals(drawn.verdict.verdicts)


def test_another_hotkey_may_be_held_against_the_file(demonstrated: Demonstrated) -> None:
    report = judge(demonstrated.file(demonstrated.own), model=False, hotkey=demonstrated.broken)
    assert report.network_reason == "file:wallet_mismatch"


def hostile(kind: str, sound: bytes, path: Path) -> Path:
    """A hostile file of some kind in a folder, without a name that says whose it is."""
    file = path / f"{kind}.parquet"
    table = pq.read_table(pa.BufferReader(sound))
    match kind:
        case "truncated":
            file.write_bytes(sound[: len(sound) // 2])
        case "damaged":
            file.write_bytes(sound[:100] + bytes(10_000) + sound[10_100:])
        case "tiny":
            file.write_bytes(sound[:100])
        case "text":
            file.write_bytes(b"[bold]not[/] parquet\x1b[31m" * 100)
        case "no_gzip":
            file = path / f"{kind}.parquet.gz"
            file.write_bytes(sound)
        case "gzip_bomb":
            file = path / f"{kind}.parquet.gz"
            with gzip.open(file, "wb", compresslevel=1) as out:
                for _ in range(360):
                    out.write(bytes(2**20))
        case "bomb":
            indices = pa.array([0] * 5000, pa.int32())
            bomb = pa.DictionaryArray.from_arrays(indices, ["x" * 1_000_000])
            pq.write_table(pa.table({"block_hash": bomb}), file, compression="zstd")
        case "types":
            nonce = table.schema.get_field_index("nonce")
            table = table.set_column(nonce, "nonce", pa.array(["x"] * table.num_rows))
            pq.write_table(table, file)
        case "nulls":
            nulls = pa.nulls(table.num_rows, table.schema.field("commit").type)
            at = table.schema.get_field_index("commit")
            pq.write_table(table.set_column(at, table.schema.field(at), nulls), file)
    return file


@pytest.mark.parametrize(
    ("kind", "fate"),
    [
        ("truncated", Fate.BANNED),
        ("damaged", Fate.IGNORED),
        ("tiny", Fate.IGNORED),
        ("text", Fate.BANNED),
        ("no_gzip", Fate.IGNORED),
        ("gzip_bomb", Fate.IGNORED),
        ("bomb", Fate.UNKNOWN),
        ("types", Fate.UNKNOWN),
        ("nulls", Fate.IGNORED),
    ],
)
def test_a_hostile_file_ends_in_a_report(
    demonstrated: Demonstrated, tmp_path: Path, kind: str, fate: Fate
) -> None:
    sound = demonstrated.file(demonstrated.own)
    file = hostile(kind, sound.read_bytes(), tmp_path)
    ended = windrow(file, sound, "--no-model", "--json")
    assert ended.exit_code == 1
    refused, accepted = json.loads(ended.output)["files"]
    assert refused["network_verdict"] == (None if fate is Fate.UNKNOWN else str(fate))
    assert refused["windrow_verdict"] == "refused"
    assert accepted["network_verdict"] == "accepted"
    page = windrow(file, "--no-model")
    assert page.exit_code == 1
    assert "\x1b" not in page.output


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("nothing.parquet", "cannot be read: No such file"),
        ("/dev/zero", "is no file"),
        ("s3://bucket/key.parquet", "s3:// needs AWS_ACCESS_KEY_ID"),
        ("https://host/file.parquet", "is neither a path nor s3://BUCKET/KEY"),
        ("a\0b", "cannot be read"),
    ],
)
def test_what_cannot_be_read_stops_no_other_file(
    demonstrated: Demonstrated, location: str, said: str
) -> None:
    ended = windrow(location, demonstrated.file(demonstrated.own), "--no-model", "--json")
    assert ended.exit_code == 2
    unread, accepted = json.loads(ended.output)["files"]
    assert said in unread["error"]["message"]
    assert accepted["network_verdict"] == "accepted"
    assert windrow(location).exit_code == 2


@pytest.mark.parametrize(
    "metadata", [{}, {"window_start": "31"}, {"window_start": "-30"}, {"window_start": "9" * 4000}]
)
def test_a_file_that_names_no_window_asks_for_one(
    demonstrated: Demonstrated, tmp_path: Path, metadata: dict[str, str]
) -> None:
    table = pq.read_table(demonstrated.file(demonstrated.own))
    file = tmp_path / "file.parquet"
    pq.write_table(table.replace_schema_metadata({"wallet": "5x", **metadata}), file)
    report = Verifier.embedded(Options(model=False)).judge(str(file))
    assert isinstance(report, Unjudged)
    assert "give --window" in str(report.error)
    named = tmp_path / demonstrated.file(demonstrated.own).name
    shutil.copy(file, named)
    assert judge(named, model=False).network_reason == "file:wallet_mismatch"


@pytest.mark.parametrize("options", [{"randomness": "xyz"}, {"randomness": ""}, {"window": 31}])
def test_options_that_mean_nothing_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(CannotVerify):
        Options(**options)


@pytest.mark.live
def test_a_file_in_a_real_s3_server_is_verified(
    demonstrated: Demonstrated, monkeypatch: pytest.MonkeyPatch, radosgw: str
) -> None:
    file = demonstrated.file(demonstrated.own)
    access = {
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": radosgw,
    }
    for name, value in access.items():
        monkeypatch.setenv(name, value)
    make_bucket("windows", radosgw)
    bucket = s3_bucket("windows", S3Access.from_environment(access))
    key = f"grail/windows/{file.name}"
    bucket.put_file(key, file, create=True)
    with pytest.raises(ObjectExists):
        bucket.put_file(key, file, create=True)
    ended = windrow(f"s3://windows/{key}", "--json")
    assert ended.exit_code == 0, ended.output
    assert json.loads(ended.output)["files"][0]["network_verdict"] == "accepted"
    gone = windrow(f"s3://windows/{key}.not", "--json")
    assert gone.exit_code == 2
    assert SECRET not in ended.output + gone.output
