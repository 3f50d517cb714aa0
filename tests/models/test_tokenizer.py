"""Tokenizers trained here and the model's own; `AutoTokenizer` and `apply_chat_template` are the reference."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunix_rt.config.format import PlainFormat, TemplateFormat
from tunix_rt.errors import DataError, ModelError
from tunix_rt.models.tokenizer import Tokenizer, train_bpe, train_char, write_tokenizer
from tunix_rt.traces.format import formatter
from tunix_rt.traces.trace import Message

ALPHABET = "0123456789*+=; \n\tab<>é́日😀"
CORPUS = ["the cat sat on the mat; the other cat ate 1746 hats = 12 * 3\n", "ünïcödé 日本語 😀 the end"] * 5
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'tool' %}"
    "{{ raise_exception('no tools here') }}{% endif %}"
    "<{{ message['role'] }}>{{ message['content'] | trim }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def char(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("char")
    train_char([], ALPHABET, folder)
    return folder


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bpe")
    train_bpe(CORPUS, 300, folder)
    return folder


def with_settings(source: Path, target: Path, **settings: object) -> Path:
    """A copy of a tokenizer folder with other entries in tokenizer_config.json (None: taken out)."""
    target.mkdir()
    (target / "tokenizer.json").write_bytes((source / "tokenizer.json").read_bytes())
    config = json.loads((source / "tokenizer_config.json").read_text()) | settings
    config = {key: value for key, value in config.items() if value is not None}
    (target / "tokenizer_config.json").write_text(json.dumps(config))
    return target


def test_char_is_one_token_a_character(char: Path) -> None:
    tokenizer = Tokenizer.load(char)
    text = "47*86=\n日😀<end>"
    encoding = tokenizer.encode(text)
    assert encoding.ids == [2 + ALPHABET.index(character) for character in "47*86=\n日😀"] + [1]
    assert encoding.offsets == [(i, i + 1) for i in range(9)] + [(9, 14)]
    assert (tokenizer.pad_id, tokenizer.end_id, tokenizer.end_token) == (0, 1, "<end>")
    assert tokenizer.vocab_size == 2 + len(ALPHABET)
    assert tokenizer.special_tokens == {"<pad>", "<end>"}
    assert [tokenizer.piece(index) for index in encoding.ids[-2:]] == ["😀", "<end>"]


@given(text=st.text(ALPHABET, max_size=60))
def test_char_decode_is_the_exact_inverse(char: Path, text: str) -> None:
    tokenizer = Tokenizer.load(char)
    expected = text.replace("<end>", "").replace("<pad>", "")
    assert tokenizer.decode(tokenizer.encode(text).ids) == expected


def test_char_alphabet_from_texts_is_sorted_and_without_the_end_token(tmp_path: Path) -> None:
    train_char(["ba=1<end>", "c"], None, tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.encode("1=abc<end>").ids == [2, 3, 4, 5, 6, 1]
    assert tokenizer.unknown("end") == {"e", "n", "d"}


def test_a_missing_character_is_named(char: Path) -> None:
    tokenizer = Tokenizer.load(char)
    assert tokenizer.unknown("47x86<end>Z") == {"x", "Z"}
    with pytest.raises(DataError, match="vocabulary lacks 'Z' 'x'"):
        tokenizer.encode("47x86Z")


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_bpe_knows_every_text(bpe: Path, text: str) -> None:
    tokenizer = Tokenizer.load(bpe)
    encoding = tokenizer.encode(text)
    assert tokenizer.decode(encoding.ids) == text.replace("<end>", "").replace("<pad>", "")
    assert tokenizer.unknown(text) == set()
    starts = [start for start, _ in encoding.offsets]
    assert starts == sorted(starts)
    assert {place for span in encoding.offsets for place in range(*span)} == set(range(len(text))), "no gap"


def test_bpe_merges_but_keeps_digits_apart(bpe: Path) -> None:
    tokenizer = Tokenizer.load(bpe)
    assert tokenizer.vocab_size == 300
    assert len(tokenizer.encode(" the").ids) == 1
    assert tokenizer.encode("1746").offsets == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert tokenizer.encode("ж").offsets == [(0, 1), (0, 1)], "two bytes of one character"


def test_bpe_training_is_reproducible(bpe: Path, tmp_path: Path) -> None:
    train_bpe(CORPUS, 300, tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == (bpe / "tokenizer.json").read_bytes()
    assert Tokenizer.load(tmp_path).digest == Tokenizer.load(bpe).digest


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_transformers_loads_the_same_tokenizer(kind: str, request: pytest.FixtureRequest) -> None:
    from transformers import AutoTokenizer

    folder = request.getfixturevalue(kind)
    ours, theirs = Tokenizer.load(folder), AutoTokenizer.from_pretrained(folder)
    for text in ("12*3=36;\n<end>", "a  b\n\n 日😀 é"):
        ids = ours.encode(text).ids
        assert theirs(text, add_special_tokens=False).input_ids == ids
        assert theirs.decode(ids, skip_special_tokens=True) == ours.decode(ids)
    assert (theirs.pad_token_id, theirs.eos_token_id) == (ours.pad_id, ours.end_id)
    assert len(theirs) == ours.vocab_size


def test_the_digest_sees_everything_that_changes_tokens(char: Path, bpe: Path, tmp_path: Path) -> None:
    folders = [char, bpe, with_settings(char, tmp_path / "a", eos_token="a")]
    folders.append(with_settings(char, tmp_path / "b", chat_template="{{ messages }}"))
    assert len({Tokenizer.load(folder).digest for folder in folders}) == len(folders)
    assert Tokenizer.load(char).digest == Tokenizer.load(char).digest


def test_offsets_keep_the_space_that_a_post_processor_would_trim(bpe: Path, tmp_path: Path) -> None:
    """GPT-2's own post-processor trims: a part that begins with a space would lose its first character."""
    from tokenizers import Tokenizer as Inner
    from tokenizers import processors

    inner = Inner.from_file(str(bpe / "tokenizer.json"))
    inner.post_processor = processors.ByteLevel(trim_offsets=True)
    assert inner.encode("a the").offsets == [(0, 1), (2, 5)], "the library does trim"
    inner.enable_truncation(2)
    write_tokenizer(tmp_path, inner, {"eos_token": "<end>"})
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.encode("a the").offsets == [(0, 1), (1, 5)]
    assert len(tokenizer.encode("1234567").ids) == 7, "nothing is cut"
    assert tokenizer.pad_id == tokenizer.end_id == 1


def test_unknown_token_of_a_word_model_counts_as_unknown(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Inner
    from tokenizers import models

    inner = Inner(models.BPE({"<unk>": 0, "a": 1, "</s>": 2}, [], unk_token="<unk>"))
    write_tokenizer(tmp_path, inner, {"eos_token": {"content": "</s>"}, "unk_token": "<unk>"})
    assert Tokenizer.load(tmp_path).unknown("aba") == {"b"}


def test_end_token_from_other_files_or_an_error(char: Path, tmp_path: Path) -> None:
    folder = with_settings(char, tmp_path / "bare", eos_token=None, pad_token=None)
    with pytest.raises(ModelError, match="no end token"):
        Tokenizer.load(folder)
    (folder / "config.json").write_text('{"eos_token_id": [3, 1], "pad_token_id": 0}')
    assert (Tokenizer.load(folder).end_id, Tokenizer.load(folder).pad_id) == (3, 0)
    (folder / "generation_config.json").write_text('{"eos_token_id": 1}')
    assert Tokenizer.load(folder).end_id == 1
    (folder / "special_tokens_map.json").write_text('{"eos_token": {"content": "="}}')
    assert Tokenizer.load(folder).end_token == "="
    with pytest.raises(ModelError, match="eos_token '<gone>' is not in the vocabulary"):
        Tokenizer.load(with_settings(char, tmp_path / "gone", eos_token="<gone>"))


def test_a_begin_token_that_the_model_expects_stands_in_front(char: Path, tmp_path: Path) -> None:
    """Llama and Gemma: `transformers` puts it in front of any text, and so do the formats without a chat template."""
    from tokenizers import Tokenizer as Inner
    from tokenizers import processors
    from transformers import AutoTokenizer

    inner = Inner.from_file(str(char / "tokenizer.json"))
    inner.add_special_tokens(["<s>"])
    begin = inner.token_to_id("<s>")
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", begin)])
    write_tokenizer(tmp_path, inner, {"eos_token": "<end>", "bos_token": "<s>"})
    ours, theirs = Tokenizer.load(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert (ours.begin_token, ours.begin_id) == ("<s>", begin)
    assert theirs("12").input_ids == ours.encode("<s>12").ids
    assert ours.encode("12").ids == ours.encode("1").ids + ours.encode("2").ids, "it is never added unseen"
    form = formatter(PlainFormat(kind="plain", prompt_end="=", step_end=";", answer_start=""), ours)
    question = [Message("user", "12")]
    assert form.prompt(question) == "<s>12=" and form.parse_prompt("<s>12=") == "12"
    own = TemplateFormat(kind="template", prompt="<s>{prompt}=", step="{step};", answer="{answer}")
    assert formatter(own, ours).prompt(question) == "<s>12=", "a template that writes it already gets no second one"
    assert (Tokenizer.load(char).begin_token, Tokenizer.load(char).begin_id) == ("", None)


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_added_tokens_are_one_token_each_and_decoding_keeps_them(kind: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    texts, added = ["<think>ab</think>"] * 3, ["<think>", "</think>"]
    if kind == "char":
        train_char(texts, None, tmp_path, added)
    else:
        train_bpe(texts, 258, tmp_path, added)
    ours = Tokenizer.load(tmp_path)
    ids = ours.encode("<think>ab</think><end>").ids
    assert ids == [ours.vocab_size - 2, *ours.encode("ab").ids, ours.vocab_size - 1, ours.end_id]
    assert ours.decode(ids) == "<think>ab</think>"
    assert AutoTokenizer.from_pretrained(tmp_path)("<think>ab</think>").input_ids == ids[:-1]
    assert ours.vocab_size == (6 if kind == "char" else 260), "its letters are none of the alphabet's"
    assert added[0] in ours.added_tokens and added[0] not in ours.special_tokens


def test_damaged_files_are_named(tmp_path: Path, char: Path) -> None:
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        Tokenizer.load(tmp_path)
    folder = with_settings(char, tmp_path / "damaged")
    (folder / "tokenizer_config.json").write_text("[]")
    with pytest.raises(ModelError, match=r"tokenizer_config\.json: expected a JSON object"):
        Tokenizer.load(folder)
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(ModelError, match=r"tokenizer\.json: not a tokenizer"):
        Tokenizer.load(folder)


@pytest.mark.parametrize("place", ["settings", "named", "file"])
def test_chat_equals_transformers(char: Path, tmp_path: Path, place: str) -> None:
    from transformers import AutoTokenizer

    named = [{"name": "other", "template": "x"}, {"name": "default", "template": TEMPLATE}]
    template = {"settings": TEMPLATE, "named": named, "file": None}[place]
    folder = with_settings(char, tmp_path / "chat", chat_template=template, bos_token="b")
    if place == "file":
        (folder / "chat_template.jinja").write_text(TEMPLATE)
    ours, theirs = Tokenizer.load(folder), AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "system", "content": " 1 "}, {"role": "user", "content": "2 < 3 & é"}]
    for opened in (False, True):
        expected = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=opened)
        assert ours.chat(messages, opened) == expected
        assert (
            expected.startswith("b<system>1<end>\n<user>2 < 3 & é<end>\n")
            and expected.endswith("<assistant>") == opened
        )
    with pytest.raises(ModelError, match="refuses the messages: no tools here"):
        ours.chat([{"role": "tool", "content": "x"}], False)


LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}"
MACROS = "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}"
DOUBLES = "{% set n = namespace(x='aa') %}{% for a in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (LOOPS, "it does not end"),
        (MACROS, "it does not end"),
        (DOUBLES, "grows without end"),
        ("{{ 10 ** 9999999999 }}", "a power that is too large"),
        ("{{ 'x' * 99999999999 }}", "repeats a text or a list too often"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{% for m in %}", "Expected an expression"),
    ],
)
def test_a_template_that_does_not_end_is_refused(char: Path, tmp_path: Path, template: str, expected: str) -> None:
    """Prevents: a folder of somebody else's that keeps a run busy for ever, or fills the machine's memory."""
    folder = with_settings(char, tmp_path / "chat", chat_template=template)
    started = time.monotonic()
    with pytest.raises(ModelError, match=rf"^{folder}: the chat template refuses the messages: .*{expected}"):
        Tokenizer.load(folder).chat([{"role": "user", "content": "1"}], True)
    assert time.monotonic() - started < 60


def test_a_declared_date_takes_every_code_that_a_template_may_use(char: Path, tmp_path: Path) -> None:
    folder = with_settings(char, tmp_path / "chat", chat_template="{{ strftime_now('%-d %b %Y, %a %H:%M') }}")
    assert Tokenizer.load(folder).chat([], True, date="2024-07-06") == "6 Jul 2024, Sat 00:00"


def test_without_a_template_chat_says_what_to_use(char: Path) -> None:
    with pytest.raises(ModelError, match="no chat template; use format=plain"):
        Tokenizer.load(char).chat([{"role": "user", "content": "1"}], True)


def test_loading_is_light_and_chat_brings_no_framework(char: Path, tmp_path: Path) -> None:
    """torch and jax are installed here, so this shows that they are not asked for."""
    folder = with_settings(char, tmp_path / "chat", chat_template=TEMPLATE)
    code = (
        "import sys; from pathlib import Path; from tunix_rt.models.tokenizer import Tokenizer\n"
        "tokenizer = Tokenizer.load(Path(sys.argv[1])); tokenizer.decode(tokenizer.encode('1+1').ids)\n"
        "print([name for name in ('transformers', 'torch', 'jax') if name in sys.modules])\n"
        "print(tokenizer.chat([{'role': 'user', 'content': '1'}], True))\n"
        "print([name for name in ('transformers', 'torch', 'jax', 'flax') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "<user>1<end>", "<assistant>", "['transformers']"]
