"""What the package asks for: few dependencies, each explained, extras for the rest, private hooks that are there."""

import inspect
import re
import tomllib

import aiohttp
import pytest
from aiohttp.connector import BaseConnector, TCPConnector

from tests.house.count import PACKAGES, third_party
from tests.support.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAMED = {
    *("apache-beam", "pyarrow", "img2dataset", "open_clip_torch", "torch", "transformers", "pillow", "imagehash"),
    *("duckdb", "webdataset", "typer"),
}
"""What the project was asked to be made of; pytest stands in `dev`."""
MODULE_OF = {
    **{"apache-beam": "apache_beam", "beautifulsoup4": "bs4", "open_clip_torch": "open_clip", "pillow": "PIL"},
    **{"c2pa-python": "c2pa", "opencv-python-headless": "cv2", "tomli-w": "tomli_w", "pytest-xdist": "xdist"},
}
COMES_ALONG = {
    "huggingface_hub": "transformers",
    "click": "typer",
    "tqdm": "transformers",
    "yarl": "aiohttp",
    "idna": "aiohttp",
    "grpc": "apache-beam",
    "zstandard": "apache-beam",
    "wandb": "img2dataset",
}
"""Modules that the code imports, and the dependency that cannot do without them."""


def name_of(requirement: str) -> str:
    return re.split(r"[<>=\[ ]", requirement)[0]


def others() -> list[str]:
    return [name for text in PROJECT["dependencies"] if (name := name_of(text)) not in NAMED]


def test_the_named_packages_are_dependencies_and_at_most_ten_beside_them() -> None:
    assert set(map(name_of, PROJECT["dependencies"])) >= NAMED
    assert "pytest" in map(name_of, PROJECT["optional-dependencies"]["dev"])
    assert len(others()) <= 10


def test_each_of_them_and_each_extra_has_a_line_in_the_install_page() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| (.+) \|$", (ROOT / "docs" / "install.md").read_text(), re.MULTILINE)
    assert [name for name, text in rows if not text.strip()] == []
    assert {name for name, _ in rows} >= {*others(), *PROJECT["optional-dependencies"]}


def test_the_extra_all_holds_every_extra_but_dev_and_googles_clients() -> None:
    (everything,) = PROJECT["optional-dependencies"]["all"]
    inside = set(everything.partition("[")[2].rstrip("]").split(","))
    assert inside == set(PROJECT["optional-dependencies"]) - {"all", "dev", "gcs"}


def test_every_requirement_is_pinned() -> None:
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().split()}
    wanted = [*PROJECT["dependencies"], *(one for extra in PROJECT["optional-dependencies"].values() for one in extra)]
    names = {name_of(text).lower().replace("_", "-") for text in wanted} - {"tessera-t2i"}
    assert names - pinned == set()


def test_what_the_code_imports_is_asked_for() -> None:
    extras = [text for extra in PROJECT["optional-dependencies"].values() for text in extra]
    asked = {name_of(text) for text in (*PROJECT["dependencies"], *extras)}
    modules = {MODULE_OF.get(name, name.replace("-", "_")) for name in asked}
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    imported = {name for path in paths for name in third_party(path)}
    assert imported - modules - set(PACKAGES) - set(COMES_ALONG) == set()


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        (TCPConnector._resolve_host, ["self", "host", "port", "traces"]),
        (BaseConnector._get, ["self", "key", "traces"]),
        (BaseConnector._release, ["self", "key", "protocol", "should_close"]),
    ],
    ids=["_resolve_host", "_get", "_release"],
)
def test_the_private_methods_of_aiohttp_that_ours_override_are_there(method: object, parameters: list[str]) -> None:
    assert list(inspect.signature(method).parameters) == parameters  # type: ignore[arg-type]


def test_the_private_attributes_of_aiohttp_that_ours_read_are_set() -> None:
    assert "self._conns" in inspect.getsource(BaseConnector.__init__)
    assert "self._retry_connection" in inspect.getsource(aiohttp.ClientSession.__init__)
    assert "_retry_connection" in inspect.getsource(aiohttp.ClientSession._request)


def test_aiohttp_is_bounded_to_the_version_whose_private_parts_were_looked_at() -> None:
    assert "aiohttp>=3.14,<3.15" in PROJECT["optional-dependencies"]["fetch"]
    assert aiohttp.__version__.startswith("3.14.")
