"""The catalogue: what a miner might upload instead of honest work.

Every forgery is a file that the miner signs with its own key, unless its point is that it cannot.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.soundness import models
from benchmarks.soundness.claims import Claims
from benchmarks.soundness.provers import Oracle, as_proofs, prove
from benchmarks.soundness.world import STALE_BLOCK_HASH, Rollouts, World
from windrow.engine.measures import RolloutMeasure
from windrow.networks.grail.advantages import group_advantages
from windrow.networks.grail.constants import (
    ADVANTAGE_TOLERANCE,
    ROLLOUTS_PER_GROUP,
    SKETCH_BUCKETS,
    SKETCH_MODULUS,
    TOLERANCE_BASE,
)
from windrow.networks.grail.prf import sketch_coefficients
from windrow.networks.grail.windows import miner_randomness

HUGE: Final = 10**12
TRUNCATED: Final = 40
BEST_REWARD: Final = 0.735
INT4: Final = "quantised to int4"

Row = NDArray[np.int64]


@dataclass(frozen=True)
class Forgery:
    """One entry of the catalogue.

    section: what is forged. applies: bool [n], rollouts that are forged; the others of the file
    are as they should be. same_tokens: whether the tokens are the honest ones. note: why a
    rollout of this kind can be honest too, empty where it cannot.
    """

    name: str
    section: str
    claims: Claims
    applies: NDArray[np.bool_]
    same_tokens: bool
    note: str = ""


@dataclass(frozen=True)
class OtherModel:
    """A model that is not the checkpoint's. note: as of the forgery made with it."""

    name: str
    model: Any
    note: str = ""


@dataclass(frozen=True)
class Material:
    """What the forger starts from: honest claims, and what the model says of them."""

    world: World
    honest: Claims
    own: Sequence[RolloutMeasure]
    oracle: Oracle
    others: Sequence["OtherModel"]

    @property
    def rollouts(self) -> Rollouts:
        return self.honest.rollouts

    @property
    def everywhere(self) -> NDArray[np.bool_]:
        return np.ones(len(self.rollouts), np.bool_)

    def reproved(self, rollouts: Rollouts) -> Claims:
        """Other tokens, with the proof that the true model gives them."""
        sketches, logprobs = as_proofs(rollouts, self.oracle.own(rollouts, self.world.policy))
        return self.honest.changed(
            **{name: getattr(rollouts, name) for name in rollouts.__annotations__},
            sketches=sketches,
            logprobs=logprobs,
        )


def stale_randomness() -> str:
    """R_m of an earlier window."""
    return miner_randomness(STALE_BLOCK_HASH, None)


def chosen_randomness() -> str:
    """A beacon under which no sketch is larger than the network's tolerance."""
    for number in range(1000):
        randomness = f"{number:064x}"
        bound = np.abs(sketch_coefficients(randomness).astype(int)).sum() * (SKETCH_BUCKETS - 1)
        if bound <= TOLERANCE_BASE:
            return randomness
    raise LookupError("none of a thousand beacons bounds all sketches")


def catalogue(material: Material) -> Iterator[Forgery]:
    """Every forgery, one after the other: each holds claims for all rollouts."""
    yield from _sketches(material)
    yield from _weights(material)
    yield from _logprobs(material)
    yield from _tokens(material)
    yield from _text(material)
    yield from _numbers(material)
    yield from _identity(material)


def _sketches(m: Material) -> Iterator[Forgery]:
    prompts = m.rollouts.prompt_lengths
    own = [found.sketches[0].astype(np.int64) for found in m.own]
    pool = np.concatenate(own)
    count = len(own)

    def forged(name: str, make: Callable[[int, Row, np.random.Generator], Any]) -> Forgery:
        rng = _rng(name)
        made = [make(i, row, rng) for i, row in enumerate(own)]
        differs = np.array([not np.array_equal(a, b) for a, b in zip(made, own, strict=True)])
        sketches = tuple(
            np.concatenate([np.zeros(p, np.int64), np.asarray(row, np.int64)])
            for p, row in zip(prompts, made, strict=True)
        )
        return Forgery(name, "sketches", m.honest.changed(sketches=sketches), differs, True)

    yield forged("all zero", lambda _i, row, _r: np.zeros_like(row))
    yield forged("uniform modulo Q", lambda _i, row, r: r.integers(0, SKETCH_MODULUS, len(row)))
    yield forged("random, as large as true ones", lambda _i, row, r: r.choice(pool, len(row)))
    yield forged("one constant", lambda _i, row, _r: np.full_like(row, 120))
    yield forged("10^12", lambda _i, row, _r: np.full_like(row, HUGE))
    yield forged("minus one", lambda _i, row, _r: np.full_like(row, -1))
    yield forged(
        "true ones, not reduced modulo Q",
        lambda _i, row, _r: np.where(row > SKETCH_MODULUS // 2, row - SKETCH_MODULUS, row),
    )
    yield forged("of another prompt", lambda i, row, _r: np.resize(own[(i + 64) % count], len(row)))
    yield forged(
        "of another completion of the prompt",
        lambda i, row, _r: np.resize(own[sibling(m.rollouts, i)], len(row)),
    )
    yield forged("reversed", lambda _i, row, _r: row[::-1])
    yield forged("shifted by one token", lambda _i, row, _r: np.roll(row, 1))
    yield forged(
        "every other one zero", lambda _i, row, _r: np.where(np.arange(len(row)) % 2, 0, row)
    )
    yield forged(
        "16 in a row zero", lambda _i, row, _r: np.where(np.arange(len(row)) // 16 == 1, 0, row)
    )
    yield forged(
        "noise on each, a third of its size",
        lambda _i, row, r: (row + r.integers(-150, 151, len(row))) % SKETCH_MODULUS,
    )
    measures = m.oracle.own(m.rollouts, m.world.policy, randomness=stale_randomness())
    stale, _ = as_proofs(m.rollouts, measures)
    yield Forgery(
        "for another window's randomness",
        "sketches",
        m.honest.changed(sketches=stale),
        m.everywhere,
        True,
    )
    yield Forgery(
        "stale beacon, honest sketches for it",
        "sketches",
        m.honest.changed(sketches=stale, randomness=stale_randomness()),
        m.everywhere,
        True,
    )
    yield Forgery(
        "all zero under a chosen beacon",
        "sketches",
        m.honest.changed(
            sketches=tuple(np.zeros_like(s) for s in m.honest.sketches),
            randomness=chosen_randomness(),
        ),
        m.everywhere,
        True,
    )


def other_models(world: World) -> list[OtherModel]:
    """Other weights a miner might prove with."""
    model, lesson = world.loaded.model, models.Lesson.of(world.loaded.tokenizer)

    def step(rate: float, *, adam: bool = True) -> Any:
        return models.fine_tuned(model, lesson, rate=rate, adam=adam)

    return [
        OtherModel("another seed", models.untrained(model)),
        OtherModel("smaller: 2 of 4 layers", models.without_layers(model, 2)),
        OtherModel("last layer left out", models.without_layers(model, 3)),
        OtherModel(INT4, models.quantised(model, 4)),
        OtherModel("quantised to int8", models.quantised(model, 8)),
        OtherModel("50 % of weights pruned", models.pruned(model, 0.5)),
        OtherModel("10 % of weights pruned", models.pruned(model, 0.1)),
        OtherModel("one AdamW step, rate 1e-3", step(1e-3)),
        OtherModel("one AdamW step, rate 1.5e-4 (its trainer's last)", step(1.5e-4)),
        OtherModel("one AdamW step, rate 1e-5", step(1e-5), SMALL_STEP),
        OtherModel("one AdamW step, rate 1e-6", step(1e-6), SMALL_STEP),
        OtherModel("one SGD step, rate 1e-2", step(1e-2, adam=False), SMALL_STEP),
        OtherModel("bfloat16 arithmetic instead of float32", world.model_bfloat16),
    ]


SMALL_STEP: Final = (
    "so small a step leaves the confident rollouts as they were; a file of 64 shows it"
)


def _weights(m: Material) -> Iterator[Forgery]:
    for other in m.others:
        sketches, logprobs = prove(m.world, other.model, m.rollouts)
        claims = m.honest.changed(sketches=sketches, logprobs=logprobs)
        yield Forgery(other.name, "weights", claims, m.everywhere, True, other.note)
        if other.name == INT4:
            yield Forgery(
                "of another model (int4)",
                "log-probs",
                m.honest.changed(logprobs=logprobs),
                m.everywhere,
                True,
            )


def _logprobs(m: Material) -> Iterator[Forgery]:
    prompts = m.rollouts.prompt_lengths

    def forged(
        name: str, make: Callable[[NDArray[np.float32], np.random.Generator], Any]
    ) -> Forgery:
        rng = _rng(name)
        made = tuple(
            np.concatenate([np.zeros(p, np.float32), make(found.logprobs.copy(), rng)])
            for p, found in zip(prompts, m.own, strict=True)
        )
        return Forgery(name, "log-probs", m.honest.changed(logprobs=made), m.everywhere, True)

    def at_random(
        row: NDArray[np.float32], rng: np.random.Generator, count: int, value: float
    ) -> NDArray[np.float32]:
        row[rng.choice(len(row), count, replace=False)] = value
        return row

    yield forged("all zero", lambda row, _r: np.zeros_like(row))
    yield forged("their mean everywhere", lambda row, _r: np.full_like(row, row.mean()))
    yield forged("a third arbitrary", lambda row, r: at_random(row, r, len(row) // 3, -9.0))
    yield forged("one off by 3 nats", lambda row, r: _shifted(row, r))
    yield forged("noise of 0.05 nats", lambda row, r: row - r.exponential(0.05, len(row)))
    yield forged("one NaN", lambda row, r: at_random(row, r, 1, np.nan))
    yield forged("a third minus infinity", lambda row, r: at_random(row, r, len(row) // 3, -np.inf))


def _tokens(m: Material) -> Iterator[Forgery]:
    rollouts = m.rollouts
    eos, vocabulary = m.world.loaded.eos_token_id, m.world.loaded.vocab_size

    def with_completions(
        name: str,
        make: Callable[[NDArray[np.int32], np.random.Generator], NDArray[np.int32]],
        *,
        proved: bool = True,
        note: str = "",
    ) -> Forgery:
        # A stream for each completion keeps equal rollouts equal, which are then measured once.
        made = [make(own.copy(), _rng(name, own.tobytes())) for own in rollouts.completions]
        changed = _graded(m, made)
        claims = m.reproved(changed)
        if not proved:
            claims = claims.changed(sketches=m.honest.sketches, logprobs=m.honest.logprobs)
        return Forgery(name, "tokens", claims, m.everywhere, False, note)

    def swapped(share: float) -> Callable[[NDArray[np.int32], np.random.Generator], Any]:
        def swap(row: NDArray[np.int32], rng: np.random.Generator) -> NDArray[np.int32]:
            count = max(1, round(share * len(row)))
            at = rng.choice(len(row) - 1, count, replace=False)
            # Any other token but EOS, which is checked by itself.
            row[at] = (row[at] + rng.integers(1, vocabulary, count)) % vocabulary
            row[at] = np.where(row[at] == eos, (eos + 1) % vocabulary, row[at])
            return row

        return swap

    yield with_completions("one swapped, not proved again", swapped(0.0), proved=False)
    yield with_completions(
        "one swapped, proved again",
        swapped(0.0),
        note="a few tokens in a thousand are ones the model might have sampled itself",
    )
    yield with_completions("10 % swapped, proved again", swapped(0.10))
    yield with_completions("truncated to 40", lambda row, _r: row[:TRUNCATED])
    yield with_completions(
        "truncated, EOS forced", lambda row, _r: np.append(row[: TRUNCATED - 1], np.int32(eos))
    )
    longest = m.world.policy.max_new_tokens
    yield with_completions("padded to the limit after EOS", lambda row, _r: np.resize(row, longest))
    yield with_completions(
        "padded to the limit, EOS removed", lambda row, _r: np.resize(row[:-1], longest)
    )


def _text(m: Material) -> Iterator[Forgery]:
    world, rollouts = m.world, m.rollouts
    miners = _miners(rollouts)
    tokenizer = world.loaded.tokenizer
    written = []
    for miner, group in _groups(rollouts):
        answer = world.task(miner, group).answer
        text = (
            "<start_working_out>\n"
            "Let me read the story and count step by step, one change at a time.\n"
            f"The answer is {answer}.\n</end_working_out>\n<SOLUTION> {answer}</SOLUTION>"
        )
        ids = np.array([*tokenizer(text)["input_ids"], world.loaded.eos_token_id], np.int32)
        written += [ids] * ROLLOUTS_PER_GROUP
    yield Forgery(
        "written by a program, right answer, re-scored",
        "text",
        m.reproved(_graded(m, written)),
        m.everywhere,
        False,
        "refused here because this model never answers without steps; text as the model writes it "
        "would pass",
    )
    greedy = world.sample(
        miners, policy=world.policy.__class__(**{**vars(world.policy), "top_k": 1}), alike=True
    )
    yield Forgery(
        "greedy instead of sampled",
        "text",
        m.reproved(greedy),
        m.everywhere,
        False,
        "a sampler could have drawn it; 16 equal rollouts count once",
    )
    first = [rollouts.completions[at - at % ROLLOUTS_PER_GROUP] for at in range(len(rollouts))]
    yield Forgery(
        "one rollout 16 times in its group",
        "text",
        m.reproved(_graded(m, first)),
        np.arange(len(rollouts)) % ROLLOUTS_PER_GROUP > 0,
        False,
        "a sampler could have drawn it; 16 equal rollouts count once",
    )
    per_file = 4 * ROLLOUTS_PER_GROUP
    pasted = [
        rollouts.completions[at - at % per_file + at % ROLLOUTS_PER_GROUP]
        for at in range(len(rollouts))
    ]
    yield Forgery(
        "replayed under another group's prompt, proved again",
        "text",
        m.reproved(_graded(m, pasted)),
        _other_prompt(rollouts, [at - at % per_file for at in range(len(rollouts))]),
        False,
        "an answer that is likely under both prompts could have been sampled for both",
    )
    others = [rollouts.completions[(at + per_file) % len(rollouts)] for at in range(len(rollouts))]
    yield Forgery(
        "another miner's completions under own prompts, proved again",
        "text",
        m.reproved(_graded(m, others)),
        m.everywhere,
        False,
        "an answer that fits the other problem too passes; copy detection compares the miners of a "
        "window",
    )


def _numbers(m: Material) -> Iterator[Forgery]:
    rollouts = m.rollouts
    shape = (-1, ROLLOUTS_PER_GROUP)
    rewards = rollouts.rewards.reshape(shape)

    def forged(
        name: str, new: NDArray[np.float64], applies: NDArray[np.bool_], **fields: Any
    ) -> Forgery:
        claimed = {
            "rewards": new.ravel(),
            "advantages": np.concatenate([group_advantages(group) for group in new]),
        } | fields
        return Forgery(name, "numbers", m.honest.changed(**claimed), applies, True)

    lowest = np.argsort(rewards, axis=1, kind="stable") < 0
    np.put_along_axis(lowest, np.argsort(rewards, axis=1, kind="stable")[:, :3], True, axis=1)
    inflated = np.where(lowest, BEST_REWARD, rewards)
    yield forged("rewards: 3 of 16 raised", inflated, (inflated != rewards).ravel())
    best = np.full_like(rewards, BEST_REWARD)
    yield forged("rewards: all raised", best, (best != rewards).ravel())
    yield forged("rewards: NaN", np.full_like(rewards, np.nan), m.everywhere)
    advantages = rollouts.advantages
    yield forged(
        "advantages: turned round",
        rewards,
        np.abs(advantages) > ADVANTAGE_TOLERANCE,
        advantages=-advantages,
    )
    yield forged(
        "advantages: NaN", rewards, m.everywhere, advantages=np.full_like(advantages, np.nan)
    )
    yield forged("success: turned round", rewards, m.everywhere, successes=~rollouts.successes)


def _identity(m: Material) -> Iterator[Forgery]:
    rollouts, honest = m.rollouts, m.honest
    per_file = 4 * ROLLOUTS_PER_GROUP

    def moved(by: int) -> dict[str, Any]:
        """The honest rollouts and proofs of other rows."""
        names = ("sequences", "prompt_lengths")
        lists = {n: (v := getattr(rollouts, n))[by:] + v[:by] for n in names}
        arrays = {
            n: np.roll(getattr(rollouts, n), -by) for n in ("rewards", "advantages", "successes")
        }
        proofs = {
            "sketches": honest.sketches[by:] + honest.sketches[:by],
            "logprobs": honest.logprobs[by:] + honest.logprobs[:by],
        }
        return lists | arrays | proofs

    copied = honest.changed(**moved(per_file))
    yield Forgery(
        "copied from another miner, its signatures kept",
        "identity",
        copied.changed(signers=np.roll(rollouts.miners, -per_file)),
        m.everywhere,
        False,
    )
    yield Forgery(
        "copied from another miner, signed again", "identity", copied, m.everywhere, False
    )
    yield Forgery(
        "replayed under the next group's number",
        "identity",
        honest.changed(**moved(ROLLOUTS_PER_GROUP)),
        _other_prompt(rollouts, np.roll(np.arange(len(rollouts)), -ROLLOUTS_PER_GROUP)),
        False,
    )
    eight = min(8, len(_miners(rollouts)))
    skipping = m.world.sample(_miners(rollouts)[:eight], groups=(3, 7, 11, 15))
    yield Forgery(
        "every fourth group number used (the easiest of four)",
        "identity",
        m.reproved(skipping).changed(signers=skipping.miners),
        np.ones(len(skipping), np.bool_),
        False,
        "each rollout is honest; the file is not",
    )
    foreign = tuple(
        _foreign(s, p) for s, p in zip(rollouts.sequences, rollouts.prompt_lengths, strict=True)
    )
    yield Forgery(
        "foreign prompt: one token of it changed, proved again",
        "identity",
        m.reproved(_with(rollouts, sequences=foreign)),
        m.everywhere,
        False,
    )


def _foreign(sequence: NDArray[np.int32], prompt: int) -> NDArray[np.int32]:
    changed = sequence.copy()
    changed[prompt // 2] = changed[prompt // 2 - 1]
    return changed


def _graded(m: Material, completions: Sequence[NDArray[np.int32]]) -> Rollouts:
    """Other completions of the same groups, with their true rewards."""
    own = [c.astype(np.int32) for c in completions]
    return m.world.rollouts(_miners(m.rollouts), (0, 1, 2, 3), own)


def _with(rollouts: Rollouts, **fields: Any) -> Rollouts:
    return Rollouts(**{n: getattr(rollouts, n) for n in rollouts.__annotations__} | fields)


def _other_prompt(rollouts: Rollouts, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.bool_]:
    """bool [n]: whether each rollout's prompt differs from that of another row."""
    prompts = [s[:p] for s, p in zip(rollouts.sequences, rollouts.prompt_lengths, strict=True)]
    return np.array(
        [not np.array_equal(own, prompts[row]) for own, row in zip(prompts, rows, strict=True)]
    )


def _miners(rollouts: Rollouts) -> list[int]:
    return [int(miner) for miner in np.unique(rollouts.miners)]


def _groups(rollouts: Rollouts) -> list[tuple[int, int]]:
    at = slice(None, None, ROLLOUTS_PER_GROUP)
    return list(zip(rollouts.miners[at].tolist(), rollouts.groups[at].tolist(), strict=True))


def sibling(rollouts: Rollouts, row: int) -> int:
    """The next rollout of the group with another completion; the row itself if there is none."""
    start = row - row % ROLLOUTS_PER_GROUP
    own = rollouts.sequences[row].tobytes()
    for step in range(1, ROLLOUTS_PER_GROUP):
        other = start + (row - start + step) % ROLLOUTS_PER_GROUP
        if rollouts.sequences[other].tobytes() != own:
            return other
    return row


def _shifted(row: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    row[rng.integers(len(row))] -= 3.0
    return row


def _rng(name: str, of: bytes = b"") -> np.random.Generator:
    """One stream a forgery, so that none depends on which others run."""
    return np.random.default_rng(zlib.crc32(name.encode() + of))
