"""A home in which the demo ran: one window of two groups, a broken copy, verdicts on both."""

import io
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from windrow.networks.grail.bucket import window_file_key
from windrow.networks.grail.window_file import write_window_file
from windrow.pipelines.demo.broken import broken_miner
from windrow.resources.configuration.settings import Settings
from windrow.resources.wallet import DevelopmentWallet
from windrow.resources.warehouse.lake import Lake


@dataclass(frozen=True)
class Demonstrated:
    """printed: what the demo said. window: the one it mined."""

    settings: Settings
    printed: str
    window: int

    @property
    def lake(self) -> Lake:
        return Lake(self.settings.lake)

    @property
    def own(self) -> str:
        return DevelopmentWallet(self.settings.wallet_uri).hotkey

    @property
    def broken(self) -> str:
        return broken_miner(self.window).hotkey

    def file(self, hotkey: str) -> Path:
        """A miner's window file in the bucket."""
        return Path(self.settings.bucket) / window_file_key(hotkey, self.window)

    def rewritten(self, path: Path, rollouts: pa.Table) -> Path:
        """A file of these rollouts under the miner's own name, in the folder `path`."""
        sink = io.BytesIO()
        write_window_file(
            sink,
            rollouts.to_batches(),
            wallet=self.own,
            window_start=self.window,
            timestamp=1.0,
        )
        file = path / self.file(self.own).name
        file.write_bytes(sink.getvalue())
        return file
