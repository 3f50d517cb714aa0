"""A tokenizer_config.json against tokenizer.json: no field of it that changes tokens for transformers is ignored."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tunix_rt.errors import ModelError
from tunix_rt.models.tokenizer import Tokenizer, train_bpe
from tunix_rt.models.tokenizer_class import DECODER
from tunix_rt.models.tokenizer_config import FURTHER, PLAIN, SPECIAL

CORPUS = ["the cat sat on the mat; the other cat ate 1746 hats = 12 * 3\n"] * 5
TEXTS = ["the cat", "The Cat , isn 't <end> it", "  the<x> mat <end>", "<pad>12", "a\nb"]
READ = {*SPECIAL, *FURTHER, DECODER, *PLAIN, "chat_template", "add_prefix_space"}
SHOWN_BY_TOKENIZER_JSON = set("add_bos_token add_eos_token post_processor vocab merges vocab_file merges_file".split())
"""`test_tokenizer.py` compares the begin token; nothing is put behind a text, a trace says where it ends."""
WITHOUT_EFFECT = set(
    # lengths and padding, which are declared or follow from the batch
    "max_len max_length max_target_length model_max_length padding padding_side truncation truncation_side "
    "pad_to_multiple_of tokenizer_padding tokenizer_truncation _json_padding _json_truncation "
    # how it was saved, found and loaded
    "_commit_hash _from_auto _from_pipeline backend cache_dir code_revision commit_message config files_loaded "
    "force_download gguf_file init_inputs is_local local_files_only mistral_format name_or_path processor_class "
    "proxies repo_id revision save_jinja_files subfolder token tokenizer tokenizer_class tokenizer_file "
    "tokenizer_object tokenizer_type trust_remote_code use_fast use_source_tokenizer verbose auto_map "
    # arguments of calls, other kinds of models, training of a tokenizer
    "add_generation_prompt pair text_pair suffix model_input_names unk_id clean_up_tokenization_spaces "
    "continuing_subword_prefix end_of_word_suffix initial_alphabet chat_control_tokens response_schema "
    "response_template _spm_precompiled_charsmap".split()
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    train_bpe(CORPUS, 300, tmp_path)
    return tmp_path


def with_fields(folder: Path, **fields: Any) -> Path:
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    return folder


def added(content: str, **changes: bool) -> dict[str, Any]:
    flags = dict.fromkeys(("lstrip", "rstrip", "single_word", "normalized"), False)
    return {"content": content, "special": True} | flags | changes


def test_every_field_that_transformers_asks_for_is_read_or_known_to_change_nothing() -> None:
    """There is no class of fields: they are looked up in keyword arguments. Fails on a new one."""
    from transformers import tokenization_utils_base, tokenization_utils_tokenizers

    source = "".join(map(inspect.getsource, (tokenization_utils_base, tokenization_utils_tokenizers)))
    asked = set(re.findall(r"kwargs(?:\.(?:pop|get)\(|\[)[\"'](\w+)[\"']", source))
    assert len(asked) > 30
    assert asked <= READ | SHOWN_BY_TOKENIZER_JSON | WITHOUT_EFFECT


@pytest.mark.parametrize("kind", ["PreTrainedTokenizerFast", "GPT2TokenizerFast", "LlamaTokenizerFast"])
@pytest.mark.parametrize(
    "fields",
    [
        {"split_special_tokens": True},
        {"extra_special_tokens": ["<x>"]},
        {"extra_special_tokens": {"x_token": "<x>"}},
        {"additional_special_tokens": [added("<x>")]},
        {"sep_token": "<x>"},
        {"mask_token": added("<x>")},
        {"added_tokens_decoder": {"300": added("<x>", special=False)}},
        {"added_tokens_decoder": {"1": added("<end>", lstrip=True)}},
        {"added_tokens_decoder": {"1": added("<end>", single_word=True)}},
        {"added_tokens_decoder": {"1": added("<end>", special=False)}},
        {"add_prefix_space": True},
        {"additional_special_tokens": ["<end>"]},
        {"added_tokens_decoder": {"0": added("<pad>"), "1": added("<end>")}},
        {"clean_up_tokenization_spaces": True},
        {"model_max_length": 3, "padding_side": "left", "truncation_side": "left"},
        {"do_lower_case": True},
        {"add_prefix_space": False},
    ],
)
def test_it_gives_the_tokens_of_transformers_or_is_refused_by_name(
    kind: str, fields: dict[str, Any], folder: Path
) -> None:
    from transformers import AutoTokenizer

    with_fields(folder, tokenizer_class=kind, **fields)
    try:
        ours = Tokenizer.load(folder)
    except ModelError as error:
        assert re.search(rf"tokenizer_config\.json: {next(iter(fields))}: ", str(error)), error
        return
    theirs = AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        ids = theirs(text).input_ids
        assert ours.encode(text).ids == ids
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize(
    ("fields", "older"),
    [
        ({"additional_special_tokens": ["at"]}, {}),
        ({"extra_special_tokens": [added("at", lstrip=True) | {"__type": "AddedToken"}]}, {}),
        ({"extra_special_tokens": {"image_token": "at"}}, {}),
        ({"bos_token": "at"}, {}),
        ({"pad_token": "at"}, {}),
        ({"unk_token": "at"}, {}),
        ({"image_token": "at"}, {}),
        ({}, {"special_tokens_map.json": {"additional_special_tokens": ["at"]}}),
        ({}, {"added_tokens.json": {"at": 0}}),
    ],
)
def test_a_declared_token_of_the_vocabulary_is_one_token_as_in_transformers(
    fields: dict[str, Any], older: dict[str, Any], folder: Path
) -> None:
    """Prevents: a special token read as letters, because tokenizer.json does not list it among its added tokens."""
    from transformers import AutoTokenizer

    before = Tokenizer.load(folder)
    with_fields(folder, **fields, chat_template="{{ image_token }}{{ bos_token }}")
    for name, content in older.items():
        numbered = {"at": before.ids("at")[0]} if "at" in content else content
        (folder / name).write_text(json.dumps(numbered))
    ours, theirs = Tokenizer.load(folder), AutoTokenizer.from_pretrained(folder)
    for text in ("that  at<end>t", "at"):
        assert ours.ids(text) == theirs(text).input_ids
        assert ours.decode(ours.ids(text)) == theirs.decode(ours.ids(text), skip_special_tokens=True)
    assert "at" in ours.added_tokens and "at" not in before.added_tokens and ours.digest != before.digest
    asked = [{"role": "user", "content": ""}]
    assert ours.chat(asked, False) == theirs.apply_chat_template(asked, tokenize=False)


@pytest.mark.parametrize(
    ("single", "begin"),
    [("<x> $A", "<x>"), ("<x> <y> $A", "<x><y>"), ("$A <end>", ""), ("<x> $A <end>", "<x>"), ("<end> $A", "<end>")],
)
@pytest.mark.parametrize("declared", [False, True])
def test_what_the_post_processor_puts_before_a_text_begins_it(
    single: str, begin: str, declared: bool, folder: Path
) -> None:
    """Prevents: a model that never saw a text without its begin token is asked without it."""
    from tokenizers import Tokenizer as Inner
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    inner = Inner.from_file(str(folder / "tokenizer.json"))
    inner.add_special_tokens(["<x>", "<y>"])
    ids = [(text, inner.token_to_id(text)) for text in ("<x>", "<y>", "<end>")]
    inner.post_processor = TemplateProcessing(single=single, pair="$A $B", special_tokens=ids)
    inner.enable_padding(length=9)
    inner.enable_truncation(1)
    inner.save(str(folder / "tokenizer.json"))
    ours = Tokenizer.load(with_fields(folder, **({"bos_token": "<x>"} if declared else {})))
    assert ours.begin_token == begin
    assert AutoTokenizer.from_pretrained(folder)("a").input_ids[: len(ours.ids(f"{begin}a"))] == ours.ids(f"{begin}a")


def test_a_begin_that_no_text_becomes_is_refused(folder: Path) -> None:
    from tokenizers import Tokenizer as Inner
    from tokenizers.processors import TemplateProcessing

    inner = Inner.from_file(str(folder / "tokenizer.json"))
    ids = [(text, inner.token_to_id(text)) for text in ("t", "he")]
    inner.post_processor = TemplateProcessing(single="t he $A", pair="$A $B", special_tokens=ids)
    inner.save(str(folder / "tokenizer.json"))
    with pytest.raises(
        ModelError, match=r"tokenizer.json: post_processor puts 'the' before a text, which is not among"
    ):
        Tokenizer.load(folder)


X = {"additional_special_tokens": ["<x>"]}


@pytest.mark.parametrize("decoder", [False, True])
@pytest.mark.parametrize(
    "files",
    [
        {"special_tokens_map.json": X},
        {"special_tokens_map.json": {"sep_token": "<x>"}},
        {"special_tokens_map.json": {"eos_token": added("<pad>")}},
        {"added_tokens.json": {"<x>": 300}},
        {"added_tokens.json": {"<pad>": 0, "<end>": 1}},
    ],
)
def test_files_of_older_versions_count_where_transformers_reads_them(
    files: dict[str, Any], decoder: bool, folder: Path
) -> None:
    from transformers import AutoTokenizer

    if decoder:
        with_fields(folder, added_tokens_decoder={"0": added("<pad>"), "1": added("<end>")})
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    theirs = AutoTokenizer.from_pretrained(folder)
    if theirs.convert_tokens_to_ids("<x>") is not None:
        with pytest.raises(
            ModelError, match=r"/(special_tokens_map|added_tokens)\.json: \w+: '<x>' is not in tokenizer"
        ):
            Tokenizer.load(folder)
        return
    ours = Tokenizer.load(folder)
    assert ours.end_token == theirs.eos_token
    assert [ours.encode(text).ids for text in TEXTS] == [theirs(text).input_ids for text in TEXTS]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"split_special_tokens": True}, "split_special_tokens: True is not supported, only False"),
        ({"fix_mistral_regex": True}, "fix_mistral_regex: True is not supported"),
        ({"extra_special_tokens": ["<x>"]}, "extra_special_tokens: '<x>' is not in tokenizer.json.*save_pretrained"),
        ({"bos_token": "<x>"}, "bos_token: '<x>' is not in tokenizer.json"),
        (
            {"added_tokens_decoder": {"1": added("<end>", rstrip=True)}},
            "'<end>' is rstrip false in tokenizer.json, not",
        ),
        ({"added_tokens_decoder": {"2": {"special": True}}}, "added_tokens_decoder: expected an object from an id"),
        ({"added_tokens_decoder": [added("a")]}, "added_tokens_decoder: expected an object from an id"),
        ({"added_tokens_decoder": {"2": added("a")}}, "'a' is no added token in tokenizer.json"),
    ],
)
def test_what_is_refused_says_what_to_do(fields: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(ModelError, match=message):
        Tokenizer.load(with_fields(folder, **fields))


def test_what_transformers_saves_again_agrees(folder: Path) -> None:
    """The remedy that the message names."""
    from transformers import AutoTokenizer

    with_fields(folder, extra_special_tokens=["<x>"])
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    assert Tokenizer.load(folder).encode("a<x>").ids == AutoTokenizer.from_pretrained(folder)("a<x>").input_ids


def test_with_tools_the_template_for_tools_is_rendered_as_by_transformers(folder: Path) -> None:
    """From tokenizer_config.json, as older ones saved them, and from files, of which those by name come first."""
    from transformers import AutoTokenizer

    messages = [{"role": "user", "content": "a"}]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    named = {"default": "plain {{ messages[0].content }}", "tool_use": "tools {{ tools[0].function.name }}"}
    with_fields(folder, chat_template=[{"name": name, "template": text} for name, text in named.items()])
    digests = set()
    for kind in ("list", "object", "files"):
        if kind == "object":
            with_fields(folder, chat_template=named)
        ours, theirs = Tokenizer.load(folder), AutoTokenizer.from_pretrained(folder)
        digests.add(ours.digest)
        for given in ((), tools):
            expected = theirs.apply_chat_template(messages, tools=list(given) or None, tokenize=False)
            assert ours.chat(messages, False, tools=given) == expected
        if kind == "object":
            theirs.save_pretrained(folder)
            assert (folder / "additional_chat_templates" / "tool_use.jinja").is_file()
    (folder / "additional_chat_templates" / "default.jinja").write_text("first {{ messages[0].content }}")
    theirs = AutoTokenizer.from_pretrained(folder)
    assert (
        Tokenizer.load(folder).chat(messages, False)
        == theirs.apply_chat_template(messages, tokenize=False)
        == "first a"
    )
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("other")
    assert Tokenizer.load(folder).digest not in digests
