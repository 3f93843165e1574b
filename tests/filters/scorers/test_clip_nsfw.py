"""LAION's NSFW head: the published names and shapes, and the numbers that torch's own layers give."""

import numpy as np
import pytest
import torch

from filters.scorers.clip_nsfw import SHAPES, load_head, load_nsfw
from filters.scorers.options import ScorerError
from manifests.weights import STAND_IN, WeightsError


def published():
    """Return a state dict as the published file holds it, with random numbers."""
    generator = torch.Generator().manual_seed(0)
    state = {key: torch.randn(shape, generator=generator) / shape[-1] ** 0.5 for key, shape in SHAPES.items()}
    state["norm.variance"] = torch.rand(768, generator=generator) / 768 + 1e-4
    return state


def test_probabilities_are_torchs(tmp_path):
    state = published()
    torch.save(state, tmp_path / "head.pth")
    layers = [torch.nn.Linear(a, b) for a, b in ((768, 64), (64, 512), (512, 256), (256, 1))]
    for number, layer in enumerate(layers, 1):
        layer.load_state_dict({part: state[f"linear_{number}.{part}"] for part in ("weight", "bias")})
    x_ND = torch.nn.functional.normalize(torch.randn(5, 768, generator=torch.Generator().manual_seed(1)), dim=1)
    with torch.no_grad():
        y = (x_ND - state["norm.mean"]) / state["norm.variance"].sqrt()
        for layer in layers[:-1]:
            y = layer(y).relu()
        wanted = layers[-1](y).sigmoid()[:, 0].numpy()
    head = load_nsfw(tmp_path / "head.pth")
    got = head.score({"image": x_ND.numpy()})["clip_nsfw"]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    assert got.std() > 0.01
    assert head.score({"image": x_ND.numpy()[3:4]})["clip_nsfw"][0] == got[3]  # neighbours change nothing


def test_another_form_is_refused(tmp_path):
    for change, says in (
        ({"linear_1.weight": torch.zeros(64, 512)}, r"'linear_1.weight' is \(64, 512\), wanted \(64, 768\)"),
        ({"norm.variance": torch.zeros(768)}, "a variance that is not positive"),
        ({"extra": torch.zeros(1)}, "'extra' is .*wanted none of that name"),
    ):
        torch.save({**published(), **change}, tmp_path / "head.pth")
        with pytest.raises(WeightsError, match=says):
            load_nsfw(tmp_path / "head.pth")


def test_it_belongs_to_vit_l_14():
    with pytest.raises(ScorerError, match=r"768 numbers, score\.clip\.model gives 512; take ViT-L-14-quickgelu"):
        load_head(STAND_IN, 512)
