"""Runs of the command line in processes forked from one that has imported everything: a second each, not five.

    python -m tests.crash.forked

Reads a JSON object a line from stdin (`folder`, `words`, `env`, `kill_after`), runs the command line there in a child,
and answers with a line: its exit code, as of subprocess. Nothing of a framework may have begun before the fork: its
modules are imported, no device is used.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULES = Path("modules.json")


@dataclass
class Forking:
    """The process that forks, as its client sees it."""

    backend: str
    folder: Path
    """Where it keeps what its first run imported."""
    _process: subprocess.Popen[str] = field(init=False)

    def __post_init__(self) -> None:
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.forked"],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        words = (f"backend={self.backend}", *WARM_UP)
        assert self.run(self.folder, words, {"TUNIX_RT_TEST_MODULES": str(MODULES)}) == 0, self.log()

    def run(
        self,
        folder: Path,
        words: Sequence[str],
        env: Mapping[str, str],
        kill_after: float | None = None,
        processes: int = 1,
    ) -> int:
        """Run the command line in `folder`; what it prints is appended to `log` there. Returns the exit code.

        `kill_after`: SIGKILL after so many seconds, if it has not ended. `processes`: of one job, as a launcher starts
        them; the exit code is that of the first.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        request = {"folder": str(folder), "words": list(words), "env": dict(env), "kill_after": kill_after}
        request["ranks"] = ranks(processes)
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def log(self) -> str:
        return (self.folder / "log").read_text("utf-8")

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


def ranks(processes: int) -> list[dict[str, str]]:
    """The variables of each process of a job that torchrun would set."""
    if processes == 1:
        return [{}]
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(found.getsockname()[1])}
    return [shared | {"RANK": str(rank)} for rank in range(processes)]


WARM_UP = (
    *("training=smoke", "training.max_steps=1", "schedule.warmup_steps=0", "hardware=cpu", "hardware.threads=1"),
    *("dataset.limit.train=64", "dataset.limit.validation=4", "dataset.limit.test=4", "tracking=none"),
    *("generation.max_new_tokens=2", "generation.baseline=true"),
)


def _serve() -> None:
    gc.disable()
    for line in sys.stdin:
        request = json.loads(line)
        children = []
        for rank in request["ranks"]:
            child = os.fork()
            if child == 0:
                _work(request | {"env": request["env"] | rank})
            children.append(child)
        killer = None
        if request["kill_after"] is not None:
            killer = threading.Timer(request["kill_after"], os.kill, (children[0], signal.SIGKILL))
            killer.start()
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        if killer is not None:
            killer.cancel()
            killer.join()
        print(codes[0], flush=True)
        if MODULES.exists():
            _import(json.loads(MODULES.read_text("utf-8")))
            MODULES.unlink()


def _import(names: Sequence[str]) -> None:
    """What the first run needed, so that the following ones have it."""
    for name in names:
        with suppress(Exception), warnings.catch_warnings(action="ignore"):
            importlib.import_module(name)
    gc.freeze()


def _work(request: dict[str, object]) -> None:
    code = 1
    try:
        os.chdir(str(request["folder"]))
        log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(request["env"])  # type: ignore[call-overload]
        gc.enable()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may ignore it

        from tunix_rt import faults
        from tunix_rt.__main__ import main

        faults.arm()
        code = main(request["words"])  # type: ignore[arg-type]
        if "TUNIX_RT_TEST_MODULES" in os.environ:
            Path(os.environ["TUNIX_RT_TEST_MODULES"]).write_text(json.dumps(list(sys.modules)), "utf-8")
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
