"""The page's sections on forgeries."""

from collections.abc import Iterator
from importlib.metadata import version

from benchmarks.soundness.markdown import percent, plain, share, table
from benchmarks.soundness.study import CALIBRATED, DEFAULT, Study
from benchmarks.soundness.toploc_side import TOKENS, TOP_K

HEADLINE = f"float32 {CALIBRATED}"
HALF = f"bfloat16 {CALIBRATED}"
HALF_DEFAULT = f"bfloat16 {DEFAULT}"
SECTIONS = {
    "sketches": "Sketches of the completion that are not of these tokens, model and window",
    "weights": "Other weights: sketches and log-probs by another model for the same tokens",
    "log-probs": "Log-probs",
    "tokens": "Tokens changed after sampling",
    "text": "Text that was not sampled, or not as prescribed, with a true proof",
    "numbers": "Rewards, advantages, success",
    "identity": "Whose rollouts, which problem",
}


def forged(study: Study) -> Iterator[str]:
    yield "## Forgeries"
    yield ""
    yield (
        "Accepted rollouts, with bounds; files of 64 so forged. The network's column and Windrow's "
        "first are for a float32 verifier, the last two set limits for bfloat16 against a bfloat16 "
        "verifier (only where the tokens are the honest ones)."
    )
    yield ""
    toploc = study.toploc
    for section, title in SECTIONS.items():
        yield f"### {title}"
        yield ""
        yield from table(
            [
                "forgery",
                "n",
                "network",
                "Windrow",
                "files: network / Windrow",
                "caught by",
                "Windrow bf16 calibrated",
                "bf16 default",
                "TOPLOC f32 / bf16 limits",
            ],
            [
                [
                    row.name + (" ¹" if row.note else ""),
                    f"{row.network.trials:,}",
                    percent(row.network),
                    f"**{percent(row.windrow[HEADLINE])}**",
                    f"{share(row.network_files)} / {share(row.windrow_files)}",
                    ", ".join(f"`{check}`" for check in row.windrow_checks) or "-",
                    plain(row.windrow.get(HALF)),
                    plain(row.windrow.get(HALF_DEFAULT)),
                    "-"
                    if toploc is None
                    or section not in ("sketches", "weights")
                    or row.name not in toploc.forged
                    else " / ".join(
                        f"{toploc.forged[row.name][d] / toploc.trials:.1%}"
                        for d in ("float32", "bfloat16")
                    ),
                ]
                for row in study.forged
                if row.section == section
            ],
        )
    yield "¹ See below."
    yield ""


def limits_of_one(study: Study) -> Iterator[str]:
    yield "## What one rollout does not show"
    yield ""
    yield from (
        f"* **{row.name}**: {row.note}. Accepted rollouts {percent(row.windrow[HEADLINE])}, files "
        f"{share(row.windrow_files)}."
        for row in study.forged
        if row.note
    )
    yield ""
    yield (
        "Equal completions are held against how likely the model makes them "
        "(`repeated_completions`): honest groups, and files, are refused at most once in a "
        "thousand whatever the model, by Markov's inequality, as long as the logits they were "
        "sampled with are within the drift allowed (0.05 nat in float32, 0.5 in bfloat16), and "
        "copies pass only where the model "
        "is certain. What would show the rest: for text that was not sampled, a seed for each "
        "request that the validator can draw again; for greedy text, the sum of the log-probs over "
        "a file against its expectation; for small steps of training, sketches with finer buckets "
        "or TOPLOC's mantissas; for copies, the other miners' files "
        "(`networks/grail/validation/copies.py`)."
    )
    yield ""


def toploc(study: Study) -> Iterator[str]:
    yield "## TOPLOC beside it"
    yield ""
    toploc = study.toploc
    if toploc is None:
        yield (
            "Not measured: the package is not installed. Its wheel is built for another torch, so "
            "it has to be compiled: `pip install --no-deps --no-build-isolation --no-binary "
            "toploc toploc==0.1.6`."
        )
        return
    yield (
        f"`toploc` {version('toploc')} on the same hidden states of {toploc.trials} rollouts: a "
        f"proof of the {TOP_K} largest activations of every {TOKENS} tokens, in bfloat16. Its "
        "limits are taken as ours are, four times the largest honest difference: "
        + "; ".join(
            f"{dtype} {limit[0]:.0f} exponents, mantissas by {limit[1]:.2g} in the mean and "
            f"{limit[2]:.2g} in the median"
            for dtype, limit in toploc.limits.items()
        )
        + ". Honest rollouts accepted: "
        + "; ".join(
            f"{name} {found['float32']} and {found['bfloat16']}"
            for name, found in toploc.honest.items()
        )
        + f" of {toploc.trials} (float32, bfloat16 limits)."
    )
    yield ""
