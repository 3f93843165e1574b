"""pipeline/execution/step.py: what a step's keys are made of, and what tells that it must run again."""

from dataclasses import dataclass
from typing import ClassVar

import pytest

from manifests.files import digest_of
from manifests.journal import STEP
from manifests.weights import WeightsFile
from pipeline.execution.step import Runtime, Step, Unit, note_step, settings_changed, state_of
from tests.support.supervised import RECIPE

SETTINGS = {"radius": 8, "columns": ("a", "b")}
WEIGHTS = [WeightsFile("clip", "ab" * 32, path="/somewhere/clip.pt")]


@dataclass(frozen=True)
class Given(Step):
    """A step whose settings and weights a test gives."""

    name: ClassVar[str] = "given"
    given: tuple = (SETTINGS, WEIGHTS)

    def settings(self):
        return self.given[0]

    def weights(self):
        return self.given[1]

    def plan(self):
        return [Unit("00000", {"first": 0}, "content")]


class NextVersion(Given):
    """The same, of another version."""

    version: ClassVar[int] = 2


def step(root="run", settings=SETTINGS, weights=WEIGHTS, kind=Given):
    return kind(RECIPE, root, given=(settings, weights))


def test_a_unit_is_done_under_the_steps_own_key_and_what_it_reads():
    own = digest_of(["given", 1, SETTINGS, [{"name": "clip", "sha256": "ab" * 32, "stand_in": False}]])
    assert step().own_key == own
    assert step().units() == [Unit("00000", {"first": 0}, "content", digest_of([own, "00000", "content"]))]


def test_no_key_depends_on_the_folder_the_invocation_or_where_weights_lie(tmp_path):
    moved = [WeightsFile("clip", "ab" * 32, path="/elsewhere/clip.pt")]
    elsewhere = Given(RECIPE, tmp_path, Runtime(retry=("timeout",)), given=(SETTINGS, moved))
    assert elsewhere.units() == step().units()


@pytest.mark.parametrize(
    "other",
    [
        step(settings={**SETTINGS, "radius": 9}),
        step(weights=[WeightsFile("clip", "cd" * 32)]),
        step(weights=[WeightsFile("clip", "ab" * 32, stand_in=True)]),
        step(weights=[]),
        step(kind=NextVersion),
    ],
)
def test_another_setting_weight_or_version_is_another_key(other):
    assert other.own_key != step().own_key


def test_a_step_is_new_then_unchanged_then_names_the_settings_that_changed(tmp_path):
    assert state_of(step(tmp_path)) == "new"
    assert settings_changed(step(tmp_path))
    note_step(step(tmp_path))
    assert state_of(step(tmp_path)) == "unchanged"
    assert not settings_changed(step(tmp_path))  # a tuple was noted as a list
    other = step(tmp_path, {"radius": 9, "columns": ("a", "b"), "added": 1})
    assert state_of(other) == "changed (added, radius)"
    assert settings_changed(other)
    assert state_of(step(tmp_path, {"radius": 8})) == "changed (columns)"


def test_other_weights_or_another_version_change_a_step_but_no_setting(tmp_path):
    note_step(step(tmp_path))
    for other in (step(tmp_path, weights=[]), step(tmp_path, kind=NextVersion)):
        assert state_of(other) == "changed (weights or version)"
        assert not settings_changed(other)


def test_a_damaged_note_makes_a_step_new(tmp_path):
    note_step(step(tmp_path))
    path = step(tmp_path).journal.folder / STEP
    path.write_bytes(path.read_bytes().replace(b'"radius": 8', b'"radius": 7'))
    assert state_of(step(tmp_path)) == "new"
    assert settings_changed(step(tmp_path))
