"""Nine miners with sound files in one bucket, and what a validator makes of them undisturbed."""

from collections.abc import Iterator

import pytest

from tests.validation.subnet import HONEST, Subnet, miner


@pytest.fixture(scope="session")
def subnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subnet]:
    """Nine honest miners with one group each; whoever uploads more cleans up again."""
    subnet = Subnet.make(tmp_path_factory.mktemp("subnet"))
    for uri in HONEST:
        wallet = miner(uri)
        subnet.upload(wallet, subnet.file(wallet, subnet.rollouts(wallet)))
    with subnet.instance:
        yield subnet
