"""The embedded chain: on this machine, without an account."""

from windrow.resources.configuration.settings import Settings
from windrow.resources.development_chain import DevelopmentChain


def embedded_chain(settings: Settings) -> DevelopmentChain:
    """The development chain these settings describe."""
    return DevelopmentChain(
        settings.home / "chain.sqlite",
        seed=settings.chain_seed,
        genesis=settings.chain_genesis.timestamp(),
        block_seconds=settings.chain_block_seconds,
        stepped=settings.chain_clock == "stepped",
    )
