"""A small subnet in a folder: a checkpoint, miners with files that break no rule, a validator."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa

from tests.support.tiny_checkpoint import make_tiny_checkpoint
from windrow.engine.mining.group import Group, group_batch
from windrow.engine.mining.loop import request_seed
from windrow.engine.mining.packaging import Origin, package, token_hashes
from windrow.engine.ports import Completion
from windrow.environments.evaluation import Evaluation
from windrow.environments.tasks import Task
from windrow.networks.grail.bucket import window_file_key
from windrow.networks.grail.prf import sketch_coefficients
from windrow.networks.grail.seeds import problem_seed
from windrow.networks.grail.window_file import write_window_file
from windrow.pipelines.build import build
from windrow.pipelines.demo.network import trainer
from windrow.resources.checkpoints.files import verify_checkpoint
from windrow.resources.checkpoints.publishing import publish_full
from windrow.resources.configuration.settings import Settings
from windrow.resources.secret import Secret
from windrow.resources.storage.object_store import open_bucket
from windrow.resources.wallet import DevelopmentWallet

WINDOW = 5_000_040
HONEST = tuple(f"//Honest{number}" for number in range(9))
HOSTILE = "//Hostile"
EVERYONE = {"ops": {"verdicts": {"config": {"every_miner": True}}}}


Sample = Callable[[], list[Completion]]


def miner(uri: str) -> DevelopmentWallet:
    return DevelopmentWallet(Secret(uri))


@dataclass(frozen=True)
class Subnet:
    """An embedded Windrow whose bucket holds other miners' files."""

    path: Path
    settings: Settings
    definitions: dg.Definitions
    instance: dg.DagsterInstance

    @classmethod
    def make(
        cls, path: Path, *, env_id: str = "gsm8k", max_tokens: int = 40, **variables: str
    ) -> "Subnet":
        """A subnet in which nobody has uploaded anything. Its chain stands still."""
        settings = Settings.read(
            {"WINDROW_HOME": str(path), "WINDROW_CHAIN_CLOCK": "stepped", **variables}
        )
        bucket = open_bucket(settings.bucket)
        if not bucket.list():
            folder = make_tiny_checkpoint(path / "made", env_id=env_id, max_tokens=max_tokens)
            publish_full(bucket, verify_checkpoint(folder), ready_window=0, sign=trainer().sign)
        return cls(path, settings, build(settings), dg.DagsterInstance.ephemeral())

    def resource(self, name: str) -> Any:
        return (self.definitions.resources or {})[name]

    @property
    def validator(self) -> str:
        return str(self.resource("wallet").hotkey)

    @cached_property
    def checkpoint(self) -> Any:
        checkpoints = self.resource("checkpoints")
        return checkpoints.fetch(checkpoints.select(WINDOW))

    @cached_property
    def environment(self) -> Any:
        return self.resource("inference").environment(self.checkpoint)

    def rollouts(
        self,
        wallet: DevelopmentWallet,
        groups: Sequence[int] = (0,),
        write: Callable[[Task, Sample], list[Completion]] = lambda task, sample: sample(),
        claim: Evaluation | None = None,
    ) -> pa.Table:
        """Signed FLAT_SCHEMA rows of whole groups, sampled and proved with the checkpoint.

        write: makes a group's completions of its task and of what the model samples. claim: what
        every rollout is said to earn, instead of what it does earn.
        """
        inference, checkpoint = self.resource("inference"), self.checkpoint
        generator, prover = inference.generator(checkpoint), inference.prover(checkpoint)
        beacon = self.resource("beacon_source").beacon(WINDOW)
        batches = []
        for number in groups:
            seed = problem_seed(wallet.hotkey, beacon.block_hash, number)
            task = self.environment.task(seed)
            seeds = [request_seed(wallet.hotkey, beacon.block_hash, number, i) for i in range(16)]
            prompt = self.environment.prompt(task)
            sample = partial(generator.generate, prompt, seeds, checkpoint.metadata.policy)
            completions = write(task, sample)
            group = Group(number, seed, seeds, task, prompt, completions)
            group.evaluations = (
                [claim] * 16
                if claim
                else self.environment.evaluate(task, [c.tokens for c in completions])
            )
            group.proofs = prover.prove(
                group.sequences(),
                [len(prompt)] * 16,
                sketch_coefficients(beacon.randomness),
            )
            batches.append(group_batch(group, WINDOW + 5, 1.7e9))
        made = pa.Table.from_batches(batches)
        hashes = token_hashes(made["tokens"].combine_chunks())
        proofs = made.append_column("tokens_hash", [[digest.hex() for digest in hashes]])
        origin = Origin(
            window_start=WINDOW,
            block_hash=beacon.block_hash,
            randomness=beacon.randomness,
            use_drand=beacon.drand_round is not None,
            checkpoint_window=checkpoint.metadata.window,
            model_name=checkpoint.metadata.model_name,
            hotkey=wallet.hotkey,
        )
        return package(made, proofs, origin, wallet.sign)

    def completions(self, texts: Sequence[str]) -> list[Completion]:
        """Texts as completions of the checkpoint's greatest length, filled up with new lines."""
        tokenizer = self.environment.tokenizer
        size = self.checkpoint.metadata.policy.max_new_tokens
        blank = tokenizer.encode("\n", add_special_tokens=False)
        made = []
        for text in texts:
            ids = tokenizer.encode(text, add_special_tokens=False)
            assert len(ids) <= size, f"{len(ids)} tokens: {text[:80]!r}"
            ids += blank * (size - len(ids))
            made.append(Completion(np.array(ids[:size], np.int32), "length"))
        return made

    def file(self, wallet: DevelopmentWallet, rollouts: pa.Table) -> bytes:
        """The window file of these rows."""
        sink = pa.BufferOutputStream()
        write_window_file(
            sink,
            rollouts.to_batches(),
            wallet=wallet.hotkey,
            window_start=WINDOW,
            timestamp=1.7e9,
        )
        return bytes(sink.getvalue())

    def object(self, wallet: DevelopmentWallet, suffix: str = "") -> Path:
        """Where the bucket keeps a miner's file."""
        return Path(self.settings.bucket) / (window_file_key(wallet.hotkey, WINDOW) + suffix)

    def upload(
        self, wallet: DevelopmentWallet, data: bytes, *, suffix: str = "", early: float = 60.0
    ) -> Path:
        """Put a file into the bucket `early` seconds before the deadline; the object's path."""
        path = self.object(wallet, suffix)
        self.resource("bucket").put(str(path.relative_to(self.settings.bucket)), data)
        moment = self.resource("chain").deadline(WINDOW) - early
        os.utime(path, (moment, moment))
        return path

    def validate(
        self,
        *assets: str,
        window: int = WINDOW,
        config: dict[str, Any] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """validate_window, or some assets of it, in this process; all miners are looked at."""
        chosen = assets or ("verdicts", "scores", "weights")
        asked = {"ops": {**(EVERYONE["ops"] if "verdicts" in chosen else {}), **(config or {})}}
        return self.definitions.resolve_job_def("validate_window").execute_in_process(
            partition_key=str(window),
            instance=self.instance,
            run_config=asked,
            asset_selection=[dg.AssetKey(name) for name in chosen],
            raise_on_error=False,
        )

    def rows(
        self, dataset: str, *wallets: DevelopmentWallet, window: int = WINDOW
    ) -> list[dict[str, Any]]:
        """The validator's rows of a window about some miners, or about all."""
        table = self.resource("lake").read(dataset, window, self.validator)
        hotkeys = [wallet.hotkey for wallet in wallets]
        return [row for row in table.to_pylist() if not hotkeys or row["hotkey"] in hotkeys]

    def seen(self, *wallets: DevelopmentWallet) -> dict[str, list[dict[str, Any]]]:
        """All that the validator stored of some miners, but for how long it took and the
        entity tag, which a folder gives anew to the same file."""
        datasets = ("validations", "verdicts", "scores", "completions")
        found = {name: self.rows(name, *wallets) for name in datasets}
        for row in found["validations"]:
            del row["seconds"], row["etag"]
        return found

    def faults(self, window: int = WINDOW) -> list[dict[str, Any]]:
        lake = self.resource("lake")
        if not lake.exists("faults", window):
            return []
        rows: list[dict[str, Any]] = lake.read("faults", window).to_pylist()
        return rows
