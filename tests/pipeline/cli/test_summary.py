"""pipeline/cli/summary.py: what a stage did, in lines and as a document."""

import pytest

from manifests.manifest import Manifest
from manifests.shard_table import shard_table
from pipeline.cli.summary import print_summary, summary, summary_lines
from pipeline.execution.run_folder import recipe_of_run
from pipeline.recipes.load import parse_recipe
from pipeline.stages.run import Finished

SHARDS = shard_table({})
WEIGHTS = [{"name": "clip", "stand_in": True}, {"name": "vq", "stand_in": False}]
LOSSES = [
    {"kind": "file", "name": "b.parquet", "fault": "no Parquet file"},
    {"kind": "row_group", "name": "a.parquet", "row_group": 2, "rows": 7},
]


def finished(made=3, **more):
    fields = {"stage": "caption", "dropped": {"size": 2, "http_404": 1}, "tiers": {"pretrain": 5}, "losses": LOSSES}
    manifest = Manifest(
        recipe_digest="",
        inputs=[],
        weights=WEIGHTS,
        rows_in=8,
        kept=5,
        shards=shard_table({}),
        versions={},
        **{**fields, **more},
    )
    return Finished(manifest, made, 4, 75.25)


@pytest.fixture(scope="module")
def recipe(made):
    return recipe_of_run(made)


def test_the_document_has_the_counts_as_numbers():
    document = summary(finished())
    assert document["digest"] == finished().manifest.digest
    assert {name: document[name] for name in ("stage", "rows_in", "kept", "dropped", "tiers", "stand_ins")} == {
        "stage": "caption",
        "rows_in": 8,
        "kept": 5,
        "dropped": {"size": 2, "http_404": 1},
        "tiers": {"pretrain": 5},
        "stand_ins": ["clip"],
    }
    assert (document["shards_made"], document["shards_before"], document["seconds"]) == (3, 4, 75.25)


def test_the_lines_have_rows_reasons_losses_and_time(recipe):
    text = "\n".join(summary_lines(recipe, finished()))
    for line in (
        "  rows in                          8",
        "  kept                             5",
        "  dropped                          3",
        "    http_404                       1",
        "  lost: b.parquet: no Parquet file",
        "  lost: a.parquet: row group 2 is broken, 7 rows",
        "  clip: stand-in weights (seeded random): its values mean nothing",
        "  time 1:15, 3 shards made, 4 were done before",
        f"  results in {recipe.root}",
    ):
        assert line in text.split("\n")
    assert "nothing to do" not in text
    assert "vq: stand-in" not in text


def test_each_lost_file_is_named_once(recipe):
    groups = [{"kind": "row_group", "name": "a.parquet", "row_group": number, "rows": 10} for number in range(7)]
    lost = [*LOSSES, {"kind": "urls", "name": "c.csv", "fault": "no URL can be read in any of its rows", "rows": 3}]
    some = finished(losses=[*lost, {"kind": "row_group", "name": "d.parquet", "row_group": 0, "rows": 1}, *groups])
    assert [line for line in summary_lines(recipe, some) if "lost" in line] == [
        "  lost: b.parquet: no Parquet file",
        "  lost: c.csv: no URL can be read in any of its rows",
        "  lost: a.parquet: row groups 2, 0, 1, 2, 3 and 3 more are broken, 77 rows",
        "  lost: d.parquet: row group 0 is broken, 1 rows",
    ]


def test_a_stage_that_was_done_says_so_first(recipe, capsys):
    print_summary(recipe, finished(made=0))
    assert capsys.readouterr().out.startswith("caption: nothing to do, all 4 shards were done; digest ")


def test_features_of_text_are_told_by_tier(recipe):
    t5 = {"t5": {"pretrain": {"caption": "best", "with": 1200, "without": {"empty": 3}}}}
    assert "  pretrain: T5 features of caption 'best': 1,200, 3 without (empty)" in list(
        summary_lines(recipe, finished(facts=t5))
    )


def test_captions_are_told_by_captioner_with_flags_and_what_followed(recipe):
    said = {"pictures": 8, "captions": 5, "attempts": 10, "second_attempts": 2, "tokens": 900}
    said |= {"flags": {"empty": 3}, "actions": {"keep": 5, "drop_caption": 3}, "origins": {}}
    lines = list(summary_lines(recipe, finished(facts={"captioners": {"llava": {**said, "same_words_again": "no"}}})))
    assert "  llava: 5 captions of 8 pictures, 10 attempts, 2 of them a second one; the same words again: no" in lines
    assert "    tokens  0 of questions, 900 of answers" in lines
    assert "    flags   empty 3" in lines
    assert "    actions keep 5, drop_caption 3" in lines
    assert not any("origins" in line for line in lines)
    before = finished(facts={"captioners": {"llava": 7}})  # a manifest of before
    assert not any("llava" in line for line in summary_lines(recipe, before))


def test_tokens_are_told_at_the_prices_of_the_recipe(recipe):
    far = {"use": "openai", "base_url": "http://a/v1", "model": "m", "price_prompt": 1.0, "price_answer": 10.0}
    plain = {**recipe.plain(), "caption": {"far": far}}
    plain["tier"] = {name: {**tier, "caption": "far"} for name, tier in plain["tier"].items()}
    said = {"pictures": 8, "captions": 5, "attempts": 8, "second_attempts": 0, "tokens": 50_000, "flags": {}}
    said |= {"prompt_tokens": 200_000, "actions": {}, "origins": {}, "same_words_again": "no"}
    lines = list(summary_lines(parse_recipe(plain), finished(facts={"captioners": {"far": said}})))
    assert "    tokens  200,000 of questions, 50,000 of answers: 0.70 by the recipe's prices" in lines


def test_refusals_are_counted_by_signal(recipe):
    lines = list(summary_lines(recipe, finished(stage="filter", facts={"refusals": {"X-Robots-Tag": 1234}})))
    assert "  refused: X-Robots-Tag: 1,234" in lines


def test_what_lists_of_hashes_removed_is_counted_by_list(recipe):
    lines = list(summary_lines(recipe, finished(stage="filter", facts={"removed_by_list": {"hashes.csv": 1234}})))
    assert "  removed by list of hashes: hashes.csv: 1,234" in lines
