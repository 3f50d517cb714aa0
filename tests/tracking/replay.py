"""A stand-in for the training process: writes a recorded run again, step by step, with the code that wrote it.

    python replay.py RECORDED RUN_FOLDER --steps N --seconds S --end finished|failed|hang|hang-after-results

RUN_FOLDER has its config already. S is the time of one step; N = 0: until a file `stop` is there; beyond the recorded
steps their values come again. `hang` says nothing at the end and stays, so that a test can kill it.
"""

import argparse
import itertools
import shutil
import time
from itertools import groupby
from pathlib import Path
from typing import Any

from tunix_rt.errors import RunError
from tunix_rt.files import read_jsonl
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.log import MetricsLog

RESULTS = ("predictions.jsonl", "items.jsonl", "metrics.json", "report.md", "stages.json", "model", "figures")


def copy(recorded: RunFolder, run: RunFolder, *names: str) -> None:
    for name in names:
        place = recorded.path / name
        if place.is_dir():
            shutil.copytree(place, run.path / name, dirs_exist_ok=True)
        else:
            shutil.copyfile(place, run.path / name)


def logged(recorded: RunFolder) -> list[list[dict[str, Any]]]:
    """The recorded lines of each step, without the step."""
    lines = [line for _, line in read_jsonl(recorded.metrics_log)]
    groups = groupby(lines, key=lambda line: line["step"])
    return [[{key: value for key, value in line.items() if key != "step"} for line in group] for _, group in groups]


def train(recorded: RunFolder, run: RunFolder, steps: int, seconds: float) -> None:
    log = MetricsLog(run.metrics_log, run.timings_log, exact=True)
    values = itertools.cycle(logged(recorded))
    for step in range(1, steps + 1) if steps else itertools.count(1):
        if (run.path / "stop").exists():
            break
        time.sleep(seconds)
        for line in next(values):
            log.write(step, line, {"time": time.time(), "tokens_per_second": 1000.0 + step})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("recorded", type=Path)
    parser.add_argument("run_folder", type=Path)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--end", choices=["finished", "failed", "hang", "hang-after-results"], default="finished")
    options = parser.parse_args()
    recorded, run = RunFolder(options.recorded), RunFolder(options.run_folder)
    run.begin()
    copy(recorded, run, "environment.json", "data.json")
    try:
        train(recorded, run, options.steps, options.seconds)
        if options.end == "failed":
            raise RunError("loss is not finite")
        if options.end != "hang":
            copy(recorded, run, *RESULTS)
        while options.end.startswith("hang"):
            time.sleep(1)
        run.end("finished")
    except RunError as error:
        run.end("failed", str(error), 4)


if __name__ == "__main__":
    main()
