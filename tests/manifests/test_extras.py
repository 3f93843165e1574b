"""A package of an extra that is not installed ends in one sentence that names the extra."""

import sys

import pytest

from manifests.extras import MissingExtra, how_to_get, need, require
from manifests.weights import WeightsError


def test_a_module_that_is_there_is_returned() -> None:
    assert need("json.decoder", "score") is sys.modules["json.decoder"]


def test_a_missing_package_is_a_sentence_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # as Python marks a module that cannot be imported
    with pytest.raises(MissingExtra) as caught:
        need("timm.models", "score")
    assert str(caught.value) == "the package 'timm' is not installed. Get it with: pip install 'tessera-t2i[score]'"


def test_packages_that_are_not_there_are_named_before_any_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    require(("json", "aiohttp"), "fetch")
    monkeypatch.setitem(sys.modules, "brotli", None)
    with pytest.raises(MissingExtra, match=r"'brotli' is not installed\..*\[fetch\]"):
        require(("json", "brotli"), "fetch")


def test_it_is_a_fault_of_the_machine_like_missing_weights() -> None:
    assert issubclass(MissingExtra, WeightsError)  # the command line ends with 2, before any work
    assert how_to_get("s3") == "pip install 'tessera-t2i[s3]'"


def test_a_package_that_is_there_but_broken_says_so_itself(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    (tmp_path / "half_a_package.py").write_text("import something_that_nobody_has\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="something_that_nobody_has"):
        need("half_a_package", "score")


@pytest.mark.parametrize(
    ("module", "call", "extra"),
    [
        (
            "mmh3",
            "from filters.exclude import laion_hashes as f; f([], None)",
            "lists",
        ),
        ("timm", "from filters.scorers.watermark_laion import build_detector as f; f()", "score"),
        ("onnxruntime", "from filters.scorers.onnx import open_session as f; f('x.onnx')", "score"),
        ("http_sf", "from filters.fetch.config import require_packages as f; f()", "fetch"),
        ("resvg_py", "from pipeline.demo.pictures import render as f; f(b'<svg/>', 8)", "demo"),
    ],
)
def test_whoever_needs_an_extra_says_which(monkeypatch: pytest.MonkeyPatch, module: str, call: str, extra: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"'{module}' is not installed.*\[{extra}\]"):
        exec(call, {})
