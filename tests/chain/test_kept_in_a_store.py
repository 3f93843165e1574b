"""A run in an S3-compatible store that fails, throttles and cuts is verified, repaired and rid of rows by the same
commands as on a disk."""

import json
import os
import subprocess

import pytest

from manifests.store import path_of
from tests.support.commands import command
from tests.support.dying_store import state
from tests.support.object_store import Faults, object_store, put_run, reached
from tests.support.paths import ROOT
from tests.support.removals import URL, contents

KINDS = ("500", "503", "cut")


def failing(number, method, path):
    """Let one request of 41 fail, be throttled or be cut, in turn."""
    return "" if number < 500 or number % 41 else KINDS[number // 41 % 3]


@pytest.fixture(scope="module")
def store():
    with object_store(Faults(failing)) as running, reached(running):
        yield running


def said(store, *args):
    """Return exit code, and what a command of a process of its own says, as JSON."""
    environment = {**os.environ, **store.environment}
    ended = subprocess.run(
        command(*args, "--json"), capture_output=True, text=True, cwd=ROOT, env=environment, timeout=600
    )
    print(ended.stderr)
    return ended.returncode, json.loads(ended.stdout or "{}")


def test_damage_is_found_mended_and_rows_are_removed(store, made, removed_two):
    root = put_run(made, path_of(store.url()))
    good = state(root)
    (root / "scores" / "00000.parquet").write_bytes(b"junk")
    (root / "codes" / "encoded" / "pretrain-00001.parquet").unlink()
    (root / "pairs" / "mine.txt").write_bytes(b"?")
    code, report = said(store, "verify", root)
    assert code == 1
    assert sorted((one["path"], one["kind"]) for one in report["findings"]) == [
        ("codes/encoded/pretrain-00001.parquet", "missing"),
        ("pairs/mine.txt", "foreign"),
        ("scores/00000.parquet", "damaged"),
    ]
    code, done = said(store, "repair", root)
    assert (code, sorted(done["repaired"]), list(done["left"])) == (
        1,
        ["codes/encoded/pretrain-00001.parquet", "scores/00000.parquet"],
        ["pairs/mine.txt"],
    )
    (root / "pairs" / "mine.txt").unlink()
    assert state(root) == good
    code, done = said(store, "remove", root, "--url", URL.format(5), "--url", URL.format(3))
    assert (code, done["rows"], done["record"]) == (0, 2, "manifests/removals/0001.json")
    expected = {name: data for name, data in contents(removed_two).items() if name != ".run-token"}
    assert {name: data for name, data in state(root).items() if not name.startswith("logs/")} == expected
    code, report = said(store, "verify", root)
    assert (code, report["whole"], report["findings"]) == (0, True, [])
    assert {fault for _, _, fault in store.faults.done} == {"", *KINDS}
