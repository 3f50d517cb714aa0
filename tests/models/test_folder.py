"""Model folders: read, checked on both sides, written whole; files by transformers are the reference."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tunix_rt.errors import ModelError
from tunix_rt.models.folder import (
    copy_tokenizer,
    read_architecture,
    read_config,
    read_stop_ids,
    read_weights,
    write_generation_config,
    write_model,
)

MakeFolder = Callable[..., Path]


def change_weights(folder: Path, **tensors: np.ndarray | None) -> None:
    """Put tensors in, or (None) take them out; `__` in a name stands for a dot."""
    weights = load_file(folder / "model.safetensors")
    for name, value in tensors.items():
        weights.pop(name.replace("__", "."), None)
        if value is not None:
            weights[name.replace("__", ".")] = value
    save_file(weights, folder / "model.safetensors")


def test_written_is_read_back(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder()
    weights = read_weights(folder)
    write_model(tmp_path / "copy", read_config(folder), weights)
    again = read_weights(tmp_path / "copy")
    assert again.keys() == weights.keys()
    assert all(np.array_equal(again[name], weights[name]) for name in weights)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "copy").iterdir()}
    assert modes["model.safetensors"] == modes["config.json"]  # weights are for colleagues too
    assert read_architecture(tmp_path / "copy") == read_architecture(folder)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_shards_and_half_precisions_of_transformers(make_folder: MakeFolder, tmp_path: Path, dtype: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(make_folder(tie_word_embeddings=False), dtype=getattr(torch, dtype))
    model.save_pretrained(tmp_path / "sharded", max_shard_size="4KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    weights = read_weights(tmp_path / "sharded")
    theirs = model.state_dict()
    assert weights.keys() == theirs.keys()
    for name, value in weights.items():
        assert value.dtype == np.float32
        assert np.array_equal(value, theirs[name].float().numpy())


def test_beside_an_index_the_single_file_is_read_as_by_transformers(make_folder: MakeFolder, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = make_folder(tie_word_embeddings=False)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="4KB")
    weights = {name: value + 1 for name, value in load_file(folder / "model.safetensors").items()}
    save_file(weights, tmp_path / "sharded" / "model.safetensors", metadata={"format": "pt"})
    assert (tmp_path / "sharded" / "model.safetensors.index.json").is_file()
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "sharded").state_dict()
    ours = read_weights(tmp_path / "sharded")
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name].numpy())
        np.testing.assert_array_equal(value, weights[name])


def test_mismatch_lists_both_sides(make_folder: MakeFolder) -> None:
    folder = make_folder()
    change_weights(
        folder,
        model__norm__weight=None,
        model__norm__bias=np.zeros(16, np.float32),
        model__layers__0__mlp__up_proj__weight=np.zeros((24, 8), np.float32),
    )
    with pytest.raises(ModelError) as caught:
        read_weights(folder)
    message = str(caught.value)
    assert str(folder) in message
    assert "model.norm.bias: (16,) in the folder, missing in the model" in message
    assert "model.norm.weight: missing in the folder, (16,) in the model" in message
    assert "model.layers.0.mlp.up_proj.weight: (24, 8) in the folder, (24, 16) in the model" in message


def test_a_tied_head_may_be_stored_but_not_differ(make_folder: MakeFolder) -> None:
    folder = make_folder()
    embeddings = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    change_weights(folder, lm_head__weight=embeddings)
    assert "lm_head.weight" not in read_weights(folder)
    change_weights(folder, lm_head__weight=embeddings + 1)
    with pytest.raises(ModelError, match="tie_word_embeddings"):
        read_weights(folder)


def test_one_tensor_under_two_names_is_refused(make_folder: MakeFolder) -> None:
    folder = make_folder()
    change_weights(folder, norm__weight=np.zeros(16, np.float32))
    with pytest.raises(
        ModelError, match=r"safetensors: \S*norm\.weight and \S*norm\.weight are one tensor under two names"
    ):
        read_weights(folder)


def test_rotary_tables_of_old_exports_are_passed_over(make_folder: MakeFolder) -> None:
    folder = make_folder()
    change_weights(folder, model__layers__0__self_attn__rotary_emb__inv_freq=np.ones(2, np.float32))
    assert not [name for name in read_weights(folder) if "rotary" in name]


@pytest.mark.parametrize("keep", [0, 5, 40, -1])
def test_a_cut_file_is_one_clear_line(make_folder: MakeFolder, keep: int) -> None:
    path = make_folder() / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"model\.safetensors: damaged or not a safetensors file") as caught:
        read_weights(path.parent)
    assert "\n" not in str(caught.value)


def test_quantised_weights_are_refused(make_folder: MakeFolder) -> None:
    folder = make_folder()
    change_weights(folder, model__norm__weight=np.ones(16, np.int8))
    with pytest.raises(ModelError, match=r"model\.norm\.weight: dtype I8 is not supported"):
        read_weights(folder)


def test_missing_files_say_what_to_do(make_folder: MakeFolder, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model folder"):
        read_architecture(tmp_path / "nowhere")
    folder = make_folder()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"missing model\.safetensors \(found pytorch_model\.bin: only safetensors"):
        read_weights(folder)
    index = {"weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"missing model-00002-of-00002\.safetensors"):
        read_weights(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json: not valid JSON"):
        read_architecture(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config\.json: no such file"):
        read_architecture(folder)


def test_stop_ids(make_folder: MakeFolder) -> None:
    folder = make_folder()
    assert read_stop_ids(folder) == (1,)
    write_generation_config(folder, (2, 5), pad_id=0)
    assert read_stop_ids(folder) == (2, 5)
    (folder / "generation_config.json").unlink()
    assert read_stop_ids(folder) == (1,), "config.json is asked next"
    (folder / "config.json").write_text("{}")
    assert read_stop_ids(folder) == ()
    (folder / "config.json").write_text('{"eos_token_id": "</s>"}')
    with pytest.raises(ModelError, match="eos_token_id"):
        read_stop_ids(folder)


def test_every_field_of_a_generation_config_is_read_or_declared_by_the_experiment() -> None:
    """Of the file only the ids are read; how a model answers is declared in `generation`. Fails on a new field."""
    from transformers import GenerationConfig

    read = {"eos_token_id", "pad_token_id"}
    declared = set(
        "do_sample temperature top_k top_p top_h min_p typical_p epsilon_cutoff eta_cutoff max_length max_new_tokens "
        "min_length min_new_tokens max_time num_return_sequences stop_strings num_beams num_beam_groups early_stopping "
        "length_penalty diversity_penalty penalty_alpha dola_layers guidance_scale repetition_penalty "
        "encoder_repetition_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids force_words_ids "
        "constraints suppress_tokens begin_suppress_tokens sequence_bias exponential_decay_length_penalty "
        "forced_bos_token_id forced_eos_token_id renormalize_logits remove_invalid_values watermarking_config "
        "token_healing".split()
    )
    without_effect = set(
        "bos_token_id decoder_start_token_id transformers_version _from_model_config use_cache cache_implementation "
        "cache_config max_cache_len low_memory prefill_chunk_size compile_config disable_compile "
        "continuous_batching_config output_attentions output_hidden_states output_logits output_scores "
        "return_dict_in_generate is_assistant num_assistant_tokens num_assistant_tokens_schedule "
        "assistant_confidence_threshold assistant_early_exit assistant_ensemble_weight assistant_lookbehind "
        "target_lookbehind prompt_lookup_num_tokens max_matching_ngram_size speculation_type use_mtp".split()
    )
    assert set(vars(GenerationConfig())) <= read | declared | without_effect


def test_copy_tokenizer_takes_the_tokenizer_only(make_folder: MakeFolder, tmp_path: Path) -> None:
    source = make_folder()
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        copy_tokenizer(source, tmp_path / "copy")
    (source / "additional_chat_templates").mkdir()
    names = ["additional_chat_templates/tool_use.jinja", "chat_template.jinja", "tokenizer.json"]
    for name in names:
        (source / name).write_text(name)
    copy_tokenizer(source, tmp_path / "copy")
    copied = [path for path in (tmp_path / "copy").rglob("*") if path.is_file()]
    assert sorted(path.relative_to(tmp_path / "copy").as_posix() for path in copied) == names


def test_a_full_disk_leaves_the_old_file_whole(make_folder: MakeFolder) -> None:
    """A limit on file size stands in for the full disk: the write fails half-way."""
    folder = make_folder()
    before = (folder / "model.safetensors").read_bytes()
    code = (
        "from pathlib import Path; import resource, signal, sys\n"
        "from tunix_rt.models.folder import read_weights\n"
        "from tunix_rt.models.tensor_file import write_weights\n"
        "folder = Path(sys.argv[1]); weights = read_weights(folder)\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "limits = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))\n"
        "try: write_weights(folder / 'model.safetensors', weights)\n"
        "except OSError as error: print(error.filename)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, limits)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(folder / "model.safetensors")
    assert (folder / "model.safetensors").read_bytes() == before
    assert not list(folder.glob("*.part"))
