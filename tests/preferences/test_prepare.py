"""Prepared pairs: both completions by one encoder, a pair kept or left out as a whole, and counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import config_of
from tests.preferences.conftest import WORDS, Toy, write_sums
from tunix_rt.batches.encoded import REJECTED, EncodedDataset
from tunix_rt.batches.pairs import EncodedPairs
from tunix_rt.config.identity import identities
from tunix_rt.errors import ConfigError, DataError
from tunix_rt.inputs import write_prepared
from tunix_rt.models.tokenizer import Tokenizer
from tunix_rt.traces.prepared import PreparedData


def prepared(folder: Path, changes: dict[int, Any], *words: str) -> PreparedData:
    """The toy with some of its lines changed (None: the field is left out)."""
    file = write_sums(folder, 12)
    lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    for place, change in changes.items():
        lines[place] = {key: value for key, value in (lines[place] | change).items() if value is not None}
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    write_prepared(config_of([*WORDS, f"dataset.source.train.path={file}", *words]), folder / "data", None)
    return PreparedData(folder / "data")


def test_both_completions_are_written_by_one_format(toy: Toy) -> None:
    tokenizer = Tokenizer.load(toy.data.model_folder)
    for split in ("train", "validation"):
        pairs = EncodedPairs.open(toy.data.encoded(split))
        traces = toy.data.traces(split)
        assert len(pairs) == toy.data.manifest["splits"][split]["count"] == len(traces) > 5
        for pair, trace in enumerate(traces):
            assert trace.completion is not None and trace.loser.completion is not None
            for member, said in enumerate((trace.completion.content, trace.loser.completion.content)):
                tokens, targets, weights = pairs.example(2 * pair + member)
                text = "".join(map(tokenizer.piece, [*tokens.tolist(), int(targets[-1])]))
                assert text == trace.prompt + said + tokenizer.end_token
                learned = "".join(map(tokenizer.piece, targets[weights > 0].tolist()))
                assert learned == said + tokenizer.end_token
    split = toy.data.manifest["splits"]["train"]
    losers = EncodedDataset.open(toy.data.encoded("train") / REJECTED)
    assert split["rejected_tokens"] == int((losers.lengths + 1).sum())
    assert toy.data.damage(full=True) == []


def test_a_pair_without_a_loser_is_one_line_before_anything_starts(tmp_path: Path) -> None:
    without = {"rejected": None, "chosen": None, "completion": "9"}
    with pytest.raises(DataError) as caught:
        prepared(tmp_path, {3: without})
    assert str(caught.value) == (
        f"1 validation traces are no pairs: {tmp_path}/sums.jsonl:4: no rejected completion beside it: a pair needs a "
        "loser; dataset.on_invalid=skip leaves them out"
    )
    assert not (tmp_path / "data" / "manifest.json").exists()
    data = prepared(tmp_path, {3: without}, "dataset.on_invalid=skip")
    assert data.manifest["counts"]["dropped"] == {"unpaired": 1}


def test_a_switch_holds_for_the_pair_as_a_whole(tmp_path: Path) -> None:
    changes = {2: {"rejected": "1" * 40}, 5: {"chosen": "7", "rejected": "7"}}
    with pytest.raises(DataError, match=r"are too long: .*sums.jsonl:3: rejected: \d+ tokens, at most 20 fit"):
        prepared(tmp_path, changes, "dataset.max_length=20")
    with pytest.raises(DataError, match=r"sums.jsonl:6: its chosen and its rejected completion are the same"):
        prepared(tmp_path, changes, "dataset.max_length=20", "dataset.on_overlong=drop")
    words = ("dataset.max_length=20", "dataset.on_no_target=drop", "dataset.on_overlong")
    data = prepared(tmp_path, changes, *words[:2], f"{words[2]}=drop")
    assert data.manifest["counts"]["dropped"] == {"no_target": 1, "overlong": 1}
    assert data.manifest["counts"]["read"] == 12
    cut = prepared(tmp_path, changes, *words[:2], f"{words[2]}=truncate")
    assert cut.manifest["counts"]["dropped"] == {"no_target": 1, "overlong_truncated": 1}
    sizes = [EncodedPairs.open(cut.encoded(split)).lengths for split in ("train", "validation")]
    assert int(np.concatenate(sizes).max()) == 19


def test_only_pairs_change_the_identity_of_prepared_data(toy: Toy) -> None:
    def chain(*words: str) -> dict[str, str]:
        return identities(config_of([*WORDS, *words]), {})

    dpo, other, sft = chain(), chain("objective.beta=0.2"), chain("objective=sft")
    assert dpo["prepare"] == other["prepare"] != sft["prepare"]
    assert dpo["train"] != other["train"]


def test_a_token_of_a_pair_counts_or_does_not() -> None:
    with pytest.raises(ConfigError, match=r"dataset.loss_weights.steps: 0.5, but objective=dpo counts a token or does"):
        config_of([*WORDS, "dataset.loss_weights.steps=0.5"])
