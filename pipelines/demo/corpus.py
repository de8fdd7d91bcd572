"""What the demo model learns from: arithmetic stories in the network's prompt format."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from tokenizers import AddedToken
from transformers import Qwen2Tokenizer

from windrow.environments.data.arithmetic import LARGEST, WordProblem, word_problem
from windrow.environments.gsm8k import DATASET
from windrow.environments.prompts import INSTRUCTED_TEMPLATE, SYSTEM_PROMPTS, render
from windrow.environments.sources import ShippedTasks
from windrow.environments.tasks import DatasetSplit

THINKING_MODE = "instructed"
PAD, START, EOS = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
MAX_VOCABULARY = 1024
TOKENIZER_STORIES = 3000


@dataclass(frozen=True)
class Example:
    """Token ids after the system prompt: what the model is asked, and what it should answer."""

    question: list[int]
    completion: list[int]


class Corpus:
    """Tokenised examples that all continue the same prefix, the system prompt."""

    def __init__(self, tokenizer: Qwen2Tokenizer, seed: int) -> None:
        self._tokenizer = tokenizer
        self._stories = stories(seed)
        messages = [{"role": "user", "content": "{question}"}]
        before, _, after = render(tokenizer, messages, THINKING_MODE).partition("{question}")
        self._after_question = after
        self.prefix: list[int] = tokenizer(before)["input_ids"]

    def take(self, count: int) -> list[Example]:
        """The next examples of the stream."""
        drawn = list(islice(self._stories, count))
        questions = self._tokenizer([story.question + self._after_question for story in drawn])
        completions = self._tokenizer([completion(story) + EOS for story in drawn])
        pairs = zip(questions["input_ids"], completions["input_ids"], strict=True)
        return [Example(asked, answered) for asked, answered in pairs]


def stories(seed: int) -> Iterator[WordProblem]:
    """An endless stream of stories, none of which the demo asks."""
    rng = random.Random(seed)  # noqa: S311 - repeatable on purpose
    source = ShippedTasks()
    asked = {
        row["question"]
        for split in ("train", "test")
        for row in source.rows(DatasetSplit(DATASET, "main", split))
    }
    while True:
        story = word_problem(rng)
        if story.question not in asked:
            yield story


def completion(story: WordProblem) -> str:
    """The text to learn, without EOS.

    The space before the answer makes a number the same single token wherever it stands. The fixed
    words keep an answer of one step above the network's least length of 32 tokens.
    """
    steps = "".join(f"Step {number}: {step}\n" for number, step in enumerate(story.steps, start=1))
    return (
        "<start_working_out>\n"
        "Let me read the story and count step by step, one change at a time.\n"
        f"{steps}The answer is {story.answer}.\n"
        f"</end_working_out>\n<SOLUTION> {story.answer}</SOLUTION>"
    )


def train_tokenizer(seed: int) -> Qwen2Tokenizer:
    """A byte-level BPE in which every word of the prompt and every number is a single token.

    Its pre-tokenizer is the one transformers gives every Qwen2 model, so all versions and loaders
    agree on prompt ids (§6.1). That one cuts numbers into digits, so whole numbers are added.
    """
    stock = Qwen2Tokenizer(eos_token=EOS, pad_token=PAD)
    texts = (
        f"system\n{SYSTEM_PROMPTS[THINKING_MODE]}\n"
        f"user\n{story.question}\nassistant\n{completion(story)}\n"
        for story in islice(stories(seed), TOKENIZER_STORIES)
    )
    tokenizer = stock.train_new_from_iterator(texts, MAX_VOCABULARY, show_progress=False)
    numbers = [AddedToken(f" {number}", normalized=False) for number in range(LARGEST + 1)]
    tokenizer.add_tokens([AddedToken(START, special=True), *numbers])
    tokenizer.chat_template = INSTRUCTED_TEMPLATE
    return tokenizer
