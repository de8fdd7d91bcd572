"""A verified checkpoint as a model and tokenizer ready to run (grail-protocol §6.1).

Nothing of a checkpoint is trusted: only safetensors are read, no code that it brings is run, and
its configuration, tokenizer and weights must agree with each other before memory is taken.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import is_flash_attn_2_available, logging

from windrow import WindrowError
from windrow.networks.grail.checkpoint import CheckpointMetadata
from windrow.resources.checkpoints.files import DamagedWeights, VerifiedCheckpoint, stored_tensors
from windrow.resources.checkpoints.tokenizer import load_tokenizer
from windrow.resources.models.config import (
    InconsistentCheckpoint,
    UnsupportedModel,
    pad_token_id,
    read_config,
)
from windrow.resources.models.stored_tensors import FLOAT_TYPES


class DeviceUnavailable(WindrowError):
    """The device, or the attention kernel that the network demands on it, is not installed."""


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A model in eval mode with its tokenizer and what the window loop needs to know of both.

    model: has `.model` (hidden states after the final norm) and `.lm_head`.
    attention: "flash_attention_2" on CUDA, "sdpa" on the CPU.
    vocab_size: rows of the embedding; the tokenizer may know fewer ids.
    max_context: most tokens of prompt and completion together.
    pad_token_id: what the proof pass pads with (§6.2), not the tokenizer's.
    weights_hash: XXH3-128 of the weights as stored.
    """

    model: PreTrainedModel = field(repr=False)
    tokenizer: PreTrainedTokenizerFast = field(repr=False)
    metadata: CheckpointMetadata
    device: torch.device
    dtype: torch.dtype
    attention: str
    vocab_size: int
    max_context: int
    eos_token_id: int
    pad_token_id: int
    checkpoint_window: int
    model_name: str
    weights_hash: str


def load_checkpoint(
    checkpoint: VerifiedCheckpoint, *, device: str = "cpu", max_context: int | None = None
) -> LoadedCheckpoint:
    """Load a verified checkpoint: float32 on the CPU, bfloat16 with flash attention on CUDA (§6.1).

    device: "cpu", "cuda" or "cuda:<n>"; max_context: lowers the model's own limit.
    Raises UnsupportedModel, InconsistentCheckpoint, DamagedWeights, DeviceUnavailable.
    """
    place, dtype, attention = _placement(device)
    directory, metadata = checkpoint.directory, checkpoint.metadata
    config = read_config(directory)
    tokenizer = load_tokenizer(directory, config["vocab_size"])
    pad = pad_token_id(config)
    model_class: type[PreTrainedModel] = getattr(transformers, config["architectures"][0])
    empty = _empty_model(model_class, config, directory)
    tensors = _read_tensors(empty, directory)

    logging.disable_progress_bar()
    # Tensors are handed over rather than a path: an index file cannot then leave some out.
    model = model_class.from_pretrained(
        None, config=empty.config, state_dict=tensors, dtype=dtype, attn_implementation=attention
    )
    model.to(place).eval()
    _check_finite(model)
    model.name_or_path = metadata.model_name or str(directory)
    context = empty.config.max_position_embeddings
    return LoadedCheckpoint(
        model=model,
        tokenizer=tokenizer,
        metadata=metadata,
        device=place,
        dtype=dtype,
        attention=attention,
        vocab_size=empty.config.vocab_size,
        max_context=min(max_context or context, context),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=pad,
        checkpoint_window=metadata.window,
        model_name=model.name_or_path,
        weights_hash=checkpoint.weights_hash,
    )


def _placement(device: str) -> tuple[torch.device, torch.dtype, str]:
    if device == "cpu":
        return torch.device(device), torch.float32, "sdpa"
    if not re.fullmatch(r"cuda(:\d{1,3})?", device):
        raise DeviceUnavailable(f"device {device!r:.40} is not cpu, cuda or cuda:<n>; name one")
    place = torch.device(device)
    if not torch.cuda.is_available() or (place.index or 0) >= torch.cuda.device_count():
        raise DeviceUnavailable(
            f"device {device!r} is not there: {torch.cuda.device_count()} CUDA devices are "
            "visible; check the driver and CUDA_VISIBLE_DEVICES"
        )
    if not is_flash_attn_2_available():
        raise DeviceUnavailable(
            "the network computes proofs with flash_attention_2 on CUDA, and other attention gives "
            "other sketches; install flash-attn for this torch version (grail-protocol §6.1)"
        )
    return place, torch.bfloat16, "flash_attention_2"


def _empty_model(
    model_class: type[PreTrainedModel], config: dict[str, Any], directory: Path
) -> PreTrainedModel:
    """The model that config.json describes, without memory for its weights."""
    try:
        with torch.device("meta"):
            return model_class(model_class.config_class.from_dict(config))
    except Exception as error:
        raise InconsistentCheckpoint(
            f"{directory / 'config.json'} describes no model that can be built: {error}"
        ) from error


def _read_tensors(empty: PreTrainedModel, directory: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the weight files, each of the name and shape that the model asks for.

    Shapes come from the files' headers, so a wrong one costs no memory.
    """
    expected = empty.state_dict()
    files = stored_tensors(directory)
    for name, stored in files.items():
        if name not in expected:
            raise InconsistentCheckpoint(
                f"{stored.path}: no part of the model is called {name!r:.120}"
            )
        wanted = list(expected[name].shape)
        if stored.dtype not in FLOAT_TYPES:
            raise UnsupportedModel(
                f"{stored.path}: tensor {name} is of type {stored.dtype}, not "
                f"{', '.join(FLOAT_TYPES)}; only plain weights can be proved"
            )
        if list(stored.shape) != wanted:
            raise InconsistentCheckpoint(
                f"{stored.path}: tensor {name} has shape {list(stored.shape)}, config.json asks "
                f"for {wanted}; weights and configuration are of different models"
            )
    tied: dict[str, str] = empty._tied_weights_keys if empty.config.tie_word_embeddings else {}
    missing = sorted(expected.keys() - files.keys() - tied.keys())
    if missing:
        raise InconsistentCheckpoint(
            f"{directory} lacks {len(missing)} tensors that config.json asks for, {missing[0]} "
            "first; a shard was left out"
        )
    tensors = {}
    for path in {stored.path for stored in files.values()}:
        with safe_open(path, framework="pt") as file:
            tensors.update({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    for name, source in tied.items():
        if name in tensors and not torch.equal(tensors[name], tensors[source]):
            raise InconsistentCheckpoint(
                f"{directory}: {name} differs from {source}, but config.json ties them; provers "
                "would disagree on which one counts"
            )
    return tensors


def _check_finite(model: PreTrainedModel) -> None:
    for name, parameter in model.named_parameters():
        if not bool(parameter.isfinite().all()):
            raise DamagedWeights(
                f"tensor {name} holds NaN or infinity; every proof over it would be refused, wait "
                "for the next checkpoint"
            )
