"""`dvc.yaml` says of each stage what the code says: sections, source it can reach, files it leaves."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import grimp
import pytest
from omegaconf import OmegaConf

from tests.conftest import ROOT, config_of
from tunix_rt import inputs
from tunix_rt.config.choices import BACKENDS
from tunix_rt.config.identity import REWARD, STAGES, first_stage
from tunix_rt.config.load import compose
from tunix_rt.config.schema import SEEDED, ExperimentConfig
from tunix_rt.config.section import element_of, hints_of, is_execution
from tunix_rt.engine import stages
from tunix_rt.engine.context import RunContext
from tunix_rt.engine.stages import STAGES as IN_ORDER
from tunix_rt.inputs import write_prepared
from tunix_rt.runs.folder import RunFolder

PIPELINE: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(ROOT / "dvc.yaml"), resolve=False)  # type: ignore[assignment]
ORDER = tuple(stage.name for stage in IN_ORDER)
DOES_NOT_COMPUTE = {"checked", "config", "errors", "faults", "files", "hints", "machine", "runs", "terminal"}
DVC_PATHS = [*(f"${{run.dvc_paths[{index}]}}" for index in range(3)), "${run.dvc_model}"]


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("tunix_rt", cache_dir=None)


def declared(stage: str, key: str) -> list[str]:
    """The entries of a list in `dvc.yaml`, without their options."""
    entries = PIPELINE["stages"][stage].get(key, [])
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def reached(graph: grimp.ImportGraph, stage: str, backend: str) -> set[str]:
    """Folders whose code a stage may run, of the backends the chosen one; and neutral files that any backend runs."""
    start = f"tunix_rt.stages.{stage}"
    modules = set(graph.find_upstream_modules(start))
    if "tunix_rt.backends.registry" in modules:  # which imports the chosen one by its name only
        for name in BACKENDS:
            other = f"tunix_rt.backends.{name}"
            found = {f"{other}.backend"} | graph.find_upstream_modules(f"{other}.backend")
            modules |= {module for module in found if name == backend or not module.startswith(other)}
    found = {f"pipelines/{stage}.py", f"tunix_rt/stages/{stage}.py"}
    for module in modules - {"tunix_rt"}:
        station, *rest = module.split(".")[1:]
        if station == "backends" and rest:
            neutral = (ROOT / "tunix_rt" / "backends" / f"{rest[0]}.py").exists()
            found.add(f"tunix_rt/backends/{rest[0]}.py" if neutral else f"tunix_rt/backends/{rest[0]}")
        elif station not in DOES_NOT_COMPUTE | {"backends"}:
            found.add(f"tunix_rt/{station}")
    return found


def test_the_stages_are_those_of_the_code_in_their_order() -> None:
    assert tuple(PIPELINE["stages"]) == ("first", *ORDER, "gate", "pairs")
    assert tuple(stage for stage in ORDER if stage in STAGES) == tuple(STAGES)
    for stage in ORDER:
        assert PIPELINE["stages"][stage]["cmd"] == f"python -m pipelines.{stage}"


class Recorder:
    """A config of whose values it is known which were read."""

    def __init__(self, value: Any, path: str, read: set[str]) -> None:
        self._value, self._path, self._read = value, path, read

    def __getattr__(self, name: str) -> Any:
        path = f"{self._path}.{name}".removeprefix(".")
        self._read.discard(self._path)
        self._read.add(path)
        value = getattr(self._value, name)
        return Recorder(value, path, self._read) if is_dataclass(value) else value


def params_of(path: str) -> list[str]:
    """What DVC is to look at of something that a stage takes: of a section that holds labels too, the other fields."""
    hint: Any = ExperimentConfig
    for name in path.split("."):
        hint = element_of(hint) if name.isdigit() else hints_of(hint)[name]
    fields = hints_of(hint) if is_dataclass(hint) else {}
    if any(map(is_execution, fields.values())):
        return [f"{path}.{name}" for name, field in fields.items() if not is_execution(field)]
    return [path]


@pytest.mark.parametrize("stage", ORDER)
def test_params_are_what_changes_the_result_of_the_stage(stage: str) -> None:
    """Prevents: another `generation.batch_size` predicting again. `seed` is behind the seeds that are null."""
    paths = STAGES.get(stage, ()) + (REWARD if stage == "train" else ())
    own = [param for path in paths for param in params_of(path)] + ["objective.kind"] * (stage == "prepare")
    seeded = any(path.endswith("seed") or path in SEEDED for path in own)
    assert declared(stage, "params") == ["seed"] * seeded + own


@pytest.mark.parametrize("stage", ORDER)
def test_a_stage_takes_what_enters_its_identity(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A section that a stage reads but the table does not list would let a stale result pass for a fresh one."""
    read: set[str] = set()
    recorder: Any = Recorder(config_of(), "", read)
    monkeypatch.setattr(inputs if stage == "prepare" else stages, stage, lambda *_: None)
    if stage == "prepare":
        write_prepared(recorder, Path("data"), None)
    elif stage != "report":
        context = RunContext(recorder, {}, {"train": ""}, RunFolder(Path("run")), None, None, home=Path())  # type: ignore[arg-type]
        IN_ORDER[ORDER.index(stage)].work(context)
    result = {path for path in read if first_stage(path) is not None}
    # Which prompts were answered; and the rules for answers, which enter where accuracy decides (`identity.taken`).
    besides = {"evaluate": {"generation.split"}, "train": {"evaluation"}}.get(stage, set())
    assert result - besides == set(STAGES.get(stage, ()))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("stage", ORDER)
def test_deps_are_the_source_that_it_can_reach(graph: grimp.ImportGraph, stage: str, backend: str) -> None:
    deps = [entry.replace("${backend.name}", backend) for entry in declared(stage, "deps")]
    source = {entry for entry in deps if entry.startswith(("tunix_rt/", "pipelines/"))}
    assert source == reached(graph, stage, backend)
    assert [entry for entry in deps if entry.startswith("${")] == (DVC_PATHS if stage == "prepare" else [])


@pytest.mark.parametrize("stage", ORDER)
def test_the_rest_of_the_deps_is_what_earlier_stages_leave(stage: str) -> None:
    earlier = [Path(out) for other in ORDER[: ORDER.index(stage)] for out in declared(other, "outs")]
    others = [Path(entry) for entry in declared(stage, "deps") if entry.startswith(("data/", "runs/"))]
    assert bool(others) == (stage != "prepare")
    for entry in others:
        assert any(entry == out or entry.is_relative_to(out) for out in earlier), entry


def test_gates_are_stages_only_if_they_are_declared() -> None:
    """Prevents: one in the default pipeline, or one taken for done though what it compares with has changed."""
    gate = PIPELINE["stages"]["gate"]
    assert gate["foreach"] == "${run.gates}" and config_of().run.gates == ()
    assert gate["do"]["cmd"] == "python -m pipelines.gate ${item}" and gate["do"]["always_changed"]
    outs = [out for stage in ORDER for out in declared(stage, "outs")]
    assert set(gate["do"]["deps"]) - {"pipelines/gate.py"} == {"runs/dvc/evaluate", "runs/dvc/report.md"} <= set(outs)


def test_pairs_are_stages_only_if_they_are_declared() -> None:
    """Each makes a folder, which the data of another experiment can name."""
    pairs = PIPELINE["stages"]["pairs"]
    assert pairs["foreach"] == "${run.pairs}" and config_of().run.pairs == ()
    assert pairs["do"]["cmd"] == "python -m pipelines.pairs ${item}" and pairs["do"]["outs"] == ["${item.to}"]
    outs = [Path(out) for stage in ORDER for out in declared(stage, "outs")]
    for entry in (Path(entry) for entry in pairs["do"]["deps"] if entry.startswith(("data/", "runs/"))):
        assert any(entry == out or entry.is_relative_to(out) for out in outs), entry


def test_the_experiment_it_begins_from_is_a_stage_only_if_there_is_one() -> None:
    """Prevents: one in the default pipeline; or one taken for done though a file of that experiment has changed."""
    first, begins = PIPELINE["stages"]["first"], ["model=run", "tokenizer=pretrained"]
    assert first["foreach"] == "${run.dvc_first}" and config_of().run.dvc_first == ()
    config = config_of([*begins, "model.source.experiment=quickstart"])
    assert config.run.dvc_first == ("quickstart",)
    assert first["do"]["cmd"] == "python -m pipelines.first" and first["do"]["always_changed"]
    (left,) = (Path(next(iter(entry))) for entry in first["do"]["outs"])
    assert Path(str(config.run.dvc_model)).is_relative_to(left)
    assert (ROOT / str(config_of().run.dvc_model)).exists()


def test_metrics_and_plots_are_files_that_a_stage_leaves() -> None:
    outs = [Path(out) for stage in ORDER for out in declared(stage, "outs")]
    shown = [Path(name) for name in PIPELINE["metrics"]]
    for plot in PIPELINE["plots"]:
        shown += [Path(plot)] if isinstance(plot, str) else [Path(file) for body in plot.values() for file in body["y"]]
    assert len(shown) == 10
    for file in shown:
        assert any(file == out or file.is_relative_to(out) for out in outs), file


def test_params_yaml_is_what_conf_composes() -> None:
    """To renew it: `dvc exp run` does, and so does writing down what this composes."""
    assert (ROOT / "params.yaml").read_text("utf-8") == OmegaConf.to_yaml(OmegaConf.create(compose([])))


def test_dvc_composes_the_same_and_hydra_has_nothing_to_say_about_it(tmp_path: Path) -> None:
    words = f"{str(tmp_path / 'params.yaml')!r}, {str(ROOT / 'conf')!r}, None, 'config', '', []"
    program = f"from dvc.utils.hydra import compose_and_dump; compose_and_dump({words})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    assert (tmp_path / "params.yaml").read_text("utf-8") == (ROOT / "params.yaml").read_text("utf-8")
