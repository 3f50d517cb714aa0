"""The command line: a word picks a file of `commands/`, anything else is an experiment to run.

Errors become one message and the exit code of their class. `--help` reads the docstrings of the commands without
importing them, so that it answers at once.

PYTHON_ARGCOMPLETE_OK: the mark by which argcomplete knows that `python -m tunix_rt` completes itself.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import os
import select
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tunix_rt import __version__, offers
from tunix_rt.backends import heap
from tunix_rt.backends.processes.start import in_job
from tunix_rt.commands import Parser
from tunix_rt.commands.experiments import header
from tunix_rt.config.folders import config_folders
from tunix_rt.config.overrides import experiment_meant
from tunix_rt.errors import DeviceError, InputError, MissingExtra, TunixError, explained, wants_traceback
from tunix_rt.hints import missing_module, tunix_rt
from tunix_rt.runs.secrets import mask_values, masked_traceback
from tunix_rt.terminal import say

COMMANDS = Path(__file__).parent / "commands"
STDOUT = 1  # its file descriptor
SYNONYMS = {
    "check": "doctor",
    "diagnose": "doctor",
    "train": "run",
    "start": "run",
    "list": "runs",
    "ls": "runs",
    "delete": "rm",
    "remove": "rm",
    "generate": "predict",
    "eval": "evaluate",
    "test": "evaluate",
    "chat": "ask",
    "config": "options",
    "keys": "options",
    "help": "--help",
}
"""Names of commands in other programs → their names here."""
ISSUES = "please report it with this traceback"


def commands() -> list[str]:
    """The words that are commands, in alphabetical order; `run` is what happens without one."""
    return sorted(file.stem for file in COMMANDS.glob("*.py") if not file.stem.startswith("_"))


def help_text() -> str:
    """What `--help` prints."""
    lines = [
        "usage: python -m tunix_rt +experiment=NAME [KEY=VALUE ...]   run an experiment, or what of it is missing",
        "       python -m tunix_rt -m +experiment=NAME KEY=A,B ...    a sweep: every combination",
        "       python -m tunix_rt COMMAND ...                        one of:",
        "",
    ]
    width = max(map(len, commands()))
    for command in commands():
        docstring = ast.get_docstring(ast.parse((COMMANDS / f"{command}.py").read_text("utf-8"))) or ""
        lines.append(f"  {command:{width}}  {docstring.splitlines()[0]}")
    lines += [
        "",
        "COMMAND --help says more, run --help how an experiment is declared; options [PREFIX] explains every KEY.",
        "--cfg job shows the composed config, debug=true shows tracebacks; --version.",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code and never lets an exception through.

    `arguments` None: this process is the program `tunix_rt`, with the words that were typed.
    """
    if arguments is None:
        heap.own_process()
        if offers.asked():
            offers.answer(commands(), Parser("run", None))
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = any(word.lstrip("+") == "debug=true" for word in words)
    return guarded(lambda: dispatch(words), debug)


def guarded(work: Callable[[], int], debug: bool) -> int:
    """The exit code of `work`, whose errors become one line each; with `debug` after their traceback.

    A process that a launcher has started as one of several, but not as the first, follows that one instead.
    """
    return _explained(lambda: in_job(lambda: _explained(work, debug)), debug)


def _explained(work: Callable[[], int], debug: bool) -> int:
    try:
        code = work()
        sys.stdout.flush()
        return code
    except KeyboardInterrupt as error:
        return _explain(error, "interrupted", 130, debug)
    except BrokenPipeError as error:
        return 0 if _nobody_reads() else _bug(error)
    except ModuleNotFoundError as error:
        advice = missing_module(error)
        return _bug(error) if advice is None else _explain(error, advice, 3, debug)
    except Exception as error:
        known = explained(error)
        return _bug(error) if known is None else _explain(error, _with_doctor(known), known.exit_code, debug)


def _with_doctor(error: TunixError) -> str:
    """The message, with where to look if the machine lacks what was asked for."""
    lacking = isinstance(error, DeviceError | MissingExtra)
    return f"{error}; `{tunix_rt('doctor')}` says what works here" if lacking else str(error)


def _nobody_reads() -> bool:
    """Whether the reader of our output is gone (`… | head`); the rest is then discarded, instead of failing again."""
    pipe = select.poll()
    pipe.register(STDOUT, 0)
    gone = bool(pipe.poll(0))
    if gone:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), STDOUT)
    return gone


def dispatch(words: Sequence[str]) -> int:
    """Call the command that the first word names, else `run` with all of them. Raises InputError."""
    if words[:1] in (["--help"], ["-h"]):
        print(help_text())
        return 0
    if words[:1] == ["--version"]:
        print(f"tunix_rt {__version__}")
        return 0
    if words and words[0] in commands():
        name, rest = words[0], list(words[1:])
    else:
        name, rest = "run", list(words)
        if words and words[0].isidentifier():
            raise InputError(f"{words[0]!r} is neither a command nor an override (key=value){_meant(words[0])}")
        if not words:
            _say_quickstart()
    return int(importlib.import_module(f"tunix_rt.commands.{name}").main(rest))


def _meant(word: str) -> str:
    """The nearest experiment, command or synonym of one; if nothing is near, all commands."""
    if found := experiment_meant(word, config_folders()):
        return found
    close = difflib.get_close_matches(word, [*commands(), *SYNONYMS], n=1)
    if not close:
        return f"; the commands are {', '.join(commands())}"
    return f"; did you mean {SYNONYMS.get(close[0], close[0])!r}?"


def _say_quickstart() -> None:
    """Before anything is imported that takes a second."""
    files = [folder / "experiment" / "quickstart.yaml" for folder in config_folders()]
    what, time = header(next(file.read_text("utf-8") for file in files if file.exists()))
    say(f"running quickstart, about {time}: {what} --help lists the commands, Ctrl-C stops.")


def _explain(error: BaseException, message: str, code: int, debug: bool) -> int:
    if debug or wants_traceback(error):
        sys.stderr.write(masked_traceback(error))
    say(f"error: {mask_values(message)}")
    return code


def _bug(error: Exception) -> int:
    sys.stderr.write(masked_traceback(error))
    say(f"error: this is a bug in tunix_rt {__version__}: {ISSUES}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
