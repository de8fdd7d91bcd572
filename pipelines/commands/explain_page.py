"""`windrow explain`: one page about a miner's window."""

from collections.abc import Iterator
from datetime import UTC, datetime

from rich.console import Console
from rich.text import Text

from windrow.networks.grail.constants import (
    BLOCK_SECONDS,
    MAX_FILE_BYTES,
    MIN_FILE_BYTES,
    WINDOW_BLOCKS,
)
from windrow.networks.grail.validation.uploads import UploadState
from windrow.networks.grail.validation.weights import MAINNET
from windrow.pipelines.commands.advice import COPIED, UPLOADS
from windrow.pipelines.commands.explain import VALIDATE, Story, story
from windrow.pipelines.commands.printing import cell
from windrow.pipelines.commands.verdict_tables import (
    by_check,
    checks_table,
    failure_line,
    failures,
    what_to_change,
)
from windrow.pipelines.live import open_wallet
from windrow.resources.configuration.settings import Settings
from windrow.resources.warehouse.lake import Lake

SHOWN_EACH = 1
LABEL = 10
WINDOW_MINUTES = WINDOW_BLOCKS * BLOCK_SECONDS / 60

LOOKED_AT = {
    "checked": "yes, the file was checked",
    "not_selected": "no: it was not among the miners drawn for this window",
    "banned": "no: the miner is banned for an earlier window",
    "late": "no: the upload came after the deadline",
    "bad_size": "no: a file of this size is not fetched",
    "missing": "no: the file was gone, or was replaced while it was fetched",
    "unfinished": "yes, but this machine could not check all of it: it counts for nothing",
    "unreadable": "yes, but nothing of the file could be read",
}


def show(out: Console, window: str, hotkey: str) -> None:
    """Print the page. hotkey: empty for one's own. Raises NothingKnown, LakeError."""
    settings = Settings.read()
    own = open_wallet(settings).hotkey
    print_story(out, story(Lake(settings.lake), window, hotkey or own, own))


def print_story(out: Console, told: Story, *, brief: bool = False) -> None:
    """The page of one miner's window. brief: of the checks, only those that fail."""
    out.print(Text.assemble((f"window {told.window}, miner ", "bold"), cell(told.hotkey)))
    for label, text in _upload(told):
        _line(out, label, text)
    if told.validator is None:
        _line(out, "verdicts", "none yet; once the window has closed, run")
        out.print(VALIDATE.format(window=told.window), highlight=False, soft_wrap=True)
    else:
        for label, text in _verdicts(told):
            _line(out, label, text)
    if told.verdicts.num_rows:
        summaries = by_check(told.verdicts)
        failing = [summary for summary in summaries if not summary.passed]
        _line(out, "checks", f"{len(summaries) - len(failing)} of {len(summaries)} pass")
        if failing or not brief:
            out.print(checks_table(failing if brief else summaries))
        for row in failures(told.verdicts, SHOWN_EACH):
            _line(out, "fails", failure_line(row))
    for label, text in (*_score(told), *_weight(told), *_ban(told), *_advice(told)):
        _line(out, label, text)


def _upload(told: Story) -> Iterator[tuple[str, str | Text]]:
    found = told.validation or told.upload
    if found:
        yield "upload", cell(found["key"], 200)
        margin = found["deadline"] - found["uploaded_at"] if found["uploaded_at"] else None
        if margin is not None:
            when = datetime.fromtimestamp(found["uploaded_at"], UTC).isoformat(" ", "seconds")
            side = "before" if margin >= 0 else "AFTER"
            yield "", f"{when}, {abs(margin):.1f} s {side} the deadline"
        yield "", f"{found['bytes']:,} bytes; {MIN_FILE_BYTES:,} to {MAX_FILE_BYTES:,} are fetched"
    elif told.validator:
        yield "upload", f"none was found; {told.miners} miners uploaded"
    elif told.submission:
        yield "upload", "none; the file is ready on this machine"
    for fault in told.faults:
        yield "fault", Text.assemble(fault["stage"], ": ", cell(fault["detail"], 300))


def _verdicts(told: Story) -> Iterator[tuple[str, str | Text]]:
    found = told.validation
    if found is None:
        return
    yield "looked at", LOOKED_AT.get(found["state"], found["state"])
    if found["state"] == "checked":
        groups = ", ".join(map(str, found["sampled_groups"]))
        yield "", f"group {groups} of its {found['total']} rollouts, sampled by the randomness of"
        yield "", f"the window's close; checkpoint {found['checkpoint_window']}"
    if found["had_failure"] is not None:
        if found["had_failure"]:
            reason = cell(found["network_reason"] or "no reason given", 200)
            yield "network", Text.assemble(("refuses and bans: ", "bold red"), reason)
        else:
            yield "network", Text("accepts", "green")
        wrong = found["windrow_failures"]
        yield (
            "Windrow",
            Text(f"{wrong} results are wrong", "bold red")
            if wrong
            else Text("finds nothing wrong", "green"),
        )
    elif found["network_reason"]:
        yield "network", cell(found["network_reason"], 200)


def _score(told: Story) -> Iterator[tuple[str, str | Text]]:
    found, score = told.validation, told.score
    if found is None or score is None:
        return
    if found["checked"] and not score["had_failure"]:
        yield (
            "score",
            f"{found['unique']} of {found['checked']} checked completions are distinct:",
        )
        yield (
            "",
            f"{found['total']} rollouts * {found['unique']}/{found['checked']} = "
            f"{score['estimated_unique']} unique rollouts for this window",
        )
    elif score["had_failure"]:
        yield "score", Text("0: a window that fails counts for nothing", "bold red")
    elif found["state"] == "not_selected":
        yield "score", "none of its own; the checked windows stand for it, see below"
    else:
        yield "score", "none: nothing of this window counts"
    if score["copy_ratio"]:
        whom = score["copied_from"]
        yield "copies", f"shares {score['copy_ratio']:.1%} of its completions with another miner"
        if whom:
            role = "is held to be the copier" if score["network_copier"] else "is not blamed"
            yield "", Text.assemble("with ", cell(whom), f"; this miner {role}")
    else:
        yield "copies", "none found"


def _weight(told: Story) -> Iterator[tuple[str, str | Text]]:
    weight = told.weight
    if weight is None:
        return
    checked, available = weight["windows_checked"], weight["windows_available"]
    share = weight["cap_share"]
    cap = weight["extrapolated"] / share if share else MAINNET.cap
    yield "weight", f"{weight['unique_sum']} unique rollouts in {checked} checked, recent window(s)"
    if checked:
        yield "", f"* {available} window(s) with an upload / {checked} checked"
    failed = not weight["extrapolated"] and weight["unique_sum"]
    why = ", as a recent window has failed" if failed else ""
    yield "", f"= {weight['extrapolated']:,.6g} rollouts{why}"
    yield "", f"/ cap of {cap:,.0f} = {share:.4g} of it"
    yield "", f"^ {weight['exponent']:g} = {weight['raw_score']:.4g} raw score"
    if told.signal > 1.0:
        yield "", f"/ {told.signal:.4g}, the raw scores of all miners"
    yield "", f"* {1 - weight['burn']:.4g}, what is not burnt"
    sent = "sent to the chain" if weight["submitted"] else "a forecast, not sent to the chain"
    yield "", f"= weight {weight['weight']:.4g} ({sent})"


def _ban(told: Story) -> Iterator[tuple[str, str | Text]]:
    ban = told.ban
    if ban is None:
        yield from [("ban", "none")] if told.validator else []
        return
    minutes = ban.windows_left * WINDOW_MINUTES
    yield (
        "ban",
        Text(f"for {ban.windows_left} more windows, about {minutes:.0f} minutes", "bold red"),
    )
    yield "", f"counted from window {ban.newest}; window {ban.failed} failed"
    if ban.failed != told.window:
        yield "", f"windrow explain {ban.failed} {told.hotkey}"


def _advice(told: Story) -> Iterator[tuple[str, str | Text]]:
    state = _state(told)
    if state in UPLOADS:
        yield "change", UPLOADS[state]
    if told.verdicts.num_rows:
        for check, sentence in what_to_change(by_check(told.verdicts)):
            yield "change", Text.assemble((check, "bold"), f": {sentence}")
    if told.score and (told.score["network_copier"] or told.score["windrow_copier"]):
        yield "change", COPIED


def _state(told: Story) -> str:
    if told.validation:
        return str(told.validation["state"])
    return str(UploadState.MISSING) if told.validator else ""


def _line(out: Console, label: str, text: str | Text) -> None:
    """A label, and a text that is wrapped beside it."""
    body = Text(text) if isinstance(text, str) else text
    lines = body.wrap(out, max(20, out.width - LABEL - 2))
    for number, line in enumerate(lines):
        head = label if number == 0 else ""
        out.print(Text.assemble((f"  {head:<{LABEL}}", "dim"), line), soft_wrap=True)
