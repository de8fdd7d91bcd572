"""Every named query on a small lake, against answers worked out by hand."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from windrow.engine.fleet.stages import STAGES
from windrow.pipelines.commands.named_queries import UnknownQuery, named_queries, query_named
from windrow.resources.warehouse.lake import Lake
from windrow.resources.warehouse.schema import DATASETS

W1, W2, W3 = 7200, 7230, 7260


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def write(lake: Lake, dataset: str, columns: str, *rows: Sequence[Any]) -> None:
    """Rows by column, the first of which is window_start; columns not named are null."""
    names = columns.split()
    windows = defaultdict(list)
    for row in rows:
        windows[row[0]].append(dict(zip(names, row, strict=True)))
    for window, records in windows.items():
        table = pa.Table.from_pylist(records, schema=DATASETS[dataset].schema)
        lake.write(dataset, window, "hk", table)


def answer(lake: Lake, name: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in lake.query(query_named(name).sql).to_pylist()]


def test_every_query_says_what_it_answers_and_what_its_columns_are(lake: Lake) -> None:
    for query in named_queries().values():
        assert query.answers.endswith(".")
        assert all(query.columns.values())
        found = lake.query(query.sql)
        assert list(query.columns) == found.column_names, query.name
        assert found.num_rows == 0
        assert not any(pa.types.is_decimal(kind) for kind in found.schema.types), query.name


def test_every_query_says_the_same_of_a_compacted_lake(lake: Lake) -> None:
    for fill in FILLS:
        fill(lake)
    before = {query.name: lake.query(query.sql) for query in named_queries().values()}
    assert all(found.num_rows for found in before.values())
    assert lake.compact(before=2 * W1, grace_seconds=0)
    for name, found in before.items():
        assert lake.query(query_named(name).sql).equals(found), name


def test_an_unknown_query_names_the_closest() -> None:
    for name, said in (
        ("near_mises", "Did you mean near_misses?"),
        ("rollout", "FROM rollouts LIMIT"),
        ("xyzzy", "There are acceptance_by_window, "),
    ):
        with pytest.raises(UnknownQuery, match=said):
            query_named(name)


def fill_validations(lake: Lake) -> None:
    write(
        lake,
        "validations",
        "window_start hotkey validator state had_failure windrow_failures checked valid unique",
        (W1, "a", "v", "checked", 0, 0, 100, 100, 80),
        (W1, "b", "v", "checked", 0, 2, 100, 100, 100),
        (W1, "c", "v", "checked", 1, 5, 200, 0, 0),
        (W1, "d", "v", "late", 0, 0, 0, 0, 0),
        (W1, "e", "v", "missing", 0, 0, 0, 0, 0),
        (W2, "a", "v", "unreadable", 1, 1, 0, 0, 0),
    )


def test_acceptance_by_window(lake: Lake) -> None:
    fill_validations(lake)
    assert answer(lake, "acceptance_by_window") == [
        (W2, "v", 1, 0, 0, 0, 0, 0, None, None),
        (W1, "v", 4, 3, 2, 1, 400, 200, 0.5, 0.9),
    ]


def fill_verdicts(lake: Lake) -> None:
    write(
        lake,
        "verdicts",
        "window_start hotkey rollout_group rollout_index nonce check severity"
        " network_verdict windrow_verdict measured threshold margin reason",
        (W1, "a", 0, 0, 0, "proof", "ban", True, True, 2.0, 10.0, 8.0, ""),
        (W1, "b", 0, 1, 1, "proof", "ban", True, True, 4.0, 10.0, 6.0, ""),
        (W1, "b", 1, 2, 18, "proof", "ban", True, True, 6.0, 10.0, 4.0, ""),
        (W1, "a", 0, 0, 0, "tokens", "ban", True, True, None, None, None, ""),
        (W2, "a", 0, 0, 0, "proof", "ban", True, True, 5.0, 10.0, 5.0, ""),
        (W2, "a", 0, 1, 1, "proof", "ban", False, False, 11.0, 10.0, -1.0, "beyond"),
        (W2, "b", 0, 0, 0, "proof", "strict", True, False, 9.0, 10.0, 1.0, "zeros"),
        (W2, "b", 0, 1, 1, "proof", "strict", True, False, 9.0, 10.0, 1.0, "zeros"),
        (W3, "a", 0, 1, 1, "proof", "ban", False, False, 12.0, 10.0, -2.0, "beyond"),
        *((W3, "a", 0, n, n, "proof", "ban", True, True, 5.0, 10.0, 5.5, "") for n in range(3)),
    )
    write(
        lake,
        "validations",
        "window_start hotkey validator dtype device attention",
        (W1, "a", "v", "bfloat16", "cuda:0", "sdpa"),
        (W1, "b", "v", "float32", "cpu", "eager"),
        (W2, "a", "v", "bfloat16", "cuda:0", "sdpa"),
        (W2, "b", "v", "float32", "cpu", "eager"),
        (W3, "a", "v", "bfloat16", "cuda:0", "sdpa"),
    )


def test_margin_drift(lake: Lake) -> None:
    fill_verdicts(lake)
    gpu, cpu = ("proof", "bfloat16", "cuda:0", "sdpa"), ("proof", "float32", "cpu", "eager")
    assert answer(lake, "margin_drift") == [
        (W3, *gpu, 4, 1, 14.5 / 4, -2.0, 14.5 / 4 - 2.0),
        (W2, *gpu, 2, 1, 2.0, -1.0, -6.0),
        (W2, *cpu, 2, 2, 1.0, 1.0, -4.0),
        (W1, *gpu, 1, 0, 8.0, 8.0, None),
        (W1, *cpu, 2, 0, 5.0, 4.0, None),
    ]


def test_verdict_failures(lake: Lake) -> None:
    fill_verdicts(lake)
    assert answer(lake, "verdict_failures") == [
        ("proof", "ban", "beyond", 2, 2, 2, 1, W3),
        ("proof", "strict", "zeros", 2, 0, 1, 1, W2),
    ]


def test_near_misses_are_the_five_smallest_margins_of_what_passed(lake: Lake) -> None:
    fill_verdicts(lake)
    assert answer(lake, "near_misses") == [
        ("proof", 4.0, 6.0, 10.0, W1, "b", 1, 2),
        ("proof", 5.0, 5.0, 10.0, W2, "a", 0, 0),
        *(("proof", 5.5, 5.0, 10.0, W3, "a", 0, n) for n in range(3)),
    ]


def fill_runs(lake: Lake) -> None:
    write(
        lake,
        "window_runs",
        "window_start hotkey finished seconds generation_seconds reward_seconds proof_seconds"
        " group_seconds stopped_by",
        (W1, "a", 2, 64.0, 32.0, 4.0, 16.0, 9.0, "time_budget"),
        (W2, "a", 0, 10.0, 0.0, 0.0, 0.0, None, "window_closed"),
        (W3, "a", 1, 20.0, 16.0, 2.0, 8.0, 12.0, "max_groups"),
    )
    write(
        lake,
        "rollouts",
        "window_start hotkey rollout_group rollout_index tokens prompt_length completion_length"
        " generation_seconds reward_seconds",
        *((W1, "a", 0, n, [1, 2, n % 10, 9], 2, 2, 10.0, 1.0) for n in range(16)),
        *((W1, "a", 1, n, [3, n % 10, 9], 1, n, 22.0, 3.0) for n in range(16)),
        *((W3, "a", 7, n, [1, n], 1, 1, 16.0, 2.0) for n in range(16)),
    )
    write(
        lake,
        "proofs",
        "window_start hotkey rollout_group rollout_index proof_seconds",
        *((W1, "a", 0, n, 6.0) for n in range(16)),
        *((W1, "a", 1, n, 10.0) for n in range(16)),
    )
    write(lake, "submissions", "window_start hotkey sha256", (W1, "a", "00"), (W3, "a", "11"))
    write(
        lake,
        "uploads",
        "window_start hotkey on_time margin_seconds",
        (W1, "a", False, -7.5),
    )


def test_throughput_by_stage(lake: Lake) -> None:
    fill_runs(lake)
    assert answer(lake, "throughput_by_stage") == [
        (W3, "a", "generation", 16, 16.0, 1.0, 16.0, 16.0),
        (W3, "a", "reward", 16, 2.0, 8.0, 2.0, 2.0),
        (W3, "a", "proof", 16, 8.0, 2.0, None, None),
        (W3, "a", "loop", 16, 20.0, 0.8, 12.0, None),
        (W2, "a", "generation", 0, 0.0, None, None, None),
        (W2, "a", "reward", 0, 0.0, None, None, None),
        (W2, "a", "proof", 0, 0.0, None, None, None),
        (W2, "a", "loop", 0, 10.0, 0.0, None, None),
        (W1, "a", "generation", 32, 32.0, 1.0, 16.0, 22.0),
        (W1, "a", "reward", 32, 4.0, 8.0, 2.0, 3.0),
        (W1, "a", "proof", 32, 16.0, 2.0, 8.0, 10.0),
        (W1, "a", "loop", 32, 64.0, 0.5, 9.0, None),
    ]


def test_missed_deadlines_count_what_was_made_in_vain(lake: Lake) -> None:
    fill_runs(lake)
    # W1's two groups end in the same ten completions, after other prompts.
    assert answer(lake, "missed_deadlines") == [
        (W3, "a", "not_uploaded", None, "max_groups", 16, 16, 20.0),
        (W2, "a", "no_file", None, "window_closed", 0, 0, 10.0),
        (W1, "a", "late", 7.5, "time_budget", 32, 10, 64.0),
    ]


def test_a_window_in_time_is_not_missed(lake: Lake) -> None:
    fill_runs(lake)
    on_time = {"window_start": W3, "hotkey": "a", "on_time": True}
    table = pa.Table.from_pylist([on_time], schema=DATASETS["uploads"].schema)
    lake.write("uploads", W3, "hk", table)
    assert [row[0] for row in answer(lake, "missed_deadlines")] == [W2, W1]


def test_slowest_groups(lake: Lake) -> None:
    fill_runs(lake)
    assert answer(lake, "slowest_groups") == [
        (W1, "a", 1, 35.0, 22.0, 3.0, 10.0),
        (W3, "a", 7, 18.0, 16.0, 2.0, None),
        (W1, "a", 0, 17.0, 10.0, 1.0, 6.0),
    ]


def fill_completions(lake: Lake) -> None:
    def digest(letter: str) -> bytes:
        return letter.encode() * 32

    write(
        lake,
        "completions",
        "window_start hotkey row digest",
        *((W1, "a", n, digest(letter)) for n, letter in enumerate("pqqqr")),
        *((W1, "b", n, digest(letter)) for n, letter in enumerate("pqst")),
        *((W1, "c", n, digest(letter)) for n, letter in enumerate("puvv")),
        *((W1, "d", n, digest(letter)) for n, letter in enumerate("xyz")),
        # The same completion in another window is no duplicate.
        *((W2, "d", n, digest(letter)) for n, letter in enumerate("xyz")),
    )


def test_duplicate_completions_within_a_file_and_across_miners(lake: Lake) -> None:
    fill_completions(lake)
    assert answer(lake, "duplicate_completions") == [
        (W1, "a", 5, 2, 4, 0.8, 2),
        (W1, "b", 4, 0, 2, 0.5, 2),
        (W1, "c", 4, 1, 1, 0.25, 2),
    ]


def fill_weights(lake: Lake) -> None:
    write(
        lake,
        "weights",
        "window_start hotkey validator uid windows_checked windows_available unique_sum cap_share"
        " raw_score weight submitted",
        (W1, "a", "v", 1, 1, 1, 900, 0.3, 0.1, 0.02, False),
        (W1, "b", "v", 2, 1, 1, 100, 0.1, 0.0, 0.0, False),
        (W2, "a", "v", 1, 2, 2, 1900, 0.6, 0.3, 0.06, True),
        (W2, "b", "v", 2, 1, 2, 100, 0.2, 0.1, 0.02, True),
        (W2, "c", "v", 3, 0, 1, 0, 0.0, 0.0, 0.0, True),
    )


def test_weight_forecast(lake: Lake) -> None:
    fill_weights(lake)
    assert answer(lake, "weight_forecast") == [
        ("v", "a", 1, W2, 0.06, pytest.approx(0.75), pytest.approx(0.04), 0.04, 2, 2, 1900, 0.6,
         True),
        ("v", "b", 2, W2, 0.02, pytest.approx(0.25), 0.02, 0.01, 1, 2, 100, 0.2, True),
        ("v", "c", 3, W2, 0.0, 0.0, None, 0.0, 0, 1, 0, 0.0, True),
    ]  # fmt: skip


def fill_scores(lake: Lake) -> None:
    write(
        lake,
        "scores",
        "window_start hotkey validator active eligible selected estimated_unique had_failure"
        " copy_ratio copied_from ban_windows_left reason",
        (W1, "a", "v", True, True, True, 900, 0, 0.01, "b", 0, None),
        (W1, "b", "v", True, True, True, 0, 1, 0.0, None, 14, "proof_valid"),
        (W1, "c", "v", True, True, False, 0, 0, None, None, 0, None),
        (W2, "a", "v", False, False, False, 0, 0, None, None, 0, None),
        (W2, "b", "v", True, False, False, 0, 0, None, None, 13, "banned"),
    )
    write(lake, "weights", "window_start hotkey validator weight", (W1, "a", "v", 0.05))


def test_score_history(lake: Lake) -> None:
    fill_scores(lake)
    assert answer(lake, "score_history") == [
        (W2, "v", "a", "inactive", 0, None, None, None, None, 0, None, None),
        (W2, "v", "b", "banned", 0, None, None, None, None, 13, "banned", None),
        (W1, "v", "a", "counted", 900, 0.01, "b", None, None, 0, None, 0.05),
        (W1, "v", "b", "failed", 0, 0.0, None, None, None, 14, "proof_valid", None),
        (W1, "v", "c", "not_looked_at", 0, None, None, None, None, 0, None, None),
    ]


def fill_faults(lake: Lake) -> None:
    write(
        lake,
        "faults",
        "window_start hotkey stage rollout_group reason detail recorded_at",
        (W1, "a", "proof", 3, "OutOfMemory", "halve the batch", 1700000000.5),
        (W1, "a", "proof", 4, "OutOfMemory", "halve it again", 1700000001.5),
        (W2, "a", "proof", 1, "OutOfMemory", "and again", 1700000000.0),
        (W1, "a", "beacon", None, "NoBlock", "the node is behind", 1700000002.0),
    )


def test_drop_reasons(lake: Lake) -> None:
    fill_faults(lake)
    last = datetime(2023, 11, 14, 22, 13, 21, 500_000)  # noqa: DTZ001
    assert answer(lake, "drop_reasons") == [
        ("proof", "OutOfMemory", 3, 3, 2, W1, W2, last, "halve it again"),
        ("beacon", "NoBlock", 1, 0, 1, W1, W1, datetime(2023, 11, 14, 22, 13, 22),  # noqa: DTZ001
         "the node is behind"),
    ]  # fmt: skip


AT = 1700000000.0


def fill_nodes(lake: Lake) -> None:
    """`a` ended after a failure, a proof wrong; `b` was verified, then failed; `c` never ended;
    `d` and `e` ended, of which `e` was too busy to attest.
    """
    columns = "window_start node observed_at run_id stage state reason detail"

    def ended(node: str, at: float, stage: str, reason: str = "") -> list[tuple[Any, ...]]:
        state = "failed" if reason else "done"
        return [
            (W1, node, at, f"run {at}", stage, "started", "", ""),
            (W1, node, at + 1, f"run {at}", stage, state, reason, reason and "why"),
        ]

    write(
        lake,
        "node_states",
        columns,
        *ended("a", AT, "inventory"),
        *ended("a", AT + 2, "facts", "NodeUnreachable"),
        *[row for n, stage in enumerate(STAGES) for row in ended("a", AT + 10 + 2 * n, stage)],
        *[row for n, stage in enumerate(STAGES) for row in ended("b", AT + 2 * n, stage)],
        *ended("b", AT + 50, "inventory"),
        *ended("b", AT + 52, "facts", "GpuLost"),
        (W2, "c", AT + 60, "run c", "inventory", "started", "", ""),
        *[row for n, stage in enumerate(STAGES) for row in ended("d", AT + 2 * n, stage)],
        *[row for n, stage in enumerate(STAGES) for row in ended("e", AT + 2 * n, stage)],
    )
    write(
        lake,
        "node_checks",
        "window_start node observed_at run_id stage check network gpu_uuid network_verdict"
        " windrow_verdict measured needed unit reason remedy",
        (W1, "a", AT, "old", "preflight", "ram", "chutes", None, False, False, 1.0, 2.0, "GiB",
         "too little", "add"),
        (W1, "a", AT + 9, "new", "preflight", "ram", "chutes", None, True, True, 3.0, 2.0, "GiB",
         "", ""),
        (W1, "a", AT + 9, "new", "gemm_proof", "rows", "windrow", "g", None, False, 1.0, None, "s",
         "row 3 is wrong", ""),
        (W1, "b", AT, "new", "preflight", "disk", "gonka", None, False, None, None, None, "",
         "no mount", "mount it"),
        (W1, "d", AT, "new", "attestation", "attestation_fill", "windrow", "g", None, True, None,
         None, "", "", ""),
        (W1, "e", AT - 9, "old", "attestation", "attestation_fill", "windrow", "g", None, True,
         None, None, "", "", ""),
        (W1, "e", AT, "new", "attestation", "attestation", "windrow", None, None, None, None,
         None, "", "skipped: its GPUs are busy", ""),
    )  # fmt: skip
    write(
        lake,
        "attestations",
        "window_start node observed_at kind gpu_uuid backend driver way size bytes seconds passed",
        (W1, "a", AT, "attestation", "g", "cuda", "570", "int8", 8192, 100, 10.0, True),
        (W1, "a", AT + 1, "attestation", "g", "cuda", "570", "int8", 8192, 100, 30.0, False),
        (W1, "a", AT + 2, "attestation", "g", "cuda", "570", "int8", 8192, 100, 10.0, True),
        (W1, "a", AT + 3, "attestation", "g", "cuda", "570", "int8", 16384, 100, 80.0, True),
        (W1, "a", AT + 4, "attestation", "g", "cuda", "600", "int8", 8192, 100, 90.0, True),
        (W1, "a", AT + 5, "attestation", "g", "cuda", "600", "float32", 8192, 100, 70.0, True),
    )


def at(seconds: float) -> datetime:
    return datetime(2023, 11, 14, 22, 13, 20) + timedelta(seconds=seconds)  # noqa: DTZ001


def test_where_nodes_stand(lake: Lake) -> None:
    fill_nodes(lake)
    assert answer(lake, "node_states_now") == [
        ("a", "refused", None, None, None, 8, at(25), 1, []),
        ("b", "failed", "facts", "GpuLost", "why", 1, at(53), 0, ["gonka"]),
        ("c", "under way", "inventory", None, None, 0, at(60), 0, []),
        ("d", "verified", None, None, None, 8, at(15), 0, []),
        ("e", "unproven", None, None, None, 8, at(15), 0, []),
    ]


def test_the_newest_findings_against_nodes(lake: Lake) -> None:
    fill_nodes(lake)
    assert answer(lake, "network_refusals") == [
        ("gonka", "b", "disk", None, True, False, None, None, "", "no mount", "mount it"),
        ("windrow", "a", "rows", "g", False, True, 1.0, None, "s", "row 3 is wrong", ""),
    ]


def test_times_of_a_gpu_against_its_own_median(lake: Lake) -> None:
    fill_nodes(lake)
    assert answer(lake, "gpu_timings") == [
        ("a", "g", "attestation", at(5), "cuda", "600", "float32", 8192, 70.0, 1.0, True),
        ("a", "g", "attestation", at(4), "cuda", "600", "int8", 8192, 90.0, 1.0, True),
        ("a", "g", "attestation", at(3), "cuda", "570", "int8", 16384, 80.0, 1.0, True),
        ("a", "g", "attestation", at(2), "cuda", "570", "int8", 8192, 10.0, 1.0, True),
        ("a", "g", "attestation", at(1), "cuda", "570", "int8", 8192, 30.0, 3.0, False),
        ("a", "g", "attestation", at(0), "cuda", "570", "int8", 8192, 10.0, 1.0, True),
    ]


# fill_verdicts writes validations and fill_scores writes weights, as fill_validations and
# fill_weights do.
FILLS = (fill_verdicts, fill_runs, fill_completions, fill_scores, fill_faults, fill_nodes)
