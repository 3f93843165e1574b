"""LlamaGen's layout, written and read: by line number, in its dtypes and shapes (dataset/t2i.py,
extract_codes_c2i.py)."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from manifests.files import write_json
from manifests.journal import FileRecord, Journal, ShardRecord
from manifests.shards import ShardError, index_path, read_shard, write_shard
from manifests.verify_shards import verify_folder
from pipeline.cli import app
from pipeline.llamagen.export import ExportOptions, captions_by_position, export_llamagen
from pipeline.llamagen.ingest import ImportOptions, import_llamagen
from pipeline.recipes.schema import RecipeError
from pipeline.training.text_features import HashedWords
from tests.support.code_shards import GRID, row_of, tokenizer, write_codes
from tests.support.damages import DAMAGES
from tests.support.small_web import jpeg, picture
from tests.support.stored_runs import memory_root, upload
from tokenize_shards.samples import LoaderError, find_shards, npy_bytes, pack_numbers, read_samples, sample_parts

WHOLE = {"dropped": {}, "without_t5": {}, "files": {}}


@pytest.fixture
def run_folder(tmp_path):
    """Twelve pictures in two shards of codes, their JPEGs in one shard of pairs."""
    root = tmp_path / "run"
    write_codes(root, (5, 7), crops=2)
    jpegs = [(row_of(number)["uid"].hex(), {"jpg": jpeg(picture(number))}) for number in range(12)]
    write_shard(root / "pairs" / "00000.tar", jpegs)
    Journal(root, "fetch").record(
        ShardRecord("00000", "k", (FileRecord.of(root, root / "pairs" / "00000.tar"),), 12, 12)
    )
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
    assert np.array_equal(
        np.load(tmp_path / "out" / "t5_short" / "00001" / "2.npy")[0], HashedWords(16).features(["short 7"])[0]
    )


def test_a_run_in_a_store_is_exported_to_the_same_files(run_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TESSERA_SCRATCH", str(tmp_path / "scratch"))
    stored = upload(run_folder, memory_root())
    dones = [export_llamagen(ExportOptions(root, "pretrain", tmp_path / "out")) for root in (run_folder, stored)]
    assert dones[0] == dones[1]
    here = {path.relative_to(tmp_path / "out"): path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    export_llamagen(ExportOptions(run_folder, "pretrain", tmp_path / "out"))
    assert {path.relative_to(tmp_path / "out"): path.read_bytes() for path in (tmp_path / "out").rglob("*.*")} == here
    assert not list((tmp_path / "scratch").glob("upload-*"))
    (stored / "pairs" / "00000.tar").write_bytes(b"another")
    with pytest.raises(ShardError, match=f"{stored}/pairs/00000.tar is not there, or damaged"):
        export_llamagen(ExportOptions(stored, "pretrain", tmp_path / "out"))


def test_what_is_missing_is_filled_with_the_first_caption_and_said(run_folder, tmp_path):
    assert captions_by_position([{"source": "alt", "text": "a"}]) == (["a", "a", "a"], ["alt"] * 3)
    captions = [
        {"source": "alt", "text": "a"},
        {"source": "top_caption", "text": "b"},
        {"source": "llava", "text": "c"},
    ]
    assert captions_by_position(captions) == (["b", "c", "a"], ["top_caption", "llava", "alt"])
    assert captions_by_position([]) == (["", "", ""], [""] * 3)


def test_missing_pictures_and_damaged_pairs_are_refused_and_nothing_is_written(run_folder, tmp_path):
    path = run_folder / "pairs" / "00000.tar"
    path.unlink()
    write_shard(path, [])
    with pytest.raises(ShardError, match="is not there, or damaged"):
        export_llamagen(ExportOptions(run_folder, "pretrain", tmp_path / "out"))
    Journal(run_folder, "fetch").record(ShardRecord("00000", "k", (FileRecord.of(run_folder, path),), 12, 12))
    with pytest.raises(RecipeError, match="12 of 12 pictures are not in"):
        export_llamagen(ExportOptions(run_folder, "pretrain", tmp_path / "out"))
    assert sorted(tmp_path.iterdir()) == [run_folder]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_is_refused_and_nothing_is_written(run_folder, tmp_path, damage):
    DAMAGES[damage](run_folder / "codes" / "pretrain" / "00001.tar")
    done = CliRunner().invoke(
        app, ["export", "llamagen", str(run_folder), "--to", str(tmp_path / "out"), "--no-pictures"]
    )
    assert (done.exit_code, "damaged shard" in done.output) == (1, True), done.output
    assert sorted(tmp_path.iterdir()) == [run_folder]


def test_a_run_that_lacks_shards_is_refused(run_folder, tmp_path):
    """What was there was exported, and nothing said that it was half."""
    options = ExportOptions(run_folder, "pretrain", tmp_path / "out", pictures=False)
    shard = run_folder / "codes" / "pretrain" / "00001.tar"
    Journal(run_folder, "pack").record(ShardRecord("pretrain-00001", "k", (FileRecord.of(run_folder, shard),), 7, 7))
    assert export_llamagen(options).lines == 12
    plan = run_folder / "manifests" / "plan" / "pack" / "plan.json"
    write_json(plan, {"files": {"pretrain-00002.parquet": "", "finetune-00009.parquet": ""}})
    with pytest.raises(LoaderError, match=r"1 shards are not in .*, such as 00002\.tar"):
        export_llamagen(options)
    plan.unlink()
    write_shard(shard, [], index=True)
    with pytest.raises(LoaderError, match=r"00001\.tar is not the shard that the run's journal names"):
        export_llamagen(options)
    for path in (shard, index_path(shard)):
        path.unlink()
    with pytest.raises(LoaderError, match=r"such as 00001\.tar"):
        export_llamagen(options)
    (run_folder / "manifests" / "journal" / "pack" / "pretrain-00001.json").unlink()
    write_codes(run_folder, (5, 7, 2))
    for path in (run_folder / "codes" / "pretrain").glob("00001.*"):
        path.unlink()
    with pytest.raises(LoaderError, match=r"such as 00001\.tar"):
        export_llamagen(options)


def test_another_export_takes_the_place_of_the_first_and_nothing_else(run_folder, tmp_path):
    options = ExportOptions(run_folder, "pretrain", tmp_path / "an odd ü.name", pictures=False, text=HashedWords(16))
    export_llamagen(options)
    write_codes(tmp_path / "small", (3,))
    export_llamagen(replace(options, root=tmp_path / "small", text=None))
    names = sorted(path.relative_to(options.to).as_posix() for path in options.to.rglob("*") if path.is_file())
    assert names == ["codes/00000/0.npy", "codes/00000/1.npy", "codes/00000/2.npy", "export.json", "jsonl/00000.jsonl"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(RecipeError, match=r"holds files, and no export\.json"):
        export_llamagen(replace(options, to=tmp_path / "mine"))
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_shards_whose_names_are_one_to_llamagen_are_refused(run_folder, tmp_path):
    folder = run_folder / "codes" / "pretrain"
    for number, name in enumerate(("a.b", "a.c")):
        samples = list(read_shard(folder / f"{number:05d}.tar"))
        write_shard(folder / f"{name}.tar", samples, index=True)
        for path in folder.glob(f"{number:05d}.*"):
            path.unlink()
    with pytest.raises(RecipeError, match="several shards are called 'a' up to their first dot"):
        export_llamagen(ExportOptions(run_folder, "pretrain", tmp_path / "out", pictures=False))
    (folder / "a.b.tar").rename(folder / "b.b.tar")
    (folder / "a.b.index.json").unlink()
    write_shard(folder / "b.b.tar", samples, index=True)
    export_llamagen(ExportOptions(run_folder, "pretrain", tmp_path / "out", pictures=False))
    assert sorted(path.name for path in (tmp_path / "out" / "jsonl").iterdir()) == ["a.jsonl", "b.jsonl"]


def back(out, to, **more):
    """Import an export; return sorted (codes of the first crop, captions, features, label) of its samples."""
    kinds = more or {"jsonl": out / "jsonl", "features": out / "t5"}
    import_llamagen(ImportOptions(kinds.pop("codes", out / "codes"), to, "VQ-demo", "f" * 64, 8 * GRID, **kinds))
    return held(to, "imported")


def held(root, tier):
    samples = [sample for shard in find_shards(root / "codes", tier) for sample in read_samples(shard)]
    return sorted(
        (s.codes_KN[:1].tolist(), sorted(s.captions), None if s.features is None else s.features.tolist(), s.label)
        for s in samples
    )


def test_there_and_back_gives_the_same_codes_captions_and_features(tmp_path):
    """Gaps that an export fills came back as the captioner's words, and captions beyond three did not come back."""
    captions = [
        [
            ("alt", 'a, \u2028 "b"\r\n'),
            ("top_caption", "top"),
            ("llava", "long"),
            ("llava_short", "short"),
            ("human", "said"),
        ],
        [("alt", "alone")],
        [("llava", "long alone")],
    ]
    rows = []
    for number, said in enumerate(captions):
        key, parts = code_sample(number)
        note = json.loads(parts["json"])
        note["captions"] = [{"source": source, "text": text} for source, text in said]
        note["t5"] = {"source": "top_caption" if number == 0 else said[0][0], "dtype": ("fp16", "bf16")[number % 2]}
        numbers = (
            np.random.default_rng(number).normal(0, 1e-6 if number == 1 else 1, (number + 1, 16)).astype(np.float32)
        )
        rows.append(
            (
                key,
                {
                    **parts,
                    "json": json.dumps(note).encode(),
                    "t5.npy": npy_bytes(pack_numbers(numbers, note["t5"]["dtype"])),
                },
            )
        )
    write_shard(tmp_path / "run" / "codes" / "pretrain" / "00000.tar", rows, index=True)
    done = export_llamagen(ExportOptions(tmp_path / "run", "pretrain", tmp_path / "out", pictures=False))
    assert done.without_features == 0
    assert back(tmp_path / "out", tmp_path / "back") == held(tmp_path / "run", "pretrain")
    line = json.loads((tmp_path / "out" / "jsonl" / "00000.jsonl").read_text().split("\n")[1])
    assert line["text"] == ["alone"] * 3
    assert not verify_folder(tmp_path / "back").wrong


@pytest.mark.slow
def test_a_real_run_goes_there_and_back_and_what_it_lacks_is_refused(run, tmp_path):
    for tier in ("pretrain", "finetune"):
        out = tmp_path / f"out-{tier}"
        done = export_llamagen(ExportOptions(run, tier, out))
        assert done.pictures == done.lines > 0
        assert back(out, tmp_path / f"back-{tier}", jsonl=out / "jsonl") == held(run, tier)
        assert not verify_folder(tmp_path / f"back-{tier}").wrong
    last = max((run / "codes" / "pretrain").glob("*.tar"))
    for path in (last, index_path(last)):
        path.unlink()
    with pytest.raises(LoaderError, match=f"1 shards are not in .*, such as {last.name}"):
        export_llamagen(ExportOptions(run, "pretrain", tmp_path / "out"))


def test_what_the_layout_has_no_place_for_is_said(tmp_path):
    key, parts = code_sample(0, crops=3)
    note = {**json.loads(parts["json"]), "captions": []}
    rows = [(key, {**parts, "json": json.dumps(note).encode()}), code_sample(1)]
    write_shard(tmp_path / "run" / "codes" / "pretrain" / "00000.tar", rows, index=True)
    done = CliRunner().invoke(
        app, ["export", "llamagen", str(tmp_path / "run"), "--to", str(tmp_path / "out"), "--no-pictures"]
    )
    assert done.exit_code == 0, done.output
    assert "note: 1 lines have no caption: an import drops them as bad_text" in done.output
    assert "note: 2 more crops stay here: the layout holds one per line" in done.output
    options = ImportOptions(
        tmp_path / "out" / "codes", tmp_path / "back", "VQ-demo", "f" * 64, 8 * GRID, tmp_path / "out" / "jsonl"
    )
    assert import_llamagen(options).dropped == {"bad_text": 1}


def code_sample(number, label=None, crops=1):
    key, parts = row_of(number)["uid"].hex(), sample_parts(row_of(number, crops), "pretrain", tokenizer(), "parent")
    return key, {
        **parts,
        "json": json.dumps({**json.loads(parts["json"]), **({} if label is None else {"label": label})}).encode(),
    }


def test_labels_are_exported_as_imagenets_folders(tmp_path):
    """They became lines of empty texts, without a word."""
    rows = [code_sample(number, number * 7, crops=2) for number in range(3)]
    write_shard(tmp_path / "run" / "codes" / "imported" / "00000.tar", rows, index=True)
    done = CliRunner().invoke(
        app, ["export", "llamagen", str(tmp_path / "run"), "--tier", "imported", "--to", str(tmp_path / "out")]
    )
    assert done.exit_code == 0, done.output
    codes, labels = tmp_path / "out" / "imagenet64_codes", tmp_path / "out" / "imagenet64_labels"
    assert (np.load(codes / "1.npy").shape, np.load(labels / "1.npy").tolist()) == ((1, 2, GRID**2), [7])
    got = back(tmp_path / "out", tmp_path / "back", codes=codes, labels=labels)
    assert [(first, label) for first, _, _, label in got] == [
        (first, label) for first, _, _, label in held(tmp_path / "run", "imported")
    ]


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
    assert import_llamagen(options).record() == {**WHOLE, "rows_in": 12, "kept": 12, "with_t5": 12, "shards": 1}
    samples = [
        sample for shard in find_shards(tmp_path / "back" / "codes", "imported") for sample in read_samples(shard)
    ]
    got = {tuple(sample.codes_KN[0].tolist()): dict(sample.captions) for sample in samples}
    assert got[tuple(row_of(7, 2)["codes"][: GRID**2])] == {
        "alt": row_of(7)["text"],
        "llava": "long 7",
        "llava_short": "short 7",
    }
    assert all(sample.features_of == "alt" and sample.features is not None for sample in samples)
    first = [path.read_bytes() for path in sorted((tmp_path / "back" / "codes" / "imported").glob("*.tar"))]
    import_llamagen(options)
    assert [path.read_bytes() for path in sorted((tmp_path / "back" / "codes" / "imported").glob("*.tar"))] == first


def test_wrong_uses_end_with_2(tmp_path):
    for words in (
        ["export", "llamagen", str(tmp_path), "--to", str(tmp_path / "x")],
        ["import", "llamagen", "--codes", str(tmp_path), "--to", str(tmp_path / "x"), "--size", "64"],
        [
            "import",
            "llamagen",
            "--codes",
            str(tmp_path),
            "--to",
            str(tmp_path / "x"),
            "--size",
            "63",
            "--jsonl",
            str(tmp_path),
        ],
        [
            "import",
            "llamagen",
            "--codes",
            "nowhere",
            "--to",
            str(tmp_path / "x"),
            "--size",
            "64",
            "--jsonl",
            str(tmp_path),
        ],
    ):
        done = CliRunner().invoke(app, words)
        assert done.exit_code in (1, 2), done.output
        assert "error:" in done.output
