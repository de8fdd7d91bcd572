"""What a miner changes about a check that fails or an upload that does not count, in one place."""

from types import MappingProxyType
from typing import Final

ADVICE: Final = MappingProxyType(
    {
        # the file
        "file_readable": "Write the file whole, with the network's columns and types, and read it "
        "back before it is uploaded.",
        "json_text": "Write commitments and beacon as JSON; a single text that is none makes the "
        "network ignore the whole file.",
        "file_structure": "Mend the rules of the file's structure that are named with it.",
        "wallet_mismatch": "Name the uploading hotkey as `wallet` in the file's metadata.",
        "window_mismatch": "Name the window's first block as `window_start` in the metadata.",
        "null_rollout_group": "Give every row its rollout_group.",
        "window_start_mismatch": "Put rows of one window only into its file.",
        "block_hash_mismatch": "Use the hash of the window's first block, and look it up again "
        "after a fork.",
        "duplicate_nonce": "Number every rollout once: nonce = rollout_group * 16 + rollout_index.",
        "invalid_group_size": "Submit groups of exactly 16; leave out a group that is not whole.",
        "group_numbers": "Number groups from 0 as problems are tried, and submit those that did "
        "not go well too.",
        "duplicate_completion": "Sample each group anew; equal completions of other groups earn "
        "nothing and look like copies.",
        # a row's identity
        "checkpoint_window": "Load the newest READY checkpoint before the window opens.",
        "row_identity": "Put this window's first block and its hash into every row.",
        "outer_signature": "Sign the row's challenge with the hotkey that the row names.",
        "nonce": "Set nonce = rollout_group * 16 + rollout_index.",
        "total_in_group": "Set total_in_group to 16.",
        "row_hotkey": "Put the uploading hotkey into every row.",
        "challenge": "Build the challenge from the row's own block hash and nonce.",
        "row_randomness": "Use the window's own randomness in every row.",
        "beacon_randomness": "Commit to the window's own randomness; sketches of an earlier one "
        "are a replay.",
        # a rollout
        "schema_valid": "Fill every field with its type; lengths must add up and numbers be "
        "finite.",
        "tokens_valid": "Submit token ids of the checkpoint's vocabulary, no more than its "
        "context holds.",
        "env_prompt_valid": "Derive the prompt from your own hotkey, this block hash and the "
        "group number, with the checkpoint's chat template; another miner's rollouts never fit.",
        "proof_valid": "Prove with the checkpoint's own weights in the network's number format "
        "and attention, and sign the commitments that were proved.",
        "sketch_range": "Send sketches as they were computed; these are larger than any can be.",
        "sketches_agree": "Compute sketches in a forward pass of this checkpoint over exactly "
        "these tokens; zeros and values of other states do not pass here, whatever the network "
        "tolerates.",
        "termination_valid": "Let the model end its completion, and submit the EOS token it "
        "sampled; only one of the greatest length may end without.",
        "env_eval_valid": "Submit completions that decode with the checkpoint's tokenizer.",
        "reward_valid": "Compute rewards from the submitted completion with the network's "
        "environment.",
        "success_matches": "Claim success only where the environment finds it.",
        "logprobs_valid": "Send log-probs at temperature 1 from the proof pass, one for each "
        "token, zero over the prompt.",
        "logprobs_finite": "Send finite log-probs.",
        "logprobs_agree": "Take log-probs from the same forward pass as the sketches, not from "
        "the generation server or another model.",
        "token_distribution_valid": "Sample with the checkpoint's temperature, top-p and top-k, "
        "and from its weights; too many unlikely tokens look like another model.",
        "within_nucleus": "Sample with the checkpoint's top-k and top-p; a token that they leave "
        "out was not drawn by this policy.",
        "repeated_completions": "Draw each completion by itself with a seed of its own; so many "
        "equal ones are copies, or drawn at a lower temperature.",
        "group_advantages": "Compute advantages from the 16 rewards of the group as submitted.",
    }
)
"""By check, in the order in which reports list them: the file, its rows, their rollouts."""

UPLOADS: Final = MappingProxyType(
    {
        "missing": "Upload the file under your hotkey and the window before the deadline; "
        "`windrow status` shows the margin.",
        "late": "Finish earlier: raise WINDROW_SAFETY_BLOCKS or lower WINDROW_MAX_GROUPS.",
        "bad_size": "Keep the file within the limits; lower WINDROW_MAX_GROUPS if it is too large.",
        "banned": "Wait until the ban is over, and mend what caused it first.",
        "not_selected": "Nothing: a validator looks at some of the miners in each window.",
        "unfinished": "Fix what failed on this machine, or raise the limit that the reason names, "
        "and validate the window again.",
        "unreadable": ADVICE["file_readable"],
    }
)
"""By state of the upload (`validations.state`)."""

COPIED: Final = (
    "Generate every completion yourself, and keep your bucket's credentials to yourself; the one "
    "who uploaded later is held to be the copier."
)


def place_of(check: str) -> int:
    """Where reports list a check."""
    order = list(ADVICE)
    return order.index(check) if check in ADVICE else len(order)
