"""Parts → ids and weights by offsets, and the store on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunix_rt.batches.encode import Encoded, EncodedDataset, encode, write_encoded
from tunix_rt.config.dataset import LossWeights
from tunix_rt.errors import DataError
from tunix_rt.models.tokenizer import Tokenizer, train_bpe, train_char
from tunix_rt.traces.format import Part

WEIGHTS = LossWeights(prompt=0.0, steps=0.5, answer=2.0, end=1.0)
KINDS = ("prompt", "steps", "answer", "end")


@pytest.fixture(scope="module")
def char(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("char")
    train_char([], "0123456789*=;", folder)
    return Tokenizer.load(folder)


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("bpe")
    train_bpe(["the end of the text; then the answer é😀"] * 9, 290, folder)
    return Tokenizer.load(folder)


def test_every_part_has_its_weight_and_the_end_token_is_a_target(char: Tokenizer) -> None:
    parts = [
        Part("prompt", "2*3="),
        Part("steps", "2*3=6;"),
        Part("steps", ""),
        Part("answer", "06"),
        Part("end", "<end>"),
    ]
    encoded = encode(parts, char, WEIGHTS)
    assert encoded.ids.tolist() == char.encode("2*3=2*3=6;06<end>").ids
    assert encoded.weights.tolist() == [0.0] * 4 + [0.5] * 6 + [2.0] * 2 + [1.0]
    assert (encoded.ids.dtype, encoded.weights.dtype) == (np.int32, np.float32)


def test_a_token_across_two_parts_belongs_to_the_first(bpe: Tokenizer) -> None:
    assert len(bpe.encode(" the").ids) == 1
    encoded = encode([Part("prompt", "1 t"), Part("answer", "he"), Part("end", "<end>")], bpe, WEIGHTS)
    assert encoded.ids.tolist() == bpe.encode("1 the<end>").ids
    assert encoded.weights.tolist() == [0.0, 0.0, 1.0]


def test_bytes_of_one_character_stay_in_its_part(bpe: Tokenizer) -> None:
    """Byte-level BPE splits characters: counting tokens or bytes instead of characters would shift the parts."""
    encoded = encode([Part("prompt", "ж日"), Part("answer", "жЖ"), Part("end", "<end>")], bpe, WEIGHTS)
    assert len(encoded.ids) > 5
    assert encoded.weights.tolist() == [0.0] * 5 + [2.0] * 4 + [1.0]


@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), min_size=1, max_size=6))
def test_weights_follow_the_first_character_of_each_token(bpe: Tokenizer, texts: list[str]) -> None:
    parts = [Part(KINDS[place % 4], text) for place, text in enumerate(texts)]  # type: ignore[arg-type]
    encoded = encode(parts, bpe, WEIGHTS)
    owner = [part.kind for part in parts for _ in part.text]
    expected = [getattr(WEIGHTS, owner[start]) for start, _ in bpe.encode("".join(texts)).offsets]
    assert encoded.weights.tolist() == expected


def test_a_character_outside_the_vocabulary_is_named(char: Tokenizer) -> None:
    with pytest.raises(DataError, match="vocabulary lacks 'x'"):
        encode([Part("prompt", "2x3=")], char, WEIGHTS)


def numbers(*ids: int) -> Encoded:
    return Encoded(np.array(ids, dtype=np.int32), np.array(ids, dtype=np.float32) / 10)


def test_the_store_shifts_targets_within_each_trace(tmp_path: Path) -> None:
    assert write_encoded(tmp_path, [("a", numbers(5, 6, 7)), ("b", numbers(8, 9))]) == 2
    dataset = EncodedDataset.open(tmp_path)
    assert (len(dataset), dataset.ids, dataset.lengths.tolist()) == (2, ("a", "b"), [2, 1])
    assert dataset.lengths.dtype == np.int64
    assert [dataset.sequence(index)[0].tolist() for index in range(2)] == [[5, 6, 7], [8, 9]]
    found = [[array.tolist() for array in dataset.example(index)] for index in range(2)]
    assert found[0][:2] == [[5, 6], [6, 7]] and found[0][2] == pytest.approx([0.6, 0.7])
    assert found[1][:2] == [[8], [9]] and found[1][2] == pytest.approx([0.9])


def test_an_empty_store_is_empty(tmp_path: Path) -> None:
    assert write_encoded(tmp_path, []) == 0
    assert len(EncodedDataset.open(tmp_path)) == 0


def test_a_trace_without_a_position_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="trace b: 1 tokens"):
        write_encoded(tmp_path, [("a", numbers(1, 2)), ("b", numbers(1))])
    assert not list(tmp_path.iterdir()), "nothing half-written is left"


def test_an_old_index_does_not_bless_a_new_half(tmp_path: Path) -> None:
    write_encoded(tmp_path, [("a", numbers(1, 2))])
    with pytest.raises(DataError):
        write_encoded(tmp_path, [("a", numbers(3, 4)), ("b", numbers(1))])
    with pytest.raises(DataError, match="no such file"):
        EncodedDataset.open(tmp_path)


@pytest.mark.parametrize("name", ["tokens.int32", "weights.float32"])
def test_a_cut_or_missing_file_is_not_taken_for_whole(tmp_path: Path, name: str) -> None:
    write_encoded(tmp_path, [("a", numbers(5, 6, 7))])
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-4])
    with pytest.raises(DataError, match=rf"{name}: 8 bytes, expected 12 bytes"):
        EncodedDataset.open(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=rf"{name}: missing"):
        EncodedDataset.open(tmp_path)


def test_without_its_index_the_store_is_not_there(tmp_path: Path) -> None:
    write_encoded(tmp_path, [("a", numbers(5, 6, 7))])
    (tmp_path / "index.json").write_text('{"version": 0}')
    with pytest.raises(DataError, match="not of version 1"):
        EncodedDataset.open(tmp_path)
    (tmp_path / "index.json").unlink()
    with pytest.raises(DataError, match="no such file"):
        EncodedDataset.open(tmp_path)
