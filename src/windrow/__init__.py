"""Windrow runs, proves, checks and accounts for GPU work on proof-of-compute networks.

This package holds nothing but links to the rooms at the top of the repository
(``from windrow.kernels import …``), links to the files that `windrow init` writes, and the one
error every other error derives from.
"""


class WindrowError(Exception):
    """Base of every error Windrow raises on purpose. Its message says what, where, and what to do."""
