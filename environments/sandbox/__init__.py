"""Confines what completions make the machine execute."""

from windrow.environments.sandbox.pool import CodeOutcome, Limits, Sandbox, TestOutcome

__all__ = ["CodeOutcome", "Limits", "Sandbox", "TestOutcome"]
