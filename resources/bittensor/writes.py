"""What is put on a Bittensor chain, signed with the hotkey: a commitment, and weights.

Nothing here is sent twice. An extrinsic is believed when a block holds it and its event says
success; finality is not waited for, since the next run reads what the chain kept.
"""

import math
from collections.abc import Mapping

import bittensor as bt
from bittensor_core import ss58_decode

from windrow.resources.bittensor.connection import Session
from windrow.resources.bittensor.reads import Metagraph, WeightRules
from windrow.resources.chain import MAX_COMMITMENT_BYTES, CommitmentRefused, WeightsRefused
from windrow.resources.wallet import Wallet

UNSETTLED = frozenset({None, "Retracted", "FinalityTimeout", "Dropped", "Usurped"})
"""Names of failures after which the extrinsic may be on the chain all the same."""


class HotkeySigner:
    """A wallet's hotkey as the client signs with it; it holds no key of its own."""

    crypto_type = 1

    def __init__(self, wallet: Wallet) -> None:
        self.ss58_address = wallet.hotkey
        self.public_key = bytes(ss58_decode(wallet.hotkey))
        self._wallet = wallet

    def sign(self, payload: bytes) -> bytes:
        return self._wallet.sign(bytes(payload))

    def __repr__(self) -> str:
        return f"HotkeySigner({self.ss58_address})"


def commitment_bytes(hotkey: str, text: str) -> bytes:
    """Raises CommitmentRefused for what one raw field cannot hold."""
    data = text.encode()
    if not 0 < len(data) <= MAX_COMMITMENT_BYTES:
        raise CommitmentRefused(
            f"A commitment has 1 to {MAX_COMMITMENT_BYTES} bytes, this one of {hotkey} {len(data)}."
        )
    return data


async def submit_commitment(
    session: Session, netuid: int, data: bytes, signer: HotkeySigner
) -> bt.ExtrinsicResult:
    fields = {"fields": [[{f"Raw{len(data)}": "0x" + data.hex()}]]}
    return await session.client.submit_call(
        bt.calls.Commitments.set_commitment(netuid, info=fields),
        signer,
        signer="hotkey",
        wait_for_inclusion=True,
        wait_for_finalization=False,
    )


async def submit_weights(
    session: Session, netuid: int, weights: Mapping[int, float], version: int, signer: HotkeySigner
) -> bt.ExtrinsicResult:
    """By uid. The client reads the subnet's rules again, and hides the weights if they say so."""
    intent = bt.SetWeights(netuid=netuid, weights=dict(weights), version_key=version)
    try:
        return await session.client.execute(
            intent, signer, wait_for_inclusion=True, wait_for_finalization=False
        )
    except bt.ChainError as error:
        return bt.ExtrinsicResult(success=False, message=str(error), error=error)


def weights_by_uid(
    hotkey: str, weights: Mapping[str, float], subnet: Metagraph, rules: WeightRules
) -> dict[int, float]:
    """The weights that are not zero. Raises WeightsRefused for what the subnet would not take."""
    total = math.fsum(weights.values())
    if not all(0.0 <= w <= 1.0 for w in weights.values()) or not 0.0 < total <= 1.0 + 1e-9:
        raise WeightsRefused(
            f"Weights set by {hotkey} must be numbers from 0 to 1 each and add up to more than 0 "
            f"and at most 1, not {total}."
        )
    uids = {neuron.hotkey: neuron.uid for neuron in subnet.neurons}
    given = {to: weight for to, weight in weights.items() if weight > 0.0}
    strangers = sorted(given.keys() - uids.keys())
    if strangers:
        raise WeightsRefused(
            f"{len(strangers)} hotkeys with a weight are not on the subnet at block "
            f"{subnet.block}, the first of them {strangers[0]}: their numbers may have new owners. "
            "Materialize weights again, with the subnet as it is now."
        )
    if hotkey not in uids:
        raise WeightsRefused(
            f"{hotkey} is not registered on the subnet and sets no weights there. Register it, or "
            "check BT_WALLET_COLD, BT_WALLET_HOT, NETUID and BT_NETWORK."
        )
    if set(given) != {hotkey} and len(given) < rules.min_weights:
        raise WeightsRefused(
            f"The subnet takes no fewer than {rules.min_weights} weights (MinAllowedWeights), "
            f"these of {hotkey} are {len(given)}."
        )
    return {uids[to]: weight for to, weight in given.items()}


def name_of(result: bt.ExtrinsicResult) -> str | None:
    """The chain's name for a failure, SettingWeightsTooFast; what kind it is where it has none."""
    error = result.error
    name = getattr(error, "name", None)
    if name is not None:
        return str(name)
    code = getattr(error, "code", None)
    return None if code in (None, bt.ErrorCode.UNKNOWN) else str(code.value)
