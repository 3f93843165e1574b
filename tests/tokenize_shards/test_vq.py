"""The VQ tokenizers equal the reference in names, codes and pictures, and refuse weights not their own."""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from manifests.weights import STAND_IN, WeightsError
from tests.support.checkpoints import demo
from tests.support.vq_oracle import ORACLE, needs_oracle, oracle_module
from tokenize_shards.catalog import VQ_SPECS, vq_weights
from tokenize_shards.vq import VQ, build_vq, check_vq, load_vq


@needs_oracle
@pytest.mark.parametrize("name", ["VQ-16", "VQ-8"])
def test_state_dict_has_the_reference_names_and_shapes(name: str) -> None:
    wanted = json.loads((ORACLE / "state_dict_shapes.json").read_text())[name]
    with torch.device("meta"):
        got = {key: list(tensor.shape) for key, tensor in VQ(VQ_SPECS[name]).state_dict().items()}
    assert got == wanted


@pytest.mark.parametrize(("name", "parameters", "keys"), [("VQ-16", 71_883_403, 344), ("VQ-8", 70_109_835, 300)])
def test_parameter_counts(name: str, parameters: int, keys: int) -> None:
    with torch.device("meta"):
        vq = VQ(VQ_SPECS[name])
    assert sum(parameter.numel() for parameter in vq.parameters()) == parameters
    assert len(vq.state_dict()) == keys


@needs_oracle
@pytest.mark.parametrize(("name", "file"), [("VQ-16", "vq16_256.npz"), ("VQ-8", "vq8_128.npz")])
def test_codes_latents_and_pictures_equal_the_reference(name: str, file: str) -> None:
    oracle, recorded = oracle_module(), np.load(ORACLE / file)
    second = {key: recorded[key][1:] for key in ("latents", "codes", "margin", "decoded")}  # of two pictures
    with torch.device("meta"):
        empty = VQ(VQ_SPECS[name])  # no numbers are drawn that `fill` writes over
    vq = oracle.fill(empty.to_empty(device="cpu"), int(recorded["seed"]))
    images = oracle.smooth_images(2, int(recorded["size"]), int(recorded["seed"]))[1:]
    latents: list[torch.Tensor] = []
    vq.quant_conv.register_forward_hook(lambda layer, read, latents_BDhw: latents.append(latents_BDhw))
    codes_BN = vq.encode(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1)
    assert codes_BN.dtype == torch.int64
    assert np.abs(latents[0].numpy() - second["latents"]).max() < 1e-4
    sure = second["margin"] > 1e-5
    assert sure.mean() > 0.99
    assert np.array_equal(codes_BN.numpy()[sure], second["codes"][sure])
    decoded = vq.decode(torch.from_numpy(second["codes"].astype(np.int64))).numpy()
    assert np.abs(decoded[:, :, ::8, ::8] - second["decoded"]).max() < 1e-4


def test_unknown_name_lists_the_choices() -> None:
    with pytest.raises(ValueError, match=r"'VQ-4'.*VQ-16, VQ-8, VQ-demo"):
        build_vq("VQ-4")


def test_codes_are_nearest_unit_vectors_in_raster_order() -> None:
    vq = demo()
    x_BCHW = torch.rand(2, 3, 32, 24) * 2 - 1
    with torch.no_grad():
        z_BDhw = vq.latents(x_BCHW)
    assert z_BDhw.shape == (2, 8, 4, 3)
    unit = torch.nn.functional.normalize(vq.quantize.embedding.weight, dim=1)
    codes_BN = vq.encode(x_BCHW)
    row, column = 2, 1
    z_D = torch.nn.functional.normalize(z_BDhw[1, :, row, column], dim=0)
    assert int(codes_BN[1, row * 3 + column]) == int((unit - z_D).square().sum(1).argmin())


def test_lookup_in_pieces_is_the_whole_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    vq = demo()
    z_PD = torch.randn(100, 8)
    whole = vq.quantize.nearest(z_PD)
    monkeypatch.setattr("tokenize_shards.vq.LOOKUP_ROWS", 7)
    assert torch.equal(vq.quantize.nearest(z_PD), whole)


@pytest.mark.parametrize("shape", [(1, 3, 30, 32), (1, 1, 32, 32), (3, 32, 32)])
def test_pictures_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="multiples of 8; got"):
        demo().latents(torch.zeros(shape))


def test_decode_refuses_grids_and_codes_that_are_not_its_own() -> None:
    vq = demo()
    with pytest.raises(ValueError, match=r"square grid; got \(1, 15\)"):
        vq.decode(torch.zeros(1, 15, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"codes 0\.\.511; got 0\.\.512"):
        vq.decode(torch.tensor([[0, 1, 2, 512]]))
    assert vq.decode(torch.tensor([[0, 1, 2, 511]])).shape == (1, 3, 16, 16)


LAYOUTS = {
    "flat": lambda sd: sd,
    "model": lambda sd: {"model": sd},
    "module": lambda sd: {"module": sd},
    "state_dict": lambda sd: {"state_dict": sd},
    "wrapped": lambda sd: {"model": {f"module._orig_mod.{name}": tensor for name, tensor in sd.items()}},
    "training": lambda sd: {
        "model": sd,
        "optimizer": {"state": {}},
        "steps": 3,
        "args": argparse.Namespace(vq_model="VQ-16", lr=1e-4, ema=None),
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_loads_to_the_same_fingerprint(layout: str, tmp_path: Path) -> None:
    state = demo().state_dict()
    torch.save(LAYOUTS[layout](state), tmp_path / "vq.pt")
    torch.save(state, tmp_path / "plain.pt")
    loaded = load_vq("VQ-demo", str(tmp_path / "vq.pt"))
    assert loaded.fingerprint == load_vq("VQ-demo", str(tmp_path / "plain.pt")).fingerprint
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.vq.state_dict().items())
    assert not loaded.vq.training
    assert loaded.weights == vq_weights("VQ-demo", str(tmp_path / "vq.pt"))
    assert not loaded.weights.stand_in


def test_ema_weights_are_preferred(tmp_path: Path) -> None:
    torch.save({"model": demo(0).state_dict(), "ema": demo(1).state_dict()}, tmp_path / "vq.pt")
    torch.save(demo(1).state_dict(), tmp_path / "ema.pt")
    assert (
        load_vq("VQ-demo", str(tmp_path / "vq.pt")).fingerprint
        == load_vq("VQ-demo", str(tmp_path / "ema.pt")).fingerprint
    )


def test_half_precision_safetensors_become_float32(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    halves = {name: tensor.half() for name, tensor in demo().state_dict().items()}
    save_file(halves, tmp_path / "vq.safetensors")
    torch.save(halves, tmp_path / "vq.pt")
    loaded = load_vq("VQ-demo", str(tmp_path / "vq.safetensors"))
    assert {tensor.dtype for tensor in loaded.vq.state_dict().values()} == {torch.float32}
    assert loaded.fingerprint == load_vq("VQ-demo", str(tmp_path / "vq.pt")).fingerprint


@pytest.mark.parametrize("rows", ["zero", "equal", "equal and zero", "of two directions"])
def test_a_codebook_without_two_directions_is_refused(rows: str, tmp_path: Path) -> None:
    state = demo().state_dict()
    book_KD = state["quantize.embedding.weight"]
    book_KD[:] = 0.0 if rows == "zero" else book_KD[0] * torch.linspace(1, 9, len(book_KD))[:, None]
    if rows == "equal and zero":
        book_KD[::2] = 0.0
    if rows == "of two directions":
        book_KD[1] = -book_KD[0]
    torch.save(state, tmp_path / "vq.pt")
    if rows == "of two directions":
        load_vq("VQ-demo", str(tmp_path / "vq.pt"))
        return
    with pytest.raises(WeightsError, match="no two of the 512 rows of the codebook differ in direction"):
        load_vq("VQ-demo", str(tmp_path / "vq.pt"))


def test_a_row_of_zeros_is_as_near_as_the_reference_has_it() -> None:
    # The reference takes the least |z|² + |e|² - 2ze over z and e that F.normalize has seen, which leaves zeros what
    # they are.
    vq = demo()
    book_KD = vq.quantize.embedding.weight.data
    book_KD[3:] = 0.0
    book_KD[9] = 5e-13  # too short for F.normalize to bring it to length 1
    z_PD = torch.randn(400, 8)
    z_P1D, e_1KD = (torch.nn.functional.normalize(x.double(), dim=-1) for x in (z_PD[:, None], book_KD[None]))
    wanted_P = (z_P1D - e_1KD).square().sum(-1).argmin(-1)
    assert set(wanted_P.tolist()) == {0, 1, 2, 3, 9}
    assert torch.equal(vq.quantize.nearest(z_PD), wanted_P)


def test_another_tokenizers_file_is_refused_by_name_and_shape(tmp_path: Path) -> None:
    torch.save(VQ(replace(VQ_SPECS["VQ-demo"], channels=32)).state_dict(), tmp_path / "vq.pt")
    said = (
        r"of 344 tensors wanted and 174 got, 184 missing .* 14 unexpected .*conv_in\.weight: got \(32, 3, 3, 3\),"
        r" wanted \(128, 3, 3, 3\)"
        r".*\. Get vq_ds16_t2i\.pt"
    )
    with pytest.raises(WeightsError, match=said):
        load_vq("VQ-16", str(tmp_path / "vq.pt"))


def test_a_file_of_another_known_tokenizer_is_called_by_its_name(tmp_path: Path) -> None:
    torch.save(demo().state_dict(), tmp_path / "vq.pt")
    for look in (load_vq, check_vq):
        with pytest.raises(
            WeightsError,
            match=r"weights of VQ-16: .*vq\.pt holds VQ-demo; write vq = 'VQ-demo' to use it\. Get vq_ds16_t2i\.pt",
        ):
            look("VQ-16", str(tmp_path / "vq.pt"))


def test_a_missing_file_says_what_to_get_and_where_to_put_it(tmp_path: Path) -> None:
    for load in (load_vq, vq_weights):
        with pytest.raises(
            WeightsError, match=r"vq_ds16_t2i\.pt.*huggingface\.co/peizesun/llamagen_t2i.*pretokenize\.weights"
        ):
            load("VQ-16", str(tmp_path / "vq_ds16_t2i.pt"))
    with pytest.raises(WeightsError, match="only VQ-demo has 'demo' weights"):
        vq_weights("VQ-8", "demo")


def test_stand_in_weights_are_seeded_and_say_so() -> None:
    first, second = load_vq("VQ-demo", STAND_IN), load_vq("VQ-demo", STAND_IN)
    assert first.fingerprint == second.fingerprint
    assert first.weights.label == "VQ-demo (stand-in weights)"
    assert first.weights == vq_weights("VQ-demo", STAND_IN) != vq_weights("VQ-16", STAND_IN)
    codes_BN = first.vq.encode(torch.rand(4, 3, 64, 64) * 2 - 1)
    assert len(codes_BN.unique()) > 50


def test_codes_of_a_shard_decode_as_they_are() -> None:
    codes_BN = torch.arange(64)[None]
    vq = demo(0)
    assert torch.equal(vq.decode(codes_BN.to(torch.uint16)), vq.decode(codes_BN))
    with pytest.raises(ValueError, match="square grid"):
        vq.decode(torch.zeros(1, 0, dtype=torch.int64))


def test_a_checkpoint_reports_its_codebook_and_use() -> None:
    loaded = load_vq("VQ-demo", STAND_IN)
    report = loaded.report
    assert (report["tensors"], report["parameters"]) == (len(loaded.vq.state_dict()), 708_283)
    assert (report["codebook"], report["code_dim"], report["codebook_used"]) == (512, 8, None)  # nothing was trained
    loaded.vq.quantize.codebook_used[:4] = torch.tensor([3.0, 5.0, 5.0, 9.0])
    assert loaded.report["codebook_used"] == 4 / 512  # 3, 5, 9, and the 0 of the slots never filled


@pytest.mark.parametrize("path", ["x" * 5000, "/" + "x/" * 2500, "~nobody-of-this-name/vq.pt", "a\0b.pt"])
def test_a_path_that_no_file_can_have_is_a_weights_error(path: str) -> None:
    for look in (load_vq, check_vq, vq_weights):
        with pytest.raises(WeightsError, match=r"Get vq_ds16_t2i\.pt"):
            look("VQ-16", path)


@pytest.mark.filterwarnings("error")
def test_parameters_load_as_plain_numbers(tmp_path: Path) -> None:
    torch.save({name: torch.nn.Parameter(value) for name, value in demo().state_dict().items()}, tmp_path / "vq.pt")
    loaded = load_vq("VQ-demo", str(tmp_path / "vq.pt"))
    assert loaded.report["parameters"] == load_vq("VQ-demo", STAND_IN).report["parameters"]
    assert not any(tensor.requires_grad for tensor in loaded.vq.state_dict().values())
    assert loaded.report["codebook_used"] is None
