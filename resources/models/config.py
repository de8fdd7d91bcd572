"""A checkpoint's config.json: what is refused before anything is built from it."""

import json
from pathlib import Path
from typing import Any, Final

from windrow.resources.checkpoints.files import CheckpointError

ARCHITECTURES: Final = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
"""Decoders with `model` and `lm_head` and unscaled logits, as the proof pass needs (§6.2)."""

SIZE_BOUNDS: Final = {
    "vocab_size": 2**20,
    "hidden_size": 2**15,
    "intermediate_size": 2**18,
    "num_hidden_layers": 512,
    "num_attention_heads": 1024,
    "num_key_value_heads": 1024,
    "max_position_embeddings": 2**24,
}
"""Largest value of each size in config.json; more is a mistake or an attack on memory."""

MAX_CONFIG_BYTES: Final = 1024 * 1024


class UnsupportedModel(CheckpointError):
    """The checkpoint asks for an architecture, code or settings that are never loaded."""


class InconsistentCheckpoint(CheckpointError):
    """Configuration, weights and tokenizer of one checkpoint contradict each other."""


def read_config(directory: Path) -> dict[str, Any]:
    """config.json, with everything refused that could run code or take absurd memory."""
    config = read_json(directory / "config.json")
    tokenizer_config = read_json(directory / "tokenizer_config.json")
    for name, document in (("config.json", config), ("tokenizer_config.json", tokenizer_config)):
        if "auto_map" in document:
            raise UnsupportedModel(
                f"{directory / name} names code to run (auto_map); checkpoints that bring code are "
                "never loaded"
            )
    if (directory / "adapter_config.json").exists() or "quantization_config" in config:
        raise UnsupportedModel(
            f"{directory} holds an adapter or quantised weights; only plain weights can be proved"
        )
    architectures = config.get("architectures")
    if (
        not isinstance(architectures, list)
        or len(architectures) != 1
        or (ARCHITECTURES.get(str(architectures[0])) != config.get("model_type"))
    ):
        raise UnsupportedModel(
            f"{directory / 'config.json'}: architecture {architectures!r:.80} of type "
            f"{config.get('model_type')!r:.40} is not one of {', '.join(ARCHITECTURES)}"
        )
    for key, largest in SIZE_BOUNDS.items():
        value = config.get(key)
        if key == "num_key_value_heads" and value is None:
            continue
        if type(value) is not int or not 1 <= value <= largest:
            raise InconsistentCheckpoint(
                f"{directory / 'config.json'}: {key} is {value!r:.40}, not within 1..{largest}"
            )
    return config


def pad_token_id(config: dict[str, Any]) -> int:
    """The proof pass pads with config.pad_token_id, else config.eos_token_id (§6.2)."""
    pad = config.get("pad_token_id")
    pad = config.get("eos_token_id") if pad is None else pad
    if type(pad) is not int or not 0 <= pad < config["vocab_size"]:
        raise InconsistentCheckpoint(
            f"config.json: pad_token_id, else eos_token_id, is {pad!r:.40}, which is no id of the "
            f"vocabulary of {config['vocab_size']}; proofs cannot be padded"
        )
    return pad


def read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InconsistentCheckpoint(
            f"{path} is missing; the checkpoint cannot be loaded without it"
        )
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise InconsistentCheckpoint(f"{path} is larger than {MAX_CONFIG_BYTES} bytes")
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InconsistentCheckpoint(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InconsistentCheckpoint(f"{path} is not a JSON object")
    return document
