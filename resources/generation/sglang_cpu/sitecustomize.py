"""Declares the operators that torchvision expects compiled, just before it is imported."""

import sys


class DeclareOperators:
    def find_spec(self, name: str, *_: object) -> None:
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            for operator in ("nms", "qnms"):
                torch.library.define(f"torchvision::{operator}", signature)


sys.meta_path.insert(0, DeclareOperators())
