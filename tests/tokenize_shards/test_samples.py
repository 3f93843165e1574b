"""Code samples as they are written and read again; codes of a 2 x 2 grid and a codebook of 16 are put by hand."""

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manifests.files import read_json, write_json
from manifests.shards import ShardError, index_path, write_shard
from tests.support.npy_files import OBJECTS, npy
from tests.support.stored_runs import memory_root, upload
from tokenize_shards.samples import (
    CodeSample,
    LoaderError,
    Shard,
    Tokenizer,
    captions_of,
    check_shards,
    class_of,
    data_digest,
    find_shards,
    first_sample,
    indexed_samples,
    npy_bytes,
    only_made_by,
    pack_numbers,
    read_npy,
    read_samples,
    sample_parts,
    unpack_numbers,
)

TOKENIZER = Tokenizer("VQ-demo", "f" * 64, 16, 2, True)
CROP = {"place": "center", "scale": 1.0, "scaled": [16, 16], "box": [0, 0, 16, 16], "flip": False}
NUMBERS = np.array([[1.0, -2.5, 3.140625, 1 + 2**-8, 1 + 2**-7, 65000.0]], np.float32)


def row_of(number: int, **other: Any) -> dict[str, Any]:
    said = {"captioner": "llava", "caption": "A cat. It sits.", "short_caption": "A cat."}
    said |= {"fit_caption": None, "model": "m", "prompt": "p", "origin": "attempt_1", "flags": ["truncated"]}
    row = {"uid": number.to_bytes(16, "big"), "url": f"http://pictures.test/{number}.jpg", "codes": [number, 1, 2, 15]}
    row |= {"n_crops": 1, "size": 16, "crops": [CROP], "sha256": bytes(32), "text": "cat", "top_caption": None}
    return {**row, "said": [said], **other}


def write(folder: Path, name: str, *samples: dict[str, bytes]) -> Path:
    """Write a shard of codes/pretrain with an index; the samples' keys are their numbers."""
    path = folder / "codes" / "pretrain" / f"{name}.tar"
    write_shard(path, [(f"{number:032x}", parts) for number, parts in enumerate(samples)], index=True)
    return path


def parts_of(number: int, **other: Any) -> dict[str, bytes]:
    return sample_parts(row_of(number, **other), "pretrain", TOKENIZER, "parent")


def shards_of(folder: Path) -> list[Shard]:
    return find_shards(folder / "codes", "pretrain")


def test_an_array_is_a_file_of_version_1_with_a_header_of_118_bytes() -> None:
    data = npy_bytes(np.array([[1, 2], [3, 258]], np.uint16))
    header = b"{'descr': '<u2', 'fortran_order': False, 'shape': (2, 2), }"
    assert data == b"\x93NUMPY\1\0" + (118).to_bytes(2, "little") + header.ljust(117) + b"\n" + b"\1\0\2\0\3\0\2\1"
    assert npy_bytes(np.array([[1, 3], [2, 258]], np.uint16).T) == data  # in the order of rows, whatever memory's
    with pytest.raises(ValueError, match="Object arrays"):
        npy_bytes(np.array([{}], object))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.uint16).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array(7, np.int64),
        np.zeros((0, 4), np.float16),
    ],
    ids=["rows", "columns", "one", "none"],
)
def test_an_array_is_read_as_numpy_reads_it(array: np.ndarray[Any, Any]) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array)
    read = read_npy(buffer.getvalue() + b"behind it")
    assert (read.dtype, read.tolist(), read.flags.writeable) == (array.dtype, array.tolist(), True)
    assert npy_bytes(array) == npy_bytes(read)


@pytest.mark.parametrize("data", [b"", b"none", b"\x93NUMPY\1\0", npy_bytes(np.ones(3))[:-1]])
def test_what_is_no_array_is_a_value_error_or_the_end_of_the_file(data: bytes) -> None:
    with pytest.raises((ValueError, EOFError)):
        read_npy(data)


def test_python_objects_are_not_read() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], object))
    with pytest.raises(ValueError, match="Object arrays"):
        read_npy(buffer.getvalue())


def test_the_index_gives_the_samples_that_webdataset_gives(tmp_path: Path) -> None:
    write(tmp_path, "00000", parts_of(1), parts_of(2), parts_of(3))
    write(tmp_path, "00001", parts_of(4))
    for shard in shards_of(tmp_path):
        for one, other in zip(indexed_samples(shard), read_samples(shard), strict=True):
            assert np.array_equal(one.codes_KN, other.codes_KN)
            assert replace(one, codes_KN=other.codes_KN) == other
    damaged = shards_of(tmp_path)[0]
    data = bytearray(damaged.path.read_bytes())
    data[520] ^= 1
    damaged.path.write_bytes(data)
    with pytest.raises(ShardError, match="CRC-32"):
        list(indexed_samples(damaged))


def test_shards_of_a_store_give_the_same_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESSERA_SCRATCH", str(tmp_path / "scratch"))
    write(tmp_path / "run", "00000", parts_of(1), parts_of(2), parts_of(3))
    write(tmp_path / "run", "00001", parts_of(4))
    stored, local = shards_of(upload(tmp_path / "run", memory_root())), shards_of(tmp_path / "run")
    assert data_digest(stored) == data_digest(local)
    assert first_sample(stored).uid == first_sample(local).uid
    for how in ("sha256", "size"):
        check_shards(stored, how)
    for one, other in zip(stored, local, strict=True):
        for read in (indexed_samples, read_samples):
            for sample, wanted in zip(read(one), read(other), strict=True):
                assert np.array_equal(sample.codes_KN, wanted.codes_KN)
                assert replace(sample, codes_KN=wanted.codes_KN) == wanted
    assert list((tmp_path / "scratch").iterdir()) == []
    stored[1].path.unlink()
    with pytest.raises(LoaderError, match=r"damaged shard: .*00001\.tar"):
        check_shards(stored, "size")
    with pytest.raises(FileNotFoundError):
        list(read_samples(stored[1]))


def test_numbers_of_sixteen_bits_round_to_nearest() -> None:
    assert pack_numbers(NUMBERS, "fp16").dtype == np.float16
    packed = pack_numbers(NUMBERS, "bf16")
    assert packed.dtype == np.uint16
    assert packed.tolist() == [[0x3F80, 0xC020, 0x4049, 0x3F80, 0x3F81, 0x477E]]  # 1 + 2^-8 is half way: to even
    assert unpack_numbers(packed).tolist() == [[1.0, -2.5, 3.140625, 1.0, 1 + 2**-7, 65024.0]]
    assert unpack_numbers(pack_numbers(NUMBERS, "fp16"))[0, :3].tolist() == [1.0, -2.5, 3.140625]


def test_captions_come_with_their_sources() -> None:
    made = {"model": "m", "prompt": "p", "flags": ["truncated"], "origin": "attempt_1"}
    assert captions_of(row_of(0, top_caption="a cat")) == [
        {"source": "alt", "text": "cat"},
        {"source": "top_caption", "text": "a cat"},
        {"source": "llava", "text": "A cat. It sits.", **made},
        {"source": "llava_short", "text": "A cat.", **made},
    ]
    assert captions_of({"text": "", "top_caption": None, "said": None}) == []


def test_captions_that_were_not_judged_say_what_they_said_before() -> None:
    made = {"model": "m", "prompt": "p"}
    said = {"captioner": "llava", "caption": "A cat.", "short_caption": "", **made}
    assert captions_of({"text": "cat", "said": [said]})[1:] == [
        {"source": "llava", "text": "A cat.", **made},
        {"source": "llava_short", "text": "", **made},
    ]


def test_a_sample_has_codes_a_note_and_perhaps_features() -> None:
    parts = parts_of(7, codes=[7, 1, 2, 15, 0, 3, 3, 0], n_crops=2, crops=[CROP, CROP])
    assert sorted(parts) == ["codes.npy", "json"]
    assert parts["codes.npy"] == npy_bytes(np.array([[7, 1, 2, 15], [0, 3, 3, 0]], np.uint16))
    note = json.loads(parts["json"])
    assert note.pop("captions") == captions_of(row_of(7))
    assert note == {
        "uid": "00000000000000000000000000000007",
        "url": "http://pictures.test/7.jpg",
        "tier": "pretrain",
        "size": 16,
        "grid": 2,
        "crops": [CROP, CROP],
        "image_sha256": "00" * 32,
        "tokenizer": {"name": "VQ-demo", "fingerprint": "f" * 64, "codebook": 16, "stand_in": True},
        "parent_digest": "parent",
    }
    t5 = {"note": {"source": "alt", "dtype": "fp16"}, "numbers": np.ones((3, 2), np.float16)}
    parts = parts_of(7, t5=t5)
    assert json.loads(parts["json"])["t5"] == t5["note"]
    assert parts["t5.npy"] == npy_bytes(np.ones((3, 2), np.float16))


@pytest.mark.parametrize(
    ("codes", "says"), [([0, 1, 2, 16], "got 4 codes up to 16"), ([0, 1, 2], "got 3 codes up to 2")]
)
def test_codes_that_are_no_grid_of_the_codebook_are_refused(codes: list[int], says: str) -> None:
    with pytest.raises(ValueError, match=rf"codes of 0{{31}}9: {says}, wanted 4 below 16"):
        parts_of(9, codes=codes)


def test_samples_are_what_was_packed(tmp_path: Path) -> None:
    t5 = {"note": {"source": "llava"}, "numbers": pack_numbers(np.array([[1.0, -2.5]], np.float32), "bf16")}
    write(tmp_path, "00000", parts_of(0), parts_of(1, t5=t5))
    first, second = read_samples(shards_of(tmp_path)[0])
    assert (first.uid, second.uid) == ("0" * 32, "0" * 31 + "1")
    assert (first.codes_KN.tolist(), first.codes_KN.dtype) == ([[0, 1, 2, 15]], np.uint16)
    assert first.captions == (("alt", "cat"), ("llava", "A cat. It sits."), ("llava_short", "A cat."))
    assert (first.tokenizer, first.size, first.parent, first.label) == (TOKENIZER, 16, "parent", None)
    assert (first.features, first.features_of) == (None, "")
    assert second.features is not None
    assert (second.features.tolist(), second.features.dtype) == ([[1.0, -2.5]], np.float32)
    assert second.features_of == "llava"


def test_a_note_may_have_a_label_and_say_less(tmp_path: Path) -> None:
    note = json.loads(parts_of(0)["json"])
    for key in ("crops", "parent_digest", "url", "image_sha256", "tier"):
        del note[key]
    del note["tokenizer"]["stand_in"]
    write(tmp_path, "00000", {**parts_of(0), "json": json.dumps({**note, "label": 3}).encode()})
    (sample,) = read_samples(shards_of(tmp_path)[0])
    assert (sample.label, sample.parent, sample.tokenizer.stand_in) == (3, "", False)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"codes.npy": OBJECTS}, "cannot be read .ValueError: Object arrays"),
        ({"codes.npy": b""}, "cannot be read .EOFError"),
        ({"codes.npy": npy(np.uint16(3))}, r"codes are uint16 \(\), wanted uint16 \(crops, 4\)"),
        ({"codes.npy": npy(np.zeros((1, 4), np.int64))}, r"codes are int64 \(1, 4\), wanted uint16 \(crops, 4\)"),
        ({"codes.npy": npy(np.zeros((1, 3), np.uint16))}, r"codes are uint16 \(1, 3\), wanted uint16 \(crops, 4\)"),
        ({"codes.npy": npy(np.zeros((0, 4), np.uint16))}, r"codes are uint16 \(0, 4\), wanted uint16 \(crops, 4\)"),
        ({"codes.npy": npy(np.zeros((2, 4), np.uint16))}, "2 code arrays, but 1 crops are noted"),
        ({"codes.npy": npy(np.full((1, 4), 16, np.uint16))}, "code 16 is outside the codebook of 16"),
        ({"t5.npy": npy(np.ones(4, np.float16))}, r"features are \(4,\) with 100.0% finite numbers, wanted"),
        ({"t5.npy": npy(np.array([[1, np.nan]], np.float16))}, r"features are \(1, 2\) with 50.0% finite numbers"),
        ({"codes.npy": None}, "KeyError: 'codes.npy'"),
        ({"json": b"{"}, "JSONDecodeError"),
        ({"json": b"[]"}, "TypeError"),
    ],
)
def test_a_sample_that_cannot_be_read_names_its_shard(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    parts = {name: data for name, data in {**parts_of(0), **changes}.items() if data is not None}
    write(tmp_path, "00000", parts)
    with pytest.raises(LoaderError, match=rf"shard .*00000\.tar, sample 0{{32}}: .*{says}"):
        list(read_samples(shards_of(tmp_path)[0]))


def test_a_tar_that_names_a_member_twice_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "00000.tar"
    with tarfile.open(path, "w") as tar:
        for _ in range(2):
            tar.addfile(tarfile.TarInfo("a.json"))
    with pytest.raises(LoaderError, match=r"shard .*00000\.tar: cannot be read .*duplicate file name"):
        list(read_samples(Shard(path, 1, path.stat().st_size, "")))


def test_nothing_to_train_on_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(LoaderError, match=r"no codes in .* yet: run `make pretokenize`"):
        shards_of(tmp_path)
    write(tmp_path, "00000")
    write(tmp_path, "00001")
    with pytest.raises(LoaderError, match=r"tier 'finetune' has no codes in .*; tiers with codes: pretrain"):
        find_shards(tmp_path / "codes", "finetune")
    with pytest.raises(LoaderError, match="tier 'pretrain' is empty: its 2 shard"):
        shards_of(tmp_path)


def test_shards_come_in_order_with_what_their_index_says(tmp_path: Path) -> None:
    write(tmp_path, "00001", parts_of(0))
    path = write(tmp_path, "00000", parts_of(0), parts_of(1))
    first, second = shards_of(tmp_path)
    assert (first.path, first.samples, first.bytes) == (path, 2, path.stat().st_size)
    assert (second.path.name, second.samples) == ("00001.tar", 1)
    assert first_sample([replace(second, samples=0), first]).uid == "0" * 32


def test_the_data_digest_is_of_names_and_contents() -> None:
    shards = [Shard(Path("/a/00000.tar"), 1, 10, "ab"), Shard(Path("/a/00001.tar"), 2, 20, "cd")]
    # printf '[["00000.tar","ab"],["00001.tar","cd"]]' | sha256sum
    digest = "3ceb3703f76bc3f6005783c4b2d22699b011688c479df23b71f5838afcebfeab"
    assert data_digest(shards) == digest
    assert data_digest([replace(shard, path=Path("/b") / shard.path.name) for shard in shards]) == digest
    assert data_digest(shards[::-1]) != digest


@pytest.mark.parametrize("how", ["sha256", "size"])
def test_a_damaged_shard_is_named(tmp_path: Path, how: str) -> None:
    write(tmp_path, "00000", parts_of(0))
    path = write(tmp_path, "00001", parts_of(1))
    shards = shards_of(tmp_path)
    check_shards(shards, how)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(LoaderError, match=r"damaged shard: .*00001\.tar: .* bytes, its index says .*; remove it"):
        check_shards(shards, how)
    path.unlink()
    with pytest.raises(LoaderError, match=r"damaged shard: .*No such file.*00001\.tar"):
        check_shards(shards, how)


def test_an_altered_byte_is_seen_by_sha256_alone(tmp_path: Path) -> None:
    path = write(tmp_path, "00000", parts_of(0))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    check_shards(shards_of(tmp_path), "size")
    with pytest.raises(LoaderError, match=r"00000\.tar: sha256 .*, its index says"):
        check_shards(shards_of(tmp_path), "sha256")


def test_an_index_that_is_missing_or_counts_otherwise_is_named(tmp_path: Path) -> None:
    index = index_path(write(tmp_path, "00000", *(parts_of(number) for number in range(3))))
    write_json(index, {**read_json(index), "samples": 4})
    with pytest.raises(LoaderError, match=r"00000\.tar: 3 samples came out, its index says 4"):
        list(read_samples(shards_of(tmp_path)[0]))
    index.unlink()
    with pytest.raises(LoaderError, match=r"00000\.tar has no readable index 00000\.index\.json"):
        shards_of(tmp_path)


def sample_with(**other: Any) -> CodeSample:
    return CodeSample(**{"uid": "ab", "codes_KN": np.zeros((1, 4), np.uint16), "captions": (), "size": 16, **other})


def test_samples_of_another_tokenizer_are_refused() -> None:
    own, other = sample_with(tokenizer=TOKENIZER), sample_with(tokenizer=replace(TOKENIZER, fingerprint="e" * 64))
    assert list(only_made_by(TOKENIZER, iter([own, own]), Path("00000.tar"))) == [own, own]
    with pytest.raises(LoaderError, match=r"shard 00000\.tar, sample ab: made by .*e{64}.*, the first sample of all"):
        list(only_made_by(TOKENIZER, iter([own, other]), Path("00000.tar")))


def test_a_class_is_below_the_number_of_classes() -> None:
    assert [class_of(sample_with(tokenizer=TOKENIZER, label=label), 3) for label in (0, 2)] == [0, 2]
    for label, says in ((3, "label 3"), (-1, "label -1"), (None, "no label")):
        with pytest.raises(LoaderError, match=rf"sample ab has {says}; .* wants one from 0 to train.classes - 1, 2"):
            class_of(sample_with(tokenizer=TOKENIZER, label=label), 3)
