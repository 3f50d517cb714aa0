"""How MLflow 3.17 lays out its pages: the order of sections, the columns of the list of runs, links.

A browser that opens MLflow for the first time is in its view for GenAI; only a link with `workflowType` opens the one
for training. Imports no MLflow.
"""

from __future__ import annotations

import json

from tunix_rt.runs.secrets import mask
from tunix_rt.tracking.stores._mlflow_uri import address

SECTIONS = {
    "reward": "0_reward",
    "preference": "0_preference",
    "score": "1_score",
    "rollout": "2_rollout",
    "train": "2_train",
    "eval": "3_validation",
    "timings": "4_timings",
    "score_before_training": "5_score_before_training",
}
"""MLflow sorts the sections of a run's page by their names. `system/…` has a page of its own."""
TRAINING = "workflowType=machine_learning"
COLUMNS = (
    *(f"metrics.`{name}`" for name in ("1_score/accuracy", "1_score/stop_rate", "2_train/loss", "3_validation/loss")),
    *(f"params.`{name}`" for name in ("backend.name", "dataset.name", "training.max_steps", "seed")),
    *("attributes.`Created`", "attributes.`Duration`"),
)
SCORES = "scores"
VIEW = {f"mlflow.sharedViewState.{SCORES}": json.dumps({"selectedColumns": COLUMNS})}
"""A shared view of an experiment's runs, a tag of the experiment: its list with the columns that matter."""


def metric_key(key: str) -> str:
    """`train/loss` as MLflow has it: `2_train/loss`. The reward has a section of its own, the first."""
    section, slash, name = key.partition("/")
    section = "reward" if key.startswith("rollout/reward") else section
    return f"{SECTIONS.get(section, section)}/{name}" if slash else key


def run_page(uri: str, experiment: str, run_id: str) -> str:
    """The address of a run's page in the training view, without password; a database is served by `ui_command`."""
    return f"{mask(address(uri))}/{run_link(experiment, run_id)}"


def run_link(experiment: str, run_id: str) -> str:
    """The same, from any page of that MLflow."""
    return f"#/experiments/{experiment}/runs/{run_id}?{TRAINING}"


def list_link(experiment: str) -> str:
    """From any page of that MLflow: the list of runs with their scores."""
    return f"#/experiments/{experiment}/runs?{TRAINING}&viewStateShareKey={SCORES}"
