import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from manifests.manifest import FileRecord, Journal, ShardRecord
from manifests.shards import write_shard
from pipeline.recipe import RecipeError
from pipeline.show import codebook_use, psnr_of, show_codes
from tests.code_shards import GRID, tokenizer
from tests.conftest import jpeg, picture
from tokenize_shards.crops import CropPlan, crops_of
from tokenize_shards.encode import Encoder
from tokenize_shards.images import center_crop, to_uint8
from tokenize_shards.pack import sample_parts
from tokenize_shards.vq import load_vq


def stored(number):
    return Image.open(io.BytesIO(jpeg(picture(number), 95)))


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run with three encoded pictures, as fetch, encode and pack leave it."""
    root, loaded = tmp_path_factory.mktemp("run"), load_vq("VQ-demo", "demo")
    encoder, size = Encoder(loaded, device="cpu"), 8 * GRID
    pictures = {f"{number:032x}": picture(number) for number in range(3)}
    write_shard(root / "pairs" / "00000.tar", [(key, {"jpg": jpeg(image, 95)}) for key, image in pictures.items()])
    Journal(root, "fetch").record(ShardRecord("00000", "k", (FileRecord.of(root, root / "pairs" / "00000.tar"),), 3, 3))
    made = type(tokenizer())("VQ-demo", loaded.fingerprint, 512, GRID, False)
    samples = []
    for number, key in enumerate(pictures):
        image = stored(number)
        ((crop, pixels),) = crops_of(image, size, CropPlan())
        row = {"uid": bytes.fromhex(key), "url": "http://a.test/", "codes": encoder.encode_crops([pixels], size, 1), "n_crops": 1}
        row |= {"size": size, "crops": [crop.note()], "sha256": bytes(32), "text": f"picture {key[-1]}", "top_caption": None}
        samples.append((key, sample_parts(row, "pretrain", made, "p")))
    write_shard(root / "codes" / "pretrain" / "00000.tar", samples, index=True)
    return root, loaded


def test_a_sheet_compares_pictures_with_their_codes(run_folder, tmp_path):
    root, loaded = run_folder
    shown = show_codes(root / "codes" / "pretrain" / "00000.tar", loaded, 2, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 3 * 128
        assert np.asarray(sheet).std() > 10
    assert list(shown.psnr) == [f"{0:032x}", f"{1:032x}"]
    made = to_uint8(loaded.vq.decode(torch.from_numpy(Encoder(loaded, device="cpu").encode_images([stored(0)], 64, 1)[0].astype("int64"))))
    error = np.mean((made[0].astype(float) - np.asarray(center_crop(stored(0), 64), float)) ** 2)
    assert shown.psnr[f"{0:032x}"] == pytest.approx(10 * math.log10(255**2 / error))
    assert shown.use.codes == 3 * GRID**2


def test_a_bare_shard_shows_reconstructions_alone(run_folder, tmp_path):
    root, loaded = run_folder
    bare = tmp_path / "set" / "codes" / "00000.tar"
    bare.parent.mkdir(parents=True)
    bare.write_bytes((root / "codes" / "pretrain" / "00000.tar").read_bytes())
    assert show_codes(bare, loaded, 3, tmp_path / "sheet.png").psnr == {}


def test_another_tokenizer_is_refused(run_folder, tmp_path):
    root, _ = run_folder
    with pytest.raises(RecipeError, match=r"was made by VQ-demo .*, got VQ-demo .*--weights FILE"):
        show_codes(root / "codes" / "pretrain" / "00000.tar", load_vq("VQ-demo", "stand-in"), 2, tmp_path / "sheet.png")


def test_psnr_and_perplexity_by_hand():
    grey = Image.new("RGB", (4, 4), (100, 100, 100))
    assert psnr_of(grey, Image.new("RGB", (4, 4), (110, 100, 100))) == pytest.approx(10 * math.log10(255**2 / (100 / 3)))
    assert psnr_of(grey, grey) == math.inf
    use = codebook_use([np.array([[0, 0, 1, 1]], np.uint16), np.array([[2, 2, 3, 3]], np.uint16)], 8)
    assert (use.codes, use.used, use.size) == (8, 4, 8)
    assert use.perplexity == pytest.approx(4.0)


def test_the_command_finds_the_runs_tokenizer(run_folder, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from pipeline.cli import app

    root, _ = run_folder
    (root / "recipe.toml").write_text('[tier.pretrain]\nsize = 64\nvq = "VQ-demo"\nweights = "demo"\n')
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["show", "codes", str(root / "codes" / "pretrain" / "00000.tar"), "--n", "1"])
    assert done.exit_code == 0, done.output
    assert "of 512 used" in done.output
    assert (tmp_path / "codes-pretrain-00000.png").is_file()
    assert CliRunner().invoke(app, ["show", "codes", "nowhere.tar"]).exit_code == 2
    (tmp_path / "junk.tar").write_bytes(b"junk")
    assert CliRunner().invoke(app, ["show", "codes", "junk.tar", "--vq", "VQ-demo", "--weights", "demo"]).exit_code == 1
