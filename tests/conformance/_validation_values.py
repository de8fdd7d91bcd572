"""Values as the grail-validation vectors write them."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from .framework import VectorFile


def load(file: VectorFile) -> dict[str, Any]:
    """The file's JSON; a float that JSON cannot write is ``{"$float": "nan"}`` there."""
    return json.loads(file.path.read_bytes(), object_hook=_value)


def tensor(path: Path, key: str | None) -> Tensor | None:
    """The tensor a ``_key`` names, None where a case has none."""
    return None if key is None else load_file(path)[key]


def column_integer(value: Any) -> int | None:
    """A value as a file's integer column holds it: cases also write text, and what is no number."""
    try:
        return None if value is None else int(value)
    except (TypeError, ValueError):
        return None


def _value(document: dict[str, Any]) -> Any:
    return float(document["$float"]) if document.keys() == {"$float"} else document
