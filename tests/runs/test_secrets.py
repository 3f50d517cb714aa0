"""No planted secret survives in a record, and a config without one stays what it was."""

from __future__ import annotations

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import config_of
from tunix_rt.config.identity import plain
from tunix_rt.config.load import check
from tunix_rt.runs.secrets import is_masked, mask, mask_values, mask_variables, mask_words

SECRETS = st.text(string.ascii_letters + string.digits + "-_.~!$*+/@:%,;(}", min_size=8, max_size=40).map(
    lambda text: f"q7Z{text}x"
)
PREFIXES = st.sampled_from(["", "HF_", "api.", "db-", "MY_OWN_", "wandb.api_"])
NAMES = st.sampled_from(["token", "password", "TOKEN", "secret", "PASSWD", "apikey", "credentials"])
KEYS = st.sampled_from(["AWS_SECRET_ACCESS_KEY", "api_key", "ssh-key", "OPENAI_API_KEY"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tracking.uri=http://me:hunter2@host:5000/x", "tracking.uri=http://me:***@host:5000/x"),
        ("http://me:a@b:c@host/x", "http://me:***@host/x"),
        ("https://ghp_abc@github.com/x.git", "https://***@github.com/x.git"),
        ("ssh://git@github.com/x.git", "ssh://git@github.com/x.git"),
        ("HF_TOKEN=abc python run", "HF_TOKEN=*** python run"),
        ("api_key=abc password=x plain=y", "api_key=*** password=*** plain=y"),
        ('{"password": "a \\" b", "n": 1}', '{"password": "***", "n": 1}'),
        ("+    password: 'two words'", "+    password: '***'"),
        ("run --api-key abc --n 3", "run --api-key *** --n 3"),
        ("Authorization: Bearer abc.def", "Authorization: ***"),
        ("https://x/y?sig=abc&n=1", "https://x/y?sig=***&n=1"),
        ("a hf_abcdefghijklmnopqrstuvwxyz b", "a *** b"),
        ("optimizer.learning_rate=1e-3", "optimizer.learning_rate=1e-3"),
        ("generation.max_new_tokens=8", "generation.max_new_tokens=8"),
        ("tokenizer=char sorted(x, key=len)", "tokenizer=char sorted(x, key=len)"),
        ("PWD=/home/me MYSQL_PWD=x", "PWD=/home/me MYSQL_PWD=***"),
        ("sqlite:///mlflow.db http://host:5000", "sqlite:///mlflow.db http://host:5000"),
    ],
)
def test_what_is_masked_and_what_is_not(text: str, expected: str) -> None:
    assert mask(text) == expected
    assert mask(expected) == expected, "masking again changes nothing"


@given(SECRETS, PREFIXES, st.one_of(NAMES, KEYS), st.text("ab c\n", max_size=8))
def test_no_planted_secret_survives(secret: str, prefix: str, word: str, around: str) -> None:
    name = prefix + word
    texts = [
        f"{around} {name}={secret} {around}",
        f"{around}\n+{name}: {secret}\n",
        f'{around} {name} = "{secret}"{around}',
        f"--{name} {secret} {around}",
        f'{{"{name}": "{secret}"}}',
        f"{around} https://me:{secret}@host/path {around}",
        f"postgresql://me:{secret}@host:5432/db",
    ]
    for text in texts:
        assert secret not in mask(text), text
    assert secret not in " ".join(mask_words([f"{name}={secret} {secret}", f"--{name}", secret]))
    assert secret not in mask_variables({name: secret})[name]
    assert secret not in json.dumps(mask_values({"a": [{"b": f"x://u:{secret}@h"}], "n": 1}))


@given(SECRETS, st.text(max_size=20), st.text(max_size=20))
def test_a_secret_variable_is_masked_wherever_its_value_occurs(secret: str, before: str, after: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOME_SERVICE_KEY", secret)
        assert secret not in mask(before + secret + after)
        assert secret not in json.dumps(mask_values({"deep": [{"text": before + secret}]}))


@pytest.mark.parametrize("overrides", [[], ["+experiment=gsm8k"], ["+experiment=smollm2_traces"]])
def test_a_config_without_secrets_stays_what_it_was(overrides: list[str]) -> None:
    config = config_of(overrides)
    assert mask_values(plain(config)) == plain(config)


def test_what_is_declared_is_not_masked_by_its_name() -> None:
    """Prevents: `pad_token` and the like becoming `***` in config.yaml, and `***` in the next run."""
    declared = {"pad_token": "<pad>", "sort_key": "len", "added_token": "x", "system": "secret: none; token=abc"}
    assert mask_values(declared) == declared
    config = config_of(["+experiment=gsm8k", "format.variables={pad_token: x, sort_key: yes_please}"])
    assert mask_values(plain(config)) == plain(config)


def test_a_config_with_a_secret_composes_again() -> None:
    config = config_of(["tracking.uri=http://me:hunter2@host:5000"])
    masked = mask_values(plain(config))
    assert check(masked).tracking.uri == "http://me:***@host:5000"
    assert is_masked(masked)
    assert not is_masked(plain(config))
