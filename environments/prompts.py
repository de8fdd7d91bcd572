"""From a question to the prompt every miner and validator must agree on (grail-protocol §12.1)."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

_ANSWER_RULES = (
    "You may write and reason about code during your thinking.\n"
    "After thinking, you MUST provide your final solution wrapped in <SOLUTION> and </SOLUTION> "
    "tags.\n"
    "Any code outside <SOLUTION> tags will be ignored. Your answer will score 0 without these tags."
)
SYSTEM_PROMPTS = {
    "instructed": (
        "You are given a problem. Think step by step.\n"
        "Place your reasoning between <start_working_out> and </end_working_out>.\n"
        f"{_ANSWER_RULES}"
    ),
    "native": f"You are given a problem. Think step by step.\n{_ANSWER_RULES}",
}
INSTRUCTED_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + "
    "message['content'] + '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""The chat template a trainer gives instructed checkpoints; only who makes a checkpoint needs it,
everyone else uses the template that came with the checkpoint."""


class ChatTokenizer(Protocol):
    """The tokenizer of a checkpoint, exactly as its tokenizer.json says.

    A transformers fast tokenizer will do, if it was not loaded by its class name: transformers 5
    replaces a Qwen2 tokenizer's pre-tokenizer on load, and with it the prompt ids.
    """

    def __call__(self, text: str) -> Mapping[str, Any]: ...

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> str: ...

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str: ...


def with_system_prompt(messages: Sequence[Mapping[str, str]], mode: str) -> list[dict[str, str]]:
    """The messages, after the mode's system prompt unless they bring one."""
    given = [dict(message) for message in messages]
    if given and given[0]["role"] == "system":
        return given
    return [{"role": "system", "content": SYSTEM_PROMPTS[mode]}, *given]


def render(
    tokenizer: ChatTokenizer,
    messages: Sequence[Mapping[str, str]],
    mode: str,
    *,
    add_generation_prompt: bool = True,
) -> str:
    """The text of a conversation by the checkpoint's own chat template."""
    options = {"enable_thinking": True} if mode == "native" else {}
    return tokenizer.apply_chat_template(
        with_system_prompt(messages, mode),
        tokenize=False,
        add_generation_prompt=add_generation_prompt,
        **options,
    )


def prompt_ids(tokenizer: ChatTokenizer, question: str, mode: str) -> NDArray[np.int32]:
    """int32 [prompt length]: the rendered question, with the tokenizer's own special tokens."""
    text = render(tokenizer, [{"role": "user", "content": question}], mode)
    return np.asarray(tokenizer(text)["input_ids"], dtype=np.int32)
