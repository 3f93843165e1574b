"""Codes depend on no batch size, order or neighbour, and CUDA settings are put back after encoding."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from manifests.weights import STAND_IN
from tokenize_shards.encode import PRECISIONS, Encoder, Precision
from tokenize_shards.images import center_crop, to_tensor
from tokenize_shards.vq import load_vq


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(load_vq("VQ-demo", STAND_IN), device="cpu")


def pictures(count: int, side: int = 80) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (side, side + 9, 3), np.uint8)) for _ in range(count)]


def test_codes_are_those_of_the_centre_crops(encoder: Encoder) -> None:
    images = pictures(3)
    codes = encoder.encode_images(images, 64, 2)
    assert codes.dtype == np.uint16
    assert codes.shape == (3, 1, 64)
    vq = load_vq("VQ-demo", STAND_IN).vq
    for image, crops in zip(images, codes, strict=True):
        assert np.array_equal(vq.encode(to_tensor([center_crop(image, 64)])).numpy(), crops)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_codes_do_not_depend_on_batch_size_order_or_neighbours(precision: Precision) -> None:
    encoder = Encoder(load_vq("VQ-demo", STAND_IN), precision, "cpu")
    images = pictures(3)
    codes = encoder.encode_images(images, 64, 1)
    assert np.array_equal(encoder.encode_images(images, 64, 2), codes)
    order = [2, 0, 1]
    assert np.array_equal(encoder.encode_images([images[index] for index in order], 64, 3), codes[order])
    assert np.array_equal(encoder.encode_images(images[1:2], 64, 8), codes[1:2])


def test_a_batch_filled_up_gives_the_codes_of_a_full_one(encoder: Encoder) -> None:
    # What a GPU does with its last batch, done on this machine: same shape, other neighbours, the same numbers.
    x_BCHW = to_tensor([center_crop(image, 64) for image in pictures(6)])
    filled_BCHW = torch.cat([x_BCHW[:2], torch.zeros(4, 3, 64, 64)])
    vq = load_vq("VQ-demo", STAND_IN).vq
    with torch.no_grad():
        assert torch.equal(vq.latents(filled_BCHW)[:2], vq.latents(x_BCHW)[:2])
        assert torch.equal(vq.latents(x_BCHW.flip(0)).flip(0), vq.latents(x_BCHW))


def test_no_pictures_give_no_codes(encoder: Encoder) -> None:
    assert encoder.encode_images([], 64, 8).shape == (0, 1, 64)


def test_sizes_that_do_not_fit_are_refused(encoder: Encoder) -> None:
    for size, batch_size in ((60, 8), (0, 8), (64, 0)):
        with pytest.raises(ValueError, match=f"got size {size} and batch {batch_size}, wanted a multiple of 8"):
            encoder.encode_images(pictures(1), size, batch_size)


def test_unknown_precision_lists_the_choices() -> None:
    with pytest.raises(ValueError, match=r"'fp16'.*fp32, tf32, bf16"):
        Encoder(load_vq("VQ-demo", STAND_IN), "fp16")  # type: ignore[arg-type]


def test_tf32_is_float32_on_a_cpu_and_bf16_stays_close(encoder: Encoder) -> None:
    images = pictures(2)
    exact = encoder.encode_images(images, 64, 4)
    assert np.array_equal(Encoder(load_vq("VQ-demo", STAND_IN), "tf32", "cpu").encode_images(images, 64, 4), exact)
    rough = Encoder(load_vq("VQ-demo", STAND_IN), "bf16", "cpu").encode_images(images, 64, 4)
    assert 0.5 < (rough == exact).mean() < 1.0


def test_cuda_arithmetic_is_set_while_encoding_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str, str, bool]] = []
    places = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)
    before = [place.fp32_precision for place in places]

    def spied(name: str, work: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
        def spy(x: torch.Tensor) -> torch.Tensor:
            seen.append((name, *(place.fp32_precision for place in places), torch.backends.cudnn.deterministic))
            return work(x)

        return spy

    for precision in PRECISIONS:
        encoder = Encoder(load_vq("VQ-demo", STAND_IN), precision, "cpu")
        monkeypatch.setattr(encoder, "_latents", spied(precision, encoder._vq.latents))
        monkeypatch.setattr(encoder._vq.quantize, "nearest", spied("nearest", encoder._vq.quantize.nearest))
        encoder.encode_images(pictures(1), 64, 1)
    nearest = ("nearest", "ieee", "ieee", True)  # TF32 would turn codes that the encoder has right
    assert seen == [
        ("fp32", "ieee", "ieee", True),
        nearest,
        ("tf32", "tf32", "tf32", True),
        nearest,
        ("bf16", "ieee", "ieee", True),
        nearest,
    ]
    assert [place.fp32_precision for place in places] == before


@pytest.mark.parametrize(("holds", "batch"), [(2000, 512), (300, 128), (20, 8), (3, 8)])
@pytest.mark.parametrize("fault", [torch.OutOfMemoryError, RuntimeError])
def test_the_largest_batch_is_found_uncompiled(
    monkeypatch: pytest.MonkeyPatch, holds: int, batch: int, fault: type[Exception]
) -> None:
    encoder = Encoder(load_vq("VQ-demo", STAND_IN), device="cpu")
    assert encoder.largest_batch(64) == 8
    compiled = torch.nn.Identity()
    monkeypatch.setattr(encoder, "device", SimpleNamespace(type="cuda"))
    monkeypatch.setattr(encoder, "_latents", compiled)

    def encode(crops: list[Image.Image], size: int, batch_size: int) -> None:
        assert encoder._latents == encoder._vq.latents
        if batch_size > holds:
            raise fault("no room")

    monkeypatch.setattr(encoder, "encode_crops", encode)
    assert encoder.largest_batch(64) == batch
    assert encoder._latents is compiled


def test_plain_float32_alone_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    encoders = {precision: Encoder(load_vq("VQ-demo", STAND_IN), precision, "cpu") for precision in PRECISIONS}
    assert {precision: encoder.exact for precision, encoder in encoders.items()} == {
        "fp32": True,
        "tf32": True,
        "bf16": False,
    }
    for encoder in encoders.values():
        monkeypatch.setattr(encoder, "device", SimpleNamespace(type="cuda"))
    assert {precision: encoder.exact for precision, encoder in encoders.items()} == {
        "fp32": True,
        "tf32": False,
        "bf16": False,
    }
    monkeypatch.setattr(encoders["fp32"], "fused", True)
    assert not encoders["fp32"].exact
