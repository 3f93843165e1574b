"""An unusable place of a run folder is one sentence, and no folder is made in its stead."""

import socket
import sys
from pathlib import Path

import pytest
from fsspec.registry import _registry

from manifests import roots
from manifests.roots import RootError, check_root, place_of, root_of
from tests.support.object_store import CREDENTIALS, Faults, object_store, reached


def said(text, **how):
    with pytest.raises(RootError) as caught:
        check_root(root_of(text), **how)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def _known(monkeypatch, tmp_path):
    """Credentials, and no file of the user's that says where the store is."""
    for name, value in {**CREDENTIALS, "AWS_CONFIG_FILE": str(tmp_path / "none")}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("s3://", "'s3://': wanted s3://BUCKET/FOLDER"),
        ("s3://b/../c", "wanted s3://BUCKET/FOLDER"),
        ("s3:/b/run", "'s3:/b/run': neither a folder nor a URL; wanted a folder, or s3://BUCKET/FOLDER"),
        ("s3:x", "'s3:x': neither a folder nor a URL; wanted a folder, or s3://BUCKET/FOLDER"),
        ("S3:x", "'S3:x': neither a folder nor a URL"),
        ("gs:bkt/x", "'gs:bkt/x': neither a folder nor a URL"),
        ("data:/b/run", "'data:/b/run': neither a folder nor a URL"),
        ("http://127.0.0.1:1/x", "'http://127.0.0.1:1/x': http:// cannot hold a run; wanted a folder, or s3://BUCKET"),
        ("HTTPS://b/x", "https:// cannot hold a run"),
        ("ftp://b/x", "ftp:// cannot hold a run"),
        ("simplecache::s3://b/run", "neither a folder nor a URL"),
        ("file:///tmp/run", "wanted a folder of this machine by its path alone: /tmp/run"),
        ("foo://b/run", "foo://b/run: no store is known by the name foo://; wanted a folder, or s3://BUCKET/FOLDER"),
    ],
)
def test_what_is_no_place(text, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert says in said(text)
    assert list(tmp_path.iterdir()) == []


def test_folders_are_folders_and_nobody_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(roots, "_filesystem", None)
    for name in ("runs/x", "/tmp/x", "a:b", "x:/y", "run of 3:4", "run:1", "a/b:c", "data:1", "a/s3:x", "s3x:y"):
        check_root(root_of(name))
        assert str(root_of(name)) == name
    assert str(root_of("./s3:x")) == str(Path.cwd() / "s3:x")


def test_a_file_that_is_read_may_lie_where_no_run_can():
    assert str(place_of("https://b/recipe.toml")) == "https://b/recipe.toml"
    with pytest.raises(RootError, match="neither a folder nor a URL"):
        place_of("s3:recipe.toml")


@pytest.mark.parametrize(("protocol", "package"), [("s3", "s3fs"), ("gs", "gcsfs")])
def test_a_missing_package_is_named_with_its_extra(protocol, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(_registry, protocol, raising=False)
    extra = {"s3": "s3", "gs": "gcs"}[protocol]
    assert said(f"{protocol}://b/run") == (
        f"{protocol}://b/run: the package '{package}' is not installed. Get it with: pip install 'tessera-t2i[{extra}]'"
    )


def test_without_credentials(monkeypatch, tmp_path):
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    text = said("s3://b/run")
    assert "s3://b/run: no credentials (" in text
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in text


@pytest.mark.usefixtures("_known")
def test_a_port_where_nobody_is_and_one_where_nobody_answers(monkeypatch):
    with socket.socket() as taken:  # bound, and not listened at
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        text = said("s3://b/run")
        assert "the store cannot be reached (Could not connect to the endpoint URL" in text
        assert "AWS_ENDPOINT_URL says where the store is" in text
    monkeypatch.setattr(roots, "DEADLINE_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as dumb:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{dumb.getsockname()[1]}")
        assert "the store has not answered within 0.5 s" in said("s3://b/run")


def test_of_a_store_that_is_there():
    pytest.importorskip("moto.server", reason="moto, an S3-compatible server, is not installed")
    shut = {"all": False, "busy": 2}

    def choose(number: int, method: str, path: str) -> str:
        if shut["busy"] > 0:
            shut["busy"] -= 1
            return "503"
        return ""

    with object_store(Faults(choose)) as store, reached(store):
        check_root(root_of(store.url()))  # though it is busy at first
        check_root(root_of(f"s3://{store.bucket}"))
        check_root(root_of(store.url()), writes=False)
        assert list(root_of(f"s3://{store.bucket}").iterdir()) == []
        assert f"no bucket 'nobucket-{store.bucket}'" in said(f"s3://nobucket-{store.bucket}/run")
        assert "The specified bucket does not exist" in said(f"s3://nobucket-{store.bucket}/run", writes=False)


@pytest.mark.usefixtures("_known")
def test_a_permission_that_lacks_is_said(monkeypatch):
    class Shut:
        @staticmethod
        def _strip_protocol(url):
            return url.partition("://")[2]

        def ls(self, key, detail):
            return []

        def pipe_file(self, key, data):
            raise PermissionError("Access Denied")

    monkeypatch.setattr(roots, "_filesystem", lambda root: Shut())
    check_root(root_of("s3://b/run"), writes=False)
    assert said("s3://b/run") == (
        "s3://b/run: the store does not let it be listed and written to with these credentials (Access Denied)"
    )
