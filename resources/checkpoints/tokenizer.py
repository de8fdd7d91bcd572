"""A checkpoint's tokenizer, exactly as its tokenizer.json says."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from windrow.resources.checkpoints.files import VerifiedCheckpoint
from windrow.resources.models.config import InconsistentCheckpoint, read_config, read_json

MAX_TEMPLATE_BYTES: Final = 256 * 1024


@dataclass(frozen=True)
class Lexicon:
    """What a checkpoint can read and write, known without its weights.

    vocab_size: rows of the embedding. max_context: most tokens of prompt and completion together.
    """

    tokenizer: PreTrainedTokenizerFast = field(repr=False)
    vocab_size: int
    max_context: int
    eos_token_id: int


def load_lexicon(checkpoint: VerifiedCheckpoint) -> Lexicon:
    """Of a verified checkpoint. Raises UnsupportedModel, InconsistentCheckpoint."""
    config = read_config(checkpoint.directory)
    tokenizer = load_tokenizer(checkpoint.directory, config["vocab_size"])
    return Lexicon(
        tokenizer,
        config["vocab_size"],
        config["max_position_embeddings"],
        tokenizer.eos_token_id,
    )


def load_tokenizer(directory: Path, vocab_size: int) -> PreTrainedTokenizerFast:
    """The tokenizer exactly as tokenizer.json says.

    Loading by the class that tokenizer_config.json or the model type names would replace the
    pre-tokenizer by that class's default (transformers 5), and prompt ids with it.
    """
    path, settings = directory / "tokenizer.json", read_json(directory / "tokenizer_config.json")
    try:
        stored = Tokenizer.from_file(str(path))
    except Exception as error:
        raise InconsistentCheckpoint(f"{path} cannot be read as a tokenizer: {error}") from error
    largest = max(stored.get_vocab().values(), default=-1)
    if largest >= vocab_size:
        raise InconsistentCheckpoint(
            f"{path} knows token ids up to {largest}, but the model has {vocab_size} embeddings; "
            "tokenizer and weights are of different models"
        )
    eos = _special_token(settings, "eos_token")
    if eos is None or stored.token_to_id(eos) is None:
        raise InconsistentCheckpoint(
            f"{directory}: tokenizer_config.json names the EOS token {eos!r:.80}, which "
            "tokenizer.json does not know; completions could never end"
        )
    pad = _special_token(settings, "pad_token")
    return PreTrainedTokenizerFast(
        tokenizer_object=stored,
        eos_token=eos,
        pad_token=eos if pad is None or stored.token_to_id(pad) is None else pad,
        chat_template=_chat_template(directory, settings),
        clean_up_tokenization_spaces=settings.get("clean_up_tokenization_spaces") is True,
    )


def _special_token(settings: dict[str, Any], key: str) -> str | None:
    """A special token's text; older checkpoints write it as an object."""
    value = settings.get(key)
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else None


def _chat_template(directory: Path, settings: dict[str, Any]) -> str:
    path = directory / "chat_template.jinja"
    template = settings.get("chat_template")
    if path.exists():
        if path.stat().st_size > MAX_TEMPLATE_BYTES:
            raise InconsistentCheckpoint(f"{path} is larger than {MAX_TEMPLATE_BYTES} bytes")
        try:
            template = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise InconsistentCheckpoint(f"{path} is no UTF-8 text: {error}") from error
    if not isinstance(template, str):
        raise InconsistentCheckpoint(f"{directory} has no chat template; prompts need one")
    return template
