"""The sampling command: from checkpoint to pictures, killed and gone on with, refused; what it prints and leaves."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import sample
from pipeline.sample import main
from tests.support.drawing import SIDE, llamagen_file, own_checkpoint
from tests.support.tiny_t5 import word_t5


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    llamagen_file(folder / "t2i.pt")
    llamagen_file(folder / "c2i.pt", "class", classes=10)
    own_checkpoint(folder / "own")
    word_t5(folder / "t5")
    return folder


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def drawn(*words):
    return main([*map(str, words)])


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_published_text_file_is_drawn_from_without_a_run_folder(place, tmp_path, capsys):
    out = tmp_path / "out"
    text = ("--size", SIDE, "--vq", "VQ-demo", "--text-weights", place / "t5", "--out", out)
    assert drawn(place / "t2i.pt", "red cat", "a cat", "--count", 2, *text) == 0
    said = capsys.readouterr()
    assert said.out == f"pictures: {out} (4 PNGs, sheet.png, samples.tsv, samples.json)\n"
    assert "GPT-demo, text 120 x 16, 512 codes" in said.err
    assert "cfg 7.5, top-k 1000, temperature 1, top-p 1, seed 0; 4 pictures, 4 at once" in said.err
    assert [name for name in files(out) if name[0] == "0"] == ["00000.png", "00001.png", "00002.png", "00003.png"]
    with Image.open(out / "00003.png") as image:
        assert (image.size, image.mode) == ((SIDE, SIDE), "RGB")
    with open(out / "samples.tsv", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    assert rows[1:] == [[f"0000{n}.png", str(n), "red cat" if n < 2 else "a cat"] for n in range(4)]
    record = json.loads((out / "samples.json").read_bytes())
    assert record["tokenizer"]["name"] == "VQ-demo"
    assert "stand_in" not in record["tokenizer"]
    assert record["sampling"]["top_k"] == 1000


def test_the_same_command_gives_the_same_bytes_and_a_prompt_those_that_it_has_alone(place, tmp_path):
    words = [place / "own", "a red cat", "dog", "two birds", "--seed", 11]
    assert drawn(*words, "--out", tmp_path / "a") == drawn(*words, "--out", tmp_path / "b") == 0
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert drawn(place / "own", "two birds", "--seed", 13, "--out", tmp_path / "alone") == 0
    alone = (tmp_path / "alone" / "00000.png").read_bytes()
    assert alone == (tmp_path / "a" / "00002.png").read_bytes()
    assert alone != (tmp_path / "a" / "00001.png").read_bytes()


def test_what_the_checkpoint_says_is_what_is_left_open(place, tmp_path, capsys):
    assert drawn(place / "own", "a red cat", "--top-p", 0.9, "--cfg-interval", "2:9", "--out", tmp_path) == 0
    said = capsys.readouterr().err
    assert "text hashed words; tokenizer VQ-demo; 32 px" in said
    assert "cfg 2.5 for codes 2 to 8, top-k 40, temperature 1, top-p 0.9, seed 0" in said


def test_classes_to_an_npz_that_a_kill_does_not_change(place, tmp_path, monkeypatch):
    words = [place / "c2i.pt", "0-9", "--size", SIDE, "--count", 2, "--npz", "--batch", 8]
    assert drawn(*words, "--out", tmp_path / "a") == 0
    add, calls = sample.Npz.add, []

    def dies(npz, first, pixels):
        calls.append(first)
        if len(calls) == 2:
            add(npz, first, pixels[:3])
            raise KeyboardInterrupt
        add(npz, first, pixels)

    monkeypatch.setattr(sample.Npz, "add", dies)
    assert drawn(*words, "--out", tmp_path / "b") == 130
    assert drawn(*words, "--out", tmp_path / "b") == 0
    assert calls == [0, 8, 8, 16]
    assert files(tmp_path / "a") == files(tmp_path / "b")
    with np.load(tmp_path / "a" / "samples.npz") as loaded:
        assert (loaded["arr_0"].shape, loaded["arr_0"].dtype) == ((20, SIDE, SIDE, 3), np.uint8)
    assert drawn(*words, "--out", tmp_path / "b") == 0
    assert calls == [0, 8, 8, 16]


def test_missing_pngs_alone_are_drawn_again(place, tmp_path, capsys):
    words = [place / "own", "a red cat", "dog", "two birds", "--batch", 1, "--out", tmp_path]
    assert drawn(*words) == 0
    before = files(tmp_path)
    (tmp_path / "00002.png").unlink()
    capsys.readouterr()
    assert drawn(*words) == 0
    assert "2 pictures are there already" in capsys.readouterr().err
    assert files(tmp_path) == before


def test_prompts_of_a_table(place, tmp_path):
    (tmp_path / "parti.tsv").write_text("Prompt\tCategory\na red cat\tAnimals\na dog\tAnimals\n")
    assert drawn(place / "own", "--prompts", tmp_path / "parti.tsv", "--out", tmp_path / "out") == 0
    assert (tmp_path / "out" / "samples.tsv").read_text().splitlines()[2] == "00001.png\t1\ta dog"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["c2i.pt", "a cat", "--size", "32"], "'a cat' is no class of these weights, which draw 10 classes"),
        (["c2i.pt", "5-10", "--size", "32"], "wanted numbers from 0 to 9, or ranges such as 0-9"),
        (["c2i.pt", "--size", "32"], "nothing to draw: wanted classes, such as 207 or 0-9, or --prompts FILE"),
        (["c2i.pt", "1"], "do not say their picture's size: give --size, such as 256"),
        (["t2i.pt", "x", "--size", "32", "--text-weights", "no/t5"], "'no/t5' is neither a folder nor a model"),
        (["none.pt", "x"], "no weights at"),
        (["own", "x", "--ema"], "no weights at"),
        (["own", "x", "--prompts", "none.txt"], "none.txt cannot be read (No such file or directory)"),
        (["own", "x", "--top-p", "2"], "top_p is 2.0, wanted 0 to 1"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(place, tmp_path, capsys, words, said):
    assert drawn(place / words[0], *words[1:], "--out", tmp_path / "out") == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_another_folders_pictures_are_left_alone(place, tmp_path, capsys):
    assert drawn(place / "own", "dog", "--out", tmp_path) == 0
    before = files(tmp_path)
    assert drawn(place / "own", "cat", "--seed", 1, "--out", tmp_path) == 2
    assert "drawn with other sampling, prompts (samples.json)" in capsys.readouterr().err
    (tmp_path / "samples.json").unlink()
    assert drawn(place / "own", "cat", "--out", tmp_path) == 2
    assert "holds pictures without a samples.json" in capsys.readouterr().err
    assert files(tmp_path) == {name: data for name, data in before.items() if name != "samples.json"}


def test_progress_by_hand():
    """8 of 12 were there; 1 more and half of the next 2 in 4 s: 2 pictures, 0.5/s, 2 left."""
    told = sample.Progress(12, 16, there=8, done=9, batch=2, codes=8)
    assert told.line(4.0) == "  9/12 pictures, code 8/16 of the next 2  0.5/s  ETA 0:04"
    told.codes = 0
    assert told.line(2.0) == "  9/12 pictures  0.5/s  ETA 0:06"
    assert sample.Progress(12, 16, there=8, done=8).line(1.0) == "  8/12 pictures  0/s  ETA ?"


def test_codes_are_told_of_while_a_batch_is_drawn(place, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sample, "EVERY_S", 0.0)
    assert drawn(place / "own", "dog", "--out", tmp_path) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("  0/1 pictures, code ")]
    assert [line.split()[3] for line in lines] == [f"{number}/16" for number in range(1, 16)]


def test_a_full_disk_ends_with_words(place, tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sample.Pngs, "add", full)
    assert drawn(place / "own", "dog", "--out", tmp_path) == 1
    assert "the disk is full; free some room and give the same command again" in capsys.readouterr().err
