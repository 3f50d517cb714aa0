"""A run whose memory is short: it goes on with fewer rows at once, says so, and records it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import TOY
from tunix_rt.__main__ import main
from tunix_rt.backends.torch import step


@pytest.mark.slow
def test_a_run_whose_memory_is_short_learns_the_same_and_records_it(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    accumulate = step.accumulate

    def short(model: Any, batch: Any, adapters: Any) -> Any:
        if batch.tokens.shape[1] > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return accumulate(model, batch, adapters)

    words = [*TOY, "backend=torch", "training.global_batch_size=16"]
    assert main([*words, "run.root=whole"]) == 0
    monkeypatch.setattr(step, "accumulate", short)
    capsys.readouterr()
    assert main([*words, "run.root=short"]) == 0
    assert capsys.readouterr().err.count("the memory of a device is full: from step 1 on it computes 4 rows") == 1
    (whole,), (fewer,) = (list(Path(root).glob("*/*/stages.json")) for root in ("whole", "short"))
    lines = [
        [json.loads(line) for line in file.with_name("metrics.jsonl").read_text().splitlines()]
        for file in (whole, fewer)
    ]
    losses, norms = (
        [[line[name] for line in of_run if name in line] for of_run in lines]
        for name in ("train/loss", "train/grad_norm")
    )
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    assert norms[1] == pytest.approx(norms[0], rel=1e-5)
    stage = json.loads(fewer.read_text())["train"]
    assert (stage["local_batch_size"], stage["mesh"]) == (4, {"data": 1, "shard": 1, "tensor": 1})
    assert whole.parent.name == fewer.parent.name, "it is no part of the identity"
    assert "| rows of a device at once | `4` |" in fewer.with_name("report.md").read_text()
    assert main(["show", fewer.parent.parent.name + "/" + fewer.parent.name, "--root", "short"]) == 0
    assert "rows of a device at once" in capsys.readouterr().out
    assert json.loads(whole.read_text())["train"]["local_batch_size"] == 16
    sessions = [json.loads(line) for line in fewer.with_name("sessions.jsonl").read_text().splitlines()]
    assert [line["local_batch_size"] for line in sessions if "local_batch_size" in line] == [16, 4]
