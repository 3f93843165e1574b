"""manifests/publishing.py: what is asked just before each rename."""

import threading

import pytest

from manifests.files import write_bytes, write_json
from manifests.journal import Journal, ShardRecord
from manifests.publishing import RunOver, may_publish, published_if


def refuse():
    raise RunOver("over")


def test_what_is_refused_leaves_nothing_and_what_was_there(tmp_path):
    write_bytes(tmp_path / "a", b"before")
    with published_if(refuse):
        for write in (lambda: write_bytes(tmp_path / "a", b"after"), lambda: write_json(tmp_path / "b", {})):
            with pytest.raises(RunOver):
                write()
        with pytest.raises(RunOver):
            Journal(tmp_path, "score").record(ShardRecord("00000", "key", (), 0, 0))
    assert [(path.name, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file()] == [("a", b"before")]
    write_bytes(tmp_path / "a", b"after")  # the block has ended


def test_blocks_within_one_another_ask_the_inner_one_and_then_the_outer_again():
    asked = []
    with published_if(lambda: asked.append("outer")):
        with published_if(lambda: asked.append("inner")):
            may_publish()
        may_publish()
    may_publish()
    assert asked == ["inner", "outer"]


def test_threads_of_one_process_are_bound_each_by_its_own(tmp_path):
    """One works for a run that is over, the other for one that is not, at the same time."""
    both, refused = threading.Barrier(2), []

    def work(name, ask):
        with published_if(ask):
            both.wait(60)
            try:
                write_bytes(tmp_path / name, b"")
            except RunOver:
                refused.append(name)
            both.wait(60)

    threads = [
        threading.Thread(target=work, args=(name, ask)) for name, ask in (("old", refuse), ("new", lambda: None))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (refused, [path.name for path in tmp_path.iterdir()]) == (["old"], ["new"])
