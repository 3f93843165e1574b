"""pipeline/recipes/runner.py: [runner] is read strictly, and is no part of what a run folder holds."""

import pytest

from pipeline.recipes.load import parse_recipe
from pipeline.recipes.runner import RunnerConfig
from pipeline.recipes.schema import RecipeError

TIER = {"tier": {"a": {"size": 64}}}


def test_it_is_in_no_plain_recipe():
    read = parse_recipe({**TIER, "runner": {"job_endpoint": "localhost:1", "pools": ["localhost:2"]}})
    assert read.runner == RunnerConfig(job_endpoint="localhost:1", pools=["localhost:2"])
    assert read.plain() == parse_recipe(TIER).plain()
    assert parse_recipe(read.plain()).runner.pools == ()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"endpoint": "a:1"}, r"unknown key 'runner.endpoint'; known keys of \[runner\]: .*job_endpoint"),
        ({"environment": "threads"}, "runner.environment: .*'loopback', 'external', 'docker' or 'process'"),
        ({"pools": "a.test:1"}, r'runner.pools: .*wanted a list, such as \["HOST:PORT"\] \(got .a.test:1.\)'),
        ({"start_s": 0}, "runner.start_s: .*greater than 0"),
    ],
)
def test_what_it_cannot_say_is_an_error(values, said):
    with pytest.raises(RecipeError, match=said):
        parse_recipe({**TIER, "runner": values})
