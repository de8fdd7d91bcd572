"""Where data set rows come from: the public hub, or the problems shipped with Windrow."""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from windrow.environments.errors import DatasetUnavailable
from windrow.environments.tasks import DatasetSplit, Row

SHIPPED = Path(__file__).with_name("data")


class HubTasks:
    """The network's own data sets, from the Hugging Face hub or its local cache.

    The network pins no revision, so neither does this: the current one is the right one (§12).
    """

    def rows(self, split: DatasetSplit) -> Sequence[Row]:
        """All rows, in the hub's order. Raises DatasetUnavailable."""
        from datasets import load_dataset
        from datasets.exceptions import DatasetsError

        try:
            dataset = load_dataset(split.dataset, split.config, split=split.split)
        except (DatasetsError, OSError, ValueError) as error:
            raise DatasetUnavailable(
                f"data set {split.dataset} ({split.config}, {split.split}) cannot be loaded from "
                f"the hub or its cache: {error}; go online once to fill the cache, or use the "
                "shipped problems, which no other miner or validator uses"
            ) from error
        rows: list[Row] = dataset.to_list()
        return rows


class ShippedTasks:
    """Problems of Windrow's own in the hub's formats, for demos and tests without a network.

    One JSON object a line: {"config", "split", "row"}; environments/data/make.py writes them.
    """

    FILES = {  # noqa: RUF012 - a constant
        "openai/gsm8k": "gsm8k.jsonl",
        "EleutherAI/hendrycks_math": "math.jsonl",
        "google-research-datasets/mbpp": "mbpp.jsonl",
        "openai_humaneval": "humaneval.jsonl",
    }

    def rows(self, split: DatasetSplit) -> Sequence[Row]:
        """All rows, in the file's order. Raises DatasetUnavailable."""
        return self._splits.get(split) or self._refuse(split)

    @cached_property
    def _splits(self) -> dict[DatasetSplit, list[Row]]:
        splits: dict[DatasetSplit, list[Row]] = {}
        for dataset, file in self.FILES.items():
            for line in (SHIPPED / file).read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                name = DatasetSplit(dataset, entry["config"], entry["split"])
                splits.setdefault(name, []).append(entry["row"])
        return splits

    def _refuse(self, split: DatasetSplit) -> Sequence[Row]:
        raise DatasetUnavailable(
            f"no problems are shipped for data set {split.dataset} ({split.config}, "
            f"{split.split}); use the hub"
        )
