"""T5 features equal those padded to 120 tokens, depend on no neighbour, and a broken or missing T5 is named."""

from pathlib import Path

import numpy as np
import pytest
import torch

from manifests.weights import WeightsError, WeightsFile
from tokenize_shards.samples import pack_numbers, unpack_numbers
from tokenize_shards.text import MAX_CHARACTERS, MAX_TOKENS, T5Features, check_t5, clean_caption, t5_weights

CAPTIONS = ["a cat", "", "the quick brown fox jumps over the lazy dog", "A CAT", "word " * 60, "dogs"]


def test_features_equal_those_padded_to_120(tiny_t5: Path) -> None:
    from transformers import AutoTokenizer, T5EncoderModel

    encoder = T5Features(str(tiny_t5), batch_size=4)
    assert encoder.dim == 32
    features = encoder.features(CAPTIONS)
    texts = [clean_caption(caption) for caption in CAPTIONS]
    padded = AutoTokenizer.from_pretrained(tiny_t5)(
        texts, max_length=MAX_TOKENS, padding="max_length", truncation=True, return_tensors="pt"
    )
    with torch.no_grad():
        model = T5EncoderModel.from_pretrained(tiny_t5).eval()
        wanted = model(input_ids=padded["input_ids"], attention_mask=padded["attention_mask"]).last_hidden_state.numpy()
    lengths = padded["attention_mask"].sum(1).tolist()
    assert [len(found) for found in features] == lengths
    assert lengths[1] == 1  # </s> alone
    assert lengths[4] == MAX_TOKENS
    for row, found in enumerate(features):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted[row, : lengths[row]], atol=1e-4)
    assert np.array_equal(features[0], features[3])


def test_features_do_not_depend_on_neighbours_or_order(tiny_t5: Path) -> None:
    encoder = T5Features(str(tiny_t5), batch_size=4)
    features = encoder.features(CAPTIONS)
    for row, caption in enumerate(CAPTIONS):
        assert np.array_equal(encoder.features([caption])[0], features[row])
    backwards = encoder.features(CAPTIONS[::-1])[::-1]
    assert all(np.array_equal(one, other) for one, other in zip(features, backwards, strict=True))
    assert encoder.features([]) == []


def test_endless_captions_are_cut_before_cleaning(tiny_t5: Path) -> None:
    hostile = "a." * 500_000
    encoder = T5Features(str(tiny_t5))
    assert np.array_equal(encoder.features([hostile])[0], encoder.features([hostile[:MAX_CHARACTERS]])[0])


def test_bf16_is_near(tiny_t5: Path) -> None:
    exact, rough = (T5Features(str(tiny_t5), precision).features(["a cat"])[0] for precision in ("fp32", "bf16"))
    assert rough.dtype == np.float32
    assert 0 < np.abs(rough - exact).max() < 0.2


def test_stored_bf16_equals_torchs() -> None:
    x = np.random.default_rng(0).standard_normal((50, 40)).astype(np.float32)
    assert np.array_equal(unpack_numbers(pack_numbers(x, "bf16")), torch.from_numpy(x).bfloat16().float().numpy())


def test_a_t5_that_is_not_there_says_what_to_get(tmp_path: Path) -> None:
    for model in (str(tmp_path / "none"), "google/flan-t5-xl-that-is-not-cached", "no such name"):
        with pytest.raises(
            WeightsError, match=r"neither a folder nor a model in the local cache.*hf download google/flan-t5-xl"
        ):
            T5Features(model)
    with pytest.raises(
        WeightsError, match=r"lacks config\.json, model\.safetensors .*, tokenizer\.json or spiece\.model"
    ):
        t5_weights(str(tmp_path))


def test_a_t5_is_known_by_the_names_and_bytes_of_what_it_loads(tmp_path: Path) -> None:
    files = {"config.json": "{}", "model.safetensors": "abc", "spiece.model": "abc", ".x.json": "{}"}
    for name, text in {**files, "README.md": "x", "pytorch_model.bin": "x", "merges.txt": "x"}.items():
        (tmp_path / name).write_text(text)
    # printf of lines 'NAME\\0SHA256\\n' of the files by name | sha256sum; a hidden file counts, as it always has
    digest = "e11322b63da23180f061e1f779614f692afceab5ae083071b6efe69dc908b5cb"
    assert t5_weights(str(tmp_path)) == WeightsFile("T5", digest, path=str(tmp_path))
    (tmp_path / "model.safetensors.index.json").write_text("{")
    with pytest.raises(WeightsError, match=r"lacks a readable model\.safetensors\.index\.json\. Get it"):
        t5_weights(str(tmp_path))


def test_a_broken_t5_is_a_weights_error(tiny_t5: Path, tmp_path: Path) -> None:
    for path in tiny_t5.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert t5_weights(str(tmp_path)).sha256 == t5_weights(str(tiny_t5)).sha256
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert t5_weights(str(tmp_path)).sha256 != t5_weights(str(tiny_t5)).sha256
    with pytest.raises(WeightsError, match="cannot be loaded"):
        T5Features(str(tmp_path))


def test_missing_parameters_are_not_made_up(tiny_t5: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for path in tiny_t5.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["encoder.final_layer_norm.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"lacks parameters \(encoder\.final_layer_norm\.weight"):
        T5Features(str(tmp_path))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_parameter_that_is_no_finite_number_is_refused(tiny_t5: Path, tmp_path: Path, value: float) -> None:
    from safetensors.torch import load_file, save_file

    for path in tiny_t5.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    check_t5(str(tmp_path))
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["encoder.final_layer_norm.weight"][3] = value
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    for refuse in (check_t5, T5Features):
        with pytest.raises(WeightsError, match=r"1 of 32 numbers of encoder\.final_layer_norm\.weight in .* are NaN"):
            refuse(str(tmp_path))
