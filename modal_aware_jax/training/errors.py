"""What can stop a run: each with one message that says what to do, and an exit code."""

import signal


class RunError(RuntimeError):
    """A run that cannot go on for a reason its user can mend.

    The command line prints the message alone and leaves with `exit_code`.
    """

    exit_code = 1


class Interrupted(RunError):
    """Stopped by SIGTERM or Ctrl-C, after saving; exit code 128 + the signal."""

    def __init__(self, message: str, signum: int = signal.SIGTERM):
        super().__init__(message)
        self.exit_code = 128 + signum


class NonFiniteLoss(RunError):
    """The loss, its gradient or the parameters hold an infinity or NaN."""

    exit_code = 3


class WorkdirInUse(RunError):
    """Another process works in the same directory."""

    exit_code = 4


class WorkdirError(RunError):
    """The working directory cannot be written: permissions, a full disk."""

    exit_code = 5


class CheckpointError(RunError):
    """A checkpoint that is missing, damaged, or of another model."""

    exit_code = 6


class DataError(RunError):
    """Reading a batch failed; the run was saved first."""

    exit_code = 7
