"""Parts → ids and weights by offsets, and the store on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunix_rt.batches.batch import assemble
from tunix_rt.batches.encode import encode
from tunix_rt.batches.encoded import Encoded, EncodedDataset, write_encoded
from tunix_rt.config.dataset import LossWeights
from tunix_rt.errors import DataError
from tunix_rt.models.tokenizer import Tokenizer, train_bpe, train_char, write_tokenizer
from tunix_rt.traces.format import Part

WEIGHTS = LossWeights(prompt=0.0, previous_turns=0.25, steps=0.5, answer=2.0, end=1.0)
KINDS = ("steps", "answer")


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
    encoded = encode([Part("steps", "1 t"), Part("answer", "he"), Part("end", "<end>")], bpe, WEIGHTS)
    assert encoded.ids.tolist() == bpe.encode("1 the<end>").ids
    assert encoded.weights.tolist() == [0.5, 0.5, 1.0]


def test_bytes_of_one_character_stay_in_its_part(bpe: Tokenizer) -> None:
    """Byte-level BPE splits characters: counting tokens or bytes instead of characters would shift the parts."""
    encoded = encode([Part("prompt", "ж日"), Part("answer", "жЖ"), Part("end", "<end>")], bpe, WEIGHTS)
    assert len(encoded.ids) > 5
    assert encoded.weights.tolist() == [0.0] * 5 + [2.0] * 4 + [1.0]


@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), min_size=1, max_size=6))
def test_weights_follow_the_first_character_of_each_token(bpe: Tokenizer, texts: list[str]) -> None:
    parts = [Part(KINDS[place % 2], text) for place, text in enumerate(texts)]  # type: ignore[arg-type]
    encoded = encode(parts, bpe, WEIGHTS)
    owner = [part.kind for part in parts for _ in part.text]
    expected = [getattr(WEIGHTS, owner[start]) for start, _ in bpe.encode("".join(texts)).offsets]
    assert encoded.weights.tolist() == expected


def test_a_character_outside_the_vocabulary_is_named(char: Tokenizer) -> None:
    with pytest.raises(DataError, match="vocabulary lacks 'x'"):
        encode([Part("prompt", "2x3=")], char, WEIGHTS)


@pytest.mark.parametrize(("prompt", "completion"), [("1 t", "he"), ("the t", "ext")])
def test_a_prompt_that_melts_into_the_completion_is_refused_with_both_sides(
    bpe: Tokenizer, prompt: str, completion: str
) -> None:
    """The classical silent bug: the model learns after tokens that it is never asked with."""
    alone, together = bpe.encode(prompt).ids, bpe.encode(prompt + completion).ids
    assert together[: len(alone)] != alone
    with pytest.raises(DataError) as caught:
        encode([Part("prompt", prompt), Part("answer", completion), Part("end", "<end>")], bpe, WEIGHTS)
    left, right = str(caught.value).split("of the prompt alone ")[1].split("in the training text ")
    place = next(i for i, (a, b) in enumerate(zip(alone, together, strict=False)) if a != b)
    assert f"{alone[place]} {bpe.piece(alone[place])!r}" in left
    assert f"{together[place]} {bpe.piece(together[place])!r}" in right


def test_the_check_looks_at_each_place_where_the_model_takes_over(bpe: Tokenizer) -> None:
    before = [Part("prompt", "text\n"), Part("previous_turns", "answer<end>")]
    good = [*before, Part("prompt", "the\n"), Part("steps", "then "), Part("answer", "a"), Part("end", "<end>")]
    encoded = encode(good, bpe, WEIGHTS)  # type: ignore[arg-type]
    (first, last) = np.flatnonzero(encoded.ids == bpe.end_id)
    begin = len(bpe.encode("text\n").ids)
    assert set(encoded.weights[begin : first + 1]) == {0.25} and encoded.weights[last] == 1.0
    assert set(encoded.weights[:begin]) == {0.0}
    with pytest.raises(DataError, match="become tokens together"):
        encode([Part("prompt", "1 t"), Part("previous_turns", "he<end>"), *good[2:]], bpe, WEIGHTS)


def test_the_end_token_is_a_target_where_it_also_pads(tmp_path: Path) -> None:
    """Many tokenizers declare pad = eos: whoever masks by id then never teaches to stop."""
    train_bpe(["the end"], 260, tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text("utf-8"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"pad_token": "<end>"}))
    both = Tokenizer.load(tmp_path)
    assert both.pad_id == both.end_id
    item = encode([Part("prompt", "a"), Part("answer", "b"), Part("end", "<end>")], both, WEIGHTS)
    write_encoded(tmp_path, [("a", item)])
    batch = assemble(EncodedDataset.open(tmp_path), [[0]], (1, 8))
    assert batch.targets[batch.weights > 0].tolist() == [*both.encode("b").ids, both.end_id]
    assert not batch.weights[batch.segments == 0].any(), "padding is no target, whatever its id"


def test_a_doubled_begin_token_is_refused(tmp_path: Path) -> None:
    """A chat template that writes it, on a prompt that has it already."""
    from tokenizers import Tokenizer as Inner

    train_char(["abc"], None, tmp_path)
    inner = Inner.from_file(str(tmp_path / "tokenizer.json"))
    inner.add_special_tokens(["<s>"])
    write_tokenizer(tmp_path, inner, {"eos_token": "<end>", "bos_token": "<s>"})
    tokenizer = Tokenizer.load(tmp_path)
    completion = [Part("answer", "b"), Part("end", "<end>")]
    assert encode([Part("prompt", "<s>a"), *completion], tokenizer, WEIGHTS).ids[0] == tokenizer.begin_id
    with pytest.raises(DataError, match="begins with '<s>' twice"):
        encode([Part("prompt", "<s><s>a"), *completion], tokenizer, WEIGHTS)


def test_an_end_token_that_the_tokenizer_splits_is_refused(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Inner
    from tokenizers import models

    inner = Inner(models.BPE({"<": 0, "/": 1, "s": 2, ">": 3, "a": 4, "</s>": 5}, []))
    write_tokenizer(tmp_path, inner, {})
    (tmp_path / "config.json").write_text('{"eos_token_id": 5}')  # named in tokenizer_config.json, it would be added
    with pytest.raises(DataError, match=r"the end token '</s>' becomes 1 '/' 2 's' 3 '>': it is not among the added"):
        encode([Part("prompt", "a"), Part("answer", "a"), Part("end", "</s>")], Tokenizer.load(tmp_path), WEIGHTS)


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
