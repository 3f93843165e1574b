"""A model on disk: its options, its folder, its architecture, the identity of its weights; nothing is loaded."""

import json
from pathlib import Path

import pytest

from captioning.captioner import CaptionerError
from captioning.captioners.transformers_files import (
    TransformersConfig,
    check_architecture,
    folder_of,
    loaded_files,
    model_config_of,
    model_label,
    settings_of,
    weights_of,
)
from manifests.weights import WeightsError, WeightsFile

FILES = {
    "config.json": '{"model_type": "llava"}',
    "model.safetensors": "abc",
    "tokenizer.json": "{}",
    "processor_config.json": "{}",
}
FINGERPRINT = "dc0434d383dae7b1b5df33e2508a1a68102b2725add75888f7c1096a00f2b5e1"
"""printf of lines 'NAME\\0SHA256\\n' of FILES by name | sha256sum"""
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def fake_model(folder: Path, **other: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {**FILES, **other}.items():
        (folder / name).write_text(text)
    return folder


def config_of(model: str | Path, **other: object) -> TransformersConfig:
    return model_config_of({"model": str(model), **other})


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_defaults_are_llamagens_prompt_and_the_real_model() -> None:
    assert model_config_of({}).model_dump() == {
        "batch_size": None,
        "model": "llava-hf/llava-1.5-7b-hf",
        "revision": "main",
        "prompt": "describe_v1",
        "max_new_tokens": 256,
        "dtype": "auto",
        "temperature": 0.7,
        "top_p": 0.9,
        "compile": False,
        "use": None,
    }


def test_all_faults_of_the_options_are_said_at_once() -> None:
    with pytest.raises(CaptionerError) as refused:
        model_config_of({"max_new_tokens": 0, "beams": 4})
    assert str(refused.value) == (
        "max_new_tokens: Input should be greater than or equal to 1 (got 0); unknown key 'beams'; known keys:"
        " batch_size, compile, dtype, max_new_tokens, model, prompt, revision, temperature, top_p, use"
    )


def test_a_model_is_called_by_its_hub_name_and_a_folder_by_its_architecture(tmp_path: Path) -> None:
    assert model_label(model_config_of({})) == "llava-hf/llava-1.5-7b-hf"
    assert model_label(config_of(tmp_path)) == "unknown"
    assert model_label(config_of(fake_model(tmp_path))) == "llava"
    assert model_label(config_of("stand-in")) == "llava-tiny (stand-in weights)"


def test_settings_hold_what_changes_captions_and_not_the_place(tmp_path: Path) -> None:
    config = config_of(fake_model(tmp_path), revision="v9", prompt="one_sentence_v1", compile=True)
    assert settings_of(config) == {
        "max_new_tokens": 256,
        "dtype": "auto",
        "temperature": 0.7,
        "top_p": 0.9,
        "model": "llava",
    }


def test_the_stand_in_is_known_by_its_recipe() -> None:
    # printf 'stand-in|llava-tiny|llava, CLIP 2x32 of 32 px, ..., format 1' | sha256sum: keys of runs hold it
    digest = "3908f1c3341bad496872b04140f27f0d5ff5beb067a04e89b962638fea3f324e"
    assert weights_of(config_of("stand-in")) == (WeightsFile("llava-tiny", digest, stand_in=True),)


def test_what_decides_the_captions_is_loaded_and_nothing_else(tmp_path: Path) -> None:
    more = dict.fromkeys(("chat_template.jinja", "merges.txt", "tokenizer.model"), "x")
    fake_model(tmp_path, **more, **{"README.md": "x", "pytorch_model.bin": "x", ".hidden.json": "x"})
    (tmp_path / "folder.json").mkdir()
    assert [path.name for path in loaded_files(tmp_path)] == sorted([*FILES, *more])


def test_a_folder_is_known_by_names_and_bytes_and_not_by_its_place(tmp_path: Path) -> None:
    here, there = fake_model(tmp_path / "here"), fake_model(tmp_path / "far" / "there", **{"README.md": "x", ".a": "x"})
    assert weights_of(config_of(here)) == (WeightsFile("llava", FINGERPRINT, path=str(here)),)
    assert weights_of(config_of(there)) == (WeightsFile("llava", FINGERPRINT, path=str(there)),)
    (here / "model.safetensors").write_text("other numbers")
    assert weights_of(config_of(here))[0].sha256 != FINGERPRINT


@pytest.mark.parametrize(
    ("lost", "says"),
    [
        ("config.json", "config.json"),
        ("model.safetensors", r"model\.safetensors \(pickled weights are not read\)"),
        ("tokenizer.json", "tokenizer.json or tokenizer.model"),
        ("processor_config.json", "processor_config.json or preprocessor_config.json"),
    ],
)
def test_a_folder_that_lacks_a_file_is_refused(tmp_path: Path, lost: str, says: str) -> None:
    (fake_model(tmp_path) / lost).unlink()
    for ask in (folder_of, weights_of):
        with pytest.raises(
            WeightsError, match=rf"weights of a captioner: {tmp_path} lacks {says}\. Get it on a machine"
        ):
            ask(config_of(tmp_path))


def test_a_model_that_is_not_here_is_an_error_that_helps(cache: Path) -> None:
    says = (
        rf"'llava-hf/llava-1.5-7b-hf' \(revision 'main'\) is neither a folder here nor in the local cache {cache}, .*"
        "hf download llava-hf/llava-1.5-7b-hf.*stand-in"
    )
    with pytest.raises(WeightsError, match=says):
        folder_of(model_config_of({}))
    for model in ("/no/such/folder", "./no/such", "name", "a/b/c"):
        with pytest.raises(WeightsError, match=rf"no folder at '{model}'.*download llava-hf/.*caption\.NAME\.model"):
            folder_of(config_of(model))


def test_a_snapshot_in_the_cache_is_found_by_revision(cache: Path) -> None:
    repo = cache / "models--llava-hf--llava-1.5-7b-hf"
    snapshot = fake_model(repo / "snapshots" / COMMIT)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    expected = (WeightsFile("llava-hf/llava-1.5-7b-hf", FINGERPRINT, path=str(snapshot)),)
    assert weights_of(model_config_of({})) == weights_of(model_config_of({"revision": COMMIT})) == expected
    with pytest.raises(WeightsError, match="revision 'v9'"):
        weights_of(model_config_of({"revision": "v9"}))


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_type": "clip", "architectures": ["CLIPModel"]}, "model_type 'clip', architecture CLIPModel"),
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "'llama', architecture LlamaForCausalLM"),
        ({"model_type": "t5", "architectures": ["T5EncoderModel"]}, "'t5', architecture T5EncoderModel"),
        (
            {"model_type": "llava", "architectures": ["LlavaNextForConditionalGeneration"]},
            "'llava', architecture Llava",
        ),
        ({"model_type": "own_vlm", "auto_map": {"AutoModel": "own.Own"}}, "model_type 'own_vlm'"),
        ({}, "model_type None"),
    ],
)
def test_an_architecture_that_answers_no_picture_is_refused_by_its_config(tmp_path: Path, config, says: str) -> None:
    fake_model(tmp_path, **{"config.json": json.dumps(config)})
    with pytest.raises(WeightsError, match=rf"{tmp_path} holds .*{says}.*what works is .*llava_next, llava_onevision"):
        weights_of(config_of(tmp_path))


def test_a_config_that_is_none_is_refused(tmp_path: Path) -> None:
    fake_model(tmp_path, **{"config.json": "[1]"})
    with pytest.raises(WeightsError, match=r"config\.json cannot be read"):
        check_architecture(tmp_path)
