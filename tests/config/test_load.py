"""Mistakes in a config: all in one message, each with its path, what was given, what is allowed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import config_of
from tunix_rt.config.load import check, compose
from tunix_rt.config.training import warmup_of
from tunix_rt.errors import ConfigError


def message(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        config_of(overrides)
    return str(caught.value)


def test_every_mistake_is_in_one_message() -> None:
    """Hydra alone stops at the first unknown key and knows no ranges."""
    text = message(
        "dataset.sorce.kind=arithmetic",
        "seed=-1",
        "training.max_steps=1.5",
        "dataset.source.operation=minus",
        "traning.max_steps=3",
        "optimizer.learning_rate=true",
        "backend=tourch",
    )
    assert "7 mistakes" in text
    for expected in (
        "dataset.sorce: unknown key; did you mean 'source'?",
        "seed: got -1, expected greater than or equal to 0",
        "training.max_steps: got 1.5, expected a valid integer",
        "dataset.source.operation: got \"minus\", expected 'add' or 'multiply'",
        "traning: unknown key; did you mean 'training'?",
        "optimizer.learning_rate: got true, expected a valid number",
        "backend: no 'tourch'; did you mean 'torch'?",
    ):
        assert expected in text


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["+experiment=quikstart"], "did you mean 'quickstart'?"),
        (["dataset.source.digitz=[1,2]"], "dataset.source.digitz: unknown key; did you mean 'digits'?"),
        (["training.num_epochs=2"], "training: give exactly one of max_steps and num_epochs"),
        (
            ["dataset.source.kind=foo"],
            "dataset.source.kind: got 'foo', allowed: 'arithmetic', 'parity', 'files', 'jsonl', 'huggingface'",
        ),
        (["dataset=jsonl", "dataset.name=x"], "dataset.source.train.path: missing"),
        (["checkpoint.max_shard_size=x"], 'max_shard_size: got "x", expected a size such as 5GB or 500MB'),
        (["hardware.threads=x"], "hardware.threads: got \"x\", expected a valid integer or 'auto'"),
        (["model.source.num_attention_heads=5"], "num_attention_heads 5 must divide hidden_size 64"),
        (["tokenizer=pretrained"], "tokenizer.kind: a fresh model has no tokenizer of its own"),
        (
            ["model=distilgpt2_scratch", "model.source.config={model_type: qwen2}"],
            "tokenizer.kind: transformers reads every tokenizer of a qwen2 as its byte-level BPE",
        ),
        (["format=chat"], "format.kind: a fresh model's tokenizer has no chat template: format=plain"),
        (["format=think_chat"], "format.kind: a fresh model's tokenizer has no chat template: format=think"),
        (["format=template", "format.step='- {stp}'"], "format: step: unknown field in '- {stp}'"),
        (["format=template", "format.stepp=x"], "format.stepp: unknown key; did you mean 'step'?"),
        (["format=think", "format.answer_start=x"], "format.answer_start: not a key of this kind, but of format.kind="),
        (
            ["dataset=files", "dataset.name=x", "dataset.source.sources={}"],
            "dataset.source.sources: not a key of this kind, but of dataset.source.kind=mixture (chosen by dataset=mix",
        ),
        (["format=chat", "format.date=today"], "format.date: Invalid isoformat string: 'today'"),
        (["format=chat", "format.variables={a: 1.5}"], "format.variables.a: got 1.5, expected a valid string or"),
        (
            ["dataset.loss_weights.previous_turns=1"],
            "dataset.loss_weights.previous_turns: format.kind 'plain' writes no previous",
        ),
        (["tokenizer.added_tokens=[a,a]"], "tokenizer.added_tokens: 'a' is there already"),
        (["tokenizer.added_tokens=['<end>']"], "tokenizer.added_tokens: '<end>' is there already"),
        (["backend=torch", "hardware=tpu"], "hardware.platform: backend 'torch' cannot run on 'tpu'"),
        (["backend=tunix", "optimizer=lion"], "optimizer.kind: backend 'tunix' trains with optimizer=adamw alone"),
        (
            ["backend=torch", "optimizer=muon", "hardware.devices=2", "hardware.mesh.tensor=2"],
            "hardware.mesh.tensor: optimizer 'muon', backend 'torch': 1; it needs tensors whole",
        ),
        (["optimizer=lion", "optimizer.eps=1"], "optimizer.eps: not a key of this kind, but of optimizer.kind="),
        (["schedule.warmup_steps=1600"], "schedule.warmup_steps: 1600 must be below the number of steps 1600"),
        (["schedule.warmup_steps=1.5"], "schedule.warmup_steps: got 1.5, expected a valid integer or less than 1"),
        (["schedule=wsd", "training.max_steps=60"], "warm-up of 50 steps and the decay of the last 12"),
        (["schedule=wsd", "schedule.decay_fraction=0.97"], "must not overlap, but there are 1600"),
        (["training.clip_norm=inf"], "training.clip_norm: got inf, expected a finite number"),
        (["optimizer.learning_rate=-inf"], "optimizer.learning_rate: got -inf, expected a finite number"),
        (
            ["evaluation=number", "evaluation.scorers.0.relative_tolerance=nan"],
            "evaluation.scorers.0.relative_tolerance: got nan, expected a finite number",
        ),
        (
            ["evaluation=number", "evaluation.scorers.0.relative_tolerance=1.5"],
            "evaluation.scorers.0.relative_tolerance: got 1.5, expected less than or equal to 1",
        ),
        (["evaluation.scorers=[{kind: numbr}]"], "evaluation.scorers.0.kind: got 'numbr', allowed: 'choice'"),
        (
            ["evaluation.scorers=[{kind: exact, tolerance: 1}]"],
            "evaluation.scorers.0.tolerance: unknown key",
        ),
        (["evaluation.scorers=[]"], "evaluation: scorers: name at least one"),
        (["evaluation=code"], "evaluation.scorers.0: this scorer runs what a model wrote on this machine"),
        (["evaluation=judge"], "evaluation.scorers.1.url: missing"),
        (["evaluation.scorers=[{kind: text},{kind: text}]"], "evaluation: scorers: 'text' is there twice"),
        (["evaluation.extract=[format,format]"], "evaluation: extract: 'format' is there twice"),
        (["evaluation.answer=numeric"], "evaluation.answer: unknown key; write evaluation.scorers=[{kind: number}]"),
        (["evaluation.relative_tolerance=0.1"], "write evaluation.scorers=[{kind: number, relative_tolerance: 0.01}]"),
        (["evaluation.extract=last_number"], 'evaluation.extract: got "last_number", expected'),
        (["evaluation=numeric"], "evaluation: no 'numeric'; did you mean 'number'?"),
        (["model=distilgpt2_scratch", "model.source.config.attn_pdrop=nan"], "model.source.config.attn_pdrop: got nan"),
        (["evaluation.pass_at=[2]"], "evaluation.pass_at: pass@2 needs generation.num_return_sequences >= 2"),
        (["generation.top_k=5"], "generation: temperature 0 is greedy"),
        (["dataset.max_length=200", "training.row_length=100"], "training.row_length: 100 is shorter"),
        (["dataset.split.test=0.99"], "dataset.split: validation + test must be below 1"),
        (["dataset.loss_weights={prompt: 0, steps: 0, answer: 0, end: 0}"], "nothing would be learned"),
        (["name=a/b"], "name: 'a/b' names a folder"),
        (["=3"], "is not an override"),
        (["run.root=/tmp/ü/a=b"], """; such a value is in quotes: 'run.root="/tmp/ü/a=b"'"""),
        (
            ["model.source.overrides=[a.b=1, c=x]"],
            """; each override in the list is in quotes: 'model.source.overrides=["a.b=1","c=x"]'""",
        ),
        (["model.source.overrides=[a.b=[1]]"], "is not an override"),
        (["seed=${nothing}"], "nothing"),
    ],
)
def test_a_mistake_says_where_what_and_what_is_allowed(overrides: list[str], expected: str) -> None:
    assert expected in message(*overrides)


def test_a_rule_across_sections_is_reported_beside_a_wrong_value_elsewhere() -> None:
    """Cross-field rules must not wait until every single value is right."""
    text = message("seed=x", "tokenizer=pretrained")
    assert "seed:" in text
    assert "tokenizer.kind:" in text


def test_a_missing_section_is_named() -> None:
    mapping = compose([])
    del mapping["training"]
    with pytest.raises(ConfigError, match="training: missing"):
        check(mapping)


def test_the_working_directory_is_searched_before_the_package(work: Path) -> None:
    """A person's own experiment file needs no copy of ours."""
    (work / "conf" / "experiment").mkdir(parents=True)
    own = "# @package _global_\nname: mine\nseed: 7\n"
    (work / "conf" / "experiment" / "mine.yaml").write_text(own, "utf-8")
    config = config_of(["+experiment=mine"])
    assert (config.name, config.seed, config.model.source.kind) == ("mine", 7, "fresh")


HEAVY = ("numpy", "jax", "torch", "transformers", "mlflow", "matplotlib", "scipy", "pandas")


@pytest.mark.parametrize(
    ("arguments", "code", "absent"),
    [
        (["--help"], 0, (*HEAVY, "hydra", "pydantic")),
        (["+experiment=quickstart", "--help"], 0, (*HEAVY, "hydra", "pydantic")),
        (["--version"], 0, (*HEAVY, "hydra", "pydantic")),
        (["experiments"], 0, (*HEAVY, "hydra", "pydantic")),
        # numpy, a tenth of a second: an objective is a section of the config and its mathematics, in one file.
        (["seed=x"], 2, (*HEAVY[1:], "http.client")),
        (["+experiment=quikstart"], 2, HEAVY[1:]),
    ],
)
def test_help_and_config_errors_import_nothing_heavy(
    arguments: list[str], code: int, absent: tuple[str, ...], root: Path
) -> None:
    program = (
        "import sys\nfrom tunix_rt.__main__ import main\n"
        f"code = main({arguments!r})\n"
        f"print('LOADED', [name for name in {absent!r} if name in sys.modules])\nsys.exit(code)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == code, done.stderr
    assert done.stdout.rstrip().endswith("LOADED []"), done.stdout
    assert "Traceback" not in done.stderr


def test_mistakes_in_an_adapter() -> None:
    """Also one that is set without being chosen."""
    text = message("model/adapter=lora", "model.adapter.dropout=1", "model.adapter.target=[]", "model.adapter.rank=0")
    for expected in (
        "model.adapter.dropout: got 1, expected less than 1",
        "model.adapter.rank: got 0, expected greater than 0",
        "model.adapter.target",
    ):
        assert expected in text
    assert "q_proj, q_proj: each name once" in message("model/adapter=lora", "model.adapter.target=[q_proj,q_proj]")
    none = "model.adapter: nothing is chosen that has such keys: model/adapter=… first"
    assert message("model.adapter.rank=4", "model.adapter.quantize=nf4") == none
    wrong = message("model/adapter=lora", "model.adapter.quantize=int4")
    assert wrong == "model.adapter.quantize: got \"int4\", expected 'int8' or 'nf4'"
    words = ("model=from_path", "model.source.path=x", "tokenizer=pretrained", "tokenizer.added_tokens=[new]")
    assert "new tokens would never be learned" in message("model/adapter=lora", *words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["model/adapter=lora"], "model.adapter: backend 'tunix' does not support LoRA: model/adapter=none"),
        (["generation=sample"], "generation.batch_size=1, generation.temperature=0, or one of backend=jax"),
        (["model=distilgpt2_scratch"], "model.source.config.model_type: backend 'tunix' does not compute 'gpt2'"),
    ],
)
def test_what_a_backend_lacks(words: list[str], expected: str) -> None:
    """Each is sound on another backend, and said before anything starts."""
    assert expected in message("backend=tunix", *words)
    check(compose(["backend=jax", *words]))
    check(compose(["backend=tunix", "generation=sample", "generation.batch_size=1"]))


@pytest.mark.parametrize("schedule", ["linear", "constant"])
def test_the_schedules_of_finetuning_fit_a_trial_of_three_steps(schedule: str) -> None:
    """Prevents: 'schedule.warmup_steps: 5 must be below …' as the answer to every first small try."""
    words = ("training=finetune", "training.num_epochs=null", "training.max_steps=3", f"schedule={schedule}")
    assert warmup_of(config_of(words).schedule, 3) == 1


def test_three_seeds() -> None:
    """The split and generated problems stay what they are whatever `seed` is; one wrong value is one mistake."""

    def seeds(*words: str) -> tuple[int, int, int]:
        config = config_of(words)
        return config.dataset.seed, config.training.seed, config.generation.seed

    assert seeds("seed=3") == (0, 3, 3)
    assert seeds("seed=3", "training.seed=4", "dataset.seed=5") == (5, 4, 3)
    assert seeds("seed=3", "dataset.seed=null", "generation.seed=${training.seed}", "training.seed=1") == (3, 1, 1)
    assert message("seed=-1").startswith("seed: got -1")
    assert "training.seed: got -1" in message("training.seed=-1")


def test_a_record_made_before_there_were_three_seeds_is_read_as_it_was_meant() -> None:
    """`seed` decided everything then, the split too."""
    mapping = compose(["seed=3"])
    for section in ("dataset", "training", "generation"):
        del mapping[section]["seed"]
    config = check(mapping)
    assert (config.dataset.seed, config.training.seed, config.generation.seed) == (3, 3, 3)


@pytest.mark.parametrize(
    ("words", "asks"),
    [
        (["format=plain"], False),
        (["format=lines"], True),
        (["format=think"], True),
        (["format=template", "format.answer='{answer}.'"], False),
        (["format=lines", "format.reader=lines"], False),
        (["format=plain", "format.reader=auto"], True),
    ],
)
def test_after_a_cut_the_format_must_be_able_to_ask_for_the_answer(words: list[str], asks: bool) -> None:
    """Otherwise the model would go on with another step, and nothing be measured."""
    changed = [*words, "generation/interventions=faithfulness"]
    if asks:
        assert config_of(changed).generation.interventions is not None
    else:
        assert "generation.interventions.kinds: truncated: the format has no text in front" in message(*changed)
        config_of([*changed, "generation.interventions.kinds=[corrupted]"])


def test_nothing_is_trained_if_that_is_chosen_whatever_the_experiment_declares() -> None:
    """Prevents: `+experiment=rl_parity_sft training=none` training for its own 200 steps."""
    assert config_of(["+experiment=rl_parity_sft"]).training.max_steps == 200
    assert not config_of(["+experiment=rl_parity_sft", "training=none"]).training.trains
