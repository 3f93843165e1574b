"""The registry of captioners: options, weights' identity and errors, all without torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from captioning.base import build_captioner, captioner_settings, captioner_weights, check_captioner, known_captioners
from captioning.captioner import CaptionerError
from captioning.llava_files import LlavaConfig
from manifests.weights import WeightsError

FILES = ("config.json", "model.safetensors", "tokenizer.json", "processor_config.json")


def fake_model(folder: Path, **other: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (folder / name).write_text(other.get(name, name))
    return folder


def test_known_captioners() -> None:
    assert known_captioners() == ("llava",)


def test_defaults_are_llamagens_prompt_and_the_real_model() -> None:
    config = check_captioner("llava", {})
    assert isinstance(config, LlavaConfig)
    assert (config.model, config.prompt, config.max_new_tokens) == ("llava-hf/llava-1.5-7b-hf", "describe_v1", 256)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("blip", {}, "no captioner 'blip'; known: llava"),
        (
            "llava",
            {"temperature": 1},
            "unknown key 'temperature'; known keys: batch_size, dtype, max_new_tokens, model, prompt, revision, short",
        ),
        ("llava", {"prompt": "poem_v1"}, "no prompt 'poem_v1'; known: describe_v1"),
        ("llava", {"dtype": "int3"}, r"dtype: .*'auto', 'bfloat16'.*\(got 'int3'\)"),
        ("llava", {"max_new_tokens": 0}, r"max_new_tokens: .*greater than or equal to 1 \(got 0\)"),
    ],
)
def test_wrong_options_raise_and_list_the_choices(name: str, options: dict[str, object], says: str) -> None:
    for call in (check_captioner, captioner_weights):
        with pytest.raises(CaptionerError, match=says):
            call(name, options)
    with pytest.raises(CaptionerError, match=says):
        build_captioner(name, options, 8)


def test_the_stand_in_says_so() -> None:
    (weights,) = captioner_weights("llava", {"model": "stand-in"})
    assert weights.stand_in
    assert weights.label == "llava-tiny (stand-in weights)"
    assert captioner_settings("llava", {"model": "stand-in"}, 4)["model"] == weights.label


def test_a_folder_is_known_by_names_and_bytes_and_not_by_its_place(tmp_path: Path) -> None:
    here, there = fake_model(tmp_path / "here"), fake_model(tmp_path / "far" / "there")
    (there / "README.md").write_text("says nothing about captions")
    (there / ".gitattributes").write_text("nor this")
    first, second = ({"model": str(folder)} for folder in (here, there))
    assert captioner_weights("llava", first)[0].record() == captioner_weights("llava", second)[0].record()
    assert captioner_settings("llava", first, 8) == captioner_settings("llava", second, 8)
    before = captioner_weights("llava", first)[0].sha256
    (here / "model.safetensors").write_text("other numbers")
    changed = captioner_weights("llava", first)[0].sha256
    assert changed != before
    (here / "model.safetensors").rename(here / "pytorch.safetensors")
    with pytest.raises(WeightsError, match=r"lacks model\.safetensors"):
        captioner_weights("llava", first)


def test_a_model_that_is_not_here_is_an_error_that_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        WeightsError,
        match=r"neither a folder here nor in the local cache .*hf download llava-hf/llava-1.5-7b-hf.*stand-in",
    ):
        captioner_weights("llava", {})
    with pytest.raises(WeightsError, match=r"no folder at '/no/such/folder'.*caption\.llava\.model"):
        captioner_weights("llava", {"model": "/no/such/folder"})


def test_a_snapshot_in_the_cache_is_found_by_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repo, commit = tmp_path / "models--llava-hf--llava-1.5-7b-hf", "0123456789abcdef0123456789abcdef01234567"
    snapshot = fake_model(repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    (weights,) = captioner_weights("llava", {})
    assert (weights.name, weights.path) == ("llava-hf/llava-1.5-7b-hf", str(snapshot))
    assert weights == captioner_weights("llava", {"revision": commit})[0]
    with pytest.raises(WeightsError, match="revision 'v9'"):
        captioner_weights("llava", {"revision": "v9"})


def test_settings_hold_what_changes_captions() -> None:
    settings = captioner_settings("llava", {"model": "stand-in", "max_new_tokens": 16}, 8)
    assert settings["batch_size"] == 8
    assert settings["prompt"] == "Describe this image in as much detail as possible"
    assert captioner_settings("llava", {"model": "stand-in", "max_new_tokens": 17}, 8) != settings
    assert (
        captioner_settings("llava", {"model": "stand-in", "max_new_tokens": 16, "batch_size": 4}, 8)["batch_size"] == 4
    )


def test_the_registry_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from captioning.base import captioner_weights, check_captioner;"
        "check_captioner('llava', {}); captioner_weights('llava', {'model': 'stand-in'});"
        "print([name for name in ('torch', 'transformers', 'PIL', 'huggingface_hub') if name in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
