"""The tokenizer and chat template of a checkpoint that no trainer's key vouches for.

Both are data that act: a template is a program, and a tokenizer's patterns and tokens can take any
time and memory. They work in a child process with limits, and what they say is bounded.
"""

import json
import os
import resource
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from windrow.resources.checkpoints.files import CheckpointError

START_SECONDS: Final = 120.0
ANSWER_SECONDS: Final = 10.0
MEMORY: Final = 1 << 30
"""Bytes that one checkpoint's tokenizer and texts may take, beside the libraries."""
MOST_ANSWER: Final = 16 << 20
UNSIGNED: Final = "signature not checked"
"""How the note of a checkpoint begins that no trainer's key vouches for."""


class CheckpointTextRefused(CheckpointError):
    """A chat template or tokenizer fails, or takes more time, memory or text than it may."""


class UntrustedTokenizer:
    """A `ChatTokenizer` in a child process; safe to share between threads."""

    def __init__(self, directory: Path, vocab_size: int) -> None:
        """Loads the tokenizer. Raises CheckpointTextRefused."""
        self._directory = directory
        self._vocab_size = vocab_size
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = bytearray()
        with self._lock:
            self._started()

    def __call__(self, text: str) -> Mapping[str, Any]:
        return {"input_ids": self._ask("encode", text)}

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> str:
        return str(self._ask("render", [conversation, options]))

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        return str(self._ask("decode", [list(token_ids), skip_special_tokens]))

    def close(self) -> None:
        """End the child; a later call starts another."""
        with self._lock:
            self._end()

    def _ask(self, operation: str, given: Any) -> Any:
        with self._lock:
            process = self._started()
            assert process.stdin is not None
            try:
                process.stdin.write(json.dumps([operation, given]).encode() + b"\n")
                process.stdin.flush()
            except OSError as error:
                self._end()
                raise self._refusal("ended") from error
            return self._answer(ANSWER_SECONDS)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._end()
        names = ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "LANG")
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(self._directory), str(self._vocab_size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in names if name in os.environ}
            | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        )
        self._answer(START_SECONDS)
        return self._process

    def _answer(self, seconds: float) -> Any:
        """The child's next line. Raises CheckpointTextRefused, and ends the child then."""
        process = self._process
        assert process is not None
        assert process.stdout is not None
        until = time.monotonic() + seconds
        part = bytes(self._buffer)
        with selectors.DefaultSelector() as ready:
            ready.register(process.stdout, selectors.EVENT_READ)
            while b"\n" not in part:
                left = until - time.monotonic()
                if left <= 0 or not ready.select(left):
                    self._end()
                    raise self._refusal(f"took more than {seconds:.0f} s")
                part = os.read(process.stdout.fileno(), 1 << 20)
                if not part:
                    self._end()
                    raise self._refusal(f"ended, or took more than {MEMORY >> 20} MiB")
                self._buffer += part
                if len(self._buffer) > MOST_ANSWER:
                    self._end()
                    raise self._refusal(f"made more than {MOST_ANSWER >> 20} MiB of text")
        line, _, self._buffer = self._buffer.partition(b"\n")
        said = json.loads(line)
        if "error" in said:
            raise self._refusal(f"failed: {said['error']}")
        return said["answer"]

    def _refusal(self, what: str) -> CheckpointTextRefused:
        return CheckpointTextRefused(
            f"The tokenizer or chat template in {self._directory} {what}. No trainer's key vouches "
            "for this checkpoint: set WINDROW_TRAINER_HOTKEY, or wait for another checkpoint."
        )

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
        self._process, self._buffer = None, bytearray()


def _serve(directory: Path, vocab_size: int) -> None:
    """Answer on standard output until standard input ends."""
    from windrow.resources.checkpoints.tokenizer import load_tokenizer

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    answers, sys.stdout = sys.stdout, sys.stderr

    def say(document: dict[str, Any]) -> None:
        print(json.dumps(document), file=answers, flush=True)

    try:
        tokenizer = load_tokenizer(directory, vocab_size)
    except Exception as error:  # noqa: BLE001 - whatever a stranger's file brings about
        say({"error": f"{type(error).__name__}: {error!s:.500}"})
        return
    say({"answer": None})
    for line in sys.stdin:
        try:
            match json.loads(line):
                case ["encode", text]:
                    answer: Any = tokenizer(text)["input_ids"]
                case ["render", [conversation, options]]:
                    answer = tokenizer.apply_chat_template(conversation, **options)
                case ["decode", [ids, skip]]:
                    answer = tokenizer.decode(ids, skip_special_tokens=skip)
                case _:
                    answer = None
            say({"answer": answer})
        except Exception as error:  # noqa: BLE001 - as above
            say({"error": f"{type(error).__name__}: {error!s:.500}"})


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), int(sys.argv[2]))
