"""Checkpoints from anywhere: what a foreign or damaged file makes its reader raise, and right files under other
names."""

import lzma
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
import torch

from manifests.weights import STAND_IN, WeightsError
from tests.support.checkpoints import Bomb, demo
from tokenize_shards.catalog import vq_weights
from tokenize_shards.vq import check_vq, load_vq


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
        load_vq("VQ-demo", str(tmp_path / "vq.pt"))


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
        load_vq("VQ-demo", str(tmp_path / "vq.pt"))
    assert "innards" not in str(refused.value)


@pytest.mark.parametrize("path", ["x" * 5000, "/" + "x/" * 2500, "~nobody-of-this-name/vq.pt", "a\0b.pt"])
def test_a_path_that_no_file_can_have_is_a_weights_error(path: str) -> None:
    for look in (load_vq, check_vq, vq_weights):
        with pytest.raises(WeightsError, match=r"Get vq_ds16_t2i\.pt"):
            look("VQ-16", path)


def test_the_content_and_not_the_name_says_how_to_read_a_file(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    state = demo().state_dict()
    save_file(state, tmp_path / "vq.pt")
    torch.save(state, tmp_path / "vq.safetensors")
    first, second = (load_vq("VQ-demo", str(tmp_path / name)) for name in ("vq.pt", "vq.safetensors"))
    assert first.fingerprint == second.fingerprint


@pytest.mark.parametrize("ema", [{}, {"decay": 0.999}])
def test_a_holder_without_tensors_is_passed_over(ema: dict[str, float], tmp_path: Path) -> None:
    torch.save({"model": demo().state_dict(), "ema": ema}, tmp_path / "vq.pt")
    torch.save(demo().state_dict(), tmp_path / "plain.pt")
    assert (
        load_vq("VQ-demo", str(tmp_path / "vq.pt")).fingerprint
        == load_vq("VQ-demo", str(tmp_path / "plain.pt")).fingerprint
    )


def test_a_pickle_of_plain_letters_that_asks_for_code_is_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOMB", str(tmp_path / "gone-off"))
    (tmp_path / "vq.pt").write_bytes(pickle.dumps(Bomb(), 0))
    with pytest.raises(WeightsError, match=r"it holds code: its pickle asks for \w+\.mkdir"):
        load_vq("VQ-demo", str(tmp_path / "vq.pt"))
    (tmp_path / "page.pt").write_text("code not found\n404\n")
    with pytest.raises(WeightsError, match="it is a text that begins 'code not found"):
        load_vq("VQ-demo", str(tmp_path / "page.pt"))


def test_a_file_cut_where_torch_names_an_invalid_argument_is_cut_short(tmp_path: Path) -> None:
    torch.save(demo().state_dict(), tmp_path / "vq.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "old.pt").write_bytes((tmp_path / "vq.pt").read_bytes()[:50_000])
    torch.save(demo().state_dict(), tmp_path / "vq.pt")
    (tmp_path / "new.pt").write_bytes((tmp_path / "vq.pt").read_bytes()[:50_000])
    for name in ("old.pt", "new.pt"):
        with pytest.raises(WeightsError, match="it is cut short") as refused:
            load_vq("VQ-demo", str(tmp_path / name))
        assert "Invalid argument" not in str(refused.value)


@pytest.mark.filterwarnings("error")
def test_parameters_load_as_plain_numbers(tmp_path: Path) -> None:
    torch.save({name: torch.nn.Parameter(value) for name, value in demo().state_dict().items()}, tmp_path / "vq.pt")
    loaded = load_vq("VQ-demo", str(tmp_path / "vq.pt"))
    assert loaded.report["parameters"] == load_vq("VQ-demo", STAND_IN).report["parameters"]
    assert not any(tensor.requires_grad for tensor in loaded.vq.state_dict().values())
    assert loaded.report["codebook_used"] is None
