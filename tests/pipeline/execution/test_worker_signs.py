"""pipeline/execution/worker_signs.py: a worker on an engine says that it lives while it loads."""

import time

from pipeline.execution import worker_signs
from pipeline.execution.run_token import new_token
from pipeline.execution.worker_signs import alive, clear_signs, last_beat_of, signs_folder
from tests.support.waiting import wait_for


def test_signs_are_given_while_the_block_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(worker_signs, "BEAT_S", 0.01)
    began = time.time()
    assert last_beat_of(tmp_path, "score") == 0
    with new_token(tmp_path) as token, alive(tmp_path, "score", token):
        first = last_beat_of(tmp_path, "score")
        assert first >= began
        wait_for(lambda: last_beat_of(tmp_path, "score") > first)
    assert list(signs_folder(tmp_path, "score").iterdir()) == []
    clear_signs(tmp_path, "score")
    clear_signs(tmp_path, "score")
    assert not signs_folder(tmp_path, "score").exists()


def test_they_end_after_a_time_and_where_the_run_is_over(tmp_path, monkeypatch):
    monkeypatch.setattr(worker_signs, "BEAT_S", 0.01)
    with new_token(tmp_path) as token:
        with alive(tmp_path, "score", token, seconds=0.0):
            time.sleep(0.05)
            first = last_beat_of(tmp_path, "score")
            time.sleep(0.05)
            assert last_beat_of(tmp_path, "score") == first
        with alive(tmp_path, "score", token), new_token(tmp_path):
            time.sleep(0.05)
            first = last_beat_of(tmp_path, "score")
            time.sleep(0.05)
            assert last_beat_of(tmp_path, "score") == first


def test_without_a_token_nothing_is_written(tmp_path):
    with alive(tmp_path, "score", ""):
        assert not signs_folder(tmp_path, "score").exists()


def test_a_broken_sign_is_none(tmp_path):
    signs_folder(tmp_path, "score").mkdir(parents=True)
    (signs_folder(tmp_path, "score") / "a.json").write_text("{")
    assert last_beat_of(tmp_path, "score") == 0
