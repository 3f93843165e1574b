"""The tiny LLaVA: its files, its numbers (SHAKE-256 by openssl), the words that it may say."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from captioning.captioners.transformers_files import NEEDED
from captioning.stand_in import TEMPLATE, write_stand_in
from manifests.checksums import sha256_file
from manifests.model_folder import missing_files


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stand_in(tmp_path_factory.mktemp("stand-in"))


@pytest.fixture(scope="module")
def tensors(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def vocabulary(folder: Path) -> dict[str, int]:
    words: dict[str, int] = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    return words


def test_the_folder_is_complete_and_the_same_each_time(folder: Path, tmp_path: Path) -> None:
    assert missing_files(folder, NEEDED) == []
    again = write_stand_in(tmp_path / "again")
    assert {path.name: sha256_file(path) for path in again.iterdir()} == {
        path.name: sha256_file(path) for path in folder.iterdir()
    }


def test_numbers_are_drawn_from_shake_256_by_name(tensors: dict[str, np.ndarray[Any, Any]]) -> None:
    # printf 'tessera llava stand-in 0 model.multi_modal_projector.linear_1.weight' | openssl dgst -shake256 -xoflen 8
    # gives 673c8993 9365ae8e: little-endian 0x93893c67 and 0x8eae6593 of 2^32, as -1..1, times the root of 3 / 32.
    first, second = (0x93893C67 / 2**31 - 1) * (3 / 32) ** 0.5, (0x8EAE6593 / 2**31 - 1) * (3 / 32) ** 0.5
    weight = tensors["multi_modal_projector.linear_1.weight"]
    assert (weight.shape, weight.dtype) == ((64, 32), np.float32)
    assert weight[0, :2].tolist() == pytest.approx([first, second], rel=1e-6)
    assert first == pytest.approx(0.0467319, abs=1e-7)


def test_biases_are_zero_and_the_scales_of_norms_one(tensors: dict[str, np.ndarray[Any, Any]]) -> None:
    biases = [value for name, value in tensors.items() if name.endswith("bias")]
    scales = [value for name, value in tensors.items() if "norm" in name and name.endswith("weight")]
    assert (len(biases), len(scales)) == (20, 11)  # 2 x 8 + 2 of CLIP, 2 of the projector; 2 x 2 + 2 and 2 x 2 + 1
    assert {float(number) for value in biases for number in np.unique(value)} == {0.0}
    assert {float(number) for value in scales for number in np.unique(value)} == {1.0}


def test_the_vocabulary_is_special_tokens_bytes_and_made_up_words(vocabulary: dict[str, int]) -> None:
    assert len(vocabulary) == 5 + 256 + 12 * 5 * 2
    assert [vocabulary[name] for name in ("<unk>", "<s>", "</s>", "<pad>", "<image>")] == [0, 1, 2, 3, 4]
    assert {"Ġbaru", "Ġtuvo", "."} < set(vocabulary)


def test_only_words_and_ends_are_said(tensors: dict[str, np.ndarray[Any, Any]], vocabulary: dict[str, int]) -> None:
    head_VD = tensors["language_model.lm_head.weight"]
    assert head_VD.shape == (381, 64)
    spoken = {name for name, row in vocabulary.items() if head_VD[row].any()}
    assert len(spoken) == 120 + 2
    assert {name for name in spoken if not name.startswith("Ġ")} == {".", "</s>"}


def test_a_question_is_put_in_llavas_order(folder: Path) -> None:
    assert (folder / "chat_template.jinja").read_text() == TEMPLATE
    from jinja2 import Template

    content = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
    asked = Template(TEMPLATE).render(messages=[{"role": "user", "content": content}], add_generation_prompt=True)
    assert asked == "USER: <image>\nWhat is it? ASSISTANT:"
