"""What the report takes from codes/ and train/."""

import io
import json

import pytest
from PIL import Image

from pipeline.report.pictures import Picture
from pipeline.report.training import LossCurve, Memorised, Training, read_training
from tests.support.report_runs import write_training


def write_metrics(root, tier, lines):
    path = root / "train" / tier / "metrics.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(lines))


def test_a_folder_without_training_is_empty(tmp_path):
    assert read_training(tmp_path) == Training()


def test_a_training_run_is_read(tmp_path):
    write_training(tmp_path)
    training = read_training(tmp_path)
    (curve,) = training.curves
    assert (curve.tier, len(curve.points)) == ("pretrain", 50)
    assert curve.points[0] == (0.0, 6.0)
    assert curve.points[-1] == pytest.approx((49.0, 3.55))
    assert training.memorised == (Memorised("pretrain", 128, 0.97, 0.0078125, "this is memorising"),)
    assert [sheet.words for sheet in training.sheets] == ["train/pretrain/memorised.png"]


def test_lines_that_say_no_loss_are_left_out(tmp_path):
    lines = ['{"step": 1, "loss": 2.5}', '{"step": 2}', '{"step": "x", "loss": 1}', "[1]", "", '{"step": 3, "lo']
    write_metrics(tmp_path, "pretrain", lines)
    write_metrics(tmp_path, "silent", ['{"step": 2}'])
    assert read_training(tmp_path).curves == (LossCurve("pretrain", ((1.0, 2.5),)),)


def test_the_loss_on_held_out_pictures_is_a_line_of_its_own(tmp_path):
    lines = ['{"step": 40, "loss": 2.5}', '{"step": 40, "validation_loss": 3.5, "by_source": {"alt": 3.5}}']
    write_metrics(tmp_path, "pretrain", lines)
    assert read_training(tmp_path).curves == (LossCurve("pretrain", ((40.0, 2.5),), ((40.0, 3.5),)),)


def test_a_long_curve_is_thinned(tmp_path):
    write_metrics(tmp_path, "pretrain", [json.dumps({"step": n, "loss": 1}) for n in range(1300)])
    (curve,) = read_training(tmp_path).curves  # every third: 1300 // 400
    assert (len(curve.points), curve.points[1][0], curve.points[-1][0]) == (434, 3, 1299)


@pytest.mark.parametrize("text", ["", "[]", '{"pictures": 4}', '{"pictures": 4, "top1": "half", "chance_top1": 0}'])
def test_a_broken_account_of_memorising_is_left_out(tmp_path, text):
    (tmp_path / "train" / "pretrain").mkdir(parents=True)
    (tmp_path / "train" / "pretrain" / "memorised.json").write_text(text)
    assert read_training(tmp_path).memorised == ()


def test_at_most_six_sheets_those_of_codes_first(tmp_path):
    for name in ("codes/b.png", "codes/a.png", *(f"train/t{n}/memorised.png" for n in range(6))):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"\x89PNG")
    sheets = read_training(tmp_path).sheets
    assert sheets[0] == Picture(b"\x89PNG", "codes/a.png")
    assert [sheet.words for sheet in sheets[1:]] == ["codes/b.png", *(f"train/t{n}/memorised.png" for n in range(4))]


def test_a_large_sheet_becomes_a_jpeg_of_1600_pixels(tmp_path):
    (tmp_path / "codes").mkdir()
    Image.effect_noise((1700, 850), 80).save(tmp_path / "codes" / "large.png")
    assert (tmp_path / "codes" / "large.png").stat().st_size > 600_000
    (sheet,) = read_training(tmp_path).sheets
    with Image.open(io.BytesIO(sheet.data)) as picture:
        assert (picture.format, picture.size) == ("JPEG", (1600, 800))
