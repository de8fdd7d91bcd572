import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.support.tiny_checkpoint import make_tiny_checkpoint
from windrow.networks.grail.checkpoint import CheckpointMetadata
from windrow.resources.checkpoints.files import DamagedWeights, VerifiedCheckpoint
from windrow.resources.checkpoints.tokenizer import load_tokenizer
from windrow.resources.models.config import InconsistentCheckpoint, UnsupportedModel
from windrow.resources.models.loading import DeviceUnavailable, LoadedCheckpoint, load_checkpoint

VECTORS = Path(__file__).parents[1] / "vectors" / "grail"
EMBEDDING = "model.embed_tokens.weight"
TEXT = "<|im_start|>user\nIt's 12345  ok\n\n café, don't \t 7x<|im_end|>\n<SOLUTION>-3.5</SOLUTION>"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return make_tiny_checkpoint(tmp_path / "checkpoint", window=300)


def load(directory: Path, **options: Any) -> LoadedCheckpoint:
    """Load files as if they had been verified: a trainer may well publish what is wrong."""
    metadata = CheckpointMetadata.parse((directory / "metadata.json").read_bytes())
    return load_checkpoint(VerifiedCheckpoint(directory, metadata, "0" * 32, ()), **options)


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(directory: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def test_loaded_checkpoint_computes_what_the_stored_model_computes(directory: Path) -> None:
    loaded = load(directory)
    reference = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    ids = torch.arange(40)[None]
    with torch.inference_mode():
        assert torch.equal(loaded.model(ids).logits, reference(ids).logits)

    assert not loaded.model.training
    assert (loaded.device.type, loaded.dtype, loaded.attention) == ("cpu", torch.float32, "sdpa")
    assert (loaded.vocab_size, loaded.max_context) == (600, 2048)
    assert (loaded.eos_token_id, loaded.pad_token_id) == (2, 0)
    assert (loaded.checkpoint_window, loaded.model_name) == (300, "tiny/qwen2")
    assert loaded.model.name_or_path == "tiny/qwen2"
    assert load(directory, max_context=100).max_context == 100


def test_bfloat16_weights_are_loaded_as_float32_on_the_cpu(directory: Path) -> None:
    edit_weights(
        directory, lambda tensors: tensors.update({n: t.bfloat16() for n, t in tensors.items()})
    )
    loaded = load(directory)
    stored = load_file(directory / "model.safetensors")
    assert torch.equal(loaded.model.get_parameter(EMBEDDING), stored[EMBEDDING].float())


@pytest.mark.parametrize("place", ["model", "tokenizer_native", "tiny"])
def test_prompt_ids_follow_tokenizer_json(place: str, tmp_path: Path) -> None:
    directory = make_tiny_checkpoint(tmp_path) if place == "tiny" else VECTORS / place
    stored = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer = load_tokenizer(directory, 600)

    assert tokenizer(TEXT).input_ids == stored.encode(TEXT).ids
    assert tokenizer.decode(tokenizer(TEXT).input_ids) == TEXT
    assert json.loads(tokenizer.backend_tokenizer.to_str()) == json.loads(stored.to_str())
    assert tokenizer.chat_template == (directory / "chat_template.jinja").read_text()


def test_class_default_of_the_library_would_change_prompt_ids(directory: Path) -> None:
    """Why the tokenizer is not loaded by the class that the checkpoint names."""
    replaced = AutoTokenizer.from_pretrained(directory)
    assert replaced(TEXT).input_ids != load_tokenizer(directory, 600)(TEXT).input_ids


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_weight_is_named(directory: Path, value: float) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    edit_weights(directory, lambda tensors: tensors[name][3].fill_(value))
    with pytest.raises(DamagedWeights, match=r"model\.layers\.1\.mlp\.up_proj\.weight holds NaN"):
        load(directory)


def test_missing_tensor_is_named(directory: Path) -> None:
    edit_weights(directory, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(InconsistentCheckpoint, match=r"lacks 1 tensors.*layers\.1\.mlp\.up_proj"):
        load(directory)


def test_unknown_tensor_is_named(directory: Path) -> None:
    edit_weights(directory, lambda tensors: tensors.update(backdoor=torch.ones(1)))
    with pytest.raises(InconsistentCheckpoint, match="no part of the model is called 'backdoor'"):
        load(directory)


def test_weights_spread_over_files_without_an_index_are_loaded_whole(directory: Path) -> None:
    whole = load(directory).model.state_dict()
    tensors = load_file(directory / "model.safetensors")
    head = {"lm_head.weight": tensors.pop("lm_head.weight")}
    save_file(head, directory / "model-00001-of-00002.safetensors")
    save_file(tensors, directory / "model-00002-of-00002.safetensors")
    with pytest.raises(DamagedWeights, match=r"lm_head\.weight is in model-00001"):
        load(directory)

    (directory / "model.safetensors").unlink()
    sharded = load(directory).model.state_dict()
    assert all(torch.equal(sharded[name], tensor) for name, tensor in whole.items())


def test_tied_head_that_differs_is_refused(directory: Path) -> None:
    edit_json(directory / "config.json", tie_word_embeddings=True)
    with pytest.raises(InconsistentCheckpoint, match=r"lm_head\.weight differs from"):
        load(directory)
    edit_weights(directory, lambda tensors: tensors.pop("lm_head.weight"))
    model = load(directory).model
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_vocabulary_of_another_model_is_refused(directory: Path) -> None:
    make_tiny_checkpoint(directory.parent / "larger", vocab=700)
    (directory / "tokenizer.json").write_bytes(
        (directory.parent / "larger" / "tokenizer.json").read_bytes()
    )
    with pytest.raises(InconsistentCheckpoint, match="ids up to 699, but the model has 600"):
        load(directory)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"vocab_size": 700}, "shape"),
        ({"hidden_size": 128}, "shape"),
        ({"num_hidden_layers": 3, "layer_types": None}, r"lacks .* tensors"),
        ({"num_hidden_layers": 1, "layer_types": None}, "no part of the model"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000"),
        ({"vocab_size": -1}, "vocab_size is -1"),
        ({"hidden_size": "64"}, "hidden_size is '64'"),
        ({"num_attention_heads": True}, "num_attention_heads is True"),
        ({"hidden_act": "nothing"}, "describes no model"),
        ({"pad_token_id": None, "eos_token_id": [2, 0]}, "proofs cannot be padded"),
    ],
)
def test_configuration_must_fit_the_weights(
    directory: Path, changes: dict[str, Any], reason: str
) -> None:
    edit_json(directory / "config.json", **changes)
    with pytest.raises(InconsistentCheckpoint, match=reason):
        load(directory)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("config.json", {"architectures": ["OtherForCausalLM"]}),
        ("config.json", {"architectures": ["LlamaForCausalLM"]}),
        ("config.json", {"architectures": []}),
        ("config.json", {"auto_map": {"AutoModelForCausalLM": "modeling.Evil"}}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["tokenization.Evil", None]}}),
        ("config.json", {"quantization_config": {"quant_method": "fp8"}}),
    ],
)
def test_code_and_other_architectures_are_refused(
    directory: Path, name: str, changes: dict[str, Any]
) -> None:
    edit_json(directory / name, **changes)
    with pytest.raises(UnsupportedModel):
        load(directory)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff\xfe", b"[" * 100_000])
def test_damaged_json_is_named(directory: Path, name: str, content: bytes) -> None:
    (directory / name).write_bytes(content)
    with pytest.raises(InconsistentCheckpoint, match=name):
        load(directory)


def test_tokenizer_without_eos_is_refused(directory: Path) -> None:
    edit_json(directory / "tokenizer_config.json", eos_token="<|gone|>")
    with pytest.raises(InconsistentCheckpoint, match="completions could never end"):
        load(directory)


def test_missing_chat_template_is_named(directory: Path) -> None:
    (directory / "chat_template.jinja").unlink()
    with pytest.raises(InconsistentCheckpoint, match="no chat template"):
        load(directory)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_absent_device_is_named(directory: Path) -> None:
    with pytest.raises(DeviceUnavailable, match="0 CUDA devices"):
        load(directory, device="cuda:0")


def test_cuda_without_flash_attention_is_refused(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(DeviceUnavailable, match="install flash-attn"):
        load(directory, device="cuda:0")


@pytest.mark.parametrize("device", ["mps", "gpu", "cuda:x", ""])
def test_unknown_device_is_named(directory: Path, device: str) -> None:
    with pytest.raises(DeviceUnavailable, match="is not cpu, cuda or cuda:<n>"):
        load(directory, device=device)


def test_quantised_tensor_is_refused(directory: Path) -> None:
    edit_weights(directory, lambda tensors: tensors.update({EMBEDDING: tensors[EMBEDDING].char()}))
    with pytest.raises(UnsupportedModel, match="is of type I8, not F32, F16, BF16"):
        load(directory)
