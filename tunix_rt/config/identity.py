"""The identity of a run covers what changes a result: one hash per stage, each including the previous one.

What enters is marked on each field (`config/section.py`). The content of named files enters as digests that the
caller passes (`input_digests`), so that this module needs no file system.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from boltons.iterutils import get_path
from pydantic_core import to_jsonable_python

from tunix_rt.config.model import FreshModel, RunModel, ScratchModel
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.config.section import element_of, fields_of, is_added, is_execution, keys_below
from tunix_rt.files import digest

STAGES: dict[str, tuple[str, ...]] = {
    "prepare": ("training.seed", "model.source", "model.stop_tokens", "tokenizer", "dataset", "format"),
    "train": ("format", "backend", "model.adapter", "objective", "optimizer", "schedule", "training", "run.stop_step"),
    "predict": ("format", "backend", "model.adapter", "generation"),
    "evaluate": ("evaluation",),
}
"""Dotted paths of the config sections that each stage takes, in the order of the chain."""

AS_IT_IS = {
    "train": ("training.max_steps", "model.adapter.quantize"),
    "predict": ("format", "backend", "generation"),
}
"""The same without training (`training.max_steps: 0`), where it differs; the adapter counts by its content."""

VERDICT = ("evaluation.scorers.0", "evaluation.extract")
"""What decides whether an answer is right."""
PAIRS = "pairs"
"""Enters the identity of prepared data that holds the worse completion of each trace too."""
REWARD = ("evaluation.scorers", "evaluation.extract")
"""What decides how good one is."""

TEACHER = "objective.teacher"
"""What decides nothing before training."""

LENGTH = 12
"""Hex digits of an identity: 48 bits."""


def plain(value: Any) -> Any:
    """A config value as plain JSON data: dataclasses to dicts, tuples to lists."""
    return to_jsonable_python(value)


def entering(data: Any, hint: Any = ExperimentConfig) -> Any:
    """A plain config (complete, or the section of type `hint`) without the fields that change no result, and without
    those that are `Added` and null. It need not be valid: keys that its type does not know stay.
    """
    if isinstance(data, list):
        return [entering(item, element_of(hint)) for item in data]
    fields = fields_of(hint, data) if isinstance(data, dict) else {}
    if not fields:
        return data
    kept = {key: value for key, value in data.items() if not is_execution(fields.get(key))}
    kept = {key: value for key, value in kept.items() if value is not None or not is_added(fields.get(key))}
    return {key: entering(value, fields.get(key)) for key, value in kept.items()}


def taken(config: ExperimentConfig, stage: str) -> tuple[str, ...]:
    """The dotted paths that decide the result of a stage of this experiment.

    Pretrained weights are not drawn, so a sweep over seeds prepares once; if accuracy decides which step becomes
    the model, or verdicts are what is learned from, the rules for answers decide too. Supervised fine-tuning names no
    objective: it was the only one once. Without training only the start model decides, and how it is held.
    """
    data = config.objective.data
    if not config.training.trains and stage in AS_IT_IS:
        return AS_IT_IS[stage]
    if stage == "prepare":
        sections = STAGES[stage] if isinstance(config.model.source, FreshModel | ScratchModel) else STAGES[stage][1:]
        return (*sections, PAIRS) if data == "pairs" else sections
    if stage == "train":
        sections = tuple(name for name in STAGES[stage] if name != "objective" or config.objective.kind != "sft")
        if data == "rollouts":
            return (*sections, *REWARD)
        return (*sections, *VERDICT) if config.training.accuracy_decides else sections
    return STAGES[stage]


def declared(config: ExperimentConfig, stage: str) -> dict[str, Any]:
    """The parts of the config that enter the identity of a stage, by dotted path."""
    data = entering(plain(config))
    if not config.training.trains:  # the model as it is has nothing before it
        del data["generation"]["baseline"]
    data["objective"].pop("teacher", None)  # it counts by its content (`input_digests`)
    rows = data["training"].pop("global_batch_size")
    if config.objective.data != "rollouts":  # under the names it had on one device: recorded runs keep their identity
        data["training"] |= {"per_device_batch_size": rows, "gradient_accumulation_steps": 1}
    if isinstance(config.model.source, RunModel):  # by what decides its training, which is there too
        data["model"]["source"] = {"kind": "run"}
    return {path: get_path(data, path.split("."), None) for path in taken(config, stage)}


def first_stage(key: str) -> str | None:
    """The first stage whose result the value at a dotted path may change; None if there is none.

    An unknown key changes nothing either: the check of the config refuses it.
    """
    if key == "seed":  # through the seeds that are null
        return next(iter(STAGES))
    values = [(f"{path}.", hint) for path, hint in keys_below(ExperimentConfig) if not keys_below(hint)]
    meant = [value for value in values if value[0].startswith(f"{key}.")]
    meant = meant or [value for value in values if f"{key}.".startswith(value[0])]
    deciding = [path for path, hint in meant if not is_execution(hint)]
    for stage, sections in STAGES.items():
        if any(path.startswith(tuple(f"{section}." for section in sections)) for path in deciding):
            return stage
    return None


def identities(
    config: ExperimentConfig, input_digests: Mapping[str, str], kept: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The identity of each stage. `input_digests`: digest of each local file or model that the config names.

    `kept`: identities of stages that were done elsewhere; those of the later stages build on them.
    """
    chain: dict[str, str] = {}
    trained_on = {key: value for key, value in input_digests.items() if key in ("model.adapter", TEACHER)}
    parent = digest({key: value for key, value in input_digests.items() if key not in trained_on})
    for stage in STAGES:
        sections = declared(config, stage) | (trained_on if stage == "train" else {})
        made = digest({"stage": stage, "parent": parent, "sections": sections})[:LENGTH]
        parent = chain[stage] = (kept or {}).get(stage, made)
    return chain
