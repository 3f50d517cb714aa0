"""Traces become numbers under the declared switches, by one process or by several, with the same bytes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.conftest import config_of
from tunix_rt.batches import encode_all as module
from tunix_rt.batches.chunks import Chunk
from tunix_rt.batches.encode_all import encode_all
from tunix_rt.batches.encoded import Encoded
from tunix_rt.batches.encoder import Encoder, Encoding, Left
from tunix_rt.files import to_json
from tunix_rt.models.folder import write_generation_config
from tunix_rt.models.tokenizer import train_bpe
from tunix_rt.traces.trace import Alternative, Message, Trace


def trace(i: int, text: str) -> Trace:
    return Trace(str(i), f"Q{i}?", (), text, completion=Message("assistant", text), answer_span=(0, len(text)))


@pytest.fixture
def encoding(tmp_path: Path) -> Encoding:
    train_bpe(["Q? A yes no"], 300, tmp_path)
    write_generation_config(tmp_path, (1,), 0)
    words = ["dataset=files", "dataset.name=x", "dataset.source.train.path=x", "dataset.on_overlong=drop"]
    config = config_of([*words, "format=plain"])
    return Encoding(tmp_path, config.format, config.dataset, 40)


def test_what_cannot_be_learned_says_why(encoding: Encoding) -> None:
    encoder = Encoder(encoding)
    found, _ = encoder.encode(trace(0, "yes\n  no"))
    assert isinstance(found, Encoded) and encoder.tokenizer.decode(found.ids.tolist()) == "Q0?yes\n  no"
    long, cut = encoder.encode(trace(1, "y" * 50))
    assert isinstance(long, Left) and (long.kind, cut) == ("overlong", ()) and "at most 40 fit" in long.reason
    special, _ = encoder.encode(trace(2, "a<end>b"))
    assert isinstance(special, Left) and special.kind == "invalid" and "special token" in special.reason


def test_a_pair_is_kept_or_left_as_a_whole(encoding: Encoding) -> None:
    encoder = Encoder(replace(encoding, pairs=True))

    def pair(chosen: str, rejected: str) -> Trace:
        return replace(trace(0, chosen), rejected=Alternative(Message("assistant", rejected)))

    both, _ = encoder.encode_pair(pair("yes", " no\n"))
    assert isinstance(both, tuple)
    assert [encoder.tokenizer.decode(one.ids.tolist()) for one in both] == ["Q0?yes", "Q0? no\n"]
    alone = [encoder.encode(one)[0] for one in (trace(0, "yes"), trace(0, " no\n"))]
    for one, other in zip(both, alone, strict=True):
        assert isinstance(other, Encoded) and np.array_equal(one.ids, other.ids)
        assert np.array_equal(one.weights, other.weights)
    for loser, kind, reason in [
        ("y" * 50, "overlong", "rejected: 5"),
        ("a<end>b", "invalid", "rejected: '<end>'"),
        ("yes", "no_target", "its chosen and its rejected completion are the same"),
    ]:
        found, _ = encoder.encode_pair(pair("yes", loser))
        assert isinstance(found, Left) and found.kind == kind and found.reason.startswith(reason)
    found, _ = encoder.encode_pair(trace(0, "yes"))
    assert isinstance(found, Left) and (found.kind, found.reason[:22]) == ("unpaired", "no rejected completion")


@pytest.mark.framework
def test_several_processes_give_the_same_and_what_is_done_is_found_again(
    encoding: Encoding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces = [trace(i, "yes " * (i % 7 + 1)) for i in range(90)] + [trace(90, "y" * 60), trace(91, "<pad>")]
    lines = [(to_json(["f:1", one.to_json()]).encode(), one.id) for one in traces]
    monkeypatch.setattr(module, "CHUNK", 8)
    place = tmp_path / "chunks"

    def encoded() -> list[Chunk]:
        return list(encode_all(Encoder(encoding), encoding, "train", iter(lines), len(lines), place))

    alone = encoded()
    assert not place.exists() and sum(chunk.counts["count"] for chunk in alone) == 90
    assert [left[1] for left in alone[-1].left] == ["overlong", "invalid"] and alone[-1].dropped["overlong"] == 1
    for name, value in (("MANY", 10), ("AHEAD", 1), ("usable_cores", lambda: 2)):
        monkeypatch.setattr(module, name, value)
    assert encoded() == alone
    files = sorted(place.iterdir())
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:-9])
    before = {file: file.stat().st_mtime_ns for file in files[2:]}
    assert encoded() == alone, "what is missing or damaged is made again"
    assert before == {file: file.stat().st_mtime_ns for file in sorted(place.iterdir())[2:]}, "nothing else is"


KILLED = """
import multiprocessing, os, signal
from tunix_rt.batches.encode_all import _end_with_parent
child = multiprocessing.get_context("spawn").Process(target=_end_with_parent)
child.start()
print(child.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_processes_of_a_killed_one_end_too() -> None:
    done = subprocess.run([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, check=False)
    assert done.returncode == -signal.SIGKILL
    with suppress(psutil.NoSuchProcess):
        child = psutil.Process(int(done.stdout))
        while child.status() != psutil.STATUS_ZOMBIE and time.time() < child.create_time() + 30:
            time.sleep(0.05)
        assert child.status() == psutil.STATUS_ZOMBIE
