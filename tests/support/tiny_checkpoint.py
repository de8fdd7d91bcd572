"""A complete FULL checkpoint of a tiny random Qwen2, in the form the local cache holds one."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from windrow.resources.checkpoints.publishing import write_full_metadata

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
PAD_ID, _, EOS_ID = range(3)
# The template a trainer installs for instructed checkpoints (grail-protocol §12.1).
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' "
    "+ message['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
NAMES = ("Mia", "Omar", "Lena", "Tom", "Ada", "Ravi")
THINGS = ("apples", "books", "coins", "stamps", "cards", "shells")


def make_tiny_checkpoint(
    directory: Path,
    *,
    seed: int = 0,
    hidden: int = 64,
    layers: int = 2,
    vocab: int = 600,
    max_context: int = 2048,
    eos_scale: float = 0.0,
    window: int = 0,
    max_tokens: int = 64,
    env_id: str = "gsm8k",
    thinking_mode: str = "instructed",
) -> Path:
    """Write the checkpoint into `directory` (made if absent) and return it.

    The weights are random but behave like trained ones where it matters: hidden states of uneven
    width, so that every sketch bucket occurs, and peaked next-token distributions.

    eos_scale: length of the EOS row of the head relative to the other rows; at 0 no completion
        ends before max_tokens, at 1.5 most end within some dozen tokens, mostly with p(EOS) near 1.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(vocab)
    tokenizer.save_pretrained(directory)
    _model(seed, hidden, layers, vocab, max_context, eos_scale).save_pretrained(directory)
    write_full_metadata(
        directory,
        window=window,
        model_name="tiny/qwen2",
        env_id=env_id,
        env_params={"split": "train"},
        generation_params={
            "max_tokens": max_tokens,
            "temperature": 0.7,
            "top_p": 0.9,
            "top_k": 50,
            "repetition_penalty": 1.0,
        },
        thinking_mode=thinking_mode,
        created_at=0.0,
    )
    return directory


def _model(
    seed: int, hidden: int, layers: int, vocab: int, max_context: int, eos_scale: float
) -> Qwen2ForCausalLM:
    config = Qwen2Config(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=max_context,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=EOS_ID,
        pad_token_id=PAD_ID,
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(config)
        width = torch.exp(1.5 * torch.randn(hidden)) * 4
        model.model.norm.weight.copy_(width)
        # Each logit then has a standard deviation near 4, whatever the widths are.
        model.lm_head.weight.copy_(4 * torch.randn(vocab, hidden) / (width * hidden**0.5))
        model.lm_head.weight[EOS_ID] *= eos_scale
    return model


def _tokenizer(vocab: int) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        _text(),
        trainers.BpeTrainer(
            vocab_size=vocab,
            min_frequency=1,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=SPECIAL_TOKENS[PAD_ID],
        eos_token=SPECIAL_TOKENS[EOS_ID],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def _text() -> list[str]:
    """Word problems with worked answers: words and numbers enough for some thousand merges."""
    return [
        f"{name} has {first} {thing} and buys {first * second} more. How many {thing} does {name} "
        f"have now?\n<start_working_out>{first} + {first * second} = {first + first * second}"
        f"</end_working_out>\n<SOLUTION>{first + first * second}</SOLUTION>"
        for first, name in enumerate(NAMES * 6, start=2)
        for second, thing in enumerate(THINGS, start=11)
    ]
