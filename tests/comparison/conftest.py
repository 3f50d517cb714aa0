"""Finished runs written by hand: their answers, and what the questions were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from tunix_rt.files import digest, write_json, write_jsonl, write_text
from tunix_rt.runs.folder import RunFolder

Answers = Sequence[bool | Sequence[bool]]
"""For each prompt whether it was answered correctly: once, or by each of several samples."""


class Toys:
    """Runs below `runs/` of a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(
        self,
        name: str,
        answers: Answers,
        config: Mapping[str, Any] | None = None,
        first: int = 0,
        **more: Sequence[Any],
    ) -> RunFolder:
        """A finished run on the questions `first`, `first + 1`, …; `more`: a value of each of its items by name."""
        run = RunFolder(self.root / name)
        items = list(_items(answers, first))
        for key, values in more.items():
            items = [item | {key: value} for item, value in zip(items, values, strict=True)]
        write_jsonl(run.path / "items.jsonl", items)
        write_jsonl(run.path / "predictions.jsonl", [_prediction(item) for item in items])
        write_text(run.config, OmegaConf.to_yaml(OmegaConf.create(_config(name, config or {}))))
        questions = digest([[item["prompt"], item["reference"]] for item in items if item["sample"] == 0])
        write_json(run.path / "data.json", {"name": "sums", "questions": {"test": questions}, "record_version": 2})
        write_json(run.path / "environment.json", {"source_sha256": "abc"})
        k, n = sum(item["correct"] for item in items), len(items)
        write_json(run.path / "metrics.json", {"n": n, "accuracy": {"value": k / n, "k": k, "n": n}})
        done = {"identity": run.path.name, "state": "done"}
        write_json(run.path / "stages.json", dict.fromkeys(("train", "predict", "evaluate"), done))
        run.begin()
        run.end("finished")
        return run


def _items(answers: Answers, first: int) -> Any:
    for place, given in enumerate(answers, start=first):
        for sample, correct in enumerate([given] if isinstance(given, bool) else given):
            yield {
                "id": f"id{place}",
                "sample": sample,
                "prompt": f"{place}+{place}=",
                "correct": correct,
                "reason": "same text" if correct else "other text",
                "extracted": str(2 * place) if correct else "0",
                "reference": str(2 * place),
                "scores": {"exact": {"correct": correct, "reason": "same text" if correct else "other text"}},
                "contains_answer": correct,
                "finish_reason": "stop",
                "malformed": False,
                "num_new_tokens": 3,
                "slices": {"parity": "odd" if place % 2 else "even"},
            }


def _prediction(item: Mapping[str, Any]) -> dict[str, Any]:
    same = {name: item[name] for name in ("id", "sample", "prompt", "reference", "finish_reason", "num_new_tokens")}
    rest = {"steps": [], "answer": item["extracted"], "error": None, "num_prompt_tokens": 4, "logprobs": [-0.5]}
    return same | rest | {"completion": f"so it is [bold]{item['extracted']}[/bold]\nAnswer: {item['extracted']}"}


def _config(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "name": name.partition("/")[0],
        "seed": 0,
        "training": {"seed": 0, "max_steps": 10},
        "generation": {"seed": 0, "split": "test"},
        "run": {"new": False},
        "evaluation": {"scorers": [{"kind": "exact"}], "extract": ["format"]},
    }
    for path, value in config.items():
        section, _, key = path.partition(".")
        whole[section] = value if not key else whole.get(section, {}) | {key: value}
    return whole


@pytest.fixture
def toys(work: Path) -> Toys:
    return Toys(Path("runs"))
