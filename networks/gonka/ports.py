"""Ports of Gonka's services, and who may reach them (gonka §1.3, §3 P12)."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

PRIVATE: Final[Mapping[int, str]] = MappingProxyType(
    {
        5050: "Gonka's inference port of an ML node",
        8080: "Gonka's management port of an ML node",
        9100: "Gonka's callback port, for ML nodes only",
        9200: "Gonka's admin API, without authentication",
        26657: "the RPC of Gonka's chain",
    }
)
"""Ports that are closed to the internet on every machine of the network."""

P2P: Final = 5000
"""Public on a network node. On an ML node the inference port is published there, and is private."""

PUBLIC_API: Final = (8000, 8443)
