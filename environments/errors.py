"""Why an environment cannot grade; never raised for what a completion says."""

from windrow import WindrowError


class UnknownEnvironment(WindrowError):
    """A checkpoint names an environment or an option that no one here can grade."""


class EnvironmentUnavailable(WindrowError):
    """The machine, not the completion, is why nothing was graded: drop the group."""


class DatasetUnavailable(EnvironmentUnavailable):
    """A data set could not be had."""


class SandboxUnavailable(EnvironmentUnavailable):
    """Untrusted programs cannot be confined on this machine, so none is run."""


class ProgramPythonUnavailable(SandboxUnavailable):
    """This machine has no Python that runs programs as the network does, so none is run."""


class SandboxError(EnvironmentUnavailable):
    """A sandbox that had worked stopped working."""
