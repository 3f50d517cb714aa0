"""A run that trains an adapter: what it leaves, and that everything that takes a run takes this one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from tests.conftest import TOY
from tests.pipeline.conftest import Person
from tests.quantized import model_of_the_values
from tunix_rt.models.content import folder_digest
from tunix_rt.runs.folder import RunFolder

LORA = ("name=low", "model/adapter=lora", "model.adapter.rank=2", "backend=torch", *TOY)


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_a_run_with_an_adapter(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    done = person.types(*LORA)
    assert done.code == 0, done.err
    run, stages = person.run_folder("low"), person.reads("stages.json", "low")
    full = person.reads("stages.json")
    assert stages["prepare"] | {"stage_seconds": 0} == full["prepare"] | {"stage_seconds": 0}, (
        "prepared data are shared"
    )
    assert stages["train"]["identity"] != full["train"]["identity"]
    base = RunFolder(person.run_folder("low")).data_folder / "model"
    assert json.loads((run / "model" / "base.json").read_text()) == {"sha256": folder_digest(base)}
    (checkpoint,) = (run / "checkpoints").iterdir()
    for folder in (run / "model", checkpoint):
        assert not (folder / "model.safetensors").exists()
        assert set(map(shape_of_rank, load_file(folder / "adapter_model.safetensors").values())) == {2}
    moments = load_file(checkpoint / "optimizer.safetensors")
    assert all("lora_" in name for name in moments if name != "count")

    by_peft = answers_by_peft(run / "model")
    predictions = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    assert by_peft == {line["prompt"]: line["completion"] for line in predictions}
    asked = person.types("ask", "low", predictions[0]["prompt"])
    assert asked.code == 0, asked.err

    assert person.types("export", "low", "low.zip").code == 0
    verified = person.types("verify", "low.zip")
    assert verified.code == 0 and "6 steps, and the model they gave" in verified.out
    again = person.types("reproduce", "low")
    assert again.code == 0, again.err
    _check_merging(person, run)
    _check_going_on(person, run)

    (base / "config.json").write_text((base / "config.json").read_text() + " ")
    mended = person.types("ask", run.name, "1*1=")
    assert mended.code == 0 and "model/config.json: damaged" in mended.err, "its base is prepared again"
    assert json.loads((run / "model" / "base.json").read_text()) == {"sha256": folder_digest(base)}


@pytest.mark.acceptance  # a quarter of a minute
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_a_run_on_a_quantised_base(person: Person, tmp_path: Path) -> None:
    """It is trained and answers on one base, as it did before training; `merge` says which base it takes."""
    import peft
    import transformers

    words = [word for word in LORA if not word.startswith("name=")]
    done = person.types(*words, "name=small", "model.adapter.quantize=nf4", "generation.baseline=true")
    assert done.code == 0, done.err
    run = person.run_folder("small")
    assert json.loads((run / "model" / "base.json").read_text())["quantize"] == "nf4"
    valued = model_of_the_values(RunFolder(run).data_folder / "model", "nf4", tmp_path / "valued")
    model = transformers.AutoModelForCausalLM.from_pretrained(valued).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(valued)
    for file, adapter in (("baseline_predictions.jsonl", None), ("predictions.jsonl", run / "model")):
        answering = model if adapter is None else peft.PeftModel.from_pretrained(model, adapter).eval()
        lines = [json.loads(line) for line in (run / file).read_text().splitlines()]
        found = {line["prompt"]: line["completion"] for line in lines}
        assert answers_of(answering, tokenizer, list(found)) == found
    assert person.types("reproduce", "small").code == 0
    merged = person.types("merge", "small", "merged")
    assert merged.code == 0 and "was trained on a base in nf4" in merged.err
    other = person.types(*words, "name=other", "model.adapter.quantize=int8", f"model.adapter.path={run / 'model'}")
    assert other.code == 2 and "declare model.adapter.quantize=nf4" in other.err


def shape_of_rank(tensor: object) -> int:
    shape: tuple[int, ...] = getattr(tensor, "shape")  # noqa: B009
    return min(shape)


def answers_by_peft(folder: Path) -> dict[str, str]:
    """Greedy completions of the test prompts by plain `peft`, which finds the base by itself."""
    import peft
    import transformers

    model = peft.AutoPeftModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    lines = (folder.parent / "predictions.jsonl").read_text().splitlines()
    return answers_of(model, tokenizer, [json.loads(line)["prompt"] for line in lines])


def answers_of(model: Any, tokenizer: Any, prompts: list[str]) -> dict[str, str]:
    found = {}
    for prompt in prompts:
        ids = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        made = model.generate(**ids, max_new_tokens=8, do_sample=False)[0, ids["input_ids"].shape[1] :]
        found[prompt] = tokenizer.decode(made, skip_special_tokens=True)
    return found


def _check_merging(person: Person, run: Path) -> None:
    merged = person.types("merge", run.name, "merged")
    assert merged.code == 0, merged.err
    assert "exists already" in person.types("merge", run.name, "merged").err
    other = person.types("merge", "quickstart", "other")
    assert other.code == 2 and "its model is a whole one already" in other.err
    store = ("tracking.uri=sqlite:///store.db",)
    registered = person.types("register", run.name, "--name", "low", "--uri", "sqlite:///store.db", "--json")
    assert registered.code == 0, registered.err
    assert json.loads(registered.out)["digest"] == folder_digest(Path("merged")), "a registered model is a whole one"
    on = ("name=on", "tokenizer=pretrained", "training.max_steps=2", "generation.baseline=true", *store)
    words = [word for word in LORA if not word.startswith(("name=", "training=", "model"))]
    started = person.types(*words, *on, "model.source=models:/low/1")
    assert started.code == 0, started.err
    _check_beginning(person.run_folder("on"), run)


def _check_going_on(person: Person, run: Path) -> None:
    on = ("name=further", "training.max_steps=2", "generation.baseline=true", f"model.adapter.path={run / 'model'}")
    words = [word for word in LORA if not word.startswith(("name=", "training="))]
    went_on = person.types(*words, *on)
    assert went_on.code == 0, went_on.err
    _check_beginning(person.run_folder("further"), run)


def _check_beginning(later: Path, run: Path) -> None:
    expected, found = (
        [json.loads(line)["completion"] for line in file.read_text().splitlines()]
        for file in (run / "predictions.jsonl", later / "baseline_predictions.jsonl")
    )
    assert found == expected, "it begins with what the adapter on its base answered"
