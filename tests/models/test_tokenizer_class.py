"""The tokenizer classes of transformers that take only parts of tokenizer.json; its AutoTokenizer is the reference."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.models.conftest import SMALL
from tunix_rt.errors import ModelError
from tunix_rt.models.extend import with_tokens
from tunix_rt.models.initialise import write_fresh
from tunix_rt.models.splits import QWEN2, byte_level_by_pattern, byte_level_with_single_digits
from tunix_rt.models.tokenizer import Tokenizer, train_bpe
from tunix_rt.models.tokenizer_class import BUILDS, OTHERS, REGISTERED, class_of
from tunix_rt.models.wrapped import _keep_class

CORPUS = ["The quick brown fox jumps over 123 lazy dogs, don't they? é ½\n\n", "def f(x):\n    return x+1"] * 5
TEXTS = [
    "The fox",
    "  the <end>\n\n1 the12 <s>dog",
    "<end> f(x): 'T <end>  x",
    "e\u0301\u00e9 \u00c5\r\n\tx\u2028",
    "  ",
    "I'M don't",
]
SPECIAL = ("<unk>", "<s>", "<end>", "<|endoftext|>")


def _trained(pre_tokenizer: Any, alphabet: list[str]) -> Any:
    from tokenizers import Tokenizer as Inner
    from tokenizers import models, trainers

    inner = Inner(models.BPE())
    inner.pre_tokenizer = pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=[*SPECIAL], initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(CORPUS, trainer)
    return inner


def _byte_level(pre_tokenizer: Any) -> Any:
    from tokenizers import decoders, pre_tokenizers

    inner = _trained(pre_tokenizer, pre_tokenizers.ByteLevel.alphabet())
    inner.decoder = decoders.ByteLevel()
    return inner


def _llama2() -> Any:
    """As converted from sentencepiece: blanks are rewritten by the normaliser, and bytes stand for what is unknown."""
    from tokenizers import Tokenizer as Inner
    from tokenizers import decoders, normalizers, pre_tokenizers, processors

    split = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=True)
    model = json.loads(_trained(split, []).to_str())
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    vocabulary = model["model"]["vocab"]
    model["model"]["vocab"] |= {name: len(vocabulary) + at for at, name in enumerate(bytes_)}
    model["model"] |= {"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>"}
    inner = Inner.from_str(json.dumps(model))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.pre_tokenizer = None
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", pair="$A $B", special_tokens=[("<s>", 1)])
    return inner


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    """The tokenizer.json of each kind."""
    made = {
        "digits": _byte_level(byte_level_with_single_digits()),
        "qwen2": _byte_level(byte_level_by_pattern(QWEN2)),
        "llama2": _llama2(),
    }
    return {name: inner.to_str() for name, inner in made.items()}


def written(folder: Path, file: str, model_type: str, **fields: Any) -> Path:
    declared = {"eos_token": "<end>", "bos_token": "<s>", "pad_token": "<end>", "unk_token": "<unk>"}
    (folder / "tokenizer.json").write_text(file)
    (folder / "tokenizer_config.json").write_text(json.dumps(declared | fields))
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return folder


def same(folder: Path, texts: list[str] = TEXTS) -> None:
    from transformers import AutoTokenizer

    ours, theirs = Tokenizer.load(folder), AutoTokenizer.from_pretrained(folder)
    for text in texts:
        ids = theirs(text, add_special_tokens=False).input_ids
        assert ours.ids(text) == ids, text
        if not ours.unknown(text):
            assert ours.encode(text).ids == ids
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    begin = [] if not ours.begin_token else ours.ids(ours.begin_token)
    assert theirs("x").input_ids == begin + theirs("x", add_special_tokens=False).input_ids


@pytest.mark.parametrize(
    ("kind", "model_type", "name", "fields"),
    [
        ("llama2", "llama", "LlamaTokenizer", {}),
        ("llama2", "llama", "LlamaTokenizerFast", {"legacy": True}),
        ("llama2", "llama", "LlamaTokenizer", {"legacy": False, "add_prefix_space": False}),
        ("llama2", "llama", "PreTrainedTokenizerFast", {"add_prefix_space": True}),
        ("llama2", "mistral", "LlamaTokenizer", {}),
        ("llama2", "gemma2", None, {}),
        ("llama2", "gemma3_text", "LlamaTokenizer", {}),
        ("digits", "llama", "LlamaTokenizer", {}),
        ("digits", "llama", "GPT2Tokenizer", {}),
        ("digits", "gpt2", None, {"add_prefix_space": True}),
        ("digits", "olmoe", None, {}),
        ("digits", "olmo2", "GPT2Tokenizer", {}),
        ("digits", "qwen2", "LlamaTokenizerFast", {}),
        ("qwen2", "qwen2", "PreTrainedTokenizerFast", {}),
        ("qwen2", "qwen3", "Qwen2Tokenizer", {}),
        ("qwen2", "qwen3", "PreTrainedTokenizerFast", {}),
        ("qwen2", "llama", "NoSuchTokenizer", {}),
    ],
)
def test_a_class_gives_the_tokens_that_it_gives_in_transformers(
    kind: str, model_type: str, name: str | None, fields: dict[str, Any], files: dict[str, str], tmp_path: Path
) -> None:
    same(written(tmp_path, files[kind], model_type, **fields, **({"tokenizer_class": name} if name else {})))


def test_what_the_class_changes_is_said_and_is_part_of_the_digest(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path, files["llama2"], "llama", tokenizer_class="LlamaTokenizer")
    changed = Tokenizer.load(tmp_path).digest
    assert (
        'LlamaTokenizer has its own normalizer and pre_tokenizer, not tokenizer.json\'s; "tokenizer_class": "Pre'
        in (capsys.readouterr().err)
    )
    written(tmp_path, files["llama2"], "llama", tokenizer_class="PreTrainedTokenizerFast")
    assert Tokenizer.load(tmp_path).digest != changed
    assert capsys.readouterr().err == ""


def test_special_tokens_by_default_are_those_of_the_class(files: dict[str, str], tmp_path: Path) -> None:
    """GPT-2's own tokenizer_config.json names none."""
    from transformers import AutoTokenizer

    written(tmp_path, files["digits"], "gpt2")
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "{{ bos_token }}|{{ eos_token }}"}')
    theirs = AutoTokenizer.from_pretrained(tmp_path).apply_chat_template([{"role": "user"}], tokenize=False)
    assert Tokenizer.load(tmp_path).chat([{"role": "user"}], False) == theirs == "<|endoftext|>|<|endoftext|>"


def test_what_cannot_be_built_is_refused_by_name(files: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"tokenizer_class: T5Tokenizer is not supported.*PreTrainedTokenizerFast"):
        Tokenizer.load(written(tmp_path, files["qwen2"], "llama", tokenizer_class="T5TokenizerFast"))
    words = '{"model": {"type": "WordLevel", "vocab": {"<end>": 0}, "unk_token": "<end>"}}'
    with pytest.raises(ModelError, match=r"makes a Qwen2Tokenizer of it, which is a BPE, not a WordLevel$"):
        Tokenizer.load(written(tmp_path, words, "qwen2"))


def test_only_added_tokens_decoder_counts_for_a_class_that_builds(files: dict[str, str], tmp_path: Path) -> None:
    entries = {str(at): {"content": text, "special": True} for at, text in enumerate(SPECIAL)}
    written(tmp_path, files["qwen2"], "qwen3", tokenizer_class="Qwen2Tokenizer", added_tokens_decoder=entries)
    same(tmp_path)
    del entries["3"]
    written(tmp_path, files["qwen2"], "qwen3", tokenizer_class="Qwen2Tokenizer", added_tokens_decoder=entries)
    with pytest.raises(
        ModelError, match=r"added_tokens_decoder: '<\|endoftext\|>' is an added token in tokenizer.json"
    ):
        Tokenizer.load(tmp_path)


def test_a_tokenizer_trained_for_qwen2_is_read_by_transformers_as_here(tmp_path: Path) -> None:
    """Whose class replaces what tokenizer.json says, whatever is written there."""
    train_bpe(CORPUS, 300, tmp_path, ("<think>",), "qwen2")
    before = [Tokenizer.load(tmp_path).ids(text) for text in TEXTS]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    same(tmp_path, [*TEXTS, "a<think>b"])
    assert [Tokenizer.load(tmp_path).ids(text) for text in TEXTS] == before


def test_tokens_that_are_added_here_are_found_by_such_a_class(files: dict[str, str], tmp_path: Path) -> None:
    """It adds those of `added_tokens_decoder` alone; in another file they would be ordinary text."""
    entries = {str(at): {"content": text, "special": True} for at, text in enumerate(SPECIAL)}
    fields = {"tokenizer_class": "LlamaTokenizer", "added_tokens_decoder": entries}
    written(tmp_path, files["llama2"], "llama", **fields)
    write_fresh(tmp_path, SMALL, vocab_size=600, seed=0, pad_id=2, end_id=2)
    made = with_tokens(tmp_path, ["<think>"], tmp_path / "cache", weights=False)
    assert len(Tokenizer.load(made).ids("<think>")) == 1
    same(made, ["a <think> b"])


def test_a_wrapper_s_class_goes_with_its_text_part(files: dict[str, str], tmp_path: Path) -> None:
    """transformers takes Llava's tokenizer.json as it is, but not that of a Llama of the same class."""
    from transformers import AutoTokenizer

    (tmp_path / "text").mkdir()
    whole = written(tmp_path, files["llama2"], "llava", tokenizer_class="LlamaTokenizer")
    text = written(tmp_path / "text", files["llama2"], "llama", tokenizer_class="LlamaTokenizer")
    _keep_class(whole, text)
    same(text)
    assert AutoTokenizer.from_pretrained(text)(TEXTS[1]).input_ids == (
        AutoTokenizer.from_pretrained(whole)(TEXTS[1]).input_ids
    )


def test_the_classes_are_those_of_transformers() -> None:
    """Fails on a class that is new, or that is chosen in another way."""
    import transformers
    from transformers.models.auto import tokenization_auto as auto

    wrong = auto.MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS
    for model_type, name in REGISTERED.items():
        theirs = str(auto.TOKENIZER_MAPPING_NAMES[model_type])
        assert name == theirs.replace("TokenizersBackend", "PreTrainedTokenizerFast")
        assert class_of(model_type, "XTokenizer", False) == (name if model_type in wrong else "PreTrainedTokenizerFast")
    found = re.compile(r"^class (\w+Tokenizer)\((\w+)[^\n]*\):\n(.*?)(?=^\S|\Z)", re.MULTILINE | re.DOTALL)
    folder = Path(transformers.__file__).parent / "models"
    classes = [match for file in folder.glob("*/tokenization_*.py") for match in found.findall(file.read_text("utf-8"))]
    python = ("PreTrainedTokenizer", "SentencePieceBackend")
    plain = {name for name, base, body in classes if base not in python and "    def __init__(" not in body}
    assert {name for name, *_ in classes} - plain <= OTHERS | BUILDS.keys()
    assert not plain & (OTHERS | BUILDS.keys())
