"""The demo tokenizer trains repeatably, its parts follow sums done by hand, and its card describes its weights."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from manifests.checksums import sha256_file
from pipeline.demo.train_tokenizer import (
    Optimizers,
    Recipe,
    RunningCodebook,
    gather,
    main,
    measure,
    prepare,
    reconstruction_loss,
    save,
    train,
)
from tokenize_shards.catalog import DEMO, DEMO_WEIGHTS, vq_weights
from tokenize_shards.images import to_tensor
from tokenize_shards.vq import load_vq


def drawing(index: int, size: int = 64) -> Image.Image:
    rng = np.random.default_rng(index)
    image = Image.new("RGB", (size, size), "white")
    draw = ImageDraw.Draw(image)
    x, y = (int(value) * size // 64 for value in rng.integers(4, 24, 2))
    draw.ellipse(
        (x, y, x + size // 2, y + size // 2), fill=tuple(rng.integers(0, 256, 3).tolist()), outline="black", width=2
    )
    draw.rectangle(
        (size // 8, size * 3 // 4, x + size // 2, size * 7 // 8), fill=tuple(rng.integers(0, 256, 3).tolist())
    )
    return image


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("drawings")
    for index in range(60):
        drawing(index, 72).save(path / f"{index:02}.png")
    (path / "notes.txt").write_text("not a picture")
    return path


def test_a_training_writes_weights_and_a_card_that_tell_the_truth(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "own.safetensors"
    main(["--steps", "3", "--seed", "3", "--pictures", str(folder), "--out", str(out)])
    loaded = load_vq("VQ-demo", str(out))
    card = (tmp_path / "CARD.md").read_text()
    assert loaded.fingerprint in card
    assert sha256_file(out) in card
    assert "--steps 3 --seed 3" in card
    assert "that of the pictures" in card
    pictures = gather(folder, Recipe(seed=3))
    assert f"{measure(loaded.vq, pictures.held_out).psnr:.2f} dB, mean over pictures" in card
    assert "notes.txt (not_an_image)" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["CARD.md", "own.safetensors"]


def test_steps_and_seed_repeat_a_training_exactly(folder: Path, tmp_path: Path) -> None:
    pictures = gather(folder, Recipe())
    made = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        recipe = Recipe(steps=2, seed=seed)
        vq = prepare(recipe)
        assert train(vq, pictures, recipe).steps == 2
        save(vq, tmp_path / name)
        made.append((tmp_path / name).read_bytes())
    assert made[0] == made[1] != made[2]


def test_too_few_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="0 pictures found, wanted some hundreds"):
        main(["--pictures", str(tmp_path), "--out", str(tmp_path / "x.safetensors")])


def test_the_held_out_pictures_do_not_depend_on_which_others_there_are(folder: Path, tmp_path: Path) -> None:
    def held_out(path: Path) -> set[bytes]:
        return {picture.tobytes() for picture in gather(path, Recipe(held_out=0.3)).held_out}

    for index in range(0, 60, 2):
        drawing(index, 72).save(tmp_path / f"{index:02}.png")
    assert held_out(tmp_path) == held_out(folder) & {picture.tobytes() for picture in np.concatenate([*_all(tmp_path)])}


def _all(path: Path) -> tuple[np.ndarray, np.ndarray]:
    pictures = gather(path, Recipe(held_out=0.3))
    return pictures.train, pictures.held_out


def test_reconstruction_loss_by_hand() -> None:
    # Off by (0.3, 0, 0): L1 0.1, L2 0.03; from grey (0.2, -0.1, -0.1): L1 0.4/3, L2 0.02.
    off = torch.tensor([0.3, 0.0, 0.0]).view(1, 3, 1, 1)
    assert float(reconstruction_loss(off, torch.zeros(1, 3, 1, 1), 0.5)) == pytest.approx(
        0.13 + 0.5 * (0.4 / 3 + 0.02), abs=1e-6
    )
    grey = torch.full((1, 3, 1, 1), 0.3)
    assert float(reconstruction_loss(grey, torch.zeros(1, 3, 1, 1), 0.5)) == pytest.approx(0.3 + 0.09, abs=1e-6)


def test_every_parameter_but_the_codebook_is_trained_once() -> None:
    vq = prepare(Recipe())
    before = {name: parameter.detach().clone() for name, parameter in vq.named_parameters()}
    optimizers = Optimizers(vq, Recipe())
    for parameter in vq.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizers.step(0.0)
    moved = {name for name, parameter in vq.named_parameters() if not torch.equal(parameter, before[name])}
    assert set(before) - moved == {"quantize.embedding.weight"}


def test_learning_rates_fall_along_half_a_cosine() -> None:
    optimizers = Optimizers(prepare(Recipe()), Recipe(muon_lr=0.04, adam_lr=0.002))
    for done, share in ((0.0, 1.0), (0.5, 0.5), (1.0, 0.0)):
        optimizers.step(done)
        assert [stepper.param_groups[0]["lr"] for stepper in optimizers.steppers] == pytest.approx(
            [0.04 * share, 0.002 * share]
        )


def test_the_codebook_starts_at_clusters_and_follows_its_latents() -> None:
    vq = prepare(Recipe())
    codebook = RunningCodebook(vq, decay=0.5)
    points_KD = torch.nn.functional.normalize(torch.randn(512, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    codebook.start(points_KD.repeat(3, 1), seed=0)
    cosines = points_KD @ vq.quantize.units().detach().T
    assert float(cosines.max(1).values.mean()) > 0.95
    target_D = torch.nn.functional.normalize(vq.quantize.units()[7].detach() + 0.05, dim=0)
    z_BDhw = target_D.view(1, 8, 1, 1).expand(1, 8, 8, 8)
    before = float(vq.quantize.units()[7].detach() @ target_D)
    for _ in range(5):
        q_BDhw = codebook.quantise(z_BDhw, revive=False)
    assert float(q_BDhw[0, :, 3, 4] @ target_D) > max(before, 0.999)


def test_unused_codes_are_placed_on_badly_served_latents() -> None:
    vq = prepare(Recipe())
    codebook = RunningCodebook(vq, decay=0.5)
    vq.quantize.embedding.weight.data[:] = torch.eye(8)[0]  # all codes in one place
    codebook.sums_KD = vq.quantize.units().detach().clone()
    z_BDhw = torch.eye(8).T.reshape(1, 8, 2, 4).contiguous()  # eight latents in eight directions
    for _ in range(12):
        q_BDhw = codebook.quantise(z_BDhw, revive=True)
    assert float((q_BDhw * z_BDhw).sum(1).min()) > 0.99


def test_the_packaged_weights_are_the_ones_the_card_describes() -> None:
    card = DEMO_WEIGHTS.with_name("CARD.md").read_text()
    loaded = load_vq("VQ-demo", DEMO)
    assert loaded.weights == vq_weights("VQ-demo", DEMO)
    assert loaded.weights.sha256 in card
    assert loaded.fingerprint in card
    assert "CC BY-SA 4.0" in card
    assert DEMO_WEIGHTS.stat().st_size <= 1_500_000
    psnr = re.search(r"held-out PSNR \| ([\d.]+) dB", card)
    assert psnr is not None
    assert float(psnr.group(1)) >= 19


@pytest.mark.parametrize("size", [64, 128])
def test_the_packaged_weights_know_drawings(size: int) -> None:
    vq = load_vq("VQ-demo", DEMO).vq
    x_BCHW = to_tensor([drawing(index, size) for index in range(8)])
    codes_BN = vq.encode(x_BCHW)
    assert codes_BN.shape == (8, (size // 8) ** 2)
    error = (vq.decode(codes_BN).clamp(-1, 1) - x_BCHW).div(2).square().mean()
    assert float(-10 * error.log10()) > 15
