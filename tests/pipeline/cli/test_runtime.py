"""pipeline/cli/runtime.py: only the demo's runs have a server around them, and a truth to tell."""

from types import SimpleNamespace

import pytest

from pipeline.cli.runtime import after, is_demo, run_context
from pipeline.execution.step import Runtime


def recipe(dataset):
    return SimpleNamespace(input=SimpleNamespace(dataset=dataset))


def test_the_demo_is_known_by_its_dataset():
    assert [is_demo(recipe(name)) for name in ("demo", "demo_artworks", "laion", "my_demo")] == [
        True, True, False, False,
    ]  # fmt: skip


def test_a_run_that_is_no_demo_has_nothing_around_it():
    with run_context(recipe("laion"), ("filter",)) as runtime:
        assert runtime == Runtime()


@pytest.mark.parametrize(
    ("dataset", "stage", "options", "told"),
    [
        ("demo", "filter", {}, 1),
        ("demo", "caption", {}, 0),
        ("demo", "filter", {"dry_run": True}, 0),
        ("demo", "filter", {"steps": ("fetch",)}, 0),
        ("laion", "filter", {}, 0),
    ],
)
def test_the_truth_is_told_after_a_whole_filter_of_the_demo(monkeypatch, dataset, stage, options, told):
    calls = []
    monkeypatch.setattr("pipeline.demo.harness.tell_truth", calls.append)
    after(recipe(dataset), stage, SimpleNamespace(**{"dry_run": False, "steps": (), **options}))
    assert len(calls) == told
