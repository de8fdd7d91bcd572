"""ComputeHorde (Bittensor subnet 12): jobs, receipts and excuses; § of compute-horde."""
