"""Sheets set pictures beside what their codes decode to, and refuse files and tokenizers that do not fit."""

import io
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from manifests.journal import FileRecord, Journal, ShardRecord
from manifests.shards import ShardError, read_shard, write_shard
from pipeline.evaluation.reconstruction import codebook_use, psnr_of, show_codes
from pipeline.recipes.schema import RecipeError
from tests.support.code_shards import GRID, tokenizer
from tests.support.small_web import jpeg, picture
from tests.support.stored_runs import memory_root, upload
from tokenize_shards.crops import CropPlan, crops_of
from tokenize_shards.encode import Encoder
from tokenize_shards.images import center_crop, to_uint8
from tokenize_shards.samples import sample_parts
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
        row = {
            "uid": bytes.fromhex(key),
            "url": "http://a.test/",
            "codes": encoder.encode_crops([pixels], size, 1),
            "n_crops": 1,
        }
        row |= {
            "size": size,
            "crops": [crop.note()],
            "sha256": bytes(32),
            "text": f"picture {key[-1]}",
            "top_caption": None,
        }
        samples.append((key, sample_parts(row, "pretrain", made, "p")))
    write_shard(root / "codes" / "pretrain" / "00000.tar", samples, index=True)
    return root, loaded


def test_a_shard_of_a_store_gives_the_same_sheet(run_folder, tmp_path):
    root, loaded = run_folder
    sheets = []
    for place in (root, upload(root, memory_root())):
        shown = show_codes(place / "codes" / "pretrain" / "00000.tar", loaded, 2, tmp_path / "sheet.png")
        sheets.append((shown.psnr, shown.use, (tmp_path / "sheet.png").read_bytes()))
    assert sheets[0] == sheets[1]


def test_a_sheet_compares_pictures_with_their_codes(run_folder, tmp_path):
    root, loaded = run_folder
    shown = show_codes(root / "codes" / "pretrain" / "00000.tar", loaded, 2, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 3 * 128
        assert np.asarray(sheet).std() > 10
    assert list(shown.psnr) == [f"{0:032x}", f"{1:032x}"]
    made = to_uint8(
        loaded.vq.decode(
            torch.from_numpy(Encoder(loaded, device="cpu").encode_images([stored(0)], 64, 1)[0].astype("int64"))
        )
    )
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


def invoke(*words):
    from typer.testing import CliRunner

    from pipeline.cli import app

    done = CliRunner().invoke(app, ["show", "codes", *map(str, words), "--vq", "VQ-demo", "--weights", "demo"])
    return done.exit_code, done.output


def test_a_sheet_takes_the_place_of_no_other_file(run_folder, tmp_path):
    shard = run_folder[0] / "codes" / "pretrain" / "00000.tar"
    for name, says in {"other.tar": "ends in .png", "other.png": "is no PNG", "empty.PNG": "is no PNG"}.items():
        kept = b"" if "empty" in name else shard.read_bytes()
        (tmp_path / name).write_bytes(kept)
        code, output = invoke(shard, "--sheet", tmp_path / name)
        assert (code, says in output) == (2, True), output
        assert (tmp_path / name).read_bytes() == kept
    (tmp_path / "folder.png").mkdir()
    assert invoke(shard, "--sheet", tmp_path / "folder.png")[0] == 2
    code, output = invoke(shard, "--sheet", tmp_path / "absent" / "a.png")
    assert (code, f"no folder {str(tmp_path / 'absent')!r}" in output) == (2, True), output
    assert not (tmp_path / "absent").exists()
    for _ in range(2):
        assert invoke(shard, "--sheet", tmp_path / "sheet.PNG")[0] == 0


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


ODD_PARTS = {
    "of pictures": ({"jpg": b"x", "json": b'{"uid": "a"}'}, "tokenizer's name"),
    "no json": ({"json": None}, "json that"),
    "json of a list": ({"json": b"[]"}, "tokenizer's name"),
    "json of a number": ({"json": b"3"}, "json that"),
    "json cut": ({"json": b"{"}, "json that"),
    "json too deep": ({"json": b"[" * 100_000}, "json that"),
    "no codes": ({"codes.npy": None}, "codes.npy that"),
    "codes cut": ({"codes.npy": npy(np.zeros((1, 64), np.uint16))[:100]}, "codes.npy that"),
    "codes of objects": ({"codes.npy": npy(np.array([None]))}, "codes.npy that"),
    "codes on no square": (
        {"codes.npy": npy(np.zeros((1, 63), np.uint16))},
        r"codes on a square grid: uint16 \(crops, N\) wanted, uint16 \(1, 63\)",
    ),
    "no crops": ({"codes.npy": npy(np.zeros((0, 64), np.uint16))}, "codes on a square grid"),
    "fractions": ({"codes.npy": npy(np.zeros((1, 64)))}, "codes on a square grid.*float64"),
}


@pytest.mark.parametrize("odd", ODD_PARTS)
def test_a_file_that_is_no_shard_of_codes_is_called_so(run_folder, tmp_path, odd):
    root, loaded = run_folder
    key, parts = next(iter(read_shard(root / "codes" / "pretrain" / "00000.tar")))
    changes, says = ODD_PARTS[odd]
    write_shard(
        tmp_path / "odd.tar", [(key, {name: data for name, data in {**parts, **changes}.items() if data is not None})]
    )
    with pytest.raises(ShardError, match=rf"odd\.tar is no shard of codes: sample '{key}' has no {says}"):
        show_codes(tmp_path / "odd.tar", loaded, 1, tmp_path / "sheet.png")
    code, output = invoke(tmp_path / "odd.tar", "--sheet", tmp_path / "sheet.png")
    assert (code, "is no shard of codes" in output) == (1, True)
    assert not (tmp_path / "sheet.png").exists()


def test_samples_that_do_not_fit_the_tokenizer_or_the_picture_are_named(run_folder, tmp_path):
    root, loaded = run_folder
    key, parts = next(iter(read_shard(root / "codes" / "pretrain" / "00000.tar")))
    write_shard(tmp_path / "odd.tar", [(key, {**parts, "codes.npy": npy(np.full((1, 64), 512, np.uint16))})])
    with pytest.raises(ShardError, match=rf"odd\.tar: sample '{key}' has code 512, outside the codebook of 512"):
        show_codes(tmp_path / "odd.tar", loaded, 1, tmp_path / "sheet.png")
    other = root / "codes" / "pretrain" / "00009.tar"
    write_shard(other, [(key, {**parts, "json": json.dumps({**json.loads(parts["json"]), "crops": []}).encode()})])
    with pytest.raises(ShardError, match="has no crop of its picture"):
        show_codes(other, loaded, 1, tmp_path / "sheet.png")


def test_psnr_and_perplexity_by_hand():
    grey = Image.new("RGB", (4, 4), (100, 100, 100))
    assert psnr_of(grey, Image.new("RGB", (4, 4), (110, 100, 100))) == pytest.approx(
        10 * math.log10(255**2 / (100 / 3))
    )
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
