"""Bad input gets a clear line: what, where, what to do, the exit code of its class, and no traceback."""

from __future__ import annotations

import json
import re
from pathlib import Path
from secrets import token_hex

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.conftest import TOY
from tests.pipeline.conftest import Done, Person

TRACE = {
    "trace_version": "1.0",
    "prompt": "1+1=",
    "steps": [{"i": 0, "type": "step", "content": "1+1=2"}],
    "final_answer": "2",
}


def traces(number: int) -> str:
    lines = [json.dumps(TRACE | {"prompt": f"{i}+{i}=", "final_answer": str(2 * i)}) for i in range(number)]
    return "".join(f"{line}\n" for line in lines)


def own_data(person: Person, content: bytes | None, *words: str) -> Done:
    """A run on a file of one's own."""
    if content is not None:
        (person.folder / "mine.jsonl").write_bytes(content)
    data = ("dataset=jsonl", "dataset.name=mine", "dataset.source.train.path=mine.jsonl", "backend=torch")
    return person.types(*data, *TOY, "dataset.limit.train=null", *words)


def explained(done: Done, code: int, *expected: str) -> None:
    assert done.code == code, done.err
    assert "Traceback" not in done.err
    (line,) = (line for line in done.err.splitlines() if line.startswith("error: "))
    for text in expected:
        assert text in line


@pytest.mark.slow
def test_a_good_file_of_ones_own_runs(person: Person) -> None:
    """Guards the tests below: the same command on a good file succeeds, and says what cannot come out well."""
    done = own_data(person, traces(60).encode(), "dataset.split.validation=0.2", "dataset.split.test=0.3")
    assert done.code == 0
    (file,) = person.folder.glob("data/mine/*/traces/test.jsonl")
    answers = [json.loads(line)["final_answer"] for line in file.read_text().splitlines()]
    lengths = [len("1+1=2;") + len(answer) + 1 for answer in answers]
    longer = sum(length > 8 for length in lengths)
    assert 0 < longer < len(lengths) == 4
    assert (
        f"warning: generation.max_new_tokens=8: {longer} of 4 test references ({25 * longer} %) are longer" in done.err
    )
    assert f"(longest {max(lengths)} tokens)" in done.err

    (person.folder / "mine.jsonl").rename(person.folder / "moved.jsonl")
    labels = ("dataset.source.train.path=moved.jsonl", "dataset.source.origin=here", "dataset.name=other")
    words = ("dataset.split.validation=0.2", "dataset.split.test=0.3", "generation.batch_size=2")
    moved = own_data(person, None, *words, "generation.max_error_rate=0.9", *labels)
    assert moved.code == 0
    assert "finished before; nothing is run again" in moved.err


def test_an_empty_test_split_is_found_before_training(person: Person) -> None:
    """Prevents: training to the end, and then an error."""
    done = own_data(person, traces(60).encode(), "dataset.split={validation: 0.2, test: 0.0}")
    explained(done, 2, "the test split is empty", "dataset.split.test")
    assert not list(person.folder.glob("runs/*/*/metrics.jsonl"))


def test_finetune_works_for_three_steps_and_a_decay_inside_the_warm_up_does_not(person: Person) -> None:
    """The steps of an epoch are known once the data are prepared: still before the first one."""
    finetune = ("training=finetune", "schedule=linear", "training.num_epochs=null", "training.max_steps=3")
    assert own_data(person, traces(60).encode(), *finetune, "schedule.warmup_steps=0.1").code == 0
    epoch = (
        "training=finetune",
        "name=epoch",
        "schedule=wsd",
        "schedule.warmup_steps=2",
        "schedule.decay_fraction=0.9",
    )
    explained(
        own_data(person, None, *epoch), 2, "schedule.warmup_steps: the warm-up of 2 steps and the decay of the last"
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, ["mine.jsonl: no such file", "dataset.source.train.path"]),
        (b"", ["mine.jsonl: empty"]),
        (b"\x00\x01\x02", ["mine.jsonl:1: a NUL byte: binary data"]),
        (traces(30).encode()[:-20], ["mine.jsonl:30: not valid JSON", "dataset.on_invalid=skip"]),
        (traces(30).replace('"final_answer": "4"', '"answer": "4"').encode(), ["mine.jsonl:3: final_answer: missing"]),
        (traces(1).encode() * 3, ["2 prompts occur again", "mine.jsonl:2", "dataset.on_duplicate=first"]),
        (traces(2).encode(), ["nothing is left for", "dataset.split."]),
    ],
)
def test_bad_data_files(content: bytes | None, expected: list[str], person: Person) -> None:
    explained(own_data(person, content), 2, *expected)


def test_a_missing_public_file_says_where_it_can_be_had(person: Person) -> None:
    done = person.types("+experiment=gsm8k", "tracking=none")
    explained(done, 2, "data/raw/gsm8k/train.jsonl: no such file", "github.com/openai/grade-school-math")


def test_debug_shows_the_traceback(person: Person) -> None:
    done = person.types("+experiment=gsm8k", "tracking=none", "debug=true")
    assert done.code == 2
    assert "Traceback" in done.err
    assert done.err.rstrip().splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["+experiment=quikstart"], 2, ["no 'quikstart'; did you mean 'quickstart'?"]),
        (["backend=tourch"], 2, ["no 'tourch'; did you mean 'torch'?"]),
        (["optimizer.learning_rat=1"], 2, ["optimizer.learning_rat: unknown key; did you mean 'learning_rate'?"]),
        (["training.max_steps=many"], 2, ['training.max_steps: got "many", expected a valid integer']),
        (["schedule.warmup_steps=2000"], 2, ["must be below the number of steps 6"]),
        (["tokenizer.characters='0123456789*+'"], 2, ["vocabulary lacks", "'='"]),
        (["hardware.devices=[7]"], 3, ["hardware.devices=[7]", "present: cpu: 0"]),
        (["hardware.device=7"], 2, ["hardware.device: write hardware.devices=[7]"]),
        (
            ["training.per_device_batch_size=3", "training.gradient_accumulation_steps=4"],
            2,
            ["write training.global_batch_size=12", "hardware.local_batch_size=3"],
        ),
        (["hardware.devices=4", "hardware.mesh.shard=3"], 2, ["shard 3", "cannot be filled by 4 devices"]),
        (["hardware.devices=32"], 2, ["8 rows are fewer than the 32 devices"]),
        (
            ["model=from_path", "model.source.path=nowhere", "tokenizer=pretrained"],
            2,
            ["nowhere: no such model folder"],
        ),
        (["rnus"], 2, ["'rnus' is neither a command"]),
        (["show", "last"], 2, ["no run there yet"]),
    ],
)
def test_wrong_words(words: list[str], code: int, expected: list[str], person: Person) -> None:
    verb = words if "=" not in words[0] else ["backend=torch", *TOY, *words]
    explained(person.types(*verb), code, *expected)


def test_devices_that_are_not_here_are_refused_before_anything_is_recorded(person: Person) -> None:
    words = ("backend=torch", *TOY, "hardware=multi_gpu", "run.root=none")
    asked = "hardware.platform=gpu hardware.devices=all: torch sees no such device; present: cpu: 0 (cpu)"
    explained(person.types(*words), 3, asked)
    assert not Path("none").exists()
    explained(person.types("plan", *words), 3, asked, "--memory 80GB hardware.devices=8")


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_a_model_folder_that_does_not_fit(person: Person) -> None:
    model = person.folder / "model"
    (person.run_folder() / "model").rename(model)
    weights, config = load_file(model / "model.safetensors"), json.loads((model / "config.json").read_text())

    def start() -> Done:
        source = ("model=from_path", f"model.source.path={model}", "tokenizer=pretrained", "name=again")
        return person.types("backend=torch", *TOY, *source)

    def weights_are(changed: dict[str, np.ndarray]) -> None:
        save_file(changed, model / "model.safetensors", metadata={"format": "pt"})

    name = "model.norm.weight"
    weights_are({key: value for key, value in weights.items() if key != name})
    missing = start()
    explained(missing, 2, "the weights do not fit config.json")
    assert re.search(rf"{name}: missing in the\s+folder", missing.err)
    weights_are(weights | {name: np.ones(7, np.float32), "extra.weight": np.ones(1, np.float32)})
    other = start()
    explained(other, 2, "the weights do not fit config.json")
    for expected in (name, "7", "64", "missing", "extra.weight"):
        assert expected in other.err
    weights_are(weights)
    (model / "config.json").write_text(
        json.dumps(config | {"model_type": "mamba", "architectures": ["MambaForCausalLM"]})
    )
    explained(start(), 2, "mamba", "llama")
    (model / "config.json").write_text(json.dumps(config))
    (model / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:-100])
    explained(start(), 2, "model.safetensors")


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_a_full_disk_loses_nothing_and_the_same_command_goes_on(person: Person) -> None:
    """/dev/full is the one file that is always on a full disk."""
    run = person.run_folder()
    whole = (run / "metrics.jsonl").read_bytes()
    for name in ("stages.json", "metrics.jsonl", "timings.jsonl"):
        (run / name).unlink()
    for checkpoint in (run / "checkpoints").glob("*/checkpoint.json"):
        checkpoint.unlink()
    (run / "timings.jsonl").symlink_to("/dev/full")
    explained(person.types("backend=torch", *TOY), 3, "the disk is full", "timings.jsonl")
    assert person.reads("status.json")["state"] == "failed"
    (run / "timings.jsonl").unlink()
    assert person.types("backend=torch", *TOY).code == 0
    assert (run / "metrics.jsonl").read_bytes() == whole


@pytest.mark.slow
def test_an_unreachable_tracking_server_never_stops_a_run(person: Person) -> None:
    words = [word for word in TOY if word != "tracking=none"]
    password = token_hex(8)
    uri = f"tracking.uri=http://me:{password}@127.0.0.1:9"
    done = person.starts("backend=torch", *words, uri, "tracking.wait_seconds=3")
    assert done.code == 0, done.err
    assert "warning: tracking server http://me:***@127.0.0.1:9 is not reachable" in done.err
    assert "tracking: sending the rest to http://me:***@127.0.0.1:9 (waiting 3 s at most)" in done.err
    assert "what is left is sent by a process of its own; the last line of runs/quickstart/" in done.err
    assert password not in done.err + done.out
    files = [file for file in person.folder.rglob("*") if file.is_file()]
    assert [file for file in files if password.encode() in file.read_bytes()] == []
    assert "http://me:***@127.0.0.1:9" in (person.run_folder() / "config.yaml").read_text()
    assert person.reads("metrics.json")["n"] == 4


def test_a_run_folder_in_use(person: Person) -> None:
    from tests.conftest import config_of
    from tunix_rt.config.identity import identities
    from tunix_rt.runs.folder import RunFolder

    identity = identities(config_of(["backend=torch", *TOY]), {})["evaluate"]
    run = RunFolder(Path("runs") / "quickstart" / identity)
    with run.locked():
        run.begin()
        explained(person.types("backend=torch", *TOY), 3, "in use by another process", "run.new=true")


def test_nothing_that_is_shown_of_a_config_tells_a_secret(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents: `--cfg job`, and errors that quote what was typed, printing passwords and variables."""
    password, variable = token_hex(8), token_hex(8)
    monkeypatch.setenv("MY_SERVICE_TOKEN", variable)
    monkeypatch.delenv("TUNIX_RT_TRACKING_URI", raising=False)
    uri = f"http://op:{password}@127.0.0.1:9"
    shown = [
        person.types("--cfg", "job", "--resolve", f"tracking.uri={uri}", "name=${oc.env:MY_SERVICE_TOKEN}"),
        person.types("--cfg", "all", f"tracking.uri={uri}"),
        person.types(f"backend.precision='{uri}'"),
        person.types(f"backend.precision='{uri}'", "debug=true"),
        person.types(f"tracking.experiment={uri}", "backend=tourch"),
    ]
    assert [done.code for done in shown] == [0, 0, 2, 2, 2]
    assert "name: '***'" in shown[0].out
    assert "uri: http://op:***@127.0.0.1:9" in shown[0].out
    assert 'backend.precision: got "http://op:***@127.0.0.1:9"' in shown[2].err
    assert "Traceback" in shown[3].err
    for done in shown:
        assert password not in done.out + done.err
        assert variable not in done.out + done.err


def test_debug_in_an_experiment_file_has_effect(person: Person) -> None:
    """Prevents: only the word on the command line showing tracebacks."""
    own = person.folder / "conf" / "experiment" / "mine.yaml"
    own.parent.mkdir(parents=True)
    for text, tracebacks in (("debug: true", 1), ("debug: false", 0)):
        own.write_text(f"# @package _global_\nname: mine\n{text}\n", "utf-8")
        for mistake in ("dataset=gsm8k", "optimizer.learning_rate=-1"):
            done = person.types("+experiment=mine", "tracking=none", mistake)
            assert (done.code, done.err.count("Traceback")) == (2, tracebacks)
            assert done.err.rstrip().splitlines()[-1].startswith("error: ")
