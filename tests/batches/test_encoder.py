"""Traces become numbers under the declared switches, by one process or by several, with the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import config_of
from tunix_rt.batches import encoder as module
from tunix_rt.batches.encoded import Encoded
from tunix_rt.batches.encoder import Encoder, Encoding, Left, encode_all
from tunix_rt.models.folder import write_generation_config
from tunix_rt.models.tokenizer import train_bpe
from tunix_rt.traces.trace import Message, Trace


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


@pytest.mark.framework
def test_several_processes_give_the_same_in_the_same_order(encoding: Encoding, monkeypatch: pytest.MonkeyPatch) -> None:
    traces = [trace(i, "yes " * (i % 7 + 1)) for i in range(90)] + [trace(90, "y" * 60), trace(91, "<pad>")]
    alone = list(encode_all(Encoder(encoding), encoding, traces, len(traces)))
    for name, value in (("MANY", 10), ("CHUNK", 8), ("AHEAD", 1)):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module, "usable_cores", lambda: 2)
    together = list(encode_all(Encoder(encoding), encoding, iter(traces), len(traces)))
    assert [t.id for t, _, _ in together] == [t.id for t in traces]
    for (_, ours, cut), (_, theirs, other) in zip(alone, together, strict=True):
        assert cut == other and type(ours) is type(theirs)
        if isinstance(ours, Encoded) and isinstance(theirs, Encoded):
            np.testing.assert_array_equal(ours.ids, theirs.ids)
            np.testing.assert_array_equal(ours.weights, theirs.weights)
        else:
            assert ours == theirs
