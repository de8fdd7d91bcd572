"""Confines what completions make the machine execute (grail-protocol §12.6, W6).

Programs meet the network's built-ins and import list; below those stand namespaces, a system-call
filter, limits and a process of their own, since the list alone is easily left. A program that
leaves it can do no harm, but can still claim that its own tests passed, here as on the network.

Verdicts are those of the network's normal sandbox. Its second one, used where the first cannot
start, judges the same code differently and is not imitated; the time limit counts processor time,
so that a busy machine does not fail honest code.
"""

from windrow.environments.sandbox.pool import CodeOutcome, Limits, Sandbox, TestOutcome

__all__ = ["CodeOutcome", "Limits", "Sandbox", "TestOutcome"]
