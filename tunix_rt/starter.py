"""From a person's file to an experiment: look at it, choose what fits, and write a short YAML file.

What is written is what a person would have to find out otherwise: the shape, the switches that the data needs, the
length of answers, the rows that fit into memory. Everything in it can be changed.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from tunix_rt.config.choices import PARTS, SplitName
from tunix_rt.config.dataset import DataFile, FilesSource, HuggingfaceSource, SplitConfig
from tunix_rt.errors import DataError, InputError, MachineError, MissingExtra
from tunix_rt.fitting import LAYOUTS, Layout, Lengths, experiment, fit
from tunix_rt.naming import YAML_WORDS, experiment_name, is_local
from tunix_rt.traces.data_files import files_of_splits, read_records
from tunix_rt.traces.dataset import split_at
from tunix_rt.traces.json_files import Line
from tunix_rt.traces.look import KEPT, Found, Looked, look

DEFAULT_MODEL = "smollm2_135m"
"""That of `conf/experiment/_finetune.yaml`."""
FEW = 30
"""With fewer rows none are held out: the model is asked what it learned."""
SHARES = ((0.05, 0.1), (0.1, 0.1), (0.0, 0.2), (0.0, 0.4))
"""Of validation and test; the first is that of `conf/dataset/files.yaml`."""
TOKENS_PER_UPDATE, MOST_ROWS = 4096, 8
LONGEST_ANSWER = 1024
"""Most new tokens that are proposed."""


@dataclass(frozen=True, slots=True)
class Starter:
    """An experiment for a file."""

    name: str
    files: Mapping[SplitName, tuple[Path, ...]]
    """Empty for a data set of the hub."""
    found: Found
    lengths: Lengths
    overlaps: int
    """Training prompts that share text with held-out ones."""
    text: str
    """The YAML file."""


def start(source: str, name: str | None, model: str, columns: Mapping[str, str], evaluate: bool = False) -> Starter:
    """Look at a file, a folder, a glob, or a data set of the hub, and write an experiment for it.

    `evaluate`: one that asks its prompts and trains nothing; of a folder with files for a test, those alone. Raises
    DataError (nothing readable, no known shape), MachineError, MissingExtra (hub), ConfigError (no such model).
    """
    chosen, local = experiment_name(name, source), is_local(source)
    files, noted = files_of_splits(source) if local else {}, Counter[str]()
    lines = {split: _lines(paths, noted) for split, paths in files.items()}
    found = look(lines or {"train": _hub_lines(source, noted)}, columns, noted)
    if "train" not in found.sources:
        raise DataError(f"none of {found.splits['train'].rows} records is a valid trace: {found.invalid[0]}")
    section = _section(source, local, chosen, found)
    lengths = fit(found, model, section)
    if evaluate:
        text = _evaluation(chosen, source, model, found, lengths, _asked(section))
        return Starter(chosen, files, found, lengths, 0, text)
    overlaps = 0 if "on_overlap" in section else _overlaps(section, found, model)
    return Starter(chosen, files, found, lengths, overlaps, _yaml(chosen, source, model, found, lengths, section))


def _asked(section: Mapping[str, Any]) -> dict[str, Any]:
    """The section `dataset` with the data as the prompts that are asked."""
    source = section["source"]
    if "revision" in source:
        asked = {**source, "train": None, "test": "train"}
    else:
        asked = {"test": source.get("test", source["train"])}
    switches = {name: value for name, value in section.items() if name not in ("split", "on_overlap", "on_no_target")}
    return {**switches, "source": asked}


def _evaluation(name: str, source: str, model: str, found: Found, lengths: Lengths, section: Mapping[str, Any]) -> str:
    title = f"# {found.rows:,} records of {Path(source).name} ({found.adapter}), asked of {model} as it is."
    head = _head(name, title, model, _defaults("_as_is", model, "revision" in section["source"], lengths.layout))
    lines = [*head, f"dataset: {_flow(section)}", *_format(lengths.layout.step_end)]
    lines.append(f"generation: {{max_new_tokens: {_new_tokens(lengths)}}}")
    return "\n".join([*lines, *_scorers(found)]) + "\n"


def _lines(files: Sequence[Path], noted: Counter[str]) -> Iterator[Line]:
    return (line for file in files for line in read_records(file, noted))


def _hub_lines(name: str, noted: Counter[str]) -> Iterator[Line]:
    from tunix_rt.traces.hub_data import hub_rows

    try:
        yield from ((f"{name}[{number}]", row) for number, row in enumerate(hub_rows(name, noted)))
    except (DataError, MachineError, MissingExtra) as error:
        raise type(error)(f"{name}: no such file or folder; as a data set of the hub: {error}") from error


def _section(source: str, local: bool, name: str, found: Found) -> dict[str, Any]:
    """The section `dataset` as far as the data decides it."""
    shapes = {split: _shape(looked) for split, looked in found.sources.items()}
    section: dict[str, Any] = {"name": name}
    if local:
        section["source"] = {split: {"path": source} | shape for split, shape in shapes.items()}
    else:
        section["source"] = {"name": source, "revision": "main", "test": None} | shapes["train"]
    shares = _shares(found)
    if shares is None and local:
        section["split"] = {"validation": 0.0, "test": 0.0}
        if "test" not in shapes:
            section["source"]["test"] = section["source"]["train"]
            section["on_overlap"] = "allow"
    elif shares is not None and shares != SHARES[0]:
        section["split"] = dict(zip(("validation", "test"), shares, strict=True))
    if found.num_invalid or found.rows > KEPT:  # the others have not been tokenised
        section["on_invalid"] = "skip"
    if "with weights of messages" in found.features:  # of some rows, all may be 0
        section["on_no_target"] = "drop"
    if found.repeated:
        section["on_duplicate"] = "keep"
    if "messages in a row joined" in found.rules.noted:
        section["on_consecutive"] = "join"
    if "messages after the assistant's last one left out" in found.rules.noted:
        section["on_last_user"] = "drop"
    return section


def _shape(looked: Looked) -> dict[str, Any]:
    return {"adapter": looked.adapter} | ({"columns": looked.columns} if looked.columns else {})


def _shares(found: Found) -> tuple[float, float] | None:
    """The first shares for validation and test with which no split is empty; None with too few different prompts.

    A split that has files of its own is not held out.
    """
    if len(found.shares) < FEW:
        return None
    for validation, test in SHARES:
        own = {name: 0.0 for name in ("validation", "test") if name in found.sources}
        split = SplitConfig(**({"validation": validation, "test": test} | own))
        splits = {split_at(share, split) for share in found.shares}
        if {"train"} | {name for name in ("validation", "test") if getattr(split, name)} <= splits:
            return validation, test
    return None


def _overlaps(section: dict[str, Any], found: Found, model: str) -> int:
    """The training prompts that overlap with held-out ones; they are then left out, unless nothing would be left."""
    from tunix_rt.traces.dataset import collect

    dataset = experiment(model, found.adapter).dataset
    dataset = replace(dataset, split=_split(section, dataset.split), source=_source(section["source"], dataset.source))
    switches = {name: value for name, value in section.items() if name in ("on_consecutive", "on_last_user", "strip")}
    switches |= {"on_invalid": "skip", "on_duplicate": "keep"}
    try:
        counts = collect(replace(dataset, **switches, on_overlap="drop_train")).manifest["counts"]
        if counts["overlaps"]["training"]:
            section["on_overlap"] = "drop_train"
    except DataError:
        counts = collect(replace(dataset, **switches, on_overlap="allow")).manifest["counts"]
        section["on_overlap"] = "allow"
    return int(counts["overlaps"]["training"])


def _split(section: Mapping[str, Any], usual: SplitConfig) -> SplitConfig:
    return SplitConfig(**section["split"]) if "split" in section else usual


def _source(declared: Mapping[str, Any], usual: Any) -> FilesSource | HuggingfaceSource:
    """The source of a section, as the config has it."""
    if "train" in declared:
        return cast(FilesSource, replace(usual, **{split: DataFile(**given) for split, given in declared.items()}))
    return HuggingfaceSource(kind="huggingface", subset=None, train="train", validation=None, **declared)


def _yaml(name: str, source: str, model: str, found: Found, lengths: Lengths, section: Mapping[str, Any]) -> str:
    fitting = sorted(length for length in lengths.tokens if length <= lengths.positions) or [lengths.positions]
    update = _power_of_two(min(MOST_ROWS, TOKENS_PER_UPDATE // fitting[-1]))
    title = f"# {found.rows:,} records of {Path(source).name} ({found.adapter}), learned by {model}."
    lines = [
        *_head(name, title, model, _defaults("_finetune", model, "revision" in section["source"], lengths.layout)),
        f"dataset: {_flow(section)}",
        *_format(lengths.layout.step_end),
        f"training: {{global_batch_size: {update}}}",
        f"generation: {{max_new_tokens: {_new_tokens(lengths)}, baseline: true}}",
        *_scorers(found),
    ]
    return "\n".join(lines) + "\n"


def _head(name: str, title: str, model: str, defaults: str) -> list[str]:
    command = f"# command: python -m tunix_rt +experiment={name}"
    path = [f"model: {{source: {{path: {_flow(model)}}}}}"] if Path(model).is_dir() else []
    return ["# @package _global_", title, command, defaults, f"name: {name}", *path]


def _format(step_end: str) -> list[str]:
    return [f"format: {{step_end: {_flow(step_end)}}}"] if step_end != LAYOUTS[0].step_end else []


def _new_tokens(lengths: Lengths) -> int:
    answers = sorted(lengths.answers)
    longest = answers[-1] if answers[-1] <= LONGEST_ANSWER else answers[int(0.95 * (len(answers) - 1))]
    return min(LONGEST_ANSWER, -(-longest // 16) * 16)


def _scorers(found: Found) -> list[str]:
    return ["evaluation: {scorers: [{kind: number}]}"] if set(found.shapes) <= set(PARTS) else []


def _defaults(base: str, model: str, hub: bool, layout: Layout) -> str:
    group = "from_path" if Path(model).is_dir() else model
    chosen = {"model": group} if model != DEFAULT_MODEL else {}
    chosen |= {"dataset": "huggingface"} if hub else {}
    chosen |= {"format": layout.group} if layout.group != LAYOUTS[0].group else {}
    overrides = [f"{{override /{group}: {choice}}}" for group, choice in chosen.items()]
    return f"defaults: [{', '.join([base, *overrides, '_self_'])}]"


def _power_of_two(number: int) -> int:
    """The largest one that is not more, at least 1."""
    return 1 << max(0, number.bit_length() - 1)


def _flow(value: Any) -> str:
    """A value as YAML on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z_][\w./-]*", value) and value.lower() not in YAML_WORDS
    if isinstance(value, str) and not plain:
        return json.dumps(value.replace("${", "\\${"), ensure_ascii=False)
    return value if isinstance(value, str) else json.dumps(value)


def write(starter: Starter, folder: Path, force: bool) -> Path:
    """Write the file into `conf/experiment` of a folder. Raises InputError if there is one, unless forced."""
    file = folder / "conf" / "experiment" / f"{starter.name}.yaml"
    if file.exists() and not force:
        raise InputError(f"{file}: is there already; --force writes it anew, --name=NAME gives another name")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(starter.text, "utf-8")
    return file
