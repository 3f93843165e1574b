"""What LlamaGen's folders may hold: every line and file ends as a sample or under a reason, and the import is whole or
not there."""

import io
import json
import signal
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from typer.testing import CliRunner

from manifests.shards import read_shard
from manifests.verify_shards import verify_folder
from pipeline.cli import app
from pipeline.llamagen import source as llamagen_source
from pipeline.llamagen.ingest import import_llamagen
from pipeline.recipes.schema import RecipeError
from tests.support.code_shards import CODEBOOK
from tests.support.imagenet import N, codes_of, imagenet, options
from tests.support.npy_files import OBJECTS, npy
from tokenize_shards.packed_index import NAME, PackedIndex, unlike
from tokenize_shards.samples import data_digest, find_shards, read_samples

WIDTH = 16


def entry(number, **more):
    return {
        "image_path": f"/pictures/{number}.v1 ü.jpg",
        "text": [f"blip {number}", f"long {number}", f"short {number}"],
        **more,
    }


def write(folder, lines, stem="a", t5=False):
    """Write STEM.jsonl of these lines (objects or bytes), and codes, and perhaps features, of each."""
    for kind in ("jsonl", f"codes/{stem}", f"t5/{stem}"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    data = [line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines]
    (folder / "jsonl" / f"{stem}.jsonl").write_bytes(b"".join(data))
    for number in range(len(lines)):
        np.save(folder / "codes" / stem / f"{number}.npy", codes_of(number))
        if t5:
            np.save(folder / "t5" / stem / f"{number}.npy", np.full((1, 3, WIDTH), number / 8, np.float32))
    return folder


def samples_of(to):
    return {sample.uid: sample for shard in find_shards(to / "codes", "imported") for sample in read_samples(shard)}


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def whole(to):
    return [(finding.path, finding.says) for finding in verify_folder(to, 1).wrong] == []


def test_the_packed_index_of_what_was_read_lies_beside_it(tmp_path):
    write(tmp_path, [entry(number) for number in range(5)])
    import_llamagen(options(tmp_path, jsonl=tmp_path / "jsonl", shard_rows=2))
    folder = tmp_path / "to" / "codes" / "imported"
    index = PackedIndex(folder / NAME)
    assert [shard.samples for shard in index.shards] == [2, 2, 1]
    assert index.digest == data_digest(find_shards(folder.parent, "imported"))
    assert unlike(index) == ""
    assert verify_folder(folder).findings == ()


def test_a_repeated_line_is_packed_once(tmp_path):
    """Its second copy made a shard with one uid twice, which verify calls damaged."""
    write(tmp_path, [entry(0), entry(1), entry(0), entry(0, text=["another text"])])
    (tmp_path / "codes" / "a" / "1.npy").unlink()
    done = import_llamagen(options(tmp_path))
    assert (done.rows_in, done.kept, done.dropped) == (4, 2, {"exact_duplicate": 1, "missing_codes": 1})
    assert done.files == {"exact_duplicate": ["a.jsonl:2"], "missing_codes": ["a/1.npy"]}
    assert whole(tmp_path / "to")
    (tmp_path / "codes" / "a" / "0.npy").unlink()  # of equal lines the first that can be kept is
    assert import_llamagen(options(tmp_path)).dropped == {"missing_codes": 2}
    assert [
        sample.codes_KN[0].tolist() for sample in samples_of(tmp_path / "to").values() if len(sample.captions) == 3
    ] == codes_of(2).tolist()


def test_codes_and_features_with_zeros_before_their_number_are_those_of_the_line(tmp_path):
    """Each was missing_codes."""
    write(tmp_path, [entry(number) for number in range(12)], t5=True)
    for kind in ("codes", "t5"):
        for number in range(12):
            path = tmp_path / kind / "a" / f"{number}.npy"
            path.rename(path.with_name(f"{number:06d}.npy"))
    done = import_llamagen(options(tmp_path, features=tmp_path / "t5"))
    assert (done.rows_in, done.kept, done.with_t5, done.dropped) == (12, 12, 12, {})


def test_codes_that_no_line_has_are_counted(tmp_path):
    """Those behind the last line were in no count."""
    write(tmp_path, [entry(0), entry(1)])
    (tmp_path / "codes" / "b").mkdir()
    for name in ("a/00.npy", "a/2.npy", "a/0007.npy", "a/img_1.npy", "b/0.npy", "5.npy", "a/._0.npy", "a/mean.npy"):
        np.save(tmp_path / "codes" / name, codes_of(0))
    done = import_llamagen(options(tmp_path))
    assert (done.rows_in, done.kept, done.dropped) == (8, 2, {"missing_line": 5, "bad_name": 1})
    assert done.files["missing_line"] == ["a/00.npy", "a/2.npy", "a/0007.npy", "5.npy", "b/0.npy"]
    alone = import_llamagen(options(tmp_path, jsonl=tmp_path / "jsonl" / "a.jsonl"))
    assert alone.dropped == {"missing_line": 3, "bad_name": 1}  # of one file's stem alone


def test_files_of_lines_lie_at_any_depth(tmp_path):
    write(tmp_path, [entry(0)])
    write(tmp_path, [entry(1)], stem="b")
    (tmp_path / "jsonl" / "more").mkdir()
    (tmp_path / "jsonl" / "b.jsonl").rename(tmp_path / "jsonl" / "more" / "b.jsonl")
    (tmp_path / "jsonl" / "._a.jsonl").write_bytes(b"\0")
    assert (done := import_llamagen(options(tmp_path))).kept == done.rows_in == 2


BAD_TEXTS = [[None], ["a", 3], [], "a text", ["", ""]]


def test_a_text_that_is_no_list_of_texts_is_counted(tmp_path):
    lines = [{"image_path": f"/{number}.jpg", "text": text} for number, text in enumerate(BAD_TEXTS)]
    write(tmp_path, [*lines, entry(9)])
    done = import_llamagen(options(tmp_path))
    assert (done.kept, done.dropped) == (1, {"bad_text": 5})
    assert done.files["bad_text"][0] == "a.jsonl:0 (wanted a list of texts, one of them not empty)"


def test_broken_blank_and_odd_lines_shift_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(llamagen_source, "MAX_LINE", 400)
    good = [json.dumps(entry(number), ensure_ascii=False).encode() for number in range(4)]
    lines = [
        b"\xef\xbb\xbf" + good[0] + b"\r\n",
        b"\n",
        b'{"image_path": "/\xff.jpg", "text": ["latin"]}\n',
        b'{"image_path": "/3.jpg", "text": ["' + b"x" * 900 + b'"]}\n',
        b"[" * 300 + b"\n",
        b'{"text": ["no path"]}\n',
        b'{"image_path": 7, "text": ["a"]}\n',
        b"3\n",
        json.dumps(entry(1, text=["half \ud83d", "", "short", "a fourth"])).encode() + b"\r\n",
        good[2],
    ]
    write(tmp_path, lines)
    done = import_llamagen(options(tmp_path))
    assert (done.rows_in, done.kept, done.dropped) == (10, 3, {"blank_line": 1, "broken_line": 6})
    assert done.files["blank_line"] == ["a.jsonl:1"]
    named = [
        "a.jsonl:2 (not UTF-8)",
        "a.jsonl:3 (longer than 400 bytes)",
        "a.jsonl:4 (not JSON)",
        "a.jsonl:5 (no image_path)",
    ]
    assert done.files["broken_line"] == [*named, "a.jsonl:6 (no image_path)"]  # five are named
    got = {sample.captions: sample.codes_KN.tolist() for sample in samples_of(tmp_path / "to").values()}
    texts = (("top_caption", "half \ufffd"), ("llava_short", "short"), ("text_3", "a fourth"))
    assert got[texts] == codes_of(8).tolist()
    assert len(got) == 3


CODE_FAULTS = [
    (OBJECTS, "unreadable_codes", "pickled objects"),
    (b"junk", "unreadable_codes", ""),
    (npy(codes_of(1))[:-8], "unreadable_codes", "504 bytes of numbers, its header says 64 of int64"),
    (npy(codes_of(1).astype(np.float64)), "codes_dtype", "float64, wanted whole numbers"),
    (npy(codes_of(1)[:, :-1]), "codes_shape", "(1, 63), wanted (1, 64)"),
    (npy(np.full((1, N), CODEBOOK)), "codes_range", f"{CODEBOOK} to {CODEBOOK}, wanted 0 to {CODEBOOK - 1}"),
]


def test_each_fault_of_a_code_file_has_its_reason_and_names_the_file(tmp_path):
    write(tmp_path, [entry(number) for number in range(2 + len(CODE_FAULTS))])
    for number, (data, _, _) in enumerate(CODE_FAULTS, 1):
        (tmp_path / "codes" / "a" / f"{number}.npy").write_bytes(data)
    done = import_llamagen(options(tmp_path))
    assert (done.rows_in, done.kept, done.dropped) == (8, 2, Counter(reason for _, reason, _ in CODE_FAULTS))
    for number, (_, reason, says) in enumerate(CODE_FAULTS, 1):
        (named,) = (name for name in done.files[reason] if name.startswith(f"a/{number}.npy ("))
        assert says in named
    note = json.loads((tmp_path / "to" / "codes" / "imported" / "import.json").read_text())
    assert note["files"] == done.files
    assert whole(tmp_path / "to")
    kept = [sample.codes_KN.tolist() for sample in samples_of(tmp_path / "to").values()]
    assert sorted(kept) == sorted(codes_of(number).tolist() for number in (0, 7))


FEATURES = np.ones((1, 3, WIDTH), np.float32)
T5_FAULTS = [
    (npy(FEATURES * np.nan), "t5_not_finite"),
    (npy(FEATURES[..., :-1]), "t5_width"),
    (npy(FEATURES[:, :0]), "t5_shape"),
    (npy(FEATURES.astype(np.int64)), "t5_dtype"),
    (npy(FEATURES)[:-1], "unreadable_t5"),
    (None, "missing_t5"),
]


def test_features_that_cannot_be_used_are_counted_and_their_picture_is_kept(tmp_path):
    write(tmp_path, [entry(number) for number in range(14)], t5=True)
    for number, (data, _) in enumerate(T5_FAULTS, 2):
        path = tmp_path / "t5" / "a" / f"{number}.npy"
        path.unlink() if data is None else path.write_bytes(data)
    done = import_llamagen(options(tmp_path, features=tmp_path / "t5"))
    assert (done.kept, done.with_t5, dict(done.dropped)) == (14, 8, {})
    assert done.without_t5 == {reason: 1 for _, reason in T5_FAULTS}
    for number, (_, reason) in enumerate(T5_FAULTS, 2):
        assert done.files[reason][0].startswith(f"a/{number}.npy")
    without = [sample for sample in samples_of(tmp_path / "to").values() if sample.features is None]
    expected = [codes_of(number).tolist() for number in range(2, 8)]
    assert sorted(sample.codes_KN.tolist() for sample in without) == sorted(expected)
    assert whole(tmp_path / "to")  # most samples have features and some lack them: no damage


def test_the_width_of_features_can_be_said(tmp_path):
    write(tmp_path, [entry(number) for number in range(3)], t5=True)
    done = import_llamagen(options(tmp_path, features=tmp_path / "t5", t5_width=2048))
    assert (done.kept, done.with_t5, done.without_t5) == (3, 0, {"t5_width": 3})
    assert f"{WIDTH}, wanted 2048" in done.files["t5_width"][0]


def test_features_are_those_of_the_text_they_were_made_of(tmp_path):
    """An empty first text made the features the second caption's."""
    write(tmp_path, [entry(0), entry(1, text=["", "long 1"])], t5=True)
    done = import_llamagen(options(tmp_path, features=tmp_path / "t5"))
    assert done.without_t5 == {"t5_without_text": 1}
    assert [sample.features_of for sample in samples_of(tmp_path / "to").values() if sample.features is not None] == [
        "top_caption"
    ]
    import_llamagen(options(tmp_path, features=tmp_path / "t5", t5_text=2))
    assert [sample.features_of for sample in samples_of(tmp_path / "to").values() if sample.features is not None] == [
        "llava_short"
    ]


# ImageNet's folders


def test_imagenet_folders_keep_their_labels_and_crops(tmp_path):
    import_llamagen(imagenet(tmp_path, 12))
    (path,) = (tmp_path / "to" / "codes" / "imported").glob("*.tar")
    for key, sample in read_shard(path):
        note = json.loads(sample["json"])
        number = int(note["url"].partition("/")[2])
        assert (note["label"], note["uid"], note["captions"]) == (number % 3, key, [])
        assert np.array_equal(np.load(io.BytesIO(sample["codes.npy"])), codes_of(number, crops=10)[0])
    assert whole(tmp_path / "to")


LABEL_FAULTS = [
    (npy(np.array([-7])), "label_range"),
    (npy(np.array([2.0])), "label_dtype"),
    (npy(np.array([1, 2])), "label_shape"),
    (b"", "unreadable_label"),
    (None, "missing_label"),
]


def test_a_label_that_is_none_is_counted(tmp_path):
    asked = imagenet(tmp_path, 8)
    for number, (data, _) in enumerate(LABEL_FAULTS, 1):
        path = tmp_path / "labels" / f"{number}.npy"
        path.unlink() if data is None else path.write_bytes(data)
    done = import_llamagen(asked)
    assert (done.rows_in, done.kept, done.dropped) == (8, 3, {reason: 1 for _, reason in LABEL_FAULTS})
    for number, (_, reason) in enumerate(LABEL_FAULTS, 1):
        assert done.files[reason][0].startswith(f"{number}.npy")


def test_classes_bound_labels_and_a_label_without_codes_is_counted(tmp_path):
    asked = imagenet(tmp_path)
    (tmp_path / "codes" / "3.npy").unlink()
    (tmp_path / "codes" / "notes.npy").write_bytes(b"")
    args = [
        "--codes",
        asked.codes,
        "--labels",
        asked.labels,
        "--to",
        asked.to,
        "--size",
        "64",
        "--vq",
        "VQ-demo",
        "--classes",
        "2",
    ]
    done = CliRunner().invoke(app, ["import", "llamagen", *map(str, args)])
    assert done.exit_code == 0, done.output
    assert "rows_in 4, kept 2, dropped 2, shards 1" in done.output
    assert "dropped: label_range 1, such as 2.npy (2, wanted 0 to 1)" in done.output
    assert "dropped: missing_codes 1, such as 3.npy" in done.output
    assert "fingerprint is 'unknown'" in done.output


# the folder that is written


def test_shards_hold_so_many_rows_and_bytes(tmp_path):
    write(tmp_path, [entry(number) for number in range(7)])
    assert import_llamagen(options(tmp_path, shard_rows=3)).shards == 3
    assert [shard.samples for shard in find_shards(tmp_path / "to" / "codes", "imported")] == [3, 3, 1]
    import_llamagen(options(tmp_path, tmp_path / "small", shard_bytes=10_000))
    shards = find_shards(tmp_path / "small" / "codes", "imported")
    assert [shard.samples for shard in shards] == [3, 3, 1]
    assert list(samples_of(tmp_path / "small")) == list(samples_of(tmp_path / "to"))


def test_another_import_takes_the_place_of_the_first_whole(tmp_path):
    """Shards of a larger import stayed behind the new ones."""
    write(tmp_path / "x", [entry(number) for number in range(6)])
    write(tmp_path / "y", [entry(number) for number in range(10, 13)])
    import_llamagen(options(tmp_path / "x", tmp_path / "to", shard_rows=2))
    first = files_of(tmp_path / "to")
    import_llamagen(options(tmp_path / "y", tmp_path / "to", shard_rows=2))
    assert len(samples_of(tmp_path / "to")) == 3
    assert whole(tmp_path / "to")
    import_llamagen(options(tmp_path / "x", tmp_path / "to", shard_rows=2))
    assert files_of(tmp_path / "to") == first
    (tmp_path / "x" / "jsonl" / "a.jsonl").write_bytes(b"no json\n")
    with pytest.raises(RecipeError, match="nothing can be kept"):
        import_llamagen(options(tmp_path / "x", tmp_path / "to"))
    assert files_of(tmp_path / "to") == first


def test_a_killed_import_leaves_what_was_there_and_the_next_one_gives_the_same_bytes(tmp_path):
    write(tmp_path, [entry(number) for number in range(8)])
    import_llamagen(options(tmp_path, shard_rows=2))
    first = files_of(tmp_path / "to")
    write(tmp_path, [entry(number) for number in range(10)])
    import_llamagen(options(tmp_path, tmp_path / "wanted", shard_rows=2))
    code = f"""
import os, signal
from pathlib import Path
import pipeline.llamagen.ingest as module
from tests.support.imagenet import options
write = module.write_shard
def killed(path, samples, index):
    if path.name == "00002.tar":
        os.kill(os.getpid(), signal.SIGKILL)
    return write(path, samples, index=index)
module.write_shard = killed
module.import_llamagen(options(Path({str(tmp_path)!r}), shard_rows=2))
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    there = {name: data for name, data in files_of(tmp_path / "to").items() if ".tmp-" not in name}
    assert there == first
    assert {finding.kind for finding in verify_folder(tmp_path / "to", 1).findings} == {"leftover"}
    import_llamagen(options(tmp_path, shard_rows=2))
    assert files_of(tmp_path / "to") == files_of(tmp_path / "wanted")


def test_folders_that_are_not_an_imports_are_refused(tmp_path):
    write(tmp_path, [entry(0)])
    (tmp_path / "to" / "codes" / "imported").mkdir(parents=True)
    import_llamagen(options(tmp_path))  # an empty one is taken
    (tmp_path / "to" / "codes" / "pretrain").mkdir(parents=True)
    (tmp_path / "to" / "codes" / "pretrain" / "00000.tar").write_bytes(b"a shard of a run")
    for tier, says in (
        ("pretrain", "holds files, and no import.json"),
        ("../x", "no plain name"),
        (".x", "no plain name"),
        ("", "no plain name"),
        ("encoded", "codes/encoded is a folder of the pipeline's own"),
        ("t5", "codes/t5 is a folder of the pipeline's own"),
    ):
        with pytest.raises(RecipeError, match=says):
            import_llamagen(options(tmp_path, tier=tier))
    (tmp_path / "to" / "manifests" / "journal").mkdir(parents=True)
    with pytest.raises(RecipeError, match="is a run folder"):
        import_llamagen(options(tmp_path))


def test_a_size_that_is_not_the_codes_is_refused_and_writes_nothing(tmp_path):
    write(tmp_path, [entry(number) for number in range(2)])
    args = ["--codes", tmp_path / "codes", "--jsonl", tmp_path / "jsonl", "--to", tmp_path / "to", "--vq", "VQ-demo"]
    for more, says in (
        (["--size", "128"], "codes_shape 2, such as a/0.npy ((1, 64), wanted (1, 256) or"),
        (["--size", "60"], "size 60 is no multiple of VQ-demo's 8 pixels"),
        (["--size", "0"], "size 0"),
        (["--size", "64", "--vq", "VQ-9"], "VQ-16"),
        (["--size", "64", "--weights", "nowhere.pt"], "nowhere.pt"),
        (["--size", "64", "--weights", "demo", "--vq", "VQ-16"], "demo"),
        (["--size", "64", "--labels", tmp_path], "one of the two"),
        (["--size", "64", "--t5", tmp_path / "no"], "is not there"),
    ):
        done = CliRunner().invoke(app, ["import", "llamagen", *map(str, [*args, *more])])
        assert (done.exit_code, says in done.output) == (2, True), done.output
    assert not (tmp_path / "to" / "codes" / "imported").exists()


def test_weights_of_another_tokenizer_are_refused(tmp_path):
    from tokenize_shards.catalog import DEMO_WEIGHTS

    write(tmp_path, [entry(0)])
    args = [
        "--codes",
        tmp_path / "codes",
        "--jsonl",
        tmp_path / "jsonl",
        "--to",
        tmp_path / "to",
        "--size",
        "64",
        "--vq",
        "VQ-8",
    ]
    done = CliRunner().invoke(app, ["import", "llamagen", *map(str, args), "--weights", str(DEMO_WEIGHTS)])
    assert done.exit_code == 2, done.output
    assert not (tmp_path / "to").exists()


def test_what_holds_no_line_is_refused(tmp_path):
    write(tmp_path, [])
    with pytest.raises(RecipeError, match="nothing found below"):
        import_llamagen(options(tmp_path))
    write(tmp_path, [entry(0)], stem="b")  # an empty file beside another is none
    assert import_llamagen(options(tmp_path)).rows_in == 1
