"""LAION's aesthetic heads give the published scores; heads of another form are refused."""

import json

import numpy as np
import pytest
import torch

from filters.scorers.aesthetic import LAYERS, load_aesthetic, load_head
from filters.scorers.options import ScorerError
from manifests.weights import STAND_IN, WeightsError
from tests.support.paths import SHARED

SCORERS = SHARED / "scorers"
FILES = {"v1": "sa_0_4_vit_l_14_linear.pth", "v2": "sac+logos+ava1-l14-linearMSE.pth"}
needs_shared = pytest.mark.skipif(
    not SCORERS.is_dir(), reason="LAION's heads are in the shared folder, which is not here"
)


@needs_shared
@pytest.mark.parametrize("model", ["v1", "v2"])
def test_published_heads_give_the_golden_scores(model):
    head = load_aesthetic(SCORERS / FILES[model], model)
    embeddings = np.load(SCORERS / "vit_l_14_embeddings.npy")
    golden = json.loads((SCORERS / "golden_scores.json").read_text())[f"aesthetic_{model}"]
    scores = head(embeddings.reshape(-1, 768))
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, golden, atol=1e-4)
    np.testing.assert_allclose(head(7 * embeddings.reshape(-1, 768)), golden, atol=1e-4)  # length does not count
    assert head(embeddings.reshape(-1, 768)[3:4]).tobytes() == scores[3:4].tobytes()


@needs_shared
def test_v2_collapsed_is_the_published_affine_map():
    head = load_aesthetic(SCORERS / FILES["v2"], "v2")
    assert (round(float(np.linalg.norm(head.weights)), 4), round(head.bias, 6)) == (17.9956, 5.236646)


@needs_shared
def test_one_head_is_not_the_other():
    with pytest.raises(
        WeightsError, match=r"aesthetic_v2: .* another form: 'bias' is \(1,\), wanted none of that name"
    ):
        load_aesthetic(SCORERS / FILES["v1"], "v2")
    with pytest.raises(WeightsError, match=r"aesthetic_v1: .* another form: 'bias' is missing"):
        load_aesthetic(SCORERS / FILES["v2"], "v1")


@pytest.mark.parametrize("model", ["v1", "v2"])
def test_layers_are_collapsed_exactly(model, tmp_path):
    generator = torch.Generator().manual_seed(0)
    layers, state = [], {}
    for prefix, (outputs, inputs) in LAYERS[model].items():
        layer = torch.nn.Linear(inputs, outputs, dtype=torch.float64)
        state |= {
            f"{prefix}weight": torch.randn(outputs, inputs, generator=generator) / inputs**0.5,
            f"{prefix}bias": torch.randn(outputs, generator=generator),
        }
        layer.load_state_dict({part: state[f"{prefix}{part}"] for part in ("weight", "bias")})
        layers.append(layer)
    torch.save(state, tmp_path / "head.pth")
    x = torch.nn.functional.normalize(torch.randn(5, 768, generator=generator, dtype=torch.float64), dim=1)
    wanted = torch.nn.Sequential(*layers)(x)[:, 0].detach().numpy()
    np.testing.assert_allclose(load_aesthetic(tmp_path / "head.pth", model)(x.numpy()), wanted, atol=1e-6)


def test_heads_of_another_form_are_refused(tmp_path):
    path = tmp_path / "head.pth"
    torch.save({"weight": torch.zeros(1, 512), "bias": torch.zeros(1)}, path)  # the head for ViT-B/32
    with pytest.raises(
        WeightsError, match=r"'weight' is \(1, 512\), wanted \(1, 768\); wanted: weight \(1, 768\), bias \(1,\)"
    ):
        load_aesthetic(path, "v1")
    path.write_text("<html>")
    with pytest.raises(WeightsError, match="holds no plain tensors"):
        load_aesthetic(path, "v1")


def test_embeddings_of_another_model_are_refused():
    with pytest.raises(
        ScorerError, match=r"trained on ViT-L/14's 768 numbers, score.clip.model gives 512; take ViT-L-14-quickgelu"
    ):
        load_head("aesthetic_v2", STAND_IN, 512)
    with pytest.raises(ValueError, match=r"embeddings are \(2, 512\), wanted \(N, 768\)"):
        load_head("aesthetic_v2", STAND_IN, 768).head(np.zeros((2, 512), np.float32))
