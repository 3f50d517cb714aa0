"""The kinds of failure that a user can cause or meet, each with the exit code of its class.

The message of each says what, where and what to do; `__main__` prints it and exits with the code. Errors of the
operating system or the YAML reader are turned into one of them (`explained`). Anything else that escapes is our bug
(exit 1, with its traceback).
"""

from __future__ import annotations

import errno
import os
import sys
import traceback

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
OF_MACHINE = {
    errno.EROFS: "the file system is read-only; name a folder that can be written (run.root, run.data)",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EIO: "the disk does not answer as it should (an input/output error)",
    errno.ESTALE: "the network file system has lost the file; the same command goes on once it is back",
    errno.EMFILE: "too many open files (see `ulimit -n`)",
    errno.ENFILE: "the system has too many open files",
    errno.ENOENT: "no such file or folder (it was there, or its folder was: removed meanwhile?)",
    errno.ENOTDIR: "a file is where a folder is needed",
    errno.EISDIR: "a folder is where a file is needed",
    errno.ENAMETOOLONG: "the name is too long for the file system",
    errno.ELOOP: "its links lead round in a circle",
}
"""Errors of the operating system, in words."""


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


class InUse(MachineError):
    """Another process works in a run folder."""


class DeviceError(MachineError):
    """A device that was asked for does not exist. The message lists the devices that do."""


class MissingExtra(MachineError):
    """An optional package is not installed. The message names the extra that installs it."""


class RunError(TunixError):
    """The run itself failed."""

    exit_code = 4


class NonFiniteError(RunError):
    """Loss or gradient became infinite or NaN; the update was not applied."""


class OutOfMemory(RunError):
    """The device's memory is too small for what it computes at once. The message names the setting to lower."""


class GateError(TunixError):
    """A check failed: a result is not the same, or a record is not valid. Nothing else went wrong."""

    exit_code = 5


class Interrupted(TunixError):
    """A signal (or a `stop` file) ended the run between two steps; what was done is on disk."""

    exit_code = 130

    def __init__(self, message: str, exit_code: int = 130) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def ask_for_traceback(error: BaseException) -> None:
    """Mark an error of an experiment that declares `debug: true`: it is reported with its traceback."""
    vars(error)["wants_traceback"] = True


def wants_traceback(error: BaseException) -> bool:
    """Whether an error was marked by `ask_for_traceback`."""
    return bool(vars(error).get("wants_traceback", False))


def explained(error: Exception) -> TunixError | None:
    """Turns an error of the operating system or of the YAML reader into one of ours; None for all others."""
    if isinstance(error, TunixError):
        return error
    if isinstance(error, OSError):
        return _of_machine(error)
    yaml = sys.modules.get("yaml")
    if yaml is not None and isinstance(error, yaml.YAMLError):
        return ConfigError(f"not readable as a config: {' '.join(str(error).split())}")
    if isinstance(error, RecursionError):
        return _of_depth(error)
    return None


def _of_machine(error: OSError) -> MachineError | None:
    where = "" if error.filename is None else str(os.fsdecode(error.filename))
    if error.errno in FULL:
        writing = f" while writing {where}" if where else ""
        return MachineError(f"the disk is full{writing}; free some space, the same command goes on")
    if error.errno in OF_MACHINE and where:
        return MachineError(f"{where}: {OF_MACHINE[error.errno]}")
    if error.errno == errno.ENOENT and "temporary directory" in str(error):
        return MachineError(f"{error.strerror}; set TMPDIR to a folder that can be written")
    return None


def _of_depth(error: RecursionError) -> ConfigError | None:
    """An error naming the config file that is nested more deeply than the YAML reader supports."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        name = getattr(frame.f_locals.get("self"), "name", None)
        if name is not None and str(frame.f_globals.get("__name__")).startswith("yaml."):
            return ConfigError(f"{name}: not readable as a config: nested too deeply")
    return None
