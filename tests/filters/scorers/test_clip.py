"""CLIP from local files: the right activation, the right form, and nothing from a hub."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from filters.images.scaled import MOST_PIXELS
from filters.scorers.base import Compute
from filters.scorers.clip import Clip, ClipSimilarity, _build, _check_activation, _load, load_clip
from filters.scorers.options import STAND_IN_CLIP, ClipOptions, ScorerError
from filters.scorers.stand_in import seeded
from manifests.weights import WeightsError
from tests.support.resizes import EXTREME, largest_resize
from tests.support.small_web import picture

CONFIG = STAND_IN_CLIP["config"]
TRAINED = {
    "quick_gelu": True,
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


@pytest.fixture(scope="module")
def state():
    return seeded(_build(CONFIG).state_dict(), "test")


def test_a_file_s_embeddings_are_open_clip_s(state, tmp_path):
    import open_clip  # 4 s, in every process that collects the tests

    path = tmp_path / "clip.safetensors"
    save_file(state, path)
    model, transform, tokenizer = _load("tiny", CONFIG, str(path), TRAINED)
    own = open_clip.CLIP(**CONFIG).eval()
    own.load_state_dict(state)
    pixels, tokens = transform(picture(1))[None], tokenizer(["a cat"])
    assert pixels.shape == (1, 3, 64, 64)
    assert tokens.tolist() == open_clip.get_tokenizer("ViT-L-14-quickgelu")(["a cat"]).tolist()
    assert torch.equal(model.encode_image(pixels), own.encode_image(pixels))
    assert torch.equal(model.encode_text(tokens), own.encode_text(tokens))


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"state_dict": {f"module.{key}": value for key, value in s.items()}, "epoch": 3}]
)
def test_plain_and_training_checkpoints_load(state, tmp_path, wrap):
    torch.save(wrap(state), tmp_path / "clip.pt")
    model, _, _ = _load("tiny", CONFIG, str(tmp_path / "clip.pt"), TRAINED)
    assert torch.equal(model.state_dict()["visual.proj"], state["visual.proj"])


def test_preprocessing_is_the_weights_own(state, tmp_path):
    save_file(state, tmp_path / "clip.safetensors")
    _, transform, _ = _load("tiny", CONFIG, str(tmp_path / "clip.safetensors"), TRAINED)
    white = picture(1).point(lambda value: 255)
    assert transform(white).unique().tolist() == [1.0]  # (1 - 0.5) / 0.5


def test_openai_s_weights_need_quickgelu(tmp_path):
    with pytest.raises(ScorerError, match=r"want QuickGELU, but model 'plain' computes GELU; take 'plain-quickgelu'"):
        _check_activation(_build({**CONFIG, "quick_gelu": False}), "plain", quick=True)
    with pytest.raises(ScorerError, match=r"want GELU, but model 'x-quickgelu' computes QuickGELU; take 'x'"):
        _check_activation(_build(CONFIG), "x-quickgelu", quick=False)
    with pytest.raises(ScorerError, match="take 'ViT-B-32-quickgelu'"):
        load_clip(ClipOptions(model="ViT-B-32", weights=str(tmp_path / "never-read.pt")))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"model": "ViT-L-15"}, "open_clip knows no model 'ViT-L-15'; known: .*ViT-L-14-quickgelu"),
        ({"model": "ViT-B-16-SigLIP", "pretrained": "webli"}, "has another text tower"),
        ({"pretrained": "mine"}, "has no weights 'mine'; known: .*openai"),
    ],
)
def test_models_that_cannot_be_had_offline_are_refused(options, says):
    with pytest.raises(ScorerError, match=says):
        load_clip(ClipOptions(weights="x.pt", **options))


def test_weights_of_another_form_are_refused(state, tmp_path):
    path = str(tmp_path / "clip.pt")
    torch.save({**state, "visual.proj": torch.zeros(128, 512)}, path)
    with pytest.raises(WeightsError, match=r"'visual.proj' is \(128, 512\), wanted \(128, 768\)"):
        _load("tiny", CONFIG, path, TRAINED)
    torch.save({key: value for key, value in state.items() if key != "logit_scale"}, path)
    with pytest.raises(WeightsError, match="no 'logit_scale'"):
        _load("tiny", CONFIG, path, TRAINED)


def test_similarity_is_the_cosine():
    image, text = np.array([[1, 0], [0.6, 0.8]], np.float32), np.array([[0, 1], [0.8, 0.6]], np.float32)
    scores = ClipSimilarity().score({"image": image, "text": text, "caption": image})
    np.testing.assert_allclose(scores["clip_similarity"], [0, 0.96], atol=1e-6)
    np.testing.assert_allclose(scores["clip_similarity_caption"], [1, 1], atol=1e-6)


def test_no_picture_grows_monstrous_on_its_way_to_the_model(monkeypatch):
    """With 1 x 12,000 pixels the short side's scaling took 3 GB before the middle was cut."""
    clip = Clip(ClipOptions(weights="stand-in"), Compute(1, "fp32"), frozenset({"image"}))
    assert clip.cut == (64, 64, Image.Resampling.BICUBIC)
    sizes = [(3 * width, 3 * height) for width, height in EXTREME[:2]] + [(1, 65_500), (65_500, 1)]
    monkeypatch.setattr("filters.images.scaled.MOST_PIXELS", MOST_PIXELS // 64)  # as at 512 pixels
    with largest_resize() as seen:
        encoded = clip.encode([Image.new("RGB", size, (200, 30, 30)) for size in sizes], {})["image"]
    assert max(seen) <= MOST_PIXELS // 64
    square = clip.encode([Image.new("RGB", (80, 80), (200, 30, 30))], {})["image"]
    np.testing.assert_allclose(encoded, np.repeat(square, 4, axis=0), atol=1e-6)
