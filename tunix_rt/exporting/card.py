"""A model card from the record: README.md as the Hugging Face hub reads it, with nothing in it that is not recorded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunix_rt.exporting.run import TO_EXPORT, place_for
from tunix_rt.files import JsonObject, read_json, read_record, write_text
from tunix_rt.inference.trained import trained_model
from tunix_rt.models.folder import is_adapter
from tunix_rt.records.data_versions import versions
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.rates import rate_title, rates, shown
from tunix_rt.runs.secrets import mask, mask_values

TASK = "text-generation"
ADAPTER, WHOLE = "peft", "transformers"
"""`library_name`."""
ELSEWHERE = ("debug", "hardware", "checkpoint", "tracking", "run", "sweep")
"""Sections of the config that say where and how it ran, not what was made."""


def export_card(run: RunFolder, chosen: Path | None, licence: str | None) -> Path:
    """Write the card of a finished run; returns where it is. Raises InputError (not finished), ModelError."""
    run.check_finished(TO_EXPORT)
    file = place_for(run, chosen, "-card.md")
    write_text(file, card(run, licence, adapter=is_adapter(trained_model(run))))
    return file


def card(run: RunFolder, licence: str | None, adapter: bool, repository: str | None = None) -> str:
    """The card. `adapter`: whether the model is one, beside its base; `repository`: its name on a hub.

    `licence`: its identifier on the hub (apache-2.0, …); None: the card names none.
    """
    from huggingface_hub import ModelCardData

    config, base = run.read_config(), base_of(run.read_config())
    data = ModelCardData(
        license=licence,
        base_model=base,
        library_name=ADAPTER if adapter else WHOLE,
        pipeline_tag=TASK,
        tags=["tunix_rt", str(config["objective"]["kind"])],
        model_name=run.name,
        eval_results=results(run, config),
    )
    body = "\n".join(_lines(run, config, base, adapter, repository))
    return mask(f"---\n{data.to_yaml()}\n---\n\n{body}\n")


def base_of(config: JsonObject) -> str | None:
    """The name on the hub of the model that training began from; None if it is not from there."""
    source = config["model"]["source"]
    return str(source["name"]) if source["kind"] == "hub" else None


def results(run: RunFolder, config: JsonObject) -> list[Any]:
    """The rates of `metrics.json` as the hub's `model-index` has them: values in [0, 1]."""
    from huggingface_hub import EvalResult

    dataset, split = str(config["dataset"]["name"]), str(config["generation"]["split"])
    sha256 = read_json(run.data)["splits"][split]["sha256"]
    return [
        EvalResult(
            task_type=TASK,
            dataset_type=dataset,
            dataset_name=dataset,
            dataset_split=split,
            dataset_revision=sha256,
            metric_type=name.replace(" ", "_"),
            metric_name=f"{rate_title(name)} (95 % interval {_interval(rate)}, n = {rate['n']})",
            metric_value=rate["value"],
        )
        for name, rate in rates(read_json(run.metrics)).items()
        if rate["value"] is not None
    ]


def _interval(rate: Mapping[str, Any]) -> str:
    return f"{shown(rate['low'])} to {shown(rate['high'])}"


def _lines(
    run: RunFolder, config: JsonObject, base: str | None, adapter: bool, repository: str | None
) -> Iterator[str]:
    from omegaconf import OmegaConf

    trained = run.stages()["train"].get("steps_done", 0)
    what = f"An adapter for {base}" if adapter else f"A model that began as {base}" if base else "A model"
    learned = f"trained for {trained:,} steps" if trained else "asked as it is, without training"
    yield f"# {run.name}\n"
    yield (
        f"{what}, {learned} (objective `{config['objective']['kind']}`) on the data set `{config['dataset']['name']}` "
        "by `tunix_rt`, from whose record this card is written.\n"
    )
    yield "## Results\n"
    yield from _results(run, config)
    yield "\n## Use\n"
    yield from _use(repository or f"{run.root.name}/{run.name}/model", adapter)
    yield "\n## Data\n"
    rows = [(f"`{_shown(row['file'])}`", row["split"], f"`{row['sha256']}`") for row in versions(run)]
    yield from _table(("file", "split", "sha256"), rows)
    yield "\n## How it was made\n"
    yield from _made(run, config)
    declared = {name: section for name, section in mask_values(config).items() if name not in ELSEWHERE}
    yield f"\n## Config\n\n```yaml\n{OmegaConf.to_yaml(OmegaConf.create(declared)).rstrip()}\n```"


def _results(run: RunFolder, config: JsonObject) -> Iterator[str]:
    rows = [
        (rate_title(name), shown(rate["value"]), _interval(rate), str(rate["n"]))
        for name, rate in rates(read_json(run.metrics)).items()
        if rate["value"] is not None
    ]
    yield from _table(("", f"of the {config['generation']['split']} split", "95 % interval", "n"), rows)
    yield "\nThe intervals are of this one model: they say how far its answers to other prompts may be from these."


def _use(name: str, adapter: bool) -> Iterator[str]:
    model = "AutoPeftModelForCausalLM" if adapter else "AutoModelForCausalLM"
    yield f"""```python
from {ADAPTER if adapter else WHOLE} import {model}
from transformers import AutoTokenizer

name = "{name}"
tokenizer, model = AutoTokenizer.from_pretrained(name), {model}.from_pretrained(name)
```

The model expects prompts in the format below (`format` in the config); its answers are in that format, too."""


def _made(run: RunFolder, config: JsonObject) -> Iterator[str]:
    environment = read_record(run.environment)
    git, packages = environment.get("git") or {}, environment.get("packages") or {}
    seeds = {name: config[name].get("seed") for name in ("dataset", "training", "generation")}
    yield f"- identity of the run: `{run.identity}`"
    if git.get("commit"):
        yield f"- commit: `{git['commit']}`{' with changes that are recorded' if git.get('dirty') else ''}"
    yield f"- seeds: {', '.join(f'{name} {seed}' for name, seed in seeds.items())}"
    yield f"- versions: {', '.join(f'{name} {version}' for name, version in packages.items())}"
    yield f"- again, from its run folder: `python -m tunix_rt reproduce {run.name}`"


def _shown(file: str) -> str:
    """A path as recorded, if it is below the folder of the work; of any other its name."""
    return Path(file).name if Path(file).is_absolute() else file


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |"
