"""The tokenizers' layouts, and the identity of their weights without torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from manifests.weights import STAND_IN, WeightsError, WeightsFile
from tokenize_shards.catalog import DEMO, DEMO_WEIGHTS, VQ_SPECS, vq_spec, vq_weights, what_to_get

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
"""sha256 of "abc": the first example of FIPS 180-2."""


def test_a_code_stands_for_a_square_of_16_or_8_pixels() -> None:
    assert {name: spec.downsampling for name, spec in VQ_SPECS.items()} == {"VQ-16": 16, "VQ-8": 8, "VQ-demo": 8}
    assert {name: spec.codebook_size for name, spec in VQ_SPECS.items()} == {
        "VQ-16": 16384,
        "VQ-8": 16384,
        "VQ-demo": 512,
    }
    assert all(vq_spec(name).name == name for name in VQ_SPECS)


def test_unknown_name_lists_the_choices() -> None:
    for ask in (lambda: vq_spec("VQ-4"), lambda: vq_weights("VQ-4", STAND_IN)):
        with pytest.raises(ValueError, match=r"tokenizer 'VQ-4' is not known; the choices are: VQ-16, VQ-8, VQ-demo"):
            ask()


def test_a_file_is_known_by_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "vq.pt"
    path.write_bytes(b"abc")
    assert vq_weights("VQ-8", str(path)) == WeightsFile("VQ-8", ABC, path=str(path))
    assert vq_weights("VQ-16", str(path)).record() == {"name": "VQ-16", "sha256": ABC, "stand_in": False}
    path.write_bytes(b"another")
    assert vq_weights("VQ-8", str(path)).sha256 != ABC


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "vq.pt").write_bytes(b"abc")
    assert vq_weights("VQ-8", "~/vq.pt").path == str(tmp_path / "vq.pt")


def test_the_demos_weights_are_in_the_package() -> None:
    # sha256sum tokenize_shards/demo_weights/vq_demo.safetensors
    digest = "2ef9cf935897bc8300e55bd2a0d5f83cecb1b58bbde2aaede7e99c0703116f6b"
    assert vq_weights("VQ-demo", DEMO) == WeightsFile("VQ-demo", digest, path=str(DEMO_WEIGHTS))
    with pytest.raises(WeightsError, match=r"weights of VQ-8: only VQ-demo has 'demo' weights\. Get vq_ds8_c2i\.pt"):
        vq_weights("VQ-8", DEMO)


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("VQ-16", "934545713974f32deaab003890782a8a5061d7ebc04a4cd6fb9094811bc7df71"),
        ("VQ-8", "4c79cba38ca8427efc6c476fd42c4f9c154b13ed3d4369296b55bdd9cda37e6d"),
        ("VQ-demo", "f7407f6fd3547a339dd8f073c245dd3db99df78bfcf72dbeb1d61603fcf9763a"),
    ],
)
def test_stand_ins_are_known_for_ever_by_their_recipe(name: str, digest: str) -> None:
    assert vq_weights(name, STAND_IN) == WeightsFile(name, digest, stand_in=True)  # as run folders hold it
    assert vq_weights(name, STAND_IN).label == f"{name} (stand-in weights)"


@pytest.mark.parametrize(
    "path", ["/no/such", "", "x" * 5000, "/" + "x/" * 2500, "~nobody-of-this-name/vq.pt", "a\0b.pt"]
)
def test_a_path_without_a_file_says_what_to_get_and_where_to_put_it(path: str) -> None:
    with pytest.raises(WeightsError) as refused:
        vq_weights("VQ-16", path)
    assert str(refused.value).startswith("weights of VQ-16: ")
    assert str(refused.value).endswith(f". {what_to_get(vq_spec('VQ-16'))}")


def test_what_to_get_names_the_released_file() -> None:
    assert what_to_get(vq_spec("VQ-16")) == (
        "Get vq_ds16_t2i.pt (288 MB) from https://huggingface.co/peizesun/llamagen_t2i; put the file's path into the"
        " recipe as pretokenize.weights, or write 'stand-in' there for seeded random weights"
    )


def test_the_catalogue_does_not_import_torch() -> None:
    code = "import sys, tokenize_shards.catalog; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
