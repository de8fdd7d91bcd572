"""A node's own language models: found by name in its folder, loaded once, asked or scoring."""

import os
import re
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from windrow import WindrowError
from windrow.engine.fleet.llm_job_answers import Answered, Score
from windrow.engine.fleet.llm_job_draw import draw, draw_gaps
from windrow.engine.fleet.llm_job_requests import BadJob, Request

MODELS_FOLDER: Final = "WINDROW_NODE_MODELS"
"""Variable that names the folder with a model's files in each folder below it."""

DEFAULT_FOLDER: Final = ".windrow/models"
"""Below the home folder, where the variable is not set."""

ROWS: Final = 64
"""Prompts answered side by side."""

SCORED_POSITIONS: Final = 64
"""Positions whose logits are looked at together."""

_DTYPES: Final = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


class UnknownModel(WindrowError):
    """A node has no model of the name it was asked for."""


class UnusableModel(WindrowError):
    """A model's files cannot be loaded, or compute no numbers."""


def models_folder() -> Path:
    """Where this node keeps its models."""
    return Path(os.environ.get(MODELS_FOLDER) or Path.home() / DEFAULT_FOLDER)


def local_model(name: str) -> "LocalModel":
    """The model of a name, loaded when it is first asked for. Raises UnknownModel."""
    folder = models_folder()
    known = sorted(path.parent.name for path in folder.glob("*/config.json"))
    # Only a name that the folder lists: what is asked for never makes a path.
    if not _NAME.fullmatch(name) or name not in known:
        raise UnknownModel(
            f"{folder} holds no model {name[:96]!r}, only {', '.join(known)[:500] or 'none'}; put "
            f"it there, or set {MODELS_FOLDER}"
        )
    return _loaded(folder / name)


@lru_cache(maxsize=1)
def _loaded(folder: Path) -> "LocalModel":
    return LocalModel(folder)


def stored_dtype(folder: Path) -> str:
    """The numbers a model's files are in: as its configuration says, else as its weights are.

    Raises OSError, ValueError and SafetensorError for files that cannot be read.
    """
    config: Any = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if config.dtype is not None:
        return str(config.dtype).removeprefix("torch.")
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 - it is no mapping
                dtype = weights.get_slice(name).get_dtype()
                if dtype in _DTYPES:
                    return _DTYPES[dtype]
    return "float32"


class LocalModel:
    """A causal language model with its tokenizer: float32 on a CPU, as stored on a GPU.

    Nothing that a model brings is run: only safetensors are read, and no code of its own.
    """

    def __init__(
        self, folder: Path, device: str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        """device, dtype: other ones than usual. Raises UnusableModel."""
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        usual = torch.float32 if place.type == "cpu" else "auto"
        try:
            self.stored = stored_dtype(folder)
            """Numbers its files are in, e.g. "bfloat16": a GPU computes in those."""
            self._tokenizer: Any = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            self._model: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=dtype or usual,
            )
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise UnusableModel(f"{folder} cannot be loaded: {str(error)[:500]}") from error
        self._model.to(place).eval()
        self._device = place
        self.computes = str(self._model.dtype).removeprefix("torch.")
        """Numbers it computes in."""
        config = self._model.config
        self._context: int = config.max_position_embeddings
        self._vocabulary: int = config.vocab_size
        ends = config.eos_token_id
        self._ends = frozenset(ends if isinstance(ends, list) else [ends])
        pad = config.pad_token_id
        self._pad: int = pad if isinstance(pad, int) else 0

    @torch.inference_mode()
    def answer(self, request: Request) -> tuple[list[Answered], float]:
        """An answer to each prompt, and the seconds they took. Raises BadJob, UnusableModel."""
        began = time.monotonic()
        prompts = [self._encoded(prompt, request) for prompt in request.prompts]
        keys = request.keys()
        answered: list[Answered] = []
        for start in range(0, len(prompts), ROWS):
            part = slice(start, start + ROWS)
            answered += self._decode(prompts[part], keys[part], request)
        return answered, time.monotonic() - began

    @torch.inference_mode()
    def score(
        self, request: Request, tokens: Sequence[NDArray[np.int32]], slack: float
    ) -> list[Score]:
        """What this model makes of another's answers. slack: see `draw_gaps`. Raises BadJob."""
        return [
            self._score(self._encoded(prompt, request), row, key, request, slack)
            for prompt, row, key in zip(request.prompts, tokens, request.keys(), strict=True)
        ]

    def _encoded(self, prompt: str, request: Request) -> list[int]:
        if self._tokenizer.chat_template:
            prompt = self._tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False
            )
            ids = self._tokenizer.encode(prompt, add_special_tokens=False)
        else:
            ids = self._tokenizer.encode(prompt)
        if not 0 < len(ids) <= self._context - request.max_tokens:
            raise BadJob(
                f"a prompt of {len(ids)} tokens and an answer of {request.max_tokens} do not fit "
                f"the model's {self._context}"
            )
        return [int(token) for token in ids]

    def _decode(
        self, prompts: Sequence[Sequence[int]], keys: Sequence[tuple[int, int]], request: Request
    ) -> list[Answered]:
        width = max(map(len, prompts))
        inputs = torch.full((len(prompts), width), self._pad, dtype=torch.int64)
        mask = torch.zeros_like(inputs)
        for row, prompt in enumerate(prompts):
            inputs[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        inputs, mask = inputs.to(self._device), mask.to(self._device)
        places = (mask.cumsum(1) - 1).clamp(min=0)
        ends = torch.tensor(sorted(self._ends), device=self._device)
        running = torch.ones(len(prompts), dtype=torch.bool, device=self._device)
        tokens, logprobs, alive, cache = [], [], [], None
        for step in range(request.max_tokens):
            output = self._model(
                input_ids=inputs,
                attention_mask=mask,
                position_ids=places,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache, logits = output.past_key_values, self._numbers(output.logits[:, -1])
            chosen = draw(logits, keys, step, request.temperature, request.top_p)
            tokens.append(chosen)
            logprobs.append(logits.log_softmax(1).gather(1, chosen[:, None])[:, 0])
            alive.append(running)
            running = running & ~torch.isin(chosen, ends)
            if not bool(running.any()):
                break
            inputs, places = chosen[:, None], places[:, -1:] + 1
            mask = torch.cat([mask, torch.ones_like(inputs)], 1)
        lengths = torch.stack(alive).sum(0).tolist()
        drawn = torch.stack(tokens, 1).cpu().numpy().astype(np.int32)
        likely = torch.stack(logprobs, 1).cpu().numpy()
        return [
            Answered(self._text(drawn[row, :length]), drawn[row, :length], likely[row, :length])
            for row, length in enumerate(lengths)
        ]

    def _score(
        self,
        prompt: Sequence[int],
        tokens: NDArray[np.int32],
        key: tuple[int, int],
        request: Request,
        slack: float,
    ) -> Score:
        if int(tokens.max()) >= self._vocabulary:
            nothing = np.full(len(tokens), np.inf, np.float32)
            return Score(-nothing, nothing, "", ended=False)
        whole = torch.tensor([*prompt, *tokens.tolist()], device=self._device)
        output = self._model(input_ids=whole[None, :-1], logits_to_keep=len(tokens))
        logits, own = self._numbers(output.logits[0]), whole[len(prompt) :]
        gaps = draw_gaps(logits, own, key, request.temperature, request.top_p, slack)
        logprobs = logits.log_softmax(1).gather(1, own[:, None])[:, 0]
        ends = [token in self._ends for token in tokens.tolist()]
        ended = not any(ends[:-1]) and (ends[-1] or len(tokens) == request.max_tokens)
        return Score(logprobs.cpu().numpy(), gaps.cpu().numpy(), self._text(tokens), ended)

    def _numbers(self, logits: Tensor) -> Tensor:
        numbers = logits.float()
        if not bool(torch.isfinite(numbers).all()):
            raise UnusableModel("the model computes NaN or infinite logits; fetch it again")
        return numbers

    def _text(self, tokens: NDArray[np.int32]) -> str:
        return str(self._tokenizer.decode(tokens.tolist(), skip_special_tokens=True))
