"""A stand-in for the training process: writes a run folder step by step with the code that the real one uses.

    python fake_training.py RUN_FOLDER --steps N --seconds S --end finished|failed|hang|hang-after-results

S is the time of one step; N = 0: until a file `stop` is there. `hang` says nothing at the
end and stays, so that a test can kill it.
"""

import argparse
import itertools
import math
import time
from pathlib import Path

from tunix_rt.errors import RunError
from tunix_rt.files import digest, write_json, write_jsonl, write_text
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.log import MetricsLog

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360606060000000"
    "0500010b0d0a2d0b0000000049454e44ae426082"
)


def rate(k: int, n: int) -> dict[str, float]:
    return {"value": k / n, "k": k, "n": n, "low": max(0.0, k / n - 0.05), "high": min(1.0, k / n + 0.05)}


def prediction(number: int) -> dict[str, object]:
    a, b = 10 + number % 90, 10 + (number * 7) % 90
    steps = [f"{a}*{b % 10}={a * (b % 10)}", f"{a}*{b // 10}={a * (b // 10)}", "sum"]
    answer = f"{a * b + (number % 10 == 3):04d}"
    return {
        "id": f"{number:016x}",
        "sample": 0,
        "prompt": f"{a}*{b}=",
        "reference": f"{a * b:04d}",
        "completion": ";".join([*steps, answer]),
        "steps": steps,
        "answer": answer,
        "finish_reason": "stop",
        "error": None,
        "num_prompt_tokens": 6,
        "num_new_tokens": 64,
        "logprobs": [-0.01] * 64,
    }


def verdict(line: dict[str, object]) -> dict[str, object]:
    correct = line["answer"] == line["reference"]
    reason = "the same text" if correct else f"{line['answer']} is not {line['reference']}"
    steps = {"num_steps": 3, "num_checked": 2, "num_wrong": int(not correct), "first_wrong": None if correct else 1}
    verdicts = {"verdicts": [True, correct, None]}
    return {"id": line["id"], "sample": 0, "correct": correct, "reason": reason, "steps": steps | verdicts}


def write_data(run: RunFolder) -> None:
    splits = {split: {"sha256": digest(split), "count": 500} for split in ("train", "validation", "test")}
    write_json(run.data, {"name": "arithmetic", "folder": "/data/arithmetic/0123", "splits": splits})
    git = {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": True, "diff": "--- a/x\n+++ b/x\n"}
    write_json(run.environment, {"command": "python -m tunix_rt", "git": git, "packages": {"numpy": "2.4.0"}})


def write_results(run: RunFolder, number: int) -> None:
    lines = [prediction(place) for place in range(number)]
    items = [verdict(line) for line in lines]
    write_jsonl(run.predictions, lines)
    write_jsonl(run.items, items)
    right = sum(1 for item in items if item["correct"])
    by_digit = {"2x2": {"accuracy": rate(right, number)}}
    write_json(run.metrics, {"accuracy": rate(right, number), "stop_rate": rate(number, number), "slices": by_digit})
    write_json(run.model / "config.json", {"model_type": "llama"})
    (run.path / "figures").mkdir(exist_ok=True)
    (run.path / "figures" / "loss.png").write_bytes(PIXEL)
    write_text(run.report, f"# Report\n\n{right} of {number} right.\n\n![loss](figures/loss.png)\n")


def train(run: RunFolder, steps: int, seconds: float) -> None:
    log = MetricsLog(run.metrics_log, run.timings_log, exact=True)
    for step in range(1, steps + 1) if steps else itertools.count(1):
        if (run.path / "stop").exists():
            break
        time.sleep(seconds)
        values = {"train/loss": 3 * math.exp(-step / 50), "train/learning_rate": 3e-3}
        log.write(step, values, {"time": time.time(), "tokens_per_second": 1000.0 + step})
        if step % 10 == 0:
            log.write(step, {"eval/loss": 3.1 * math.exp(-step / 50)}, {"time": time.time()})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run_folder", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--predictions", type=int, default=30)
    parser.add_argument("--end", choices=["finished", "failed", "hang", "hang-after-results"], default="finished")
    options = parser.parse_args()
    run = RunFolder(options.run_folder)
    run.begin()
    write_data(run)
    try:
        train(run, options.steps, options.seconds)
        if options.end == "failed":
            raise RunError("loss is not finite")
        if options.end != "hang":
            write_results(run, options.predictions)
        while options.end.startswith("hang"):
            time.sleep(1)
        run.end("finished")
    except RunError as error:
        run.end("failed", str(error), 4)


if __name__ == "__main__":
    main()
