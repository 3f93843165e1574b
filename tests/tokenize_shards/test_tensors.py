"""Checkpoints from anywhere: right files in every layout, what a foreign or damaged one makes its reader raise, and
tensors that fit a model."""

import argparse
import lzma
import pickle
import re
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
import torch

from manifests.weights import WeightsError
from tests.support.checkpoints import Bomb, demo
from tokenize_shards.tensors import USAGE, fingerprint, fit, read_tensors, seeded_tensors

SMALL = {"a": torch.tensor([[1.0, 2.0]]), "b": torch.tensor([0.0, -0.75])}
SHAPES = {"a": (1, 2), "b": (2,)}


def equal(tensors: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return tensors.keys() == expected.keys() and all(torch.equal(tensors[name], expected[name]) for name in expected)


def damaged_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("vq/data.pkl", bytes(5000))
    content = bytearray(path.read_bytes())
    content[45:55] = b"\xff" * 10
    path.write_bytes(content)


def of_two_disks(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("vq/data.pkl", b"")
    content = path.read_bytes()
    path.write_bytes(content[:-22] + struct.pack("<4sLQL", b"PK\6\7", 1, 0, 2) + content[-22:])


def deep(levels: int) -> bytes:
    return b"\x80\x02" + b"]" * levels + b"a" * (levels - 1) + b"."


FOREIGN = {
    "whole numbers for names": lambda path: torch.save({1: torch.zeros(2)}, path),
    "names of two kinds": lambda path: torch.save({"model": {1: torch.zeros(2), "a": torch.zeros(2)}}, path),
    "names of bytes": lambda path: torch.save({b"a": torch.zeros(2)}, path),
    "an LZMA member": damaged_archive,
    "an archive of two disks": of_two_disks,
    "a number cut": lambda path: path.write_bytes(
        bytes.fromhex("80037d710058010000006171015d7102284b0147400400") + b"\0"
    ),
    "a long integer cut": lambda path: path.write_bytes(b"\x80\x02\x8a"),
    "a length of 4 GB": lambda path: path.write_bytes(b"\x80\x02X\xff\xff\xff\xff"),
    "levels without end": lambda path: path.write_bytes(deep(100_000)),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_whatever_a_foreign_file_makes_its_reader_raise_is_a_weights_error(kind: str, tmp_path: Path) -> None:
    FOREIGN[kind](tmp_path / "vq.pt")
    with pytest.raises(WeightsError, match=r"texts; got (1|b'a')" if "names" in kind else r"vq\.pt: "):
        read_tensors(tmp_path / "vq.pt")


@pytest.mark.parametrize(
    "error",
    [
        struct.error,
        AssertionError,
        zlib.error,
        lzma.LZMAError,
        MemoryError,
        OverflowError,
        RecursionError,
        OSError,
        KeyError,
    ],
)
def test_errors_of_the_reader_are_weights_errors(
    error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error("of its innards")

    torch.save(demo().state_dict(), tmp_path / "vq.pt")
    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(
        WeightsError, match="more memory" if error is MemoryError else "cut short or altered"
    ) as refused:
        read_tensors(tmp_path / "vq.pt")
    assert "innards" not in str(refused.value)


def test_the_content_and_not_the_name_says_how_to_read_a_file(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    state = demo().state_dict()
    save_file(state, tmp_path / "vq.pt")
    torch.save(state, tmp_path / "vq.safetensors")
    for name in ("vq.pt", "vq.safetensors"):
        assert equal(read_tensors(tmp_path / name), state)


@pytest.mark.parametrize(
    "content",
    [
        SMALL,
        *({key: SMALL} for key in ("ema", "model", "state_dict", "module")),
        {"module": {"x": torch.zeros(9)}, "state_dict": {"x": torch.zeros(9)}, "model": {}, "ema": SMALL},
        {"model": SMALL, "module": {"x": torch.zeros(9)}},
        {"ema": {"decay": 0.999}, "model": SMALL, "x": torch.zeros(9)},
        {"ema": {}, "model": None, **SMALL, "steps": 3},
        {"model": {f"module.{name}": tensor for name, tensor in SMALL.items()}},
        {f"_orig_mod.{name}": tensor for name, tensor in SMALL.items()},
        {f"module._orig_mod.{name}": tensor for name, tensor in SMALL.items()},
        {f"_orig_mod.module.{name}": tensor for name, tensor in SMALL.items()},
        {"model": SMALL, "args": argparse.Namespace(vq_model="VQ-16", lr=1e-4, ema=None)},
        {name: torch.nn.Parameter(tensor) for name, tensor in SMALL.items()},
    ],
)
@pytest.mark.filterwarnings("error")
def test_the_best_holder_of_tensors_is_taken_and_wrappers_are_put_off(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "vq.pt")
    tensors = read_tensors(str(tmp_path / "vq.pt"))
    assert equal(tensors, SMALL)
    assert not any(tensor.requires_grad for tensor in tensors.values())


def test_a_wrapper_that_not_all_names_have_stays(tmp_path: Path) -> None:
    torch.save({"module.a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "vq.pt")
    assert list(read_tensors(tmp_path / "vq.pt")) == ["module.a", "b"]


def test_a_pickle_of_plain_letters_that_asks_for_code_is_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOMB", str(tmp_path / "gone-off"))
    (tmp_path / "vq.pt").write_bytes(pickle.dumps(Bomb(), 0))
    with pytest.raises(WeightsError, match=r"it holds code: its pickle asks for \w+\.mkdir"):
        read_tensors(tmp_path / "vq.pt")
    (tmp_path / "page.pt").write_text("code not found\n404\n")
    with pytest.raises(WeightsError, match="it is a text that begins 'code not found"):
        read_tensors(tmp_path / "page.pt")


def test_a_file_cut_where_torch_names_an_invalid_argument_is_cut_short(tmp_path: Path) -> None:
    torch.save(demo().state_dict(), tmp_path / "vq.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "old.pt").write_bytes((tmp_path / "vq.pt").read_bytes()[:50_000])
    torch.save(demo().state_dict(), tmp_path / "vq.pt")
    (tmp_path / "new.pt").write_bytes((tmp_path / "vq.pt").read_bytes()[:50_000])
    for name in ("old.pt", "new.pt"):
        with pytest.raises(WeightsError, match="it is cut short") as refused:
            read_tensors(tmp_path / name)
        assert "Invalid argument" not in str(refused.value)


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOMB", str(tmp_path / "gone-off"))
    torch.save({"model": demo().state_dict(), "args": Bomb()}, tmp_path / "vq.pt")
    (tmp_path / "old.pt").write_bytes(pickle.dumps({"model": Bomb()}))
    for name in ("vq.pt", "old.pt"):
        with pytest.raises(WeightsError, match="holds code"):
            read_tensors(tmp_path / name)
    assert not (tmp_path / "gone-off").exists()


@pytest.mark.parametrize(("share", "says"), [(0.0, "it is empty"), (0.3, "it is cut short"), (0.99, "it is cut short")])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_truncated_files_are_refused(suffix: str, share: float, says: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / f"vq.{suffix}"
    if suffix == "pt":
        torch.save({"model": demo().state_dict()}, path)
    else:
        save_file(demo().state_dict(), path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(WeightsError, match=says) as refused:
        read_tensors(path)
    assert not re.search("PytorchStreamReader|miniz|Error", str(refused.value))


def test_a_page_in_the_files_place_is_refused_by_its_words(tmp_path: Path) -> None:
    (tmp_path / "vq.pt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12\n")
    with pytest.raises(WeightsError, match="it is a text that begins 'version https://git-lfs"):
        read_tensors(tmp_path / "vq.pt")


def test_a_byte_altered_within_a_tensor_is_refused(tmp_path: Path) -> None:
    path, state = tmp_path / "vq.pt", demo().state_dict()
    torch.save(state, path)
    content = bytearray(path.read_bytes())
    content[content.index(state["encoder.conv_out.bias"].numpy().tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"altered \(the CRC-32 of vq/data/\d+ is not the one"):
        read_tensors(path)


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"steps": 3}, tmp_path / "vq.pt")
    with pytest.raises(WeightsError, match=r"no tensors found.*a dict with steps"):
        read_tensors(tmp_path / "vq.pt")


def test_a_refusal_repeats_no_advice_to_run_the_code(tmp_path: Path) -> None:
    torch.save({"model": Path("x")}, tmp_path / "vq.pt")
    with pytest.raises(WeightsError) as refused:
        read_tensors(tmp_path / "vq.pt")
    assert "weights_only" not in str(refused.value)
    assert "\x1b" not in str(refused.value)
    assert "pathlib" in str(refused.value)


def test_tensors_that_fit_come_in_the_models_order_as_float32() -> None:
    tensors = {"b": torch.tensor([1, 2], dtype=torch.float64), "a": torch.tensor([[0.5]], dtype=torch.float16)}
    fitted = fit(tensors, {"a": (1, 1), "b": (2,)}, "x")
    assert list(fitted) == ["a", "b"]
    assert {tensor.dtype for tensor in fitted.values()} == {torch.float32}
    assert [tensor.tolist() for tensor in fitted.values()] == [[[0.5]], [1.0, 2.0]]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"a": None}, "of 2 tensors wanted and 1 got, 1 missing (a)"),
        ({"c": torch.zeros(1)}, "of 2 tensors wanted and 3 got, 1 unexpected (c)"),
        ({"b": torch.zeros(3)}, "of 2 tensors wanted and 2 got, 1 of another shape (b: got (3,), wanted (2,))"),
        (
            {"a": None, "c": torch.zeros(1), "b": torch.zeros(3)},
            "of 2 tensors wanted and 2 got, 1 missing (a); 1 unexpected (c);"
            " 1 of another shape (b: got (3,), wanted (2,))",
        ),
        (
            {name: torch.zeros(1) for name in "defgh"},
            "of 2 tensors wanted and 7 got, 5 unexpected (d, e, f and 2 more)",
        ),
        (
            {"b": torch.zeros(2, dtype=torch.int64)},
            "of 2 tensors wanted and 2 got, 1 not dense real numbers (b: torch.int64, torch.strided)",
        ),
        (
            {"b": torch.zeros(2, dtype=torch.complex64)},
            "of 2 tensors wanted and 2 got, 1 not dense real numbers (b: torch.complex64, torch.strided)",
        ),
        (
            {"b": torch.zeros(2).to_sparse()},
            "of 2 tensors wanted and 2 got, 1 not dense real numbers (b: torch.float32, torch.sparse_coo)",
        ),
        (
            {"b": torch.zeros(2, device="meta")},
            "of 2 tensors wanted and 2 got, 1 not dense real numbers (b: torch.float32, torch.strided)",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(changes: dict[str, torch.Tensor | None], says: str) -> None:
    changed = {name: tensor for name, tensor in {**SMALL, **changes}.items() if tensor is not None}
    with pytest.raises(WeightsError) as refused:
        fit(changed, SHAPES, "VQ-x")
    assert str(refused.value) == f"weights of VQ-x are not its own: {says}"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 1e39])
def test_numbers_that_are_not_finite_in_float32_are_refused(number: float) -> None:
    with pytest.raises(WeightsError, match=r"weights of VQ-x hold NaN or infinite numbers in 1 tensors \(b\)"):
        fit({**SMALL, "b": torch.tensor([0.0, number], dtype=torch.float64)}, SHAPES, "VQ-x")


def test_the_fingerprint_is_of_names_shapes_and_float32() -> None:
    # printf 'a(1, 2)\0\0\x80\x3f\0\0\0\x40b(2,)\0\0\0\0\0\0\x40\xbf' | sha256sum
    digest = "cb144ef66aecf3bcc2e6409713dfae55f1ab0ac26b3b09d12cdac296a9d0c2f7"
    assert fingerprint(SMALL) == digest
    assert fingerprint({"b": SMALL["b"].double(), "a": SMALL["a"].half()}) == digest
    assert fingerprint({**SMALL, USAGE: torch.ones(4)}) == digest
    assert fingerprint({**SMALL, "b": SMALL["b"] + 1}) != digest
    assert fingerprint({**SMALL, "a": SMALL["a"].T}) != digest


def test_seeded_tensors_depend_on_seed_and_name_alone() -> None:
    wanted = {"conv.weight": (64, 16, 3, 3), "conv.bias": (4096,), "norm.weight": (4096,), USAGE: (5,)}
    tensors = seeded_tensors(wanted, 0)
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == wanted
    assert tensors[USAGE].tolist() == [0.0] * 5
    spreads = {name: (float(tensor.mean()), float(tensor.std())) for name, tensor in tensors.items()}
    assert spreads["conv.weight"] == pytest.approx((0, 1 / 12), abs=0.003)  # fan-in 16 x 3 x 3 = 144
    assert spreads["conv.bias"] == pytest.approx((0, 0.05), abs=0.003)
    assert spreads["norm.weight"] == pytest.approx((1, 0.1), abs=0.006)
    alone = seeded_tensors({"conv.bias": (4096,)}, 0)
    assert equal(alone, {"conv.bias": tensors["conv.bias"]})
    assert not equal(seeded_tensors({"conv.bias": (4096,)}, 1), alone)
    # Identities of stand-in weights promise these bytes for ever.
    digest = "572aa9e5c9dfe4315790a664299e6a12750501193638aadb549352fb0282eedf"
    assert fingerprint(seeded_tensors({"a.weight": (2, 3), "a.bias": (2,)}, 0)) == digest
