"""lm-evaluation-harness asks a served run as `local-completions`: texts, and how likely given continuations are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.serving.conftest import Program
from tunix_rt.files import write_jsonl

pytestmark = pytest.mark.acceptance
TASKS = {
    "written": """
task: written
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/asked.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{prompt}}"
doc_to_target: "{{completion}}"
generation_kwargs: {until: ["never"], max_gen_toks: 8}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
""",
    "chosen": """
task: chosen
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/asked.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{prompt}}"
doc_to_choice: "{{choices}}"
doc_to_target: 0
target_delimiter: ""
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
""",
}


def test_texts_and_likelihoods(program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Generated texts are those of `predict`; log-likelihoods those of `transformers`, which the harness knows too."""
    pytest.importorskip("lm_eval")
    import lm_eval
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    asked = [
        {name: one[name] for name in ("prompt", "completion")} | {"choices": [one["completion"], "1", "22"]}
        for one in program.predictions()
    ]
    write_jsonl(tmp_path / "asked.jsonl", asked)
    for name, text in TASKS.items():
        (tmp_path / f"{name}.yaml").write_text(text.replace("FOLDER", str(tmp_path)))
    tokenizer = str(program.run / "model")

    def evaluated(model: str, arguments: dict[str, Any], tasks: list[str]) -> dict[str, Any]:
        found = lm_eval.simple_evaluate(
            model=model,
            model_args=arguments,
            tasks=tasks,
            task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
            log_samples=True,
            bootstrap_iters=0,
        )
        return dict(found["samples"])

    served = {"model": "quickstart", "base_url": f"{program.url}/v1/completions", "tokenizer": tokenizer}
    served |= {"tokenizer_backend": "huggingface", "num_concurrent": 3, "max_length": 128}
    ours = evaluated("local-completions", served, list(TASKS))
    said = {one["doc"]["prompt"]: one["resps"][0][0] for one in ours["written"]}
    assert said == {one["prompt"]: one["completion"] for one in asked}
    theirs = evaluated("hf", {"pretrained": tokenizer, "device": "cpu", "dtype": "float32"}, ["chosen"])
    for one, other in zip(ours["chosen"], theirs["chosen"], strict=True):
        for (score, greedy), (expected, is_greedy) in zip(one["filtered_resps"], other["filtered_resps"], strict=True):
            assert float(score) == pytest.approx(float(expected), abs=1e-3) and greedy == is_greedy
