"""A run folder in a store has one holder: he is named to others, and followed once he is gone."""

import os
import secrets
import subprocess
import sys
import threading

import pytest

from manifests.files import read_json, write_json
from manifests.remote_path import RemotePath
from manifests.store_requests import StoreError
from pipeline.execution import lease
from pipeline.execution.lease import FOLDER, latest, leased
from pipeline.execution.process_identity import Process, machine
from pipeline.execution.run_folder import locked
from pipeline.recipes.schema import RecipeError


@pytest.fixture
def root():
    return RemotePath.of(f"memory://{secrets.token_hex(4)}/run")


def abandon(root, number=1, **changes):
    """Leave the lease of a process of another machine, which is not renewed any more."""
    process = Process("elsewhere boot pid", 7, 1).plain()
    entry = {"owner": "process 7 on elsewhere", "token": "x", "released": False, "process": process, **changes}
    write_json(root / FOLDER / f"{number:06d}.json", entry)


def names(root):
    return [path.name for path in (root / FOLDER).iterdir()]


def test_the_second_is_refused_with_who_holds_it(root):
    with (
        leased(root),
        pytest.raises(RecipeError, match=rf"held by another run \(process {os.getpid()} on .*renewed 0 s"),
        leased(root),
    ):
        pass
    with leased(root):
        pass
    assert names(root) == ["000002.json"]
    assert read_json(root / FOLDER / "000002.json")["released"] is True


def test_a_lease_that_was_not_renewed_is_taken_over_once_it_has_expired(root, monkeypatch):
    abandon(root, 6)
    with pytest.raises(RecipeError, match=r"process 7 on elsewhere.*expires 90 s after that"), leased(root):
        pass
    monkeypatch.setattr(lease, "EXPIRY_S", -1.0)
    with leased(root):
        assert names(root) == ["000007.json"]


def test_the_lease_of_a_process_of_this_machine_that_is_gone_is_taken_over_at_once(root):
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    abandon(root, process=Process(machine(), child.pid, 1).plain())
    with leased(root):
        assert names(root) == ["000002.json"]


def test_of_many_that_come_at_once_one_holds_it(root):
    abandon(root, released=True)
    inside, done, entered, refused = threading.Barrier(8), threading.Event(), [], []

    def come():
        inside.wait()
        try:
            with leased(root):
                entered.append(1)
                done.wait(30)
        except RecipeError:
            refused.append(1)
            if len(refused) == 7:
                done.set()

    threads = [threading.Thread(target=come) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(entered), len(refused)) == (1, 7)


def test_an_owner_renews_his_lease(root, monkeypatch):
    monkeypatch.setattr(lease, "BEAT_S", 0.01)
    written, plain = threading.Event(), RemotePath.write_bytes

    def write(path, data):
        if path.name.endswith(".json"):
            written.set()
        return plain(path, data)

    monkeypatch.setattr(RemotePath, "write_bytes", write)
    with leased(root):
        assert written.wait(30)


def test_an_owner_that_was_taken_over_lets_the_other_be(root, monkeypatch):
    with leased(root):
        abandon(root, 2)
    assert names(root) == ["000002.json"]
    assert latest(root).owner == "process 7 on elsewhere"


def test_a_store_that_is_gone_at_the_end_hides_no_other_error(root, monkeypatch):
    def fail(*_):
        raise StoreError("gone")

    def work():
        with leased(root):
            monkeypatch.setattr(RemotePath, "glob", fail)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()


def test_a_store_that_ignores_the_condition_is_refused(root, monkeypatch):
    monkeypatch.setattr(RemotePath, "create", lambda path, data: bool(path.write_bytes(data)))
    with pytest.raises(RecipeError, match="If-None-Match: \\* is ignored"), leased(root):
        pass
    assert names(root) == []


def test_a_damaged_lease_is_no_free_folder(root):
    (root / FOLDER / "000003.json").write_bytes(b"{")
    with pytest.raises(RecipeError, match="its lease is damaged"), leased(root):
        pass


def test_a_folder_of_a_store_is_held_as_one_of_a_disk(root):
    with locked(root), pytest.raises(RecipeError, match="held by another run"), locked(root):
        pass
    with locked(root):
        pass
    assert [path.name for path in root.iterdir()] == [FOLDER]


def test_leases_are_in_the_order_of_their_numbers_and_other_names_are_none(root):
    for number in (9, 999_999, 1_000_000):
        abandon(root, number, owner=f"process {number}")
    for name in ("\u00b2.json", "\u0663.json", "x.json"):
        (root / FOLDER / name).write_bytes(b"{}")
    assert latest(root).owner == "process 1000000"
    assert lease.latest_number(root / FOLDER) == 1_000_000
    abandon(root, 1_000_001, released=True)
    with leased(root):
        assert names(root) == ["1000002.json"]
