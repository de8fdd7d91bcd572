"""Which nodes BT_NETWORK and BT_CHAIN_ENDPOINT mean."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from bittensor.settings import (
    FINNEY_GENESIS_HASH,
    NETWORKS,
    default_archive_endpoints,
    default_fallback_endpoints,
)

from windrow.resources.chain import ChainError


class UnknownNetwork(ChainError):
    """BT_NETWORK and BT_CHAIN_ENDPOINT name no chain."""


@dataclass(frozen=True)
class Endpoints:
    """Where a chain is asked: the first that answers, the others in turn when it stops to.

    archive: asked for state that the others have pruned. genesis: hash of block 0, where it is
    known beforehand; otherwise the first endpoint that answers decides which chain it is.
    """

    network: str
    urls: tuple[str, ...]
    archive: tuple[str, ...] = ()
    genesis: str | None = None


def endpoints(
    network: str = "finney", endpoint: str | None = None, fallbacks: Sequence[str] = ()
) -> Endpoints:
    """What BT_NETWORK, BT_CHAIN_ENDPOINT and a list of fallbacks mean.

    A network brings its public endpoints. An endpoint of one's own stands alone with the fallbacks
    named beside it: it may be of another chain than the network's. Raises UnknownNetwork.
    """
    known = sorted(set(NETWORKS) - {"local"})
    for url in [endpoint, *fallbacks]:
        parts = urlsplit(url or "ws://none")
        if parts.scheme not in ("ws", "wss") or not parts.hostname:
            raise UnknownNetwork(
                "BT_CHAIN_ENDPOINT must be a ws:// or wss:// address such as "
                f"ws://127.0.0.1:9944; {shown(url or '')} is none."
            )
    if network not in (*known, "local", "custom"):
        raise UnknownNetwork(
            f"BT_NETWORK is {network!r}; choose one of {', '.join(known)}, local or custom."
        )
    if endpoint:
        return Endpoints(network, tuple(dict.fromkeys([endpoint, *fallbacks])))
    if network == "custom":
        raise UnknownNetwork(
            "BT_NETWORK=custom needs BT_CHAIN_ENDPOINT, a ws:// or wss:// address."
        )
    if network == "local":
        return Endpoints(network, ("ws://127.0.0.1:9944", *fallbacks))
    urls = dict.fromkeys([NETWORKS[network], *fallbacks, *default_fallback_endpoints(network)])
    genesis = FINNEY_GENESIS_HASH if network == "finney" else None
    return Endpoints(network, tuple(urls), tuple(default_archive_endpoints(network)), genesis)


def shown(url: str) -> str:
    """An endpoint without what may be a key: scheme, host and port."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{parts.hostname}{port}" if parts.hostname else "the endpoint"
    except ValueError:
        return "the endpoint"
