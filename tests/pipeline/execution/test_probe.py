"""pipeline/execution/probe.py: what a worker of a pool says of itself."""

import json

import pytest

from pipeline.execution import probe


def test_a_worker_says_what_it_is_and_what_it_finds(tmp_path):
    (tmp_path / "token").write_text("abc")
    for path, found in ((tmp_path / "token", "abc"), (tmp_path / "none", None)):
        with pytest.raises(probe.Seen) as seen:
            probe.look(str(path))
        mark, said = str(seen.value)[: len(probe.MARK)], json.loads(str(seen.value)[len(probe.MARK) :])
        assert (mark, said["is"], said["found"]) == (probe.MARK, probe.itself(), found)


def test_the_codes_digest_is_of_content():
    assert probe.source_digest() == probe.source_digest()
    assert len(probe.source_digest()) == 64
    assert list(probe.itself()) == ["Python", "Beam", "code of this package"]
