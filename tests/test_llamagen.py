"""LlamaGen's layout, written and read: by line number, in its dtypes and shapes (dataset/t2i.py, extract_codes_c2i.py)."""

import io
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from manifests.manifest import FileRecord, Journal, ShardRecord
from manifests.shards import read_shard, write_shard
from pipeline.cli import app
from pipeline.features import HashedWords
from pipeline.llamagen_export import ExportOptions, captions_by_position, export_llamagen
from pipeline.llamagen_import import ImportOptions, import_llamagen
from pipeline.loader import find_shards, read_samples
from pipeline.recipe import RecipeError
from tests.code_shards import GRID, row_of, write_codes
from tests.conftest import jpeg, picture


@pytest.fixture
def run_folder(tmp_path):
    """Twelve pictures in two shards of codes, their JPEGs in one shard of pairs."""
    root = tmp_path / "run"
    write_codes(root, (5, 7), crops=2)
    jpegs = [(row_of(number)["uid"].hex(), {"jpg": jpeg(picture(number))}) for number in range(12)]
    write_shard(root / "pairs" / "00000.tar", jpegs)
    Journal(root, "fetch").record(ShardRecord("00000", "k", (FileRecord.of(root, root / "pairs" / "00000.tar"),), 12, 12))
    return root


def test_export_writes_what_llamagens_scripts_read(run_folder, tmp_path):
    done = export_llamagen(ExportOptions(run_folder, "pretrain", tmp_path / "out", text=HashedWords(16)))
    assert (done.lines, done.pictures, done.features, done.without_llava) == (12, 12, 24, 0)
    lines = [json.loads(line) for line in (tmp_path / "out" / "jsonl" / "00001.jsonl").read_text().splitlines()]
    assert len(lines) == 7
    assert lines[2]["text"] == [row_of(7)["text"], "long 7", "short 7"]  # shard 1 starts at row 5
    with open(lines[2]["image_path"], "rb") as file:
        assert file.read() == jpeg(picture(7))
    codes = np.load(tmp_path / "out" / "codes" / "00001" / "2.npy")
    assert (codes.dtype, codes.shape) == (np.int64, (1, GRID**2))
    assert codes[0].tolist() == row_of(7, 2)["codes"][: GRID**2]
    features = np.load(tmp_path / "out" / "t5" / "00001" / "2.npy")
    assert features.dtype == np.float32
    assert np.array_equal(features[0], HashedWords(16).features([str(row_of(7)["text"])])[0])
    assert np.array_equal(np.load(tmp_path / "out" / "t5_short" / "00001" / "2.npy")[0], HashedWords(16).features(["short 7"])[0])


def test_what_is_missing_is_filled_with_the_first_caption_and_said(run_folder, tmp_path):
    assert captions_by_position([{"source": "alt", "text": "a"}]) == (["a", "a", "a"], ["alt"] * 3)
    captions = [{"source": "alt", "text": "a"}, {"source": "top_caption", "text": "b"}, {"source": "llava", "text": "c"}]
    assert captions_by_position(captions) == (["b", "c", "a"], ["top_caption", "llava", "alt"])
    assert captions_by_position([]) == (["", "", ""], [""] * 3)
    (run_folder / "pairs" / "00000.tar").unlink()
    write_shard(run_folder / "pairs" / "00000.tar", [])
    with pytest.raises(RecipeError, match="12 of 12 pictures are not in"):
        export_llamagen(ExportOptions(run_folder, "pretrain", tmp_path / "out"))


def test_there_and_back_gives_the_same_codes(run_folder, tmp_path):
    export_llamagen(ExportOptions(run_folder, "pretrain", tmp_path / "out", pictures=False, text=HashedWords(16)))
    options = ImportOptions(
        tmp_path / "out" / "codes",
        tmp_path / "back",
        "VQ-demo",
        "f" * 64,
        8 * GRID,
        tmp_path / "out" / "jsonl",
        features=tmp_path / "out" / "t5",
    )
    assert import_llamagen(options) == {"rows_in": 12, "kept": 12, "dropped_line": 0, "dropped_missing": 0, "dropped_shape": 0}
    samples = [sample for shard in find_shards(tmp_path / "back" / "codes", "imported") for sample in read_samples(shard)]
    got = {tuple(sample.codes_KN[0].tolist()): dict(sample.captions) for sample in samples}
    assert got[tuple(row_of(7, 2)["codes"][: GRID**2])] == {"top_caption": row_of(7)["text"], "llava": "long 7", "llava_short": "short 7"}
    assert all(sample.features_of == "top_caption" and sample.features is not None for sample in samples)
    first = [path.read_bytes() for path in sorted((tmp_path / "back" / "codes" / "imported").glob("*.tar"))]
    import_llamagen(options)
    assert [path.read_bytes() for path in sorted((tmp_path / "back" / "codes" / "imported").glob("*.tar"))] == first


def test_faults_are_counted_and_shift_no_line(run_folder, tmp_path):
    export_llamagen(ExportOptions(run_folder, "pretrain", tmp_path / "out", pictures=False))
    (tmp_path / "out" / "codes" / "00001" / "0.npy").unlink()
    np.save(tmp_path / "out" / "codes" / "00001" / "1.npy", np.full((1, GRID**2), 9999))
    (tmp_path / "out" / "codes" / "00001" / "2.npy").write_bytes(b"junk")
    path = tmp_path / "out" / "jsonl" / "00001.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], "no json", *lines[4:]]) + "\n")
    options = ImportOptions(tmp_path / "out" / "codes", tmp_path / "back", "VQ-demo", "f" * 64, 8 * GRID, tmp_path / "out" / "jsonl")
    assert import_llamagen(options) == {"rows_in": 12, "kept": 8, "dropped_line": 1, "dropped_missing": 1, "dropped_shape": 2}
    samples = [sample for shard in find_shards(tmp_path / "back" / "codes", "imported") for sample in read_samples(shard)]
    right = {str(row_of(number)["text"]): row_of(number, 2)["codes"][: GRID**2] for number in range(12)}
    assert all(sample.codes_KN[0].tolist() == right[dict(sample.captions)["top_caption"]] for sample in samples)


def test_two_files_of_one_stem_are_refused(run_folder, tmp_path):
    for name in ("a.0.jsonl", "a.1.jsonl"):
        (tmp_path / "j").mkdir(exist_ok=True)
        (tmp_path / "j" / name).write_text("{}\n")
    with pytest.raises(RecipeError, match="two jsonl files share the stem 'a'"):
        import_llamagen(ImportOptions(tmp_path, tmp_path / "back", "VQ-demo", "f", 8 * GRID, tmp_path / "j"))


def test_imagenet_folders_keep_their_labels_and_crops(tmp_path):
    rng = np.random.default_rng(0)
    codes, labels = tmp_path / "imagenet64_codes", tmp_path / "imagenet64_labels"
    codes.mkdir()
    labels.mkdir()
    arrays = [rng.integers(0, 512, (1, 10, GRID**2)) for _ in range(12)]
    for number, array in enumerate(arrays):
        np.save(codes / f"{number}.npy", array)
        np.save(labels / f"{number}.npy", np.array([number % 3]))
    done = CliRunner().invoke(
        app,
        [
            "import",
            "llamagen",
            "--codes",
            str(codes),
            "--labels",
            str(labels),
            "--to",
            str(tmp_path / "out"),
            "--size",
            "64",
            "--vq",
            "VQ-demo",
        ],
    )
    assert done.exit_code == 0, done.output
    assert "rows_in 12, kept 12" in done.output
    assert "fingerprint is 'unknown'" in done.output
    for key, sample in read_shard(tmp_path / "out" / "codes" / "imported" / "00000.tar"):
        note = json.loads(sample["json"])
        number = int(note["url"].partition("/")[2])
        assert note["label"] == number % 3
        assert note["uid"] == key
        assert np.array_equal(np.load(io.BytesIO(sample["codes.npy"])), arrays[number][0])


def test_wrong_uses_end_with_2(tmp_path):
    for words in (
        ["export", "llamagen", str(tmp_path), "--to", str(tmp_path / "x")],
        ["import", "llamagen", "--codes", str(tmp_path), "--to", str(tmp_path / "x"), "--size", "64"],
        ["import", "llamagen", "--codes", str(tmp_path), "--to", str(tmp_path / "x"), "--size", "63", "--jsonl", str(tmp_path)],
        ["import", "llamagen", "--codes", "nowhere", "--to", str(tmp_path / "x"), "--size", "64", "--jsonl", str(tmp_path)],
    ):
        done = CliRunner().invoke(app, words)
        assert done.exit_code in (1, 2), done.output
        assert "error:" in done.output
