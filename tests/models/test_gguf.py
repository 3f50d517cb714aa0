"""GGUF conversion: a small file written by the `gguf` package, and the real SmolLM2 against transformers."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.families import CASES, DIVIDED, LLAMA3, Case, write
from tunix_rt.errors import MissingExtra, ModelError
from tunix_rt.files import read_json
from tunix_rt.models import gguf
from tunix_rt.models.families.rope import Rope, rotary_frequencies
from tunix_rt.models.folder import read_architecture, read_stop_ids, read_weights
from tunix_rt.models.gguf_keys import NAMED_TEMPLATE, SPACES, WITHOUT_EFFECT, check_keys, keys_of
from tunix_rt.models.tokenizer import Tokenizer

MakeFolder = Callable[..., Path]
WriteGguf = Callable[..., Path]


@pytest.mark.parametrize("tied", [True, False])
def test_weights_config_and_tokenizer_come_back(
    make_folder: MakeFolder, write_gguf: WriteGguf, tmp_path: Path, tied: bool
) -> None:
    source = make_folder(tie_word_embeddings=tied)
    gguf.convert(write_gguf(tmp_path / "small.gguf", source), tmp_path / "out")
    assert read_architecture(tmp_path / "out") == read_architecture(source)
    ours, original = read_weights(tmp_path / "out"), read_weights(source)
    assert ours.keys() == original.keys()
    assert all(np.array_equal(ours[name], original[name]) for name in ours)
    assert read_stop_ids(tmp_path / "out") == (0,)
    tokenizer = Tokenizer.load(tmp_path / "out")
    assert tokenizer.encode("ab12\n\n1<u><|end|>").ids == [7, 5, 6, 10, 5, 9, 0]
    assert tokenizer.decode([7, 5, 9, 0, 1]) == "ab1<u>", "control tokens are special, the user's own are not"
    assert (tokenizer.end_id, tokenizer.pad_id) == (0, 1)
    with pytest.raises(ModelError, match="no chat template"):
        tokenizer.chat([{"role": "user", "content": "a"}], True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "mamba"}, r"general\.architecture 'mamba' is not supported; supported: .*llama"),
        ({"llama__block_count": None}, r"llama\.block_count: missing"),
        (
            {"llama__block_count": 1},
            r"tensor blk\.1\.\w+\.weight is not one that the family llama computes with",
        ),
        ({"llama__block_count": 3}, r"missing tensors for model\.layers\.2"),
        ({"llama__feed_forward_length": 20}, r"ffn_down\.weight: \[16, 24\], expected \[16, 20\]"),
        ({"llama__rope__scaling__type": "strange"}, "rope_parameters: type 'strange' is not supported"),
        ({"llama__rope__dimension_count": 2, "llama__attention__key_length": 4}, r"dimension_count: 2 of 4 is not"),
        ({"llama__attention__causal": False}, r"llama\.attention\.causal: False is not supported, only True"),
        ({"llama__logit_scale": 0.5}, r"llama\.logit_scale: 0\.5 is not supported"),
        ({"tokenizer__ggml__add_bos_token": True}, r"tokenizer\.ggml\.bos_token_id: missing"),
        (
            {"tokenizer__ggml__pre": "viking"},
            r"tokenizer\.ggml\.pre 'viking' is not supported; supported: .*smollm",
        ),
        ({"tokenizer__ggml__model": "bert"}, r"tokenizer\.ggml\.model 'bert' is not supported"),
        ({"tokenizer__ggml__eos_token_id": None}, r"tokenizer\.ggml\.eos_token_id: missing"),
        ({"tokenizer__ggml__padding_token_id": 11}, r"padding_token_id: 11, but there are 11 tokens"),
        ({"left_out": "model.embed_tokens.weight"}, r"token_embd\.weight: missing"),
    ],
)
def test_what_does_not_fit_is_named(
    make_folder: MakeFolder, write_gguf: WriteGguf, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    file = write_gguf(tmp_path / "small.gguf", make_folder(), **changes)
    with pytest.raises(ModelError, match=message) as caught:
        gguf.convert(file, tmp_path / "out")
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["qwen2", "qwen3"])
def test_other_families_equal_the_conversion_of_transformers(name: str, write_gguf: WriteGguf, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    whole = {"use_sliding_window": False, "head_dim": 16, "hidden_size": 48, "num_attention_heads": 3}
    case = replace(CASES[name], changes=CASES[name].changes | whole | {"num_key_value_heads": 1}, save={})
    source, out = write(tmp_path / "source", case), tmp_path / "out"
    file = write_gguf(tmp_path / "small.gguf", source, family=name)
    gguf.convert(file, out)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name).state_dict()
    ours, original = read_weights(out), read_weights(source)
    assert read_architecture(out) == read_architecture(source) and ours.keys() == original.keys()
    for key, value in ours.items():
        assert np.array_equal(value, original[key]) and np.array_equal(value, theirs[key].numpy()), key


def test_rotary_factors_are_the_scaling_of_llama_3(write_gguf: WriteGguf, tmp_path: Path) -> None:
    """transformers passes over `rope_freqs.weight`: the reference is the model from which the file was made."""
    import torch
    from transformers import AutoModelForCausalLM

    case = Case("Llama", DIVIDED | {"head_dim": 16, "rope_parameters": LLAMA3})
    source, out = write(tmp_path / "source", case), tmp_path / "out"
    found = read_architecture(source).layers[0].rope
    assert found is not None
    factors = rotary_frequencies(Rope(10000.0), 16) / rotary_frequencies(found, 16)
    tensors = {"rope_freqs.weight": factors.astype(np.float32)}
    gguf.convert(write_gguf(tmp_path / "small.gguf", source, tensors=tensors), out)
    rope = read_architecture(out).layers[0].rope
    assert rope is not None and read_architecture(out).max_positions == read_architecture(source).max_positions
    np.testing.assert_allclose(rotary_frequencies(rope, 16), rotary_frequencies(found, 16), rtol=3e-7)
    ids = torch.arange(1, 50)[None]
    before, after = (AutoModelForCausalLM.from_pretrained(folder)(ids).logits.detach() for folder in (source, out))
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "rope"),
    [
        (
            {"type": "yarn", "factor": 2.0, "original_context_length": 16},
            Rope(5000.0, "yarn", 2.0, original_positions=16, attention_factor=1 + 0.1 * math.log(2.0)),
        ),
    ],
)
def test_rotary_scaling(
    make_folder: MakeFolder, write_gguf: WriteGguf, tmp_path: Path, changes: dict[str, Any], rope: Rope
) -> None:
    keys = {f"llama__rope__scaling__{key}": value for key, value in changes.items()}
    gguf.convert(write_gguf(tmp_path / "small.gguf", make_folder(), **keys), tmp_path / "out")
    assert read_architecture(tmp_path / "out").layers[0].rope == rope


@pytest.mark.parametrize(
    ("changes", "scaling"),
    [
        ({"llama__rope__scaling__factor": 4.0}, ("linear", 4.0)),
        ({"llama__rope__scale_linear": 4.0}, ("linear", 4.0)),
        ({"llama__rope__scale_linear": 2.0, "llama__rope__scaling__factor": 4.0}, ("linear", 4.0)),
        ({"llama__rope__scaling__type": "linear", "llama__rope__scaling__factor": 4.0}, ("linear", 4.0)),
        ({"llama__rope__scaling__type": "none", "llama__rope__scaling__factor": 4.0}, ("default", 1.0)),
        ({"llama__rope__scaling__type": "linear"}, ("default", 1.0)),
        ({"llama__rope__scaling__factor": 0.0}, ("default", 1.0)),
    ],
)
def test_a_factor_scales_positions_whatever_its_key(
    make_folder: MakeFolder, write_gguf: WriteGguf, tmp_path: Path, changes: dict[str, Any], scaling: tuple[str, float]
) -> None:
    """As llama.cpp reads it (src/llama-model.cpp); plain transformers computes the same from what is written."""
    import transformers

    gguf.convert(write_gguf(tmp_path / "small.gguf", make_folder(), **changes), tmp_path / "out")
    rope = read_architecture(tmp_path / "out").layers[0].rope
    assert rope is not None and (rope.scaling, rope.factor) == scaling
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    theirs = model.model.rotary_emb.inv_freq.numpy()
    np.testing.assert_allclose(theirs, rotary_frequencies(rope, 4), rtol=1e-6)


@pytest.mark.parametrize("begins", [True, False, None])
def test_add_bos_token_begins_every_text(
    make_folder: MakeFolder, write_gguf: WriteGguf, tmp_path: Path, begins: bool | None
) -> None:
    import transformers

    bos = {"tokenizer__ggml__bos_token_id": 1, "tokenizer__ggml__add_bos_token": begins}
    gguf.convert(write_gguf(tmp_path / "small.gguf", make_folder(), **bos), tmp_path / "out")
    plain = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert Tokenizer.load(tmp_path / "out").begin_token == ("<|pad|>" if begins else "")
    assert plain("ab").input_ids == ([1, 7] if begins else [7])


def test_named_templates_and_further_stop_tokens_come_along(
    make_folder: MakeFolder, write_gguf: WriteGguf, tmp_path: Path
) -> None:
    named = {"tokenizer__chat_template": "plain", "tokenizer__chat_template__tool_use": "tools"}
    changes = named | {"tokenizer__ggml__eot_token_id": 9, "tokenizer__ggml__eom_token_id": 1}
    gguf.convert(write_gguf(tmp_path / "small.gguf", make_folder(), **changes), tmp_path / "out")
    tokenizer = Tokenizer.load(tmp_path / "out")
    assert read_stop_ids(tmp_path / "out") == (0, 9, 1)
    messages = [{"role": "user", "content": "a"}]
    assert tokenizer.chat(messages, True) == "plain"
    assert tokenizer.chat(messages, True, tools=[{"type": "function"}]) == "tools"


def test_every_key_of_the_format_is_read_refused_or_known_to_change_nothing(
    make_folder: MakeFolder, write_gguf: WriteGguf, tmp_path: Path
) -> None:
    """Fails when the package `gguf` names a new key that neither list has and that is not refused."""
    from gguf.constants import Keys

    assert not keys_of("llama") & WITHOUT_EFFECT
    for key in sorted(set(_keys_of(Keys))):
        key = key.format(arch="{family}", id=0, name="tool_use", dense="dense_2")
        if key in keys_of("llama") | WITHOUT_EFFECT or not key.startswith(SPACES) or key.startswith(NAMED_TEMPLATE):
            continue
        key = key.format(family="llama")
        with pytest.raises(ModelError, match=re.escape(f"{key}: 7 is not supported")):
            check_keys(tmp_path, [key], lambda _: 7, "llama")
        check_keys(tmp_path, [key], lambda _: 0, "llama")
    converted = write_gguf(tmp_path / "small.gguf", make_folder(), llama__expert_shared_count=8)
    with pytest.raises(ModelError, match=r"llama\.expert_shared_count: 8 is not supported"):
        gguf.convert(converted, tmp_path / "out")


def _keys_of(names: type) -> Iterator[str]:
    for name, value in vars(names).items():
        if isinstance(value, type):
            yield from _keys_of(value)
        elif isinstance(value, str) and not name.startswith("__"):
            yield value


@pytest.mark.parametrize("keep", [0, 3, 100, 900, -100])
def test_a_cut_file_is_one_clear_line(
    make_folder: MakeFolder, write_gguf: WriteGguf, tmp_path: Path, keep: int
) -> None:
    file = write_gguf(tmp_path / "small.gguf", make_folder())
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ModelError, match="damaged or not a GGUF file"):
        gguf.convert(file, tmp_path / "out")


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(MissingExtra, match="--extra gguf"):
        gguf.convert(tmp_path / "any.gguf", tmp_path / "out")


@pytest.mark.acceptance  # 135 M parameters, twice
def test_smollm2_equals_the_conversion_of_transformers(smollm2_file: Path, tmp_path: Path) -> None:
    """Weights, token ids, chat template and special tokens; 30 CPU-seconds, nearly all of them theirs."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    gguf.convert(smollm2_file, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(smollm2_file.parent, gguf_file=smollm2_file.name)
    theirs = {name: value.numpy() for name, value in model.state_dict().items() if name != "lm_head.weight"}
    ours = read_weights(tmp_path)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name], rtol=1e-6, atol=1e-7, err_msg=name)
    config = model.config
    architecture = read_architecture(tmp_path)
    assert (architecture.layers[0].rope.theta, architecture.norm_eps) == (100000.0, pytest.approx(config.rms_norm_eps))
    assert read_stop_ids(tmp_path) == (config.eos_token_id,)

    reference = AutoTokenizer.from_pretrained(smollm2_file.parent, gguf_file=smollm2_file.name)
    exported = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    for text in TEXTS:
        # transformers leaves out the first rule of `smollm` (llama.cpp, llama-vocab.cpp: \p{N} stands alone),
        # which matters where white space or another number comes before one: it gets the pieces in between.
        expected = [
            i for piece in re.split(NUMBERS, text) for i in reference(piece, add_special_tokens=False).input_ids
        ]
        assert tokenizer.encode(text).ids == exported(text, add_special_tokens=False).input_ids == expected
        assert tokenizer.decode(expected) == reference.decode(expected, skip_special_tokens=True)
    assert sum(reference(text).input_ids == tokenizer.encode(text).ids for text in TEXTS) == len(TEXTS) - 2
    messages = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]
    for opened in (False, True):
        expected_text = reference.apply_chat_template(messages, tokenize=False, add_generation_prompt=opened)
        assert tokenizer.chat(messages, opened) == expected_text
        assert "<|im_start|>user\n2 + 2?<|im_end|>" in expected_text
    assert (tokenizer.end_token, tokenizer.pad_id) == (reference.eos_token, reference.pad_token_id)
    assert exported.special_tokens_map == reference.special_tokens_map
    assert read_json(tmp_path / "tokenizer_config.json")["model_max_length"] == 8192


NUMBERS = "([" + "".join(c for c in map(chr, range(0x3000)) if unicodedata.category(c)[0] == "N") + "])"
TEXTS = [
    "Gus has 141 books and gets 365 more. How many books does Gus have now?",
    "ones: 1 + 5 + 0 = 6\ntens: 4 + 6 + 0 = 10\nAnswer: 506<|im_end|>",
    "<|im_start|>user\nIt's 3.5% of $1,200, isn't it?<|im_end|>\n<|im_start|>assistant\n",
    "Ünïcödé, 日本語, עברית, 😀👩‍👩‍👧 and e\u0301.",
    "    def f(x):\n\treturn x ** 2  # why?\r\n\n\n",
    "<jupyter_start><repo_name>a<|endoftext|> <not_special> ½ Ⅷ",
    "white space before a digit:\n\n1746 and  12",
]
