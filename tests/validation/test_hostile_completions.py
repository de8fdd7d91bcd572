"""Completions that attack what evaluates them: their miner pays for it, and nobody else."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.validation.subnet import HONEST, HOSTILE, Sample, Subnet, miner
from windrow.engine.ports import Completion
from windrow.environments.evaluation import Evaluation
from windrow.environments.sandbox import Limits, Sandbox
from windrow.environments.tasks import Task
from windrow.pipelines import live
from windrow.resources.wallet import DevelopmentWallet

NINE = [miner(uri) for uri in HONEST]
BUDGET = "1.5"
QUICK = partial(Sandbox, limits=Limits(cpu_seconds=1, wall_seconds=2, spare_seconds=1))
UNSOLVED = Evaluation(0.3, False)

# A way out of the list of built-ins, as far as os; what is found there is up to the sandbox.
OUT = (
    "p=[c for c in ().__class__.__base__.__subclasses__() if c.__name__=='_wrap_close'][0]"
    ".__init__.__globals__\n"
)
ATTACKS = {
    "fork": OUT + "while 1:\n try:p['fork']()\n except OSError:pass",
    "sleep": OUT + "p['sys'].modules['time'].sleep(99)",
    "spin": "while 1:pass",
    "raise": "raise BaseException('x')",
    "leave": OUT + "p['_exit'](0)",
    "fill": "x=[0]\nwhile 1:x+=x",
    "grab": "x=bytearray(1<<44)",
    "read": OUT + "p['open']('/etc/passwd',0)",
    "list": OUT + "p['listdir']('/proc')",
    "kill": OUT + "p['kill'](1,9);p['kill'](-1,9)",
    "deep": "f=lambda n:f(n+1)\nf(0)",
    "compile": "x=" + "(" * 60 + ")" * 60,
}
# One after the other too costly for algebra; the second calls what parsing finds in its globals.
HANGING = (
    "9**9**9**9",
    "__import__('os').fork()",
    "(lambda f:f(f))(lambda f:f(f))",
    "factorial(10**9)",
    "[0]*10**15",
    "integrate(sin(x)**99*exp(x**x),x)",
    "(x+y+z+t)**9999-expand((x+y+z+t)**9999)",
    *(f"factorial(factorial({number}))" for number in range(20, 29)),
)


def answer(content: str) -> str:
    return f"<SOLUTION>{content}</SOLUTION>"


def solved(
    subnet: Subnet, wallet: DevelopmentWallet, task: Task, sample: Sample
) -> list[Completion]:
    """The task's own solution twice in a group, what the model samples in the rest."""
    text = wallet.hotkey[:6] + answer(task.solution if task.tests else task.answer)
    return [*subnet.completions([text] * 2), *sample()[2:]]


def upload(
    subnet: Subnet, wallet: DevelopmentWallet, texts: Sequence[str], groups: Sequence[int] = (0,)
) -> Path:
    """A file whose proofs are true and whose completions are these."""
    attack = subnet.completions([answer(text) for text in texts])
    rollouts = subnet.rollouts(wallet, groups, lambda task, sample: attack, UNSOLVED)
    return subnet.upload(wallet, subnet.file(wallet, rollouts))


def of_check(subnet: Subnet, wallet: DevelopmentWallet, check: str) -> list[dict[str, Any]]:
    return [row for row in subnet.rows("verdicts", wallet) if row["check"] == check]


@pytest.fixture(scope="module", params=[("mbpp", 120), ("math", 90)], ids=["mbpp", "math"])
def among_nine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Subnet]:
    """A subnet whose miners are asked for code or formulas, with little time to evaluate them."""
    env_id, max_tokens = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live, "Sandbox", QUICK)
        subnet = Subnet.make(
            tmp_path_factory.mktemp(env_id),
            env_id=env_id,
            max_tokens=max_tokens,
            WINDROW_EVALUATION_SECONDS=BUDGET,
            WINDROW_CALIBRATION="no",
            WINDROW_ANY_PROGRAM_PYTHON="yes",
        )
    for wallet in NINE:
        rollouts = subnet.rollouts(wallet, write=partial(solved, subnet, wallet))
        subnet.upload(wallet, subnet.file(wallet, rollouts))
    with subnet.instance:
        yield subnet
    subnet.resource("inference")._sandbox.close()


def test_completions_that_take_for_ever_stop_nobody_else(among_nine: Subnet) -> None:
    """Ten miners; every rollout of one is as slow as the limits of a single program let it be."""
    subnet, one = among_nine, miner(HOSTILE)
    assert subnet.validate("verdicts", "scores").success
    undisturbed = subnet.seen()
    # Many a completion of such a small model looks unlikely to the network (§8.9).
    reasons = [row["reason"] for row in undisturbed["scores"]]
    assert set(reasons) <= {None, "soft:token_distribution_valid"}
    assert reasons.count(None) >= 5
    assert all(
        row["windrow_verdict"]
        for row in undisturbed["verdicts"]
        if row["check"] in {"env_eval_valid", "reward_valid", "success_matches"}
    )

    code = subnet.environment.tasks[0].tests
    slow = [f"while {n}:pass" for n in range(1, 17)] if code else HANGING
    upload(subnet, one, slow)
    result = subnet.validate("verdicts", "scores")
    assert result.success
    assert subnet.seen(*NINE) == undisturbed

    evaluated = of_check(subnet, one, "env_eval_valid")
    left_out = [row for row in evaluated if "evaluation budget used up" in row["reason"]]
    assert len(evaluated) == 16
    # Each program that is stopped took a second, so a few rollouts spend the budget.
    assert 16 > len(left_out) >= (14 if code else 8)
    assert all(row["network_verdict"] is None and not row["windrow_verdict"] for row in left_out)
    assert [r["row"] for r in left_out] == list(range(16))[-len(left_out) :]
    rewards = of_check(subnet, one, "reward_valid")[-len(left_out) :]
    assert not any(row["network_verdict"] or row["windrow_verdict"] for row in rewards)
    # The budget is Windrow's own: what the network says of such a file is not known.
    (validation,) = subnet.rows("validations", one)
    assert (validation["state"], validation["network_reason"]) == ("unfinished", None)
    (score,) = subnet.rows("scores", one)
    assert (score["had_failure"], score["estimated_unique"]) == (None, None)


def test_code_that_breaks_out_of_its_built_ins_gains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fork, sleep, fill, read, kill and the like: each is one failed rollout, and nothing more."""
    monkeypatch.setattr(live, "Sandbox", QUICK)
    settings = {"WINDROW_CALIBRATION": "no", "WINDROW_ANY_PROGRAM_PYTHON": "yes"}
    subnet = Subnet.make(tmp_path, env_id="humaneval", max_tokens=190, **settings)
    one, other = miner(HOSTILE), NINE[0]
    upload(subnet, one, [*ATTACKS.values(), *"1234"])
    subnet.upload(other, subnet.file(other, subnet.rollouts(other)))
    try:
        with subnet.instance:
            assert subnet.validate("verdicts", "scores").success
    finally:
        subnet.resource("inference")._sandbox.close()
    assert all(row["windrow_verdict"] for row in of_check(subnet, one, "env_eval_valid"))
    # The claim that nothing was solved is true of every attack.
    attacked = dict(zip(ATTACKS, of_check(subnet, one, "success_matches"), strict=False))
    assert [name for name, row in attacked.items() if not row["windrow_verdict"]] == []
    (validation,) = subnet.rows("validations", one)
    assert (validation["state"], validation["faults"]) == ("checked", [])
    assert [row["estimated_unique"] for row in subnet.rows("scores", other)] == [16]
