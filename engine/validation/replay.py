"""Run a stored verdict again, on the same file, weights and numbers, for the same bits."""

from functools import partial
from typing import TYPE_CHECKING

from windrow import WindrowError
from windrow.engine.ports import Environment
from windrow.engine.validation.inputs import ReplayInputs, versions_of
from windrow.engine.validation.validator import FileVerdict, validate_file
from windrow.networks.grail.window_file import Source, WindowFile

if TYPE_CHECKING:  # torch is imported where a model is used
    from windrow.engine.validation.verification import ModelVerifier


class ReplayMismatch(WindrowError):
    """This process would compute something else than the stored verdict came from."""


def replay(
    source: Source | WindowFile,
    inputs: ReplayInputs,
    *,
    environment: Environment | None,
    verifier: "ModelVerifier | None",
    weights_hash: str | None,
) -> FileVerdict:
    """The verdict on a file as it was made with these inputs.

    weights_hash: of the verifier's model. Raises ReplayMismatch where weights, number format,
    attention, device, a package or the Python that grades differ, and where a model was used and
    none is given now.
    """
    _require("weights", inputs.context.weights_hash, weights_hash)
    installed = versions_of(environment)
    for name, recorded in inputs.versions.items():
        _require(name, recorded, installed.get(name))
    again = partial(
        validate_file,
        source,
        inputs.context,
        environment=environment,
        unevaluated=inputs.unevaluated,
    )
    if inputs.forward is None:
        return again()
    if verifier is None:
        raise ReplayMismatch("the verdict was made with a model; load its checkpoint")
    now = verifier.setting
    for name in ("dtype", "attention", "device"):
        _require(name, getattr(inputs.forward, name), getattr(now, name))
    import torch

    torch.set_num_threads(inputs.forward.threads)
    try:
        return again(measure=partial(verifier.measure, sub_batches=inputs.sub_batches))
    finally:
        torch.set_num_threads(now.threads)


def _require(what: str, recorded: str | None, now: str | None) -> None:
    if recorded != now:
        raise ReplayMismatch(
            f"the verdict was made with {what} {recorded}, here it is {now}; the bits could differ"
        )
