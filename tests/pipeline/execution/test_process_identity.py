"""A process is told from one that has its number now."""

import subprocess
import sys
from dataclasses import replace

import pytest

from pipeline.execution.process_identity import Process, is_gone, this_process


def test_this_process_is_here_and_plain_json_holds_it():
    here = this_process()
    assert not is_gone(here)
    assert Process.of(here.plain()) == here


def test_one_that_has_ended_is_gone_and_so_is_the_one_whose_number_another_has_now():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert is_gone(replace(this_process(), pid=child.pid))
    assert is_gone(replace(this_process(), started=1))


def test_nobody_knows_of_a_process_of_another_machine():
    assert not is_gone(Process("elsewhere", 1, 1))


@pytest.mark.parametrize("value", [None, {}, {"machine": "a", "pid": "x", "started": 1}, 7])
def test_what_is_no_process(value):
    assert Process.of(value) is None
