"""The process that talks to Weights & Biases: one window's metrics from its input, and no more."""

import json
import sys
from typing import Any

INIT_SECONDS = 30.0


def send(message: dict[str, Any]) -> None:
    """Log one window into its hotkey's run; the x axis is `block_number` (grail-validation §22)."""
    import wandb

    metrics = message["metrics"]
    settings = wandb.Settings(
        console="off", disable_git=True, disable_code=True, silent=True, init_timeout=INIT_SECONDS
    )
    run = wandb.init(
        project=message["project"],
        entity=message["entity"],
        mode=message["mode"],
        dir=message["folder"],
        id=message["run"],
        name=f"{metrics['role']}_{metrics['hotkey']}",
        resume="allow" if message["mode"] == "online" else None,
        settings=settings,
    )
    run.define_metric("block_number")
    run.define_metric("*", step_metric="block_number")
    run.log({**metrics["values"], "block_number": metrics["window"]})
    run.finish()


if __name__ == "__main__":
    send(json.load(sys.stdin))
