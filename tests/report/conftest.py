"""A small finished run folder, written by the functions that write real ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.conftest import config_of
from tunix_rt.config.identity import plain
from tunix_rt.evaluation.score import score
from tunix_rt.files import JsonObject, write_json, write_jsonl, write_text
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.log import MetricsLog
from tunix_rt.traces.prediction import Prediction
from tunix_rt.traces.trace import Trace

MakeRun = Callable[..., RunFolder]
DATA: JsonObject = {
    "name": "multiply_2x2",
    "counts": {
        "read": 130,
        "kept": {"train": 100, "validation": 10, "test": 4},
        "rejected": {"invalid": 5, "duplicate": 3},
        "unused": 8,
        "overlaps": {"training": 2, "evaluation": 1},
        "overlaps_allowed": 2,
        "dropped": {"overlong": 7},
    },
    "switches": {
        "on_invalid": "skip",
        "on_duplicate": "first",
        "on_overlap": "allow",
        "on_overlong": "drop",
        "on_no_target": "error",
        "steps": "keep",
    },
    "splits": {
        "train": {"count": 100, "tokens": 7000, "target_tokens": 6400, "sha256": "19e9c959f6a9" + 52 * "0"},
        "test": {"count": 4, "sha256": "253bc6bb102a" + 52 * "0"},
    },
}
TRAINED: JsonObject = {
    "identity": "fa779e3f8e02",
    "state": "done",
    "stage_seconds": 49.0,
    "row_length": 72,
    "num_steps": 60,
    "num_epochs": 5.12,
    "packing_efficiency": 0.9583,
    "steps_done": 60,
    "tokens": 66000,
    "seconds": 2.0,
    "selected_step": 40,
    "ended_early": None,
}


def prediction(name: str, answer: str | None, steps: Sequence[str] = ("2*3=6",), **changes: object) -> Prediction:
    """An answer to the prompt `<name>=`, whose reference is 12."""
    completion = "".join(f"{step};" for step in steps) + (answer or "")
    made = Prediction(
        id=name,
        sample=0,
        prompt=f"{name}=",
        reference="12",
        completion=completion,
        steps=tuple(steps),
        answer=answer,
        finish_reason="stop",
        error=None,
        num_prompt_tokens=6,
        num_new_tokens=max(len(completion), 1),
        logprobs=(),
    )
    return replace(made, **changes)


def four() -> list[Prediction]:
    """Three right answers, one of them from a wrong step, and a wrong one."""
    return [
        prediction("3*4", "12", ["2*3=6", "6+6=12"]),
        prediction("4*3", "12", ["2*3=7", "6+6=12"]),
        prediction("2*6", "12"),
        prediction("6*2", "13", ["2*6=13"]),
    ]


def train_log(run: RunFolder) -> None:
    """Sixty steps of a loss that falls from 3 to 0.0002, evaluated twice."""
    log = MetricsLog(run.metrics_log, run.timings_log, exact=True)
    for step in range(1, 61):
        loss, now = 3 * 0.85 ** (step - 1), {"time": 1_795_511_045.0 + step}
        log.write(step, {"train/loss": loss, "train/learning_rate": 0.003 * step / 60}, now)
        if step % 30 == 0:
            log.write(step, {"eval/loss": 1.1 * loss, "eval/accuracy": step / 60}, now)


@pytest.fixture
def make_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeRun:
    """Make `runs/quickstart/<identity>` here, with these predictions; `overrides` change its config."""
    monkeypatch.chdir(tmp_path)

    def make(
        predictions: Sequence[Prediction] | None = None,
        baseline: Sequence[Prediction] | None = None,
        overrides: Sequence[str] = (),
        identity: str = "0123456789ab",
        trained_by: RunFolder | None = None,
    ) -> RunFolder:
        run = RunFolder(tmp_path / "runs" / "quickstart" / identity)
        predictions = four() if predictions is None else predictions
        config = config_of(overrides)
        traces = {p.id: Trace(p.id, p.prompt, (), p.reference, {"digits": len(p.id)}) for p in predictions}
        write_text(run.config, OmegaConf.to_yaml(OmegaConf.create(plain(config))))
        write_json(run.data, DATA)
        write_json(run.environment, {"command": "python -m tunix_rt", "backend": {"device": "cpu 0"}, "git": None})
        run.record_stage("prepare", {"identity": "8b484931e417", "state": "done", "stage_seconds": 2.5})
        if trained_by is None:
            run.record_stage("train", TRAINED)
            train_log(run)
        else:
            run.record_stage("train", TRAINED | {"folder": f"../{trained_by.path.name}"})
        for answers, file, items, metrics in (
            (baseline, run.baseline_predictions, run.baseline_items, run.baseline_metrics),
            (predictions, run.predictions, run.items, run.metrics),
        ):
            if answers is not None:
                result = score(answers, traces, config.evaluation)
                write_jsonl(file, (answer.to_json() for answer in answers))
                write_json(metrics, result.metrics)
                write_jsonl(items, result.items)
        return run

    return make
