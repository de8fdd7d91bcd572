"""Replays a stored verdict in a process that knows nothing but a home folder and a hotkey.

Run as `python -m tests.validation.replaying WINDOW HOTKEY`: prints the verdict rows as JSON.
"""

import json
import sys

import pyarrow as pa

from windrow.engine.validation.inputs import ReplayInputs
from windrow.engine.validation.replay import replay
from windrow.networks.grail.bucket import window_file_key
from windrow.pipelines.live import window_resources
from windrow.resources.configuration.settings import Settings


def main() -> None:
    window, hotkey = int(sys.argv[1]), sys.argv[2]
    resources = window_resources(Settings.read())
    stored = resources["lake"].query(
        "SELECT replay, key FROM validations WHERE window_start = ? AND hotkey = ?",
        [window, hotkey],
    )
    (row,) = stored.to_pylist()
    assert row["key"] == window_file_key(hotkey, window)
    inputs = ReplayInputs.from_json(row["replay"])
    checkpoint = resources["checkpoints"].fetch(inputs.context.checkpoint_window)
    inference = resources["inference"]
    verdict = replay(
        pa.BufferReader(resources["bucket"].get(row["key"])),
        inputs,
        environment=inference.environment(checkpoint),
        verifier=inference.verifier(checkpoint),
        weights_hash=checkpoint.weights_hash,
    )
    sys.stdout.write(json.dumps(exact(verdict.verdicts)))


def exact(verdicts: pa.Table) -> list[dict[str, object]]:
    """Rows in which every float is spelled bit by bit."""
    return [
        {name: value.hex() if isinstance(value, float) else value for name, value in row.items()}
        for row in verdicts.to_pylist()
    ]


if __name__ == "__main__":
    main()
