"""LlamaGen's .npy files: what is read of good ones, and the one reason why a bad one is not."""

import os
import pickle

import numpy as np
import pytest

from pipeline.llamagen import arrays
from pipeline.llamagen.arrays import Fault, features_width, read_array, read_codes, read_features, read_label
from tests.support.code_shards import CODEBOOK, GRID
from tests.support.imagenet import N, codes_of
from tests.support.npy_files import OBJECTS, npy, npz
from tokenize_shards.samples import Tokenizer, unpack_numbers

WIDTH = 16
TOKENIZER = Tokenizer("VQ-demo", "f" * 64, CODEBOOK, GRID, False)


@pytest.fixture
def write(tmp_path):
    """Return a function that writes bytes or an array to one file, None being no file, and returns its path."""

    def write(data):
        path = tmp_path / "1.npy"
        path.unlink(missing_ok=True)
        if data is not None:
            path.write_bytes(data if isinstance(data, bytes) else npy(data))
        return path

    return write


def fault_of(read, *arguments) -> tuple[str, str]:
    with pytest.raises(Fault) as caught:
        read(*arguments)
    return caught.value.reason, str(caught.value)


# ---------------------------------------------------------------- any array

UNREADABLE = [
    (OBJECTS, "pickled objects, which are not opened"),
    (pickle.dumps([1, 2]), ""),
    (b"", ""),
    (b"junk", ""),
    (npz([1]), ""),
    (npy(codes_of(1))[:-8], "504 bytes of numbers, its header says 64 of int64"),
    (npy(codes_of(1)) + b"x", "513 bytes of numbers, its header says 64 of int64"),
    (npy(codes_of(1)).replace(b"(1, 64)", b"(9, 64)"), "512 bytes of numbers, its header says 576 of int64"),
    (npy(codes_of(1)).replace(b"\x93NUMPY\x01", b"\x93NUMPY\x03"), ".npy version (3, 0), wanted 1.0 or 2.0"),
]


@pytest.mark.parametrize(("data", "says"), UNREADABLE)
def test_what_is_no_whole_array_of_numbers_is_unreadable(write, data, says):
    reason, said = fault_of(read_array, write(data), "codes")
    assert reason == "unreadable_codes"
    assert says in said
    assert "\n" not in said
    assert 0 < len(said) <= 100


def test_a_file_that_is_not_there_is_missing(write, tmp_path):
    path = write(None)
    assert fault_of(read_array, path, "t5") == ("missing_t5", "")
    (tmp_path / "file").write_bytes(b"")
    assert fault_of(read_array, tmp_path / "file" / "1.npy", "t5") == ("missing_t5", "")


def test_a_folder_or_a_pipe_in_a_files_place_is_unreadable(tmp_path):
    for make in (os.mkdir, os.mkfifo):
        make(tmp_path / make.__name__)
        assert fault_of(read_array, tmp_path / make.__name__, "label")[0] == "unreadable_label"


def test_a_file_too_large_to_be_llamagens_is_not_opened(write, monkeypatch):
    path = write(np.zeros(10, np.int64))  # a header of 128 bytes and 80 of numbers
    assert path.stat().st_size == 208
    monkeypatch.setattr(arrays, "MOST_BYTES", 208)
    assert read_array(path, "codes").tolist() == [0] * 10
    monkeypatch.setattr(arrays, "MOST_BYTES", 207)
    assert fault_of(read_array, path, "codes") == ("unreadable_codes", "no file, or one of more than 207 bytes")


# ---------------------------------------------------------------- codes


def test_codes_are_crops_in_raster_order_whatever_their_shape_order_and_numbers(write):
    crops = codes_of(0, crops=3)
    for array, expected in (
        (crops, crops[0]),
        (np.asfortranarray(crops), crops[0]),
        (crops[0], crops[0]),
        (codes_of(1), codes_of(1)),
        (codes_of(1)[0].astype(">u2"), codes_of(1)),
        (codes_of(1).astype(np.int32), codes_of(1)),
    ):
        codes = read_codes(write(array), TOKENIZER)
        assert codes.dtype == np.uint16
        assert codes.tolist() == expected.tolist()


CODE_FAULTS = [
    (OBJECTS, "unreadable_codes", "pickled objects"),
    (None, "missing_codes", ""),
    (codes_of(1).astype(np.float64), "codes_dtype", "float64, wanted whole numbers"),
    (codes_of(1) > 3, "codes_dtype", "bool, wanted whole numbers"),
    (codes_of(1)[:, :-1], "codes_shape", "(1, 63), wanted (1, 64) or (1, crops, 64)"),
    (np.zeros((1, 1, 1, N), np.int64), "codes_shape", "(1, 1, 1, 64)"),
    (np.zeros((0, N), np.int64), "codes_shape", "(0, 64)"),
    (np.int64(3), "codes_shape", "()"),
    (np.full((1, N), CODEBOOK), "codes_range", f"{CODEBOOK} to {CODEBOOK}, wanted 0 to {CODEBOOK - 1}"),
    (np.full((1, N), -1), "codes_range", "-1 to -1"),
    (np.full((1, N), 65_536 + 3), "codes_range", "65539"),  # 3 in 16 bits
]


@pytest.mark.parametrize(("data", "reason", "says"), CODE_FAULTS)
def test_each_fault_of_a_code_file_has_its_reason(write, data, reason, says):
    found = fault_of(read_codes, write(data), TOKENIZER)
    assert found[0] == reason
    assert says in found[1]


def test_the_first_and_the_last_code_are_read(write):
    codes = np.zeros((1, N), np.int64)
    codes[0, -1] = CODEBOOK - 1
    assert read_codes(write(codes), TOKENIZER)[0, -1] == CODEBOOK - 1


# ---------------------------------------------------------------- labels


def test_labels_are_one_whole_number(write):
    for array in (np.array([0]), np.array(999), np.array([[7]], np.uint8)):
        assert read_label(write(array), 1000) == array.item()


LABEL_FAULTS = [
    (np.array([-7]), "label_range", "-7, wanted 0 to 999"),
    (np.array([1000]), "label_range", "1000, wanted 0 to 999"),
    (np.array([2.0]), "label_dtype", "float64, wanted whole numbers"),
    (np.array([True]), "label_dtype", "bool"),
    (np.array([1, 2]), "label_shape", "(2,), wanted (1,)"),
    (np.array([], np.int64), "label_shape", "(0,), wanted (1,)"),
    (OBJECTS, "unreadable_label", ""),
    (b"", "unreadable_label", ""),
    (None, "missing_label", ""),
]


@pytest.mark.parametrize(("data", "reason", "says"), LABEL_FAULTS)
def test_each_fault_of_a_label_has_its_reason(write, data, reason, says):
    found = fault_of(read_label, write(data), 1000)
    assert found[0] == reason
    assert says in found[1]


# ---------------------------------------------------------------- text features

FEATURES = np.ones((1, 3, WIDTH), np.float32)
T5_FAULTS = [
    (FEATURES * np.nan, "t5_not_finite"),
    (FEATURES * np.inf, "t5_not_finite"),
    (FEATURES.astype(np.float64) * 1e300, "t5_not_finite"),
    (FEATURES[..., :-1], "t5_width"),
    (FEATURES[:, :0], "t5_shape"),
    (np.ones((1, 121, WIDTH), np.float32), "t5_shape"),
    (np.ones((2, 3, WIDTH), np.float32), "t5_shape"),
    (FEATURES[0, 0], "t5_shape"),
    (FEATURES.astype(np.int64), "t5_dtype"),
    (OBJECTS, "unreadable_t5"),
    (b"", "unreadable_t5"),
    (npy(FEATURES)[:-1], "unreadable_t5"),
    (None, "missing_t5"),
]


@pytest.mark.parametrize(("data", "reason"), T5_FAULTS)
def test_each_fault_of_features_has_its_reason(write, data, reason):
    assert fault_of(read_features, write(data), WIDTH)[0] == reason


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        (np.full(4, 0.1, np.float16).astype(np.float32), "fp16", None),  # half floats come back as they were
        (np.array([2.0**-40, 0.0, 1.5, -3.0], np.float32), "bf16", None),  # half floats would flush the first to 0
        (np.full(4, 0.1, np.float32), "fp16", [0.0999755859375] * 4),  # neither holds it: the finer one, 1638 / 2^14
        (np.full(4, 100_001, np.float32), "bf16", [99_840] * 4),  # above 65,504, the nearest multiple of 512
    ],
)
def test_features_keep_their_numbers_in_16_bits_as_far_as_any_can(write, values, dtype, expected):
    numbers, kind = read_features(write(values[None, None]), 4)
    assert kind == dtype
    assert numbers.dtype.itemsize == 2
    assert unpack_numbers(numbers).tolist() == [values.tolist() if expected is None else expected]


def test_features_of_1_to_120_tokens_have_two_or_three_dimensions(write):
    for shape in ((1, 1, WIDTH), (1, 120, WIDTH), (120, WIDTH)):
        assert read_features(write(np.ones(shape, np.float16)), WIDTH)[0].shape == (shape[-2], WIDTH)


def test_the_width_of_a_file_that_cannot_be_read_is_not_known(write):
    assert features_width(write(FEATURES)) == WIDTH
    assert [features_width(write(data)) for data in (None, b"junk", np.float32(1))] == [None] * 3
