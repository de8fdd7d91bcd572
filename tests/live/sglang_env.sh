#!/bin/bash
# An environment of its own in which SGLang's real HTTP server runs on a CPU, for the live tests.
# usage: tests/live/sglang_env.sh [DIRECTORY]          (default .windrow/sglang-venv)
#
# SGLang has no CPU wheel: its package pins a CUDA torch of several GB and CUDA-only kernels. What
# the server needs for a small dense model in float32 runs without them, so it is installed without
# its pins, beside the modules that it imports at start, and three things are put in their place:
#
# * torch: the release whose wheel for this platform is CPU-only, or no larger than it must be;
#   the pinned one brings CUDA libraries that would never be loaded.
# * torchvision: imported by SGLang whether or not a model sees pictures. Its wheel is built for
#   CUDA and registers fake kernels for `nms` at import, which fails where the compiled operators
#   are missing; declaring their signatures beforehand (sitecustomize.py) lets it import.
# * vllm._custom_ops: off CUDA, SGLang takes the rotary embedding kernel from there. One function in
#   plain torch does the same in place. This is a file of that name, not vLLM.
#
# Nothing here touches Windrow's own environment. A finished build leaves a stamp, so running it
# again costs nothing; an unfinished one is built again from the start.
set -euo pipefail

SGLANG=0.5.23
HERE=$(cd "$(dirname "$0")" && pwd)
VENV=${1:-$HERE/../../.windrow/sglang-venv}
PYTHON=${PYTHON:-python3}
STAMP=$VENV/.built-$(sha256sum "$HERE/sglang_env.sh" | cut -c1-16)

if [ -e "$STAMP" ]; then
    echo "$VENV holds SGLang $SGLANG"
    exit 0
fi

echo "Setting up SGLang $SGLANG in $VENV (about 4 GB; several minutes) ..."
rm -rf "$VENV"
mkdir -p "$(dirname "$VENV")"
"$PYTHON" -m venv "$VENV"
install() { "$VENV/bin/pip" install --quiet --disable-pip-version-check "$@"; }

install torch==2.13.0
install transformers==5.19.0 tokenizers==0.23.2 numpy einops sentencepiece gguf xxhash \
    fastapi 'uvicorn>=0.51' uvloop orjson pyzmq msgspec python-multipart requests aiohttp \
    psutil setproctitle prometheus-client loguru packaging pybase64 dill pillow ipython \
    openai==2.8.0 partial_json_parser jsonschema apache-tvm-ffi==0.1.11 soundfile==0.13.1
install --no-deps sglang==$SGLANG triton==3.9.0 torchvision==0.28.0 xgrammar==0.2.7 \
    compressed-tensors==0.18.0

PACKAGES=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')

cat > "$PACKAGES/sitecustomize.py" <<'PYTHON'
"""Declares the operators that torchvision expects compiled, just before it is imported."""

import sys


class DeclareOperators:
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            for operator in ("nms", "qnms"):
                torch.library.define(f"torchvision::{operator}", signature)
        return None


sys.meta_path.insert(0, DeclareOperators())
PYTHON

mkdir -p "$PACKAGES/vllm"
echo '__version__ = "0"' > "$PACKAGES/vllm/__init__.py"
cat > "$PACKAGES/vllm/_custom_ops.py" <<'PYTHON'
"""Rotary position embedding, in place, with the arguments of the CUDA kernel it stands for."""

import torch


def rotary_embedding(positions, query, key, head_size, cos_sin_cache, is_neox=True):
    rows = cos_sin_cache.index_select(0, positions.flatten()).float()
    cos, sin = (half.unsqueeze(1) for half in rows.chunk(2, dim=-1))
    width = rows.shape[-1]
    for states in (query, key):
        if states is None:
            continue
        heads = states.view(positions.numel(), -1, head_size)
        turned = heads[..., :width].float()
        if is_neox:
            first, second = turned.chunk(2, dim=-1)
            turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
        else:
            first, second = turned[..., ::2], turned[..., 1::2]
            pairs = (first * cos - second * sin, second * cos + first * sin)
            turned = torch.stack(pairs, dim=-1).flatten(-2)
        heads[..., :width] = turned.to(states.dtype)
PYTHON

"$VENV/bin/python" -c 'import sglang; print("SGLang", sglang.__version__, "is ready")'
touch "$STAMP"
