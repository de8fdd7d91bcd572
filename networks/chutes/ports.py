"""Ports of Chutes' services, and who may reach them (chutes §2, §12.7)."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

NODE_PORTS: Final = range(30000, 32768)
"""NodePorts of the cluster: public on every GPU node."""

PRIVATE: Final[Mapping[int, str]] = MappingProxyType(
    {32000: "the API of Chutes' miner, for whoever runs add-node"}
)
