"""A folder of a model's files: what it lacks, what counts, its fingerprint (worked out with sha256sum)."""

import json
from pathlib import Path

import pytest

from manifests.model_folder import files_fingerprint, missing_files, model_files

TOKENIZERS = (("tokenizer.json", "spiece.model"),)
NO_WEIGHTS = "model.safetensors (pickled weights are not read)"


def folder_of(folder: Path, **files: str) -> Path:
    """Write files into a folder; `_` in a name is a dot."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


def test_an_empty_folder_lacks_everything(tmp_path: Path) -> None:
    assert missing_files(tmp_path) == ["config.json", NO_WEIGHTS]
    assert missing_files(tmp_path, TOKENIZERS) == ["config.json", NO_WEIGHTS, "tokenizer.json or spiece.model"]


@pytest.mark.parametrize("tokenizer", ["tokenizer_json", "spiece_model"])
def test_a_whole_folder_lacks_nothing(tmp_path: Path, tokenizer: str) -> None:
    folder = folder_of(tmp_path, config_json="{}", model_safetensors="abc", **{tokenizer: "abc"})
    assert missing_files(folder, TOKENIZERS) == []


def test_a_folder_by_a_files_name_is_no_file(tmp_path: Path) -> None:
    (folder_of(tmp_path, config_json="{}") / "model.safetensors").mkdir()
    assert missing_files(tmp_path) == [NO_WEIGHTS]


def test_each_shard_of_an_index_must_be_there(tmp_path: Path) -> None:
    shards = {"a": "1.safetensors", "b": "2.safetensors", "c": "2.safetensors", "d": "3.safetensors"}
    index = json.dumps({"weight_map": shards})
    folder = folder_of(tmp_path, config_json="{}", model_safetensors_index_json=index, **{"1_safetensors": "abc"})
    assert missing_files(folder) == ["2.safetensors", "3.safetensors"]
    folder_of(folder, **{"2_safetensors": "abc", "3_safetensors": "abc"})
    assert missing_files(folder) == []


@pytest.mark.parametrize("index", ["", "{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}'])
def test_a_damaged_index_is_named(tmp_path: Path, index: str) -> None:
    folder = folder_of(tmp_path, config_json="{}", model_safetensors="abc", model_safetensors_index_json=index)
    assert missing_files(folder) == ["a readable model.safetensors.index.json"]


def test_files_of_the_given_kinds_come_by_name(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, b_json="{}", a_safetensors="abc", README_md="abc", a_json="{}")
    (folder / "deeper.json").mkdir()
    (folder / ".hidden.json").write_text("{}")
    names = [path.name for path in model_files(folder, (".json", ".safetensors"))]
    assert names == [".hidden.json", "a.json", "a.safetensors", "b.json"]
    with pytest.raises(FileNotFoundError):
        model_files(tmp_path / "none", (".json",))


def test_the_fingerprint_is_of_names_and_bytes_in_order(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "here", config_json="{}", model_safetensors="abc")
    files = [folder / "config.json", folder / "model.safetensors"]
    # printf 'config.json\0%s\nmodel.safetensors\0%s\n' SHA256 SHA256 | sha256sum
    assert files_fingerprint(files) == "46666a0c132fcb85ad8cdcf3c0b6e23f7d3a76f42e8e2571477703eb15ab8cbe"
    assert files_fingerprint(files[::-1]) == "f96da0c4871a8c13abc7df179f1392ab6cd9e5351497f97b0e0cd849201864a7"
    assert files_fingerprint([]) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    other = folder_of(tmp_path / "there", config_json="{}", model_safetensors="abc")
    assert files_fingerprint([other / path.name for path in files]) == files_fingerprint(files)
    (folder / "model.safetensors").write_text("abcd")
    assert files_fingerprint(files) != files_fingerprint([other / path.name for path in files])
