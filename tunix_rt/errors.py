"""The kinds of failure a person can cause or meet, each with the exit code of its class.

Whoever raises one says what, where and what to do, in one message; `__main__` prints it and exits with
the code. Anything else that escapes is our bug (exit 1, with its traceback).
"""

from __future__ import annotations


class TunixError(Exception):
    """A failure with one clear message. `exit_code` belongs to the class of the failure."""

    exit_code = 1


class InputError(TunixError):
    """The user's input is wrong: a config, a command line, a data file, a model folder."""

    exit_code = 2


class ConfigError(InputError):
    """The declared experiment is wrong. The message lists every mistake that was found."""


class DataError(InputError):
    """A data file or a dataset is wrong. The message names file, line and field."""


class ModelError(InputError):
    """A model or tokenizer folder is wrong or does not fit. Both sides of a mismatch are listed."""


class CheckpointError(InputError):
    """A checkpoint is incomplete, damaged or belongs to another run."""


class MachineError(TunixError):
    """The machine does not provide something: a device, an extra, a server, disk space."""

    exit_code = 3


class DeviceError(MachineError):
    """A device that was asked for does not exist. The message lists the devices that do."""


class MissingExtra(MachineError):
    """An optional package is not installed. The message names the extra that brings it."""


class RunError(TunixError):
    """The run itself failed."""

    exit_code = 4


class NonFiniteError(RunError):
    """Loss or gradient became infinite or NaN; the update was not applied."""


class OutOfMemory(RunError):
    """The device's memory does not hold a micro-batch. The message names the setting to lower."""


class GateError(TunixError):
    """A check said no: a result did not come out the same, a record does not hold. Nothing else went wrong."""

    exit_code = 5


class Interrupted(TunixError):
    """A signal (or a `stop` file) ended the run between two steps; what was done is on disk."""

    exit_code = 130

    def __init__(self, message: str, exit_code: int = 130) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def ask_for_traceback(error: BaseException) -> None:
    """Mark an error of an experiment that declares `debug: true`: whoever reports it shows its traceback."""
    vars(error)["wants_traceback"] = True


def wants_traceback(error: BaseException) -> bool:
    """Whether it was marked so."""
    return bool(vars(error).get("wants_traceback", False))
